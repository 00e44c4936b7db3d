//! Which trace a request belongs to (W3C Trace Context).

use http::header::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bit of the flags: whoever sends this tells of the trace (§3.2.2.5.1).
const SAMPLED: u8 = 1;

/// What stands in `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) sampled: bool,
}

impl Context {
    /// That of a request, if it has one that is well formed.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.to_str().ok()?)
    }

    /// Version 00, and of later ones what is known of them (§3.2.4).
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
        let digits = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        if !lengths || !known || ![version, trace, span, flags].into_iter().all(digits) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & SAMPLED != 0 })
    }

    /// Puts it into a header. `tracestate` stays only with the trace that it came with.
    pub(super) fn write(&self, headers: &mut HeaderMap, keeps_state: bool) {
        let flags = if self.sampled { SAMPLED } else { 0 };
        let text = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
        if !keeps_state {
            headers.remove(TRACESTATE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_well_formed_counts() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(good).unwrap();
        assert!(context.sampled && context.span == 0xb7ad6b7169203331);
        assert!(Context::parse(&good.replace("-01", "-03")).unwrap().sampled);
        assert_eq!(Context::parse(&good.replacen("00-", "01-", 1).replace("-01", "-01-more")), Some(context));
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good.replacen("00-", "ff-", 1),
            &good.replacen("00-", "0-", 1),
            &format!("{good}-more"),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &good.replace("b7ad", "b7a"),
            &good.replace("b7ad", "+7ad"),
            &good.replace("-01", "-1"),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_str(good).unwrap());
        assert_eq!(Context::of(&twice), Some(context));
        twice.append(TRACEPARENT, HeaderValue::from_str(good).unwrap());
        assert_eq!(Context::of(&twice), None);
    }
}
