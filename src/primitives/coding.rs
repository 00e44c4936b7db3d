//! Which content codings a client takes (RFC 9110 §12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Those of `offered` that the client takes, the ones it likes most first, in the order offered where it likes them
/// alike. A client that says nothing gets none, although it might take any: it may be one that cannot decode.
pub fn accepted<'o>(headers: &HeaderMap, offered: &'o [Coding]) -> impl Iterator<Item = Coding> + 'o {
    let mut weighed: Vec<(u16, Coding)> =
        offered.iter().map(|coding| (weight(headers, *coding), *coding)).filter(|(weight, _)| *weight > 0).collect();
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    weighed.into_iter().map(|(_, coding)| coding)
}

/// How much the client likes a coding, in thousandths; 0 = not at all.
fn weight(headers: &HeaderMap, coding: Coding) -> u16 {
    let mut any = 0;
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    for element in lines.flat_map(|line| line.split(',')) {
        let mut parts = element.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let quality = || parts.find_map(|part| part.trim().strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
        if name == "*" {
            any = thousandths(quality);
        } else if name.eq_ignore_ascii_case(coding.as_str())
            || coding == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip")
        {
            return thousandths(quality);
        }
    }
    any
}

/// `0.5` is 500; what cannot be read is 0.
fn thousandths<'q>(quality: impl FnOnce() -> Option<&'q str>) -> u16 {
    let Some(text) = quality() else { return 1000 };
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let fraction = format!("{fraction:0<3}").parse::<u16>().unwrap_or(0);
    match whole {
        "1" if fraction == 0 => 1000,
        "0" => fraction,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    fn taken(accept: &str) -> Vec<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        accepted(&headers, &ALL).map(Coding::as_str).collect()
    }

    #[test]
    fn weights_decide_then_the_order_offered() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", &["br", "zstd", "gzip"][..]),
            ("gzip", &["gzip"]),
            ("X-GZIP", &["gzip"]),
            ("br;q=0.5, gzip;q=0.8", &["gzip", "br"]),
            ("br;q=0, gzip", &["gzip"]),
            ("br; q=0.001 ,zstd;q=1.000", &["zstd", "br"]),
            ("*", &["br", "zstd", "gzip"]),
            ("*;q=0.5, br;q=0", &["zstd", "gzip"]),
            ("identity", &[]),
            ("", &[]),
            ("br;q=2, zstd;q=x, gzip;q=0.1234", &[]),
            ("brotli, gz", &[]),
        ] {
            assert_eq!(taken(accept), expected, "{accept:?}");
        }
        assert_eq!(accepted(&HeaderMap::new(), &ALL).count(), 0);
    }

    proptest! {
        #[test]
        fn never_panics(accept in "[ -~]{0,40}") {
            let _ = taken(&accept);
        }
    }
}
