//! Access tokens of clients: each defect alone (behaviour A2, A3, T1, T5, T7). What concerns the signature is tried on logout
//! tokens as well.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::signer::{self, Signer};
use super::{CLIENT_SECRET, Fake, NONCE, NOW, ready};
use crate::oidc::{AccessTokenError, JwtError, LogoutTokenError, Provider};

const API: &str = "https://api.example.com";

fn claims(fake: &Fake) -> Value {
    json!({
        "iss": fake.issuer(), "aud": API, "iat": NOW, "exp": NOW + 300, "nbf": NOW, "jti": "j", "sub": "alice",
        "client_id": "app", "scope": "read write",
    })
}

fn logout_claims(fake: &Fake) -> Value {
    json!({
        "iss": fake.issuer(), "aud": "cloakroom", "iat": NOW, "exp": NOW + 300, "jti": "j", "sub": "alice",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    })
}

/// The verdict over an access token; `untyped`: it may say that it is a `JWT`.
async fn verdict(provider: &Provider, token: &str, untyped: bool) -> Option<AccessTokenError> {
    provider.access_token(token, &["other".to_owned(), API.to_owned()], untyped).await.err()
}

fn typed(signer: &Signer, typ: Option<&str>, claims: &Value) -> String {
    let mut header = signer.header();
    match typ {
        Some(typ) => header["typ"] = typ.into(),
        None => drop(header.as_object_mut().unwrap().remove("typ")),
    }
    signer.sign_with(&header, &claims.to_string())
}

#[tokio::test]
async fn a2_a_good_token_tells_who_and_what_for() {
    let (fake, provider, _) = ready().await;
    for signer in [Signer::es256("key-1"), Signer::es256("key-1").named(None)] {
        for typ in ["at+jwt", "application/AT+JWT"] {
            let text = typed(&signer, Some(typ), &claims(&fake));
            let token = provider.access_token(&text, &[API.to_owned()], false).await.unwrap();
            assert_eq!((token.subject.as_str(), token.expires.as_secs()), ("alice", NOW + 300));
            assert_eq!(token.scopes, ["read", "write"]);
            assert_eq!(token.claims["client_id"], "app");
        }
    }
    let mut lists = claims(&fake);
    lists["aud"] = json!(["https://another.example.com", API]);
    lists.as_object_mut().unwrap().remove("scope");
    lists["scp"] = json!(["read", 7, "write"]);
    let text = typed(&Signer::es256("key-1"), Some("at+jwt"), &lists);
    assert_eq!(provider.access_token(&text, &[API.to_owned()], false).await.unwrap().scopes, ["read", "write"]);
}

