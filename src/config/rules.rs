//! Rules for values that `check` applies and that the rooms which use the values rely on. They stand in one place, so
//! that settings called good always start.

pub mod postgres;
mod redis;

use std::time::Duration;

use serde_json::Value;
use url::{Host, Url};

pub use self::redis::{RedisKind, RedisUrl, RedisUrlError, redis_url};

/// What the login itself puts into an authorization request; `authorization_params` may not.
pub const RESERVED_PARAMETERS: [&str; 14] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
    "nonce",
    "redirect_uri",
    "registration",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// `max_age` of an authorization request (Core §3.1.2.1): whole seconds, at most 4294967295; `None` for anything else.
#[must_use]
pub fn max_age(text: &str) -> Option<Duration> {
    let seconds: u32 = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()?;
    Some(Duration::from_secs(seconds.into()))
}

/// What a `claims` parameter (Core §5.5) insists on of the ID token's `acr`: `Some(None)` for nothing, a list of the values
/// that will do, empty for any. `None` if it is no such parameter.
#[must_use]
pub fn claims(text: &str) -> Option<Option<Vec<String>>> {
    let Value::Object(claims) = serde_json::from_str(text).ok()? else { return None };
    let acr = claims.get("id_token").and_then(|claims| claims.get("acr"));
    let Some(acr) = acr.filter(|acr| acr.get("essential") == Some(&Value::Bool(true))) else { return Some(None) };
    let one = acr.get("value").into_iter();
    let many = acr.get("values").and_then(Value::as_array).into_iter().flatten();
    Some(Some(one.chain(many).filter_map(Value::as_str).map(str::to_owned).collect()))
}

/// `http` on this very machine, where no wire is to be listened on. Names below `localhost` are not among it: which
/// machine they mean is up to the resolver.
#[must_use]
pub fn is_loopback_http(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_essential_acr_is_insisted_on() {
        let list = |values: &[&str]| Some(Some(values.iter().map(|value| (*value).to_owned()).collect()));
        for (text, expected) in [
            ("{}", Some(None)),
            (r#"{"id_token":{"acr":null,"email":{"essential":true}}}"#, Some(None)),
            (r#"{"id_token":{"acr":{"values":["a"]}}}"#, Some(None)),
            (r#"{"userinfo":{"acr":{"essential":true}}}"#, Some(None)),
            (r#"{"id_token":{"acr":{"essential":true}}}"#, list(&[])),
            (r#"{"id_token":{"acr":{"essential":true,"value":"a"}}}"#, list(&["a"])),
            (r#"{"id_token":{"acr":{"essential":true,"values":["a","b"]}}}"#, list(&["a", "b"])),
            ("[]", None),
            ("acr", None),
        ] {
            assert_eq!(claims(text), expected, "{text}");
        }
    }

    #[test]
    fn ages_are_whole_seconds_within_reason() {
        assert_eq!(max_age("0"), Some(Duration::ZERO));
        assert_eq!(max_age("4294967295"), Some(Duration::from_secs(u32::MAX.into())));
        for text in ["", "+5", "-1", "1.5", "5m", " 5", "4294967296", "18446744073709551615"] {
            assert_eq!(max_age(text), None, "{text:?}");
        }
    }
}
