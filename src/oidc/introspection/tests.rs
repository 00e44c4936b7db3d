use serde_json::json;

use super::*;
use crate::primitives::clock::Timestamp;

const NOW: u64 = 1_800_000_000;
const LIFE: Duration = Duration::from_secs(60);

fn answer(content_type: &str, body: &str) -> Result<AccessToken, AccessTokenError> {
    let audiences = ["api".to_owned()];
    let now = Timestamp::from_secs(NOW);
    let expected = Expected { issuer: "https://id.test", audiences: &audiences, untyped: false, now };
    match Said::read(StatusCode::OK, content_type, body.as_bytes()) {
        Said::Inactive => Err(AccessTokenError::Inactive),
        Said::Json(claims) => judge(claims, &expected, LIFE),
        Said::Jwt(_) | Said::Nonsense => Err(AccessTokenError::ProviderFailed),
    }
}

/// A good answer with one thing changed; `null` takes it out.
fn with(name: &str, value: Value) -> Result<AccessToken, AccessTokenError> {
    let mut said = json!({
        "active": true, "sub": "robot", "aud": ["api", "other"], "iss": "https://id.test", "exp": NOW + 600, "iat": NOW,
        "scope": "read write", "client_id": "app", "token_type": "Bearer", "realm_access": { "roles": ["user"] },
    });
    match value {
        Value::Null => drop(said.as_object_mut().unwrap().remove(name)),
        value => said[name] = value,
    }
    answer("application/json;charset=UTF-8", &said.to_string())
}

#[test]
fn a_good_answer_says_who_until_when_and_what_for() {
    let token = with("x", json!(1)).unwrap();
    assert_eq!((token.subject.as_str(), token.expires), ("robot", Timestamp::from_secs(NOW + 600)));
    assert_eq!(token.scopes, ["read", "write"]);
    assert!(token.claims.contains_key("realm_access") && !token.claims.contains_key("active"));
    // Without an end of its own it counts as long as the answer.
    assert_eq!(with("exp", Value::Null).unwrap().expires, Timestamp::from_secs(NOW).plus(LIFE));
    for name in ["iss", "iat", "scope", "client_id", "token_type"] {
        assert!(with(name, Value::Null).is_ok(), "{name}");
    }
    assert!(with("token_use", json!("access_token")).is_ok());
    assert!(with("token_type", json!("bearer")).is_ok());
    for (name, value) in [("exp", NOW - 59), ("nbf", NOW + 60), ("iat", NOW + 60)] {
        assert!(with(name, json!(value)).is_ok(), "{name}: clocks differ");
    }
}

#[test]
fn an_answer_with_any_one_fault_is_refused() {
    use AccessTokenError as E;
    for (name, value, expected) in [
        ("active", json!(false), E::Inactive),
        ("active", Value::Null, E::ProviderFailed),
        ("active", json!("true"), E::ProviderFailed),
        ("active", json!(1), E::ProviderFailed),
        ("iss", json!("https://id.test/"), E::Issuer),
        ("iss", json!(["https://id.test"]), E::Issuer),
        ("aud", Value::Null, E::Audience),
        ("aud", json!("other"), E::Audience),
        ("aud", json!([]), E::Audience),
        ("aud", json!(["api", 1]), E::Audience),
        ("aud", json!({ "api": true }), E::Audience),
        ("aud", json!("API"), E::Audience),
        ("aud", json!("api other"), E::Audience),
        ("iss", json!("https://ID.test"), E::Issuer),
        ("iss", json!(""), E::Issuer),
        ("exp", json!(NOW - 61), E::Expired),
        ("exp", json!("soon"), E::ProviderFailed),
        ("exp", json!(-1), E::ProviderFailed),
        ("exp", json!(1e300), E::ProviderFailed),
        ("exp", json!([NOW + 600]), E::ProviderFailed),
        ("exp", json!(NOW - 60), E::Expired),
        ("nbf", json!("soon"), E::ProviderFailed),
        ("iat", json!(1e300), E::ProviderFailed),
        ("nbf", json!(NOW + 61), E::NotYetValid),
        ("iat", json!(NOW + 61), E::NotYetValid),
        ("cnf", json!({ "jkt": "x" }), E::Bound),
        ("sub", Value::Null, E::Subject),
        ("sub", json!(""), E::Subject),
        ("sub", json!(7), E::Subject),
        ("sub", json!("a\nb"), E::Subject),
        ("sub", json!("x".repeat(256)), E::Subject),
        ("cnf", json!({}), E::Bound),
        ("token_type", json!("DPoP"), E::Kind),
        ("token_type", json!("refresh_token"), E::Kind),
        ("token_type", json!(true), E::Kind),
        ("typ", json!("Refresh"), E::Kind),
        ("typ", json!("ID"), E::Kind),
        ("typ", json!("Logout"), E::Kind),
        ("typ", json!(["Bearer"]), E::Kind),
        ("token_type", json!("N_A"), E::Kind),
        ("token_use", json!("id"), E::Kind),
        ("token_use", json!("refresh_token"), E::Kind),
    ] {
        assert_eq!(with(name, value.clone()), Err(expected), "{name} {value}");
    }
}

#[test]
fn what_is_no_answer_says_nothing_about_the_token() {
    let good = json!({ "active": true, "sub": "robot", "aud": "api" }).to_string();
    assert!(answer("application/json", &good).is_ok());
    let nested = format!("{{\"active\":true,\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    for (content_type, body) in [
        ("", good.as_str()),
        ("text/html", &good),
        ("text/plain", &good),
        ("application/token-introspection+jwt", &good),
        ("application/jwt", &good),
        ("application/json", ""),
        ("application/json", "[]"),
        ("application/json", "true"),
        ("application/json", "{\"active\":true"),
        ("application/json", &nested),
    ] {
        assert_eq!(answer(content_type, body), Err(AccessTokenError::ProviderFailed), "{content_type} {body:.40}");
    }
    assert_eq!(Said::read(StatusCode::NO_CONTENT, "", b""), Said::Inactive);
    assert_eq!(Said::read(StatusCode::OK, "Application/JWT; x=y", b" a.b.c\n"), Said::Jwt("a.b.c".to_owned()));
    assert_eq!(Said::read(StatusCode::OK, "application/jwt", b"a b"), Said::Nonsense);
}

#[test]
fn a_refusal_is_about_us_and_no_trouble_of_the_provider() {
    let status = |code: u16| http::Error::Status { status: StatusCode::from_u16(code).unwrap(), retry_after: None };
    for (code, ours, good) in [
        (400, true, true),
        (401, true, true),
        (403, true, true),
        (302, true, true),
        (429, false, false),
        (500, false, false),
        (503, false, false),
    ] {
        assert_eq!(is_our_fault(StatusCode::from_u16(code).unwrap()), ours, "{code}");
        assert_eq!(health::<()>(&Err(status(code))) == Health::Good, good, "{code}");
    }
    assert_eq!(health::<()>(&Err(http::Error::Timeout)), Health::Bad);
    assert_eq!(health(&Ok(())), Health::Good);
}
