//! What a backend answers: tokens, how long they live, who the user is.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::config::settings::{AnswerFields, ClaimPath};
use crate::oidc::Tokens;
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

/// No token is trusted to live longer, whatever its backend says.
const LONGEST_LIFE: f64 = 366.0 * 24.0 * 3600.0;
/// Longest name of a user, in characters (Core §2 has the same for `sub`).
const LONGEST_SUBJECT: usize = 255;
/// A shorter token is looked for in what is said of the user only as a whole text: it may be part of any word.
const LONG_ENOUGH: usize = 8;

/// What an answer brings.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The tokens.
    pub tokens: Tokens,
    /// What names the user for good, where the answer says it in the field for it.
    pub subject: Option<String>,
    /// `sub` of the access token, if it is a JWT. The backend has just given it to us, so nobody need verify it.
    pub token_subject: Option<String>,
    /// What is known of the user; no token is in it. `None` if the answer says nothing of the user.
    pub user: Option<Map<String, Value>>,
}

/// How an answer is read.
pub(super) struct Reading<'a> {
    pub(super) fields: &'a AnswerFields,
    pub(super) default_lifetime: Duration,
    /// From before the request, so that a slow answer does not lengthen a life.
    pub(super) sent: Timestamp,
    /// Whether anybody has use for a refresh token.
    pub(super) refreshes: bool,
    /// Tokens that the backend has been shown, and may repeat.
    pub(super) shown: &'a [&'a SecretText],
}

impl Reading<'_> {
    /// Reads an answer. The error never quotes it.
    pub(super) fn read(&self, body: &[u8]) -> Result<Granted, &'static str> {
        let mut answer: Value = serde_json::from_slice(body).map_err(|_| "the answer is no JSON")?;
        let fields = self.fields;
        let expires_in = at(&answer, &fields.expires_in).and_then(seconds);
        let refresh_expires_in = at(&answer, &fields.refresh_expires_in).and_then(seconds);
        let access_token = take(&mut answer, &fields.access_token).ok_or("the answer has no access token")?;
        let refresh_token = take(&mut answer, &fields.refresh_token);
        if !access_token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the access token does not fit a header");
        }
        let claims = jwt_claims(&access_token);
        let access_life = expires_in.or_else(|| life(claims.as_ref()?)).unwrap_or(self.default_lifetime);
        let refresh_life = refresh_expires_in.or_else(|| life(&jwt_claims(refresh_token.as_ref()?)?));
        let subject = at(&answer, &fields.subject).and_then(subject_of);
        let token_subject = claims.as_ref().and_then(|claims| subject_of(claims.get("sub")?));
        let user = at(&answer, &fields.user).and_then(Value::as_object).map(|user| {
            let new = [Some(access_token.as_str()), refresh_token.as_deref()].into_iter().flatten();
            let tokens: Vec<_> = new.chain(self.shown.iter().map(|token| token.expose())).collect();
            without_tokens(user, &tokens)
        });
        let refresh_token = refresh_token.filter(|_| self.refreshes);
        let tokens = Tokens {
            access_token: SecretText::new(access_token),
            access_expires: Some(self.sent.plus(access_life)),
            refresh_expires: refresh_token
                .as_ref()
                .and(refresh_life)
                .filter(|life| !life.is_zero())
                .map(|life| self.sent.plus(life)),
            refresh_token: refresh_token.map(SecretText::new),
            offline: Some(false),
            bound: false,
        };
        Ok(Granted { tokens, subject, token_subject, user })
    }
}

/// `sub` of an access token, if it is a JWT.
pub(super) fn token_subject(token: &SecretText) -> Option<String> {
    subject_of(jwt_claims(token.expose())?.get("sub")?)
}

/// A text or a whole number.
fn subject_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return None,
    };
    let good = !text.is_empty() && text.chars().count() <= LONGEST_SUBJECT && !text.chars().any(char::is_control);
    good.then_some(text)
}

