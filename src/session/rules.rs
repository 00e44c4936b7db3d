//! Which rules of the settings the claims of a user meet. Judged once, when a session is opened: a request only looks at
//! the outcome.

use serde_json::{Map, Value};

use super::claims::find;
use crate::config::settings::{ClaimCondition, ClaimTest, ClaimValue};

/// The claim that is a list in one text, with blanks between (RFC 8693 §4.2).
const SCOPE: &str = "scope";

/// For each condition whether the claims meet it.
#[must_use]
pub fn judge(conditions: &[ClaimCondition], claims: &Map<String, Value>) -> Box<[bool]> {
    conditions.iter().map(|condition| holds(condition, claims)).collect()
}

fn holds(condition: &ClaimCondition, claims: &Map<String, Value>) -> bool {
    let Some(claim) = find(claims, &condition.claim) else { return false };
    let words = match claim {
        Value::String(text) if matches!(condition.claim.0.as_slice(), [name] if name == SCOPE) => Some(text),
        _ => None,
    };
    let has = |wanted: &ClaimValue| match (claim, words, wanted) {
        (_, Some(words), ClaimValue::Text(wanted)) => words.split(' ').any(|word| word == wanted),
        (Value::Array(items), ..) => items.iter().any(|item| is(item, wanted)),
        _ => is(claim, wanted),
    };
    match &condition.test {
        ClaimTest::AnyOf(wanted) => wanted.iter().any(has),
        ClaimTest::AllOf(wanted) => wanted.iter().all(has),
        ClaimTest::Equals(wanted) => is(claim, wanted),
        ClaimTest::Matches(pattern) => match (claim, words) {
            (_, Some(words)) => words.split(' ').any(|word| pattern.is_match(word)),
            (Value::Array(items), _) => items.iter().filter_map(Value::as_str).any(|item| pattern.is_match(item)),
            (Value::String(text), _) => pattern.is_match(text),
            _ => false,
        },
    }
}

fn is(value: &Value, wanted: &ClaimValue) -> bool {
    match wanted {
        ClaimValue::Text(wanted) => value.as_str() == Some(wanted),
        ClaimValue::Integer(wanted) => value.as_i64() == Some(*wanted),
        ClaimValue::Boolean(wanted) => value.as_bool() == Some(*wanted),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::settings::{ClaimPath, Pattern};

    fn holds_of(claim: &str, test: ClaimTest, claims: &Value) -> bool {
        let claim = ClaimPath(claim.split('.').map(str::to_owned).collect());
        let [held] = *judge(&[ClaimCondition { claim, test }], claims.as_object().unwrap()) else { panic!() };
        held
    }

    fn texts(texts: &[&str]) -> Vec<ClaimValue> {
        texts.iter().map(|text| ClaimValue::Text((*text).to_owned())).collect()
    }

    fn claims() -> Value {
        json!({
            "realm_access": { "roles": ["user", "admin", 7] },
            "department": "sales",
            "email_verified": true,
            "level": 3,
            "scope": "read write",
            "note": "read write",
            "nothing": null,
            "none": [],
            "huge": 1e300,
        })
    }

    #[test]
    fn a_list_holds_some_or_all() {
        let any = |claim, wanted: &[&str]| holds_of(claim, ClaimTest::AnyOf(texts(wanted)), &claims());
        let all = |claim, wanted: &[&str]| holds_of(claim, ClaimTest::AllOf(texts(wanted)), &claims());
        assert!(any("realm_access.roles", &["boss", "admin"]) && !any("realm_access.roles", &["boss", "adm", "7"]));
        assert!(all("realm_access.roles", &["admin", "user"]) && !all("realm_access.roles", &["admin", "boss"]));
        assert!(any("department", &["it", "sales"]) && all("department", &["sales"]));
        assert!(!all("department", &["sales", "it"]));
        assert!(any("scope", &["write"]) && all("scope", &["read", "write"]) && !any("scope", &["read write"]));
        assert!(!any("note", &["read"]) && any("note", &["read write"]), "only scope is a list in a text");
    }

    #[test]
    fn what_is_not_there_is_never_as_wanted() {
        for claim in ["absent", "realm_access.absent", "department.deeper", "nothing", "none", "realm_access"] {
            for test in [
                ClaimTest::AnyOf(texts(&["user", ""])),
                ClaimTest::AllOf(texts(&["user"])),
                ClaimTest::Equals(ClaimValue::Text(String::new())),
                ClaimTest::Equals(ClaimValue::Boolean(false)),
                ClaimTest::Matches(Pattern::new(".*").unwrap()),
            ] {
                assert!(!holds_of(claim, test.clone(), &claims()), "{claim} {test:?}");
            }
        }
    }

    #[test]
    fn types_are_not_mixed_and_a_list_equals_nothing() {
        let equals = |claim, value| holds_of(claim, ClaimTest::Equals(value), &claims());
        assert!(equals("email_verified", ClaimValue::Boolean(true)) && equals("level", ClaimValue::Integer(3)));
        assert!(!equals("email_verified", ClaimValue::Text("true".into())));
        assert!(!equals("level", ClaimValue::Text("3".into())) && !equals("huge", ClaimValue::Integer(i64::MAX)));
        assert!(equals("scope", ClaimValue::Text("read write".into())));
        assert!(!equals("scope", ClaimValue::Text("read".into())));
        assert!(!equals("realm_access.roles", ClaimValue::Text("user".into())));
        let seven = ClaimTest::AnyOf(vec![ClaimValue::Integer(7)]);
        assert!(holds_of("realm_access.roles", seven, &claims()));
    }

    #[test]
    fn a_pattern_looks_at_each_text_of_a_list() {
        let matches = |claim, pattern| holds_of(claim, ClaimTest::Matches(Pattern::new(pattern).unwrap()), &claims());
        assert!(matches("realm_access.roles", "adm.*") && !matches("realm_access.roles", "dmi"));
        assert!(matches("scope", "wr.te") && matches("department", "s[a-z]+") && !matches("level", "3"));
    }
}