#[tokio::test]
async fn a2_a3_t7_each_claim_alone() {
    use AccessTokenError as E;
    let (fake, provider, _) = ready().await;
    let signer = Signer::es256("key-1");
    for (name, value, expected) in [
        ("iss", json!("https://another.example.com"), Some(E::Issuer)),
        ("iss", json!(format!("{}/", fake.issuer())), Some(E::Issuer)),
        ("iss", json!([fake.issuer()]), Some(E::Issuer)),
        ("aud", json!("https://another.example.com"), Some(E::Audience)),
        ("aud", json!(["https://another.example.com"]), Some(E::Audience)),
        ("aud", json!([API, 7]), Some(E::Audience)),
        ("aud", json!([]), Some(E::Audience)),
        ("aud", json!({ API: true }), Some(E::Audience)),
        ("aud", json!("cloakroom"), Some(E::Audience)),
        ("aud", Value::Null, Some(E::Audience)),
        ("aud", json!([API, "https://another.example.com"]), None),
        ("exp", json!(NOW - 59), None),
        ("exp", json!(NOW - 60), Some(E::Expired)),
        ("exp", json!(1e300), Some(E::Jwt(JwtError::Time))),
        ("exp", json!("1800000300"), Some(E::Jwt(JwtError::Time))),
        ("exp", json!(-1), Some(E::Jwt(JwtError::Time))),
        ("exp", Value::Null, Some(E::TimeMissing)),
        ("iat", Value::Null, Some(E::TimeMissing)),
        ("iat", json!(NOW + 60), None),
        ("iat", json!(NOW + 61), Some(E::NotYetValid)),
        ("nbf", json!(NOW + 60), None),
        ("nbf", json!(NOW + 61), Some(E::NotYetValid)),
        ("nbf", json!("soon"), Some(E::Jwt(JwtError::Time))),
        ("sub", json!("a\nb"), Some(E::Subject)),
        ("sub", json!(""), Some(E::Subject)),
        ("sub", json!(["alice"]), Some(E::Subject)),
        ("sub", Value::Null, Some(E::Subject)),
        ("cnf", json!({ "jkt": "x" }), Some(E::Bound)),
        ("cnf", Value::Null, Some(E::Bound)),
        ("nonce", json!(NONCE), Some(E::Kind)),
        ("at_hash", json!("x"), Some(E::Kind)),
        ("events", json!({}), Some(E::Kind)),
        ("typ", json!("Bearer"), None),
        ("typ", json!("ID"), Some(E::Kind)),
        ("typ", json!("Refresh"), Some(E::Kind)),
        ("typ", json!("DPoP"), Some(E::Bound)),
        ("typ", json!(["Bearer"]), Some(E::Kind)),
    ] {
        let mut claims = claims(&fake);
        claims[name] = value.clone();
        for typ in ["at+jwt", "JWT"] {
            let token = typed(&signer, Some(typ), &claims);
            assert_eq!(verdict(&provider, &token, true).await, expected, "{name} {value} {typ}");
        }
    }
    assert_eq!(fake.hits().jwks.load(Ordering::SeqCst), 1, "no claim costs the provider a request");
}

#[tokio::test]
async fn t7_no_other_token_is_an_access_token() {
    let (fake, provider, _) = ready().await;
    let signer = Signer::es256("key-1");
    for (typ, strict, lenient) in [
        (Some("at+jwt"), None, None),
        (Some("JWT"), Some(AccessTokenError::Kind), None),
        (None, Some(AccessTokenError::Kind), None),
        (Some("id+jwt"), Some(AccessTokenError::Kind), Some(AccessTokenError::Kind)),
        (Some("logout+jwt"), Some(AccessTokenError::Kind), Some(AccessTokenError::Kind)),
        (Some("dpop+jwt"), Some(AccessTokenError::Kind), Some(AccessTokenError::Kind)),
    ] {
        let token = typed(&signer, typ, &claims(&fake));
        assert_eq!(verdict(&provider, &token, false).await, strict, "{typ:?}");
        assert_eq!(verdict(&provider, &token, true).await, lenient, "{typ:?}");
    }
    // ID tokens, even one without nonce and at_hash whose audience is taken, and logout tokens.
    let mut refreshed = fake.claims();
    for name in ["nonce", "at_hash"] {
        refreshed.as_object_mut().unwrap().remove(name);
    }
    refreshed["aud"] = API.into();
    for claims in [fake.claims(), refreshed, logout_claims(&fake)] {
        for typ in [Some("JWT"), None] {
            let token = typed(&signer, typ, &claims);
            for untyped in [false, true] {
                assert_eq!(verdict(&provider, &token, untyped).await, Some(AccessTokenError::Kind), "{claims}");
            }
        }
    }
}