/// The value at a path.
fn at<'v>(value: &'v Value, path: &ClaimPath) -> Option<&'v Value> {
    path.0.iter().try_fold(value, |value, name| value.as_object()?.get(name))
}

/// The text at a path, which is gone then; an empty one is none.
fn take(value: &mut Value, path: &ClaimPath) -> Option<String> {
    let (last, before) = path.0.split_last()?;
    let object = before.iter().try_fold(value, |value, name| value.as_object_mut()?.get_mut(name))?;
    match object.as_object_mut()?.remove(last)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// A number, or a number as text.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    seconds.filter(|s: &f64| !s.is_nan()).map(|s| Duration::from_secs_f64(s.clamp(0.0, LONGEST_LIFE)))
}

/// The claims of a token that is a JWT.
fn jwt_claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// How long a JWT lives, from its own two times: so no clock need agree with another. `None` if it does not say.
fn life(claims: &Map<String, Value>) -> Option<Duration> {
    let time = |name| claims.get(name)?.as_f64();
    let life = time("exp")? - time("iat")?;
    (!life.is_nan()).then(|| Duration::from_secs_f64(life.clamp(0.0, LONGEST_LIFE)))
}

/// What is known of a user, without any text that holds a token (behaviour K1).
fn without_tokens(user: &Map<String, Value>, tokens: &[&str]) -> Map<String, Value> {
    let kept = user.iter().filter(|(name, value)| !is_token(name, tokens) && !is_token_text(value, tokens));
    kept.map(|(name, value)| (name.clone(), cleaned(value, tokens))).collect()
}

fn cleaned(value: &Value, tokens: &[&str]) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_tokens(object, tokens)),
        Value::Array(items) => {
            items.iter().filter(|item| !is_token_text(item, tokens)).map(|item| cleaned(item, tokens)).collect()
        }
        other => other.clone(),
    }
}

fn is_token_text(value: &Value, tokens: &[&str]) -> bool {
    value.as_str().is_some_and(|text| is_token(text, tokens))
}

