//! Cross-site request forgery: who may change something with a session (behaviour C1–C5).
//!
//! Two defences beside `SameSite`: the request must come from one of the site's own origins, and it must echo the
//! session's token from a cookie that only the site's own scripts can read. The token is 256 random bits kept inside
//! the session, so a value planted by a sibling domain can never be right.

use http::{HeaderMap, Method};
use subtle::ConstantTimeEq as _;

/// Why an unsafe request was refused; the words are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It says it comes from another origin, or from nowhere in particular.
    Origin,
    /// No header with the token.
    HeaderMissing,
    /// No cookie with that token.
    CookieMismatch,
    /// Cookie and header agree, the session does not.
    TokenMismatch,
}

impl Refusal {
    /// A word for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::HeaderMissing => "header_missing",
            Self::CookieMismatch => "cookie_mismatch",
            Self::TokenMismatch => "token_mismatch",
        }
    }
}

/// Whether a method only reads (RFC 9110 §9.2.1), so that no token is asked for.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Equal, in a time that does not depend on where the difference is.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Whether the request comes from one of `origins`: by `Origin`, or where that is absent by `Sec-Fetch-Site:
/// same-origin`. `null` and silence are refused (behaviour C2).
///
/// # Errors
/// [`Refusal::Origin`].
pub fn check_origin<'o>(headers: &HeaderMap, origins: impl IntoIterator<Item = &'o str>) -> Result<(), Refusal> {
    let mut said = headers.get_all(http::header::ORIGIN).into_iter();
    let ours = match (said.next(), said.next()) {
        (Some(origin), None) => origins.into_iter().any(|o| o.as_bytes() == origin.as_bytes()),
        (None, _) => is_same_origin(headers),
        (Some(_), Some(_)) => false,
    };
    if ours { Ok(()) } else { Err(Refusal::Origin) }
}

/// Whether the browser says that our own page began this request.
#[must_use]
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all("sec-fetch-site").into_iter();
    matches!((said.next(), said.next()), (Some(site), None) if site == "same-origin")
}

/// Whether the token in header and cookie is the session's (behaviour C1). `echo` is the header's value.
///
/// # Errors
/// The [`Refusal`] that names the first mistake.
pub fn check_token(echo: Option<&[u8]>, cookie_matches_echo: bool, token: &str) -> Result<(), Refusal> {
    let echo = echo.ok_or(Refusal::HeaderMissing)?;
    if !cookie_matches_echo {
        return Err(Refusal::CookieMismatch);
    }
    if same(echo, token.as_bytes()) { Ok(()) } else { Err(Refusal::TokenMismatch) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn c2_the_table_of_origins() {
        let ours = ["https://app.example.com"];
        let check = |pairs: &[(&'static str, &'static str)]| check_origin(&headers(pairs), ours).is_ok();
        assert!(check(&[("origin", "https://app.example.com")]));
        assert!(check(&[("origin", "https://app.example.com"), ("sec-fetch-site", "cross-site")]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        for refused in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://evil.example.com")],
            &[("origin", "http://app.example.com")],
            &[("origin", "https://app.example.com.evil")],
            &[("origin", "https://app.example.com:444")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("origin", "https://app.example.com"), ("origin", "https://app.example.com")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!check(refused), "{refused:?}");
        }
    }

    #[test]
    fn c1_token_must_be_the_sessions() {
        assert_eq!(check_token(Some(b"t"), true, "t"), Ok(()));
        assert_eq!(check_token(None, true, "t"), Err(Refusal::HeaderMissing));
        assert_eq!(check_token(Some(b"t"), false, "t"), Err(Refusal::CookieMismatch));
        assert_eq!(check_token(Some(b"x"), true, "t"), Err(Refusal::TokenMismatch));
        assert_eq!(check_token(Some(b""), true, "t"), Err(Refusal::TokenMismatch));
    }

    #[test]
    fn c4_only_reading_methods_are_safe() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"FOO").unwrap()] {
            assert!(!is_safe(&method));
        }
        assert!(is_safe(&Method::GET) && is_safe(&Method::HEAD));
    }
}
