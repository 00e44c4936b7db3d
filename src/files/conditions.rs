//! What of a file is sent, by what the client says it has (RFC 9110 §13 and §14).

use std::time::{Duration, SystemTime};

use http::Method;
use http::header::{
    AsHeaderName, HeaderMap, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    RANGE,
};
use http_range_header::parse_range_header;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it.
    Whole,
    /// From the first to the last of these bytes.
    Part(u64, u64),
    /// Nothing: the client has it.
    NotModified,
    /// Nothing: it is not what the client believes.
    Failed,
    /// Nothing: it ends before.
    NoSuchPart,
}

/// What the request says. Fields that cannot be read count as absent.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Whether the body itself is not wanted.
    pub(super) head: bool,
    if_match: Option<Vec<HeaderValue>>,
    if_none_match: Option<Vec<HeaderValue>>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
    if_range: Option<HeaderValue>,
    range: Option<HeaderValue>,
}

impl Conditions {
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let head = *method == Method::HEAD;
        Self {
            head,
            if_match: all(headers, IF_MATCH),
            if_none_match: all(headers, IF_NONE_MATCH),
            if_modified_since: date(headers, IF_MODIFIED_SINCE),
            if_unmodified_since: date(headers, IF_UNMODIFIED_SINCE),
            if_range: headers.get(IF_RANGE).cloned(),
            // Ranges are for GET alone (§14.2).
            range: headers.get(RANGE).filter(|_| !head && headers.get_all(RANGE).iter().count() == 1).cloned(),
        }
    }

    /// In the order of §13.2.2.
    pub(super) fn judge(&self, tag: Option<&HeaderValue>, modified: Option<SystemTime>, size: u64) -> Verdict {
        let modified = modified.map(whole_seconds);
        let unchanged_since = |then: SystemTime| modified.is_some_and(|modified| modified <= then);
        let holds = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => matches(tags, tag),
            (None, Some(then)) => modified.is_none() || unchanged_since(then),
            (None, None) => true,
        };
        if !holds {
            return Verdict::Failed;
        }
        let known = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => matches(tags, tag),
            (None, Some(then)) => unchanged_since(then),
            (None, None) => false,
        };
        if known {
            return Verdict::NotModified;
        }
        match &self.range {
            Some(range) if self.is_of_this_file(tag, modified) => part(range, size),
            _ => Verdict::Whole,
        }
    }

    /// Whether the part that is asked for fits the part that the client has: by the very same tag, or the very same
    /// date (§13.1.5).
    fn is_of_this_file(&self, tag: Option<&HeaderValue>, modified: Option<SystemTime>) -> bool {
        let Some(value) = &self.if_range else { return true };
        if value.as_bytes().contains(&b'"') {
            return tag == Some(value);
        }
        let date = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        date.is_some() && date == modified
    }
}

/// One part; several are answered with the whole, as a server may (§14.2).
fn part(range: &HeaderValue, size: u64) -> Verdict {
    let Some(ranges) = range.to_str().ok().and_then(|text| parse_range_header(text).ok()) else {
        return Verdict::Whole;
    };
    match ranges.validate(size).as_deref() {
        Ok([range]) => Verdict::Part(*range.start(), *range.end()),
        Ok(_) => Verdict::Whole,
        Err(_) => Verdict::NoSuchPart,
    }
}

/// Whether one of the tags is this one, or any will do. Ours are strong, and a cache that made one weak still has the
/// same file.
fn matches(lines: &[HeaderValue], tag: Option<&HeaderValue>) -> bool {
    let Some(tag) = tag.and_then(|tag| tag.to_str().ok()) else { return false };
    lines
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn all(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Vec<HeaderValue>> {
    let values: Vec<_> = headers.get_all(name).iter().cloned().collect();
    (!values.is_empty()).then_some(values)
}

fn date(headers: &HeaderMap, name: impl AsHeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// As precise as a date in a header.
pub(super) fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => time,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(method: Method, fields: &[(&'static str, &'static str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let modified = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let tag = HeaderValue::from_static("\"a\"");
        let conditions = Conditions::of(&method, &headers);
        conditions.judge(Some(&tag), Some(modified + Duration::from_millis(300)), 100)
    }

    #[test]
    fn preconditions_in_the_order_of_the_rfc() {
        const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        for (fields, expected) in [
            (&[][..], Verdict::Whole),
            (&[("if-none-match", "\"a\"")], Verdict::NotModified),
            (&[("if-none-match", "W/\"a\"")], Verdict::NotModified),
            (&[("if-none-match", "\"b\", \"a\"")], Verdict::NotModified),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], Verdict::NotModified),
            (&[("if-none-match", "*")], Verdict::NotModified),
            (&[("if-none-match", "\"b\"")], Verdict::Whole),
            (&[("if-none-match", "\"b\""), ("if-modified-since", SAME)], Verdict::Whole),
            (&[("if-modified-since", SAME)], Verdict::NotModified),
            (&[("if-modified-since", BEFORE)], Verdict::Whole),
            (&[("if-modified-since", "yesterday")], Verdict::Whole),
            (&[("if-match", "\"b\"")], Verdict::Failed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Verdict::Whole),
            (&[("if-unmodified-since", BEFORE)], Verdict::Failed),
            (&[("if-unmodified-since", SAME)], Verdict::Whole),
            (&[("if-none-match", "\"a\""), ("range", "bytes=0-1")], Verdict::NotModified),
        ] {
            assert_eq!(judge(Method::GET, fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn one_part_is_cut_out_and_only_of_the_same_file() {
        const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (fields, expected) in [
            (&[("range", "bytes=0-9")][..], Verdict::Part(0, 9)),
            (&[("range", "bytes=90-")], Verdict::Part(90, 99)),
            (&[("range", "bytes=-10")], Verdict::Part(90, 99)),
            (&[("range", "bytes=90-1000")], Verdict::Part(90, 99)),
            (&[("range", "bytes=100-")], Verdict::NoSuchPart),
            (&[("range", "bytes=0-1,5-6")], Verdict::Whole),
            (&[("range", "bytes=0-1"), ("range", "bytes=5-6")], Verdict::Whole),
            (&[("range", "pages=1-2")], Verdict::Whole),
            (&[("range", "bytes=x")], Verdict::Whole),
            (&[("range", "bytes=0-9"), ("if-range", "\"a\"")], Verdict::Part(0, 9)),
            (&[("range", "bytes=0-9"), ("if-range", "W/\"a\"")], Verdict::Whole),
            (&[("range", "bytes=0-9"), ("if-range", "\"b\"")], Verdict::Whole),
            (&[("range", "bytes=0-9"), ("if-range", SAME)], Verdict::Part(0, 9)),
            (&[("range", "bytes=0-9"), ("if-range", "Sun, 06 Nov 1994 08:49:38 GMT")], Verdict::Whole),
        ] {
            assert_eq!(judge(Method::GET, fields), expected, "{fields:?}");
        }
        assert_eq!(judge(Method::HEAD, &[("range", "bytes=0-9")]), Verdict::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(range in "(bytes=)?[0-9,\\- ]{0,30}|[ -~]{0,20}", size in 0_u64..200) {
            if let Verdict::Part(first, last) = part(&HeaderValue::from_str(&range).unwrap(), size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
