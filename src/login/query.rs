//! Parameters of a query or form, where a name given twice is a mistake (RFC 6749 §3.1).

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use url::form_urlencoded;

/// The parameter was given more than once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubled;

/// The one value of a parameter.
pub(super) fn single<'q>(query: Option<&'q [u8]>, name: &str) -> Result<Option<Cow<'q, str>>, Doubled> {
    let mut found = form_urlencoded::parse(query.unwrap_or_default()).filter(|(key, _)| key == name).map(|(_, v)| v);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Doubled),
        (first, None) => Ok(first),
    }
}

/// Whether a body is a form. Parameters of the media type say nothing here; Keycloak sends a charset.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_is_a_mistake() {
        assert_eq!(single(Some(b"a=1&b=2"), "a"), Ok(Some("1".into())));
        assert_eq!(single(Some(b"a=1&%61=2"), "a"), Err(Doubled));
        assert_eq!(single(Some(b"b"), "a"), Ok(None));
        assert_eq!(single(None, "a"), Ok(None));
    }
}
