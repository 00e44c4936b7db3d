//! Step-up authentication (RFC 9470): what a resource server asks of the user's authentication, and whether claims show it.

use std::time::Duration;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::{ChallengeParser, ChallengeRef};
use serde_json::{Map, Value};

use crate::config::rules;
use crate::primitives::clock::Timestamp;

/// Longest list of authentication contexts.
const LONGEST: usize = 256;

/// How a user must have authenticated. At least one of the two is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// One of these authentication contexts, with blanks between, as `acr_values` has them.
    pub acr_values: Option<String>,
    /// No longer ago than this.
    pub max_age: Option<Duration>,
}

/// What of a [`StepUp`] claims do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// `acr` is another, or missing.
    Context,
    /// `auth_time` is too long ago, or missing.
    Age,
}

impl StepUp {
    /// What the challenge of a 401 asks for (RFC 9470 §3). `None` if it asks for something else, or for more than that, or
    /// cannot be read.
    #[must_use]
    pub fn of_challenge(answer: &HeaderMap) -> Option<Self> {
        let mut fields = answer.get_all(WWW_AUTHENTICATE).iter();
        fields.find_map(|field| ChallengeParser::new(field.to_str().ok()?).find_map(|challenge| read(&challenge.ok()?)))
    }

    /// The challenge that asks for it (RFC 9470 §3).
    #[must_use]
    pub fn challenge(&self) -> String {
        let mut text = "Bearer error=\"insufficient_user_authentication\"".to_owned();
        if let Some(contexts) = &self.acr_values {
            let quoted = contexts.replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str(&format!(", acr_values=\"{quoted}\""));
        }
        if let Some(age) = self.max_age {
            text.push_str(&format!(", max_age=\"{}\"", age.as_secs()));
        }
        text
    }

    /// Compares with the claims of a session; an authentication may be older by `tolerance` than what is asked for.
    ///
    /// # Errors
    /// What is lacking.
    pub fn check(&self, claims: &Map<String, Value>, now: Timestamp, tolerance: Duration) -> Result<(), Lacking> {
        if let Some(wanted) = &self.acr_values {
            let acr = claims.get("acr").and_then(Value::as_str);
            if !acr.is_some_and(|acr| wanted.split(' ').any(|one| one == acr)) {
                return Err(Lacking::Context);
            }
        }
        if let Some(most) = self.max_age {
            let at = claims.get("auth_time").and_then(Value::as_u64).map(Timestamp::from_secs);
            if at.is_none_or(|at| now.since(at) > most.saturating_add(tolerance)) {
                return Err(Lacking::Age);
            }
        }
        Ok(())
    }
}

fn read(challenge: &ChallengeRef<'_>) -> Option<StepUp> {
    if !["bearer", "dpop"].iter().any(|scheme| challenge.scheme.eq_ignore_ascii_case(scheme)) {
        return None;
    }
    let (mut asked, mut error) = (StepUp::default(), None);
    for (name, value) in &challenge.params {
        let value = value.to_unescaped();
        if name.eq_ignore_ascii_case("error") {
            error = Some(value);
        } else if name.eq_ignore_ascii_case("acr_values") {
            asked.acr_values = Some(contexts(&value)?);
        } else if name.eq_ignore_ascii_case("max_age") {
            asked.max_age = Some(rules::max_age(&value)?);
        }
    }
    let serious = error.as_deref() == Some("insufficient_user_authentication") && asked != StepUp::default();
    serious.then_some(asked)
}

/// A list of authentication contexts that may stand in an address; blanks in one place each.
#[must_use]
pub fn contexts(text: &str) -> Option<String> {
    let list = text.split(' ').filter(|one| !one.is_empty()).collect::<Vec<_>>().join(" ");
    let plain = (1..=LONGEST).contains(&list.len()) && list.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    plain.then_some(list)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn asked(fields: &[&str]) -> Option<(Option<String>, Option<u64>)> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        StepUp::of_challenge(&headers).map(|asked| (asked.acr_values, asked.max_age.map(|age| age.as_secs())))
    }

    #[test]
    fn l16_a_challenge_says_how_to_authenticate() {
        let error = "error=\"insufficient_user_authentication\"";
        for (fields, expected) in [
            (vec![format!("Bearer {error}, acr_values=\"gold silver\"")], Some((Some("gold silver"), None))),
            (vec![format!("bearer realm=\"a, b\", {error}, max_age=\"300\"")], Some((None, Some(300)))),
            (vec![format!("Bearer {error}, max_age=0, ACR_values=gold")], Some((Some("gold"), Some(0)))),
            (vec!["Basic realm=x".into(), format!("Bearer {error}, max_age=5")], Some((None, Some(5)))),
            (vec![format!("Basic realm=x, Bearer {error}, max_age=5")], Some((None, Some(5)))),
            (vec![format!("Bearer {error}, acr_values=\" gold  silver \"")], Some((Some("gold silver"), None))),
            (vec![format!("Bearer {error}")], None),
            (vec!["Bearer error=\"invalid_token\", max_age=5".into()], None),
            (vec!["Bearer acr_values=gold".into()], None),
            (vec![format!("DPoP {error}, max_age=5")], Some((None, Some(5)))),
            (vec![format!("Digest {error}, max_age=5")], None),
            (vec![format!("Bearer {error}, max_age=-5")], None),
            (vec![format!("Bearer {error}, max_age=99999999999")], None),
            (vec![format!("Bearer {error}, acr_values=\"\"")], None),
            (vec![format!("Bearer {error}, acr_values=\"a\tb\"")], None),
            (vec![format!("Bearer {error}, acr_values=\"{}\"", "x".repeat(257))], None),
            (vec![format!("Bearer {error}, acr_values=\"unclosed")], None),
            (vec![], None),
        ] {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let expected = expected.map(|(acr, age): (Option<&str>, _)| (acr.map(str::to_owned), age));
            assert_eq!(asked(&fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn l16_what_is_asked_can_be_handed_on() {
        for (acr, age) in [(Some("gold silver"), None), (None, Some(0)), (Some("a\"b\\c"), Some(300))] {
            let asked = StepUp { acr_values: acr.map(str::to_owned), max_age: age.map(Duration::from_secs) };
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(&asked.challenge()).unwrap());
            assert_eq!(StepUp::of_challenge(&headers), Some(asked));
        }
    }

    #[test]
    fn l16_claims_show_it_or_do_not() {
        let now = Timestamp::from_secs(1_000);
        let check = |acr: Option<&str>, age: Option<u64>, claims: serde_json::Value| {
            let asked = StepUp { acr_values: acr.map(str::to_owned), max_age: age.map(Duration::from_secs) };
            asked.check(claims.as_object().unwrap(), now, Duration::from_secs(60))
        };
        assert_eq!(check(Some("gold silver"), None, json!({"acr": "silver"})), Ok(()));
        for claims in [json!({"acr": "bronze"}), json!({}), json!({"acr": ["gold"]}), json!({"acr": "gold silver"})] {
            assert_eq!(check(Some("gold silver"), None, claims), Err(Lacking::Context));
        }
        assert_eq!(check(None, Some(100), json!({"auth_time": 840})), Ok(()));
        for claims in [json!({"auth_time": 839}), json!({}), json!({"auth_time": "999"})] {
            assert_eq!(check(None, Some(100), claims), Err(Lacking::Age));
        }
        assert_eq!(check(Some("gold"), Some(0), json!({"acr": "gold", "auth_time": 1_000})), Ok(()));
        assert_eq!(check(Some("gold"), Some(0), json!({"acr": "gold", "auth_time": 1})), Err(Lacking::Age));
    }
}