/// One table for both kinds of token that strangers bring.
#[tokio::test]
async fn t1_t5_signatures_and_keys_of_access_and_logout_tokens() {
    let (fake, provider, clock) = ready().await;
    let (signer, other) = (Signer::es256("key-1"), Signer::es256("key-2"));
    for (typ, claims) in [("at+jwt", claims(&fake)), ("logout+jwt", logout_claims(&fake))] {
        let judge = async |token: &str| match typ {
            "at+jwt" => match verdict(&provider, token, true).await {
                None => Ok(()),
                Some(AccessTokenError::Jwt(error)) => Err(Some(error)),
                Some(AccessTokenError::KeysUnavailable) => Err(None),
                Some(error) => panic!("{error}"),
            },
            _ => match provider.logout_token(token).await {
                Ok(_) => Ok(()),
                Err(LogoutTokenError::Jwt(error)) => Err(Some(error)),
                Err(LogoutTokenError::KeysUnavailable) => Err(None),
                Err(error) => panic!("{error}"),
            },
        };
        let good = typed(&signer, Some(typ), &claims);
        assert_eq!(judge(&good).await, Ok(()), "{typ}");
        let with = |name: &str, value: Value| {
            let mut header = signer.header();
            header["typ"] = typ.into();
            header[name] = value;
            header
        };
        let signed = |name: &str, value: Value| signer.sign_with(&with(name, value), &claims.to_string());
        let (body, signature) = good.rsplit_once('.').unwrap();
        let flipped = {
            let mut bytes = signature.as_bytes().to_vec();
            bytes[0] = if bytes[0] == b'A' { b'B' } else { b'A' };
            format!("{body}.{}", String::from_utf8(bytes).unwrap())
        };
        let (header, payload) = body.split_once('.').unwrap();
        let deep = format!("{{\"sub\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let brought = |name: &str, value: &Value| other.sign_with(&with(name, value.clone()), &claims.to_string());
        let own_name = {
            let mut header = with("jwk", other.jwk());
            header["kid"] = "key-2".into();
            other.sign_with(&header, &claims.to_string())
        };
        let mut more = claims.clone();
        more["sub"] = "mallory".into();
        let swapped = typed(&signer, Some(typ), &more);
        let swapped = swapped.split('.').nth(1).unwrap();
        for (what, token, error) in [
            ("alg none", signer::unsigned(&claims), JwtError::Algorithm),
            ("alg none, signed", signed("alg", json!("none")), JwtError::Algorithm),
            ("alg NONE", signed("alg", json!("NONE")), JwtError::Algorithm),
            ("alg missing", signed("alg", Value::Null), JwtError::Algorithm),
            ("alg empty", signed("alg", json!("")), JwtError::Algorithm),
            ("alg in small letters", signed("alg", json!("es256")), JwtError::Algorithm),
            ("alg a list", signed("alg", json!(["ES256"])), JwtError::Algorithm),
            ("alg of encryption", signed("alg", json!("RSA-OAEP")), JwtError::Algorithm),
            ("alg of a curve that is not taken", signed("alg", json!("ES256K")), JwtError::Algorithm),
            (
                "HMAC with the public key",
                signer::hs256(&with("alg", json!("HS256")), &claims, signer.public_key()),
                JwtError::Algorithm,
            ),
            (
                "HMAC with the client's secret",
                signer::hs256(&with("alg", json!("HS256")), &claims, CLIENT_SECRET.as_bytes()),
                JwtError::Algorithm,
            ),
            ("HMAC with nothing", signer::hs256(&with("alg", json!("HS512")), &claims, b""), JwtError::Algorithm),
            ("alg of another key", signed("alg", json!("RS256")), JwtError::UnknownKey),
            ("another alg of the same kind of key", signed("alg", json!("ES384")), JwtError::UnknownKey),
            ("PSS", signed("alg", json!("PS256")), JwtError::UnknownKey),
            ("EdDSA", signed("alg", json!("EdDSA")), JwtError::UnknownKey),
            ("crit", signed("crit", json!(["x"])), JwtError::Header),
            ("zip", signed("zip", json!("DEF")), JwtError::Header),
            ("b64", signed("b64", json!(false)), JwtError::Header),
            ("cty", signed("cty", json!("JWT")), JwtError::Header),
            ("kid a number", signed("kid", json!(1)), JwtError::Malformed),
            ("kid null", signed("kid", Value::Null), JwtError::Malformed),
            ("kid a list", signed("kid", json!(["key-1"])), JwtError::Malformed),
            ("kid empty", signed("kid", json!("")), JwtError::UnknownKey),
            ("kid in capitals", signed("kid", json!("KEY-1")), JwtError::UnknownKey),
            ("kid with more behind", signed("kid", json!("key-1\u{0}")), JwtError::UnknownKey),
            ("kid a path", signed("kid", json!("../../../../dev/null")), JwtError::UnknownKey),
            ("kid an address", signed("kid", json!("https://evil.example/keys")), JwtError::UnknownKey),
            ("kid a query", signed("kid", json!("x' UNION SELECT 'key-1")), JwtError::UnknownKey),
            // Keys that a token brings itself, or says where to find, are nobody's.
            ("jwk", brought("jwk", &other.jwk()), JwtError::Signature),
            ("jku", brought("jku", &json!("https://evil.example/keys")), JwtError::Signature),
            ("x5u", brought("x5u", &json!("https://evil.example/chain.pem")), JwtError::Signature),
            ("x5c", brought("x5c", &json!(["MIIB"])), JwtError::Signature),
            ("jwk under a name of its own", own_name, JwtError::UnknownKey),
            ("key of another", typed(&other.named(Some("key-1")), Some(typ), &claims), JwtError::Signature),
            ("signature flipped", flipped, JwtError::Signature),
            ("signature empty", format!("{body}."), JwtError::Signature),
            // CVE-2022-21449
            ("signature of zeros", format!("{body}.{}", "A".repeat(86)), JwtError::Signature),
            ("signature with more behind", format!("{good}AAAA"), JwtError::Signature),
            ("signature cut", good[..good.len() - 2].to_owned(), JwtError::Signature),
            ("signature padded", format!("{good}=="), JwtError::Malformed),
            ("signature of another alphabet", format!("{body}.{}", "+/".repeat(43)), JwtError::Malformed),
            ("payload swapped", format!("{header}.{swapped}.{signature}"), JwtError::Signature),
            ("no signature", body.to_owned(), JwtError::Malformed),
            ("four parts", format!("{good}.x"), JwtError::Malformed),
            (
                "five parts, as an encrypted one",
                format!("{header}.{payload}.{payload}.{payload}.{signature}"),
                JwtError::Malformed,
            ),
            ("nested", signer.sign_with(&with("x", json!(1)), &json!(good).to_string()), JwtError::Malformed),
            ("nested, bare", signer.sign_with(&with("x", json!(1)), &good), JwtError::Malformed),
            ("deep", signer.sign_with(&with("x", json!(1)), &deep), JwtError::Malformed),
            ("huge", "A".repeat(4 << 20), JwtError::Malformed),
            ("huge, of dots", ".".repeat(1 << 20), JwtError::Malformed),
            ("behind a blank", format!(" {good}"), JwtError::Malformed),
            ("before a line end", format!("{good}\n"), JwtError::Malformed),
            ("header alone", header.to_owned(), JwtError::Malformed),
            ("payload no object", format!("{header}.{header}x.{signature}"), JwtError::Malformed),
            ("payload padded", format!("{header}.{payload}=.{signature}"), JwtError::Malformed),
            ("empty", String::new(), JwtError::Malformed),
        ] {
            // The key set may be asked again for a row that names no known key.
            if error == JwtError::UnknownKey {
                clock.advance(Duration::from_secs(5));
            }
            assert_eq!(judge(&token).await, Err(Some(error)), "{typ}: {what}");
        }

        // An unknown key: one fetch in a while, whoever asks; without an id several keys are one too many.
        clock.advance(Duration::from_secs(5));
        let before = fake.hits().jwks.load(Ordering::SeqCst);
        fake.set_keys(&[&signer, &other]);
        assert_eq!(judge(&typed(&other, Some(typ), &claims)).await, Ok(()), "{typ}");
        for number in 0..20 {
            let invented = typed(&signer.named(Some(&format!("invented-{number}"))), Some(typ), &claims);
            assert_eq!(judge(&invented).await, Err(None), "{typ}: asked a moment ago");
        }
        assert_eq!(judge(&typed(&signer.named(None), Some(typ), &claims)).await, Err(Some(JwtError::AmbiguousKey)));
        assert_eq!(fake.hits().jwks.load(Ordering::SeqCst), before + 1, "{typ}");
        clock.advance(Duration::from_secs(5));
        let invented = typed(&signer.named(Some("invented")), Some(typ), &claims);
        assert_eq!(judge(&invented).await, Err(Some(JwtError::UnknownKey)), "{typ}");
        fake.set_keys(&[&signer]);
        clock.advance(Duration::from_secs(5));
        assert_eq!(judge(&invented).await, Err(Some(JwtError::UnknownKey)), "the set is as it was at first");
    }
}
