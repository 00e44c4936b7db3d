//! The user context: what applications are told of a user, and what they keep there themselves.
//!
//! It goes to them in a header as JSON in base64url, and a change comes back as a merge patch (RFC 7396). What they keep lies
//! in the sealed part of the session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::claims::find;
use crate::config::settings::{ClaimPath, Level};
use crate::primitives::random;

/// Tells an application.
pub const HEADER: HeaderName = HeaderName::from_static("x-user-context");
/// Tells us.
pub const UPDATE: HeaderName = HeaderName::from_static("x-user-context-update");

/// Longest value of [`UPDATE`], and most bytes of all attributes as JSON.
pub const LARGEST: usize = 4 * 1024;
/// Deepest nesting of attributes.
const DEEPEST: usize = 16;

/// The header for a user of this level. `provider` is the name in the settings.
pub(super) fn header(
    level: Level,
    provider: &str,
    subject: &str,
    claims: &Map<String, Value>,
    told: &[ClaimPath],
    attributes: &Map<String, Value>,
) -> Option<HeaderValue> {
    let told = told.iter().filter_map(|path| Some((path.0.join("."), find(claims, path)?.clone())));
    let context = json!({
        "level": level.as_str(),
        // `sub` names a user at one provider only (Core §8).
        "provider": provider,
        "sub": subject,
        "claims": told.collect::<Map<_, _>>(),
        "attributes": attributes,
    });
    let mut value = HeaderValue::from_str(&random::base64url(context.to_string().as_bytes())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads a change; a word on what is wrong with it otherwise.
///
/// # Errors
/// `too_large`, `malformed`.
pub fn parse_update(value: &HeaderValue) -> Result<Map<String, Value>, &'static str> {
    if value.len() > LARGEST {
        return Err("too_large");
    }
    let bytes = URL_SAFE_NO_PAD.decode(value.as_bytes()).map_err(|_| "malformed")?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(patch)) if depth(&patch) <= DEEPEST => Ok(patch),
        _ => Err("malformed"),
    }
}

fn depth(map: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Object(map) => depth(map),
            Value::Array(items) => 1 + items.iter().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    1 + map.values().map(of).max().unwrap_or(0)
}

/// Applies a merge patch (RFC 7396 §2): `null` takes away, objects are merged, anything else takes the place.
pub(super) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, change) in patch {
        match change {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(change) => {
                let inner = target.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if !inner.is_object() {
                    *inner = Value::Object(Map::new());
                }
                if let Value::Object(inner) = inner {
                    merge(inner, change);
                }
            }
            _ => {
                target.insert(name.clone(), change.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 7396, appendix A, as far as both sides are objects.
    #[test]
    fn a_patch_is_merged_as_the_standard_has_it() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.as_object().unwrap().clone();
            merge(&mut merged, patch.as_object().unwrap());
            assert_eq!(Value::Object(merged), result, "{target} {patch}");
        }
    }

    #[test]
    fn only_a_small_object_is_a_change() {
        let update = |text: &str| parse_update(&HeaderValue::from_str(&random::base64url(text.as_bytes())).unwrap());
        assert_eq!(update(r#"{"a":1}"#).unwrap()["a"], 1);
        for text in
            ["", "[]", "1", "null", "\"x\"", "{", "{\"a\":1}x", &format!("{}1{}", "{\"a\":".repeat(17), "}".repeat(17))]
        {
            assert_eq!(update(text).unwrap_err(), "malformed", "{text}");
        }
        assert_eq!(parse_update(&HeaderValue::from_static("{}")).unwrap_err(), "malformed");
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(3_100));
        assert_eq!(update(&long).unwrap_err(), "too_large");
    }

    #[test]
    fn an_application_is_told_level_subject_claims_and_its_own() {
        let claims = json!({"name": "Alice \u{c6}r\u{f8}", "email": "a@x", "realm_access": {"roles": ["user"]}});
        let told = [
            ClaimPath(vec!["name".into()]),
            ClaimPath(vec!["realm_access".into(), "roles".into()]),
            ClaimPath(vec!["absent".into()]),
        ];
        let own = json!({"theme": "dark"});
        let value =
            header(Level::Returning, "idp", "id-1", claims.as_object().unwrap(), &told, own.as_object().unwrap())
                .unwrap();
        let read: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value.as_bytes()).unwrap()).unwrap();
        let expected = json!({
            "level": "returning",
            "provider": "idp",
            "sub": "id-1",
            "claims": {"name": "Alice \u{c6}r\u{f8}", "realm_access.roles": ["user"]},
            "attributes": {"theme": "dark"},
        });
        assert_eq!(read, expected);
        assert!(value.is_sensitive());
    }
}
