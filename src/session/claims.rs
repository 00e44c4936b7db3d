//! Claims as header values.

use http::header::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::config::settings::ClaimPath;

/// The claim at a path.
pub(super) fn find<'c>(claims: &'c serde_json::Map<String, Value>, path: &ClaimPath) -> Option<&'c Value> {
    let mut names = path.0.iter();
    let mut value = claims.get(names.next()?)?;
    for name in names {
        value = value.as_object()?.get(name)?;
    }
    Some(value)
}

/// A claim as a header value: text as it is, lists joined with commas, non-ASCII percent-encoded as UTF-8. Inside a
/// list's elements commas are encoded as well, or the group `user,admin` would be two. A value with a line break or NUL
/// gives no header at all (behaviour H8).
#[must_use]
pub fn claim_header(claims: &serde_json::Map<String, Value>, path: &ClaimPath) -> Option<HeaderValue> {
    let value = find(claims, path)?;
    let text = match value {
        Value::Null => return None,
        Value::Array(items) => {
            let mut elements = Vec::with_capacity(items.len());
            flatten(items, &mut elements)?;
            elements.join(",")
        }
        _ => utf8_percent_encode(&claim_text(value)?, ESCAPED).to_string(),
    };
    HeaderValue::from_str(&text).ok()
}

/// `%` itself is escaped, so that the upstream can decode without doubt.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
const ESCAPED_IN_LIST: &AsciiSet = &ESCAPED.add(b',');

/// Lists in lists count as one list; `null` is no element.
fn flatten(items: &[Value], elements: &mut Vec<String>) -> Option<()> {
    for item in items {
        match item {
            Value::Null => {}
            Value::Array(inner) => flatten(inner, elements)?,
            _ => elements.push(utf8_percent_encode(&claim_text(item)?, ESCAPED_IN_LIST).to_string()),
        }
    }
    Some(())
}

/// One value as text; `None` if it holds what no header may.
fn claim_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        _ => serde_json::to_string(value).ok()?,
    };
    (!text.bytes().any(|b| b < b' ' || b == 0x7f)).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(claims: Value, path: &str) -> Option<String> {
        let path = ClaimPath(path.split('.').map(str::to_owned).collect());
        claim_header(claims.as_object().unwrap(), &path).map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn claims_become_header_values() {
        let claims = json!({"sub": "alice", "n": 5, "realm_access": {"roles": ["user", "admin"]}, "null": null});
        assert_eq!(header(claims.clone(), "sub").as_deref(), Some("alice"));
        assert_eq!(header(claims.clone(), "n").as_deref(), Some("5"));
        assert_eq!(header(claims.clone(), "realm_access.roles").as_deref(), Some("user,admin"));
        assert_eq!(header(claims.clone(), "realm_access.none"), None);
        assert_eq!(header(claims.clone(), "sub.deeper"), None);
        assert_eq!(header(claims, "null"), None);
    }

    #[test]
    fn h8_an_element_of_a_list_stays_one() {
        let claims = json!({
            "groups": ["user,admin", "a%2Cb", null, ["deep", "er"], {"a": 1, "b": 2}, 7],
            "name": "Adams, Alice",
            "bad": ["user", "x\r\nX-Evil: 1"],
            "empty": [],
        });
        let groups = "user%2Cadmin,a%252Cb,deep,er,{\"a\":1%2C\"b\":2},7";
        assert_eq!(header(claims.clone(), "groups").as_deref(), Some(groups));
        assert_eq!(header(claims.clone(), "name").as_deref(), Some("Adams, Alice"));
        assert_eq!(header(claims.clone(), "bad"), None);
        assert_eq!(header(claims, "empty").as_deref(), Some(""));
    }

    #[test]
    fn h8_line_breaks_are_refused_and_non_ascii_is_encoded() {
        assert_eq!(header(json!({"a": "x\r\nEvil: 1"}), "a"), None);
        assert_eq!(header(json!({"a": "x\0"}), "a"), None);
        assert_eq!(header(json!({"a": "Ærø"}), "a").as_deref(), Some("%C3%86r%C3%B8"));
        assert_eq!(header(json!({"a": "100%"}), "a").as_deref(), Some("100%25"));
    }
}