fn is_token(text: &str, tokens: &[&str]) -> bool {
    tokens.iter().any(|token| text == *token || token.len() >= LONG_ENOUGH && text.contains(token))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SENT: Timestamp = Timestamp::from_secs(1_000);

    fn read_with(fields: &AnswerFields, json: &Value) -> Result<Granted, &'static str> {
        let default_lifetime = Duration::from_secs(300);
        let shown = [&SecretText::new("shown-canary".into())];
        let reading = Reading { fields, default_lifetime, sent: SENT, refreshes: true, shown: &shown };
        reading.read(json.to_string().as_bytes())
    }

    fn read(json: &Value) -> Result<Granted, &'static str> {
        read_with(&AnswerFields::default(), json)
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn tokens_times_and_the_user_are_found() {
        let granted = read(&json!({
            "accessToken": "at", "refreshToken": "rt", "accessTokenExpiresIn": 60, "refreshTokenExpiresIn": "600",
            "user": { "id": 7, "name": "Alice" },
        }));
        let granted = granted.unwrap();
        assert_eq!(granted.tokens.access_token.expose(), "at");
        assert_eq!(granted.tokens.access_expires, Some(Timestamp::from_secs(1_060)));
        assert_eq!(granted.tokens.refresh_token.unwrap().expose(), "rt");
        assert_eq!(granted.tokens.refresh_expires, Some(Timestamp::from_secs(1_600)));
        assert_eq!((granted.subject.as_deref(), granted.token_subject), (Some("7"), None));
        assert_eq!(Value::Object(granted.user.unwrap()), json!({ "id": 7, "name": "Alice" }));
    }

    #[test]
    fn fields_may_lie_deep() {
        let path = |text: &str| ClaimPath(text.split('.').map(str::to_owned).collect());
        let fields = AnswerFields {
            access_token: path("data.tokens.access"),
            user: path("data.profile"),
            subject: path("data.profile.uid"),
            ..AnswerFields::default()
        };
        let answer = json!({ "data": { "tokens": { "access": "at" }, "profile": { "uid": "u1" } } });
        let granted = read_with(&fields, &answer).unwrap();
        assert_eq!((granted.tokens.access_token.expose(), granted.subject.as_deref()), ("at", Some("u1")));
        assert!(granted.tokens.refresh_token.is_none());
    }

    #[test]
    fn a_life_that_is_not_said_is_that_of_the_jwt_or_the_default() {
        let expires = |answer: Value| {
            let tokens = read(&answer).unwrap().tokens;
            (tokens.access_expires.unwrap().as_secs(), tokens.refresh_expires.map(Timestamp::as_secs))
        };
        assert_eq!(expires(json!({ "accessToken": "opaque", "refreshToken": "rt" })), (1_300, None));
        let tokens = |iat: Value, exp: Value| {
            let token = jwt(&json!({ "iat": iat, "exp": exp }));
            json!({ "accessToken": token, "refreshToken": token })
        };
        // Whatever the backend's clock says.
        assert_eq!(expires(tokens(json!(5_000_000), json!(5_000_090))), (1_090, Some(1_090)));
        assert_eq!(expires(tokens(json!("x"), json!(5_000_090))), (1_300, None));
        assert_eq!(expires(tokens(json!(9), json!(5))), (1_000, None));
        assert_eq!(expires(tokens(json!(0), json!(1e300))).0, 1_000 + 366 * 24 * 3600);
        let said = json!({ "accessToken": jwt(&json!({ "iat": 0, "exp": 90 })), "accessTokenExpiresIn": 30 });
        assert_eq!(expires(said).0, 1_030);
        let never = json!({ "accessToken": "a", "refreshToken": "r", "refreshTokenExpiresIn": 0 });
        assert_eq!(expires(never).1, None);
    }

    #[test]
    fn the_token_says_who_it_is_where_the_answer_does_not() {
        let granted = read(&json!({ "accessToken": jwt(&json!({ "sub": "alice" })) })).unwrap();
        assert_eq!((granted.subject, granted.token_subject.as_deref()), (None, Some("alice")));
        for odd in [json!(""), json!(1.5), json!(null), json!(["a"]), json!("a\nb"), json!("x".repeat(256))] {
            assert_eq!(read(&json!({ "accessToken": "a", "user": { "id": odd } })).unwrap().subject, None);
        }
    }

    #[test]
    fn k1_no_token_is_left_in_what_is_known_of_the_user() {
        let (access, refresh) = ("access-canary", "refresh-canary");
        let fields =
            AnswerFields { access_token: ClaimPath(vec!["user".into(), "jwt".into()]), ..AnswerFields::default() };
        let answer = json!({ "refreshToken": refresh, "user": {
            "id": "1", "jwt": access, "again": access, "header": format!("Bearer {access}"),
            "list": [refresh, "kept", { "deep": refresh, "kept": 1 }], access: "as a name",
            "before": "shown-canary", "link": "https://x.example/?t=shown-canary",
        } });
        let granted = read_with(&fields, &answer).unwrap();
        assert_eq!(Value::Object(granted.user.unwrap()), json!({ "id": "1", "list": ["kept", { "kept": 1 }] }));
    }

    #[test]
    fn an_answer_without_a_token_that_fits_a_header_is_none() {
        for answer in [
            json!({}),
            json!([]),
            json!({ "accessToken": "" }),
            json!({ "accessToken": 5 }),
            json!({ "accessToken": "a\r\nX-Evil: 1" }),
            json!({ "accessToken": "ä" }),
            json!({ "error": "access-canary" }),
        ] {
            let error = read(&answer).unwrap_err();
            assert!(!error.contains("canary"), "{answer}");
        }
    }
}
