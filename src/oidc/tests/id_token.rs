//! One defect at a time (behaviour T1 to T5, T7).

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::signer::{self, Signer};
use super::{
    CLIENT_SECRET, Fake, NONCE, NOW, Reply, VERIFIER, callback, client_with, log_in, log_in_beside, ready, settings,
    until,
};
use crate::oidc::{Demands, IdTokenError, OidcError};
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

/// A change of the claims, by name.
type Change = (&'static str, fn(&mut Value));
/// What is wrong with the claims, by name, and what must be said of it.
pub(super) type Defect = (&'static str, fn(&mut Value), IdTokenError);

async fn verdict(fake: &Fake, provider: &std::sync::Arc<crate::oidc::Provider>, token: &str) -> Option<IdTokenError> {
    fake.grant(token);
    match log_in(provider).await {
        Ok(_) => None,
        Err(OidcError::IdToken(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_good_login_brings_tokens_and_claims() {
    let (fake, provider, _) = ready().await;
    fake.grant(&Signer::es256("key-1").sign(&fake.claims()));
    let login = log_in(&provider).await.unwrap();
    assert_eq!(login.tokens.access_token.expose(), "access-token");
    assert_eq!(login.tokens.access_expires, Some(Timestamp::from_secs(NOW + 300)));
    assert_eq!(login.tokens.refresh_token.unwrap().expose(), "refresh-token-2");
    assert_eq!(login.tokens.refresh_expires, Some(Timestamp::from_secs(NOW + 1800)));
    let id = login.id_token;
    assert_eq!((id.subject.as_str(), id.provider_session.as_deref()), ("alice", Some("provider-session")));
    assert_eq!(id.auth_time, Some(Timestamp::from_secs(NOW - 10)));
    let names: Vec<_> = id.claims.keys().map(String::as_str).collect();
    assert_eq!(names, ["auth_time", "email", "iss", "realm_access", "sid", "sub"]);

    let (headers, form) = fake.last_post();
    assert!(headers["authorization"].to_str().unwrap().starts_with("Basic "));
    assert!(headers["user-agent"].to_str().unwrap().starts_with("cloakroom/"));
    let redirect = callback();
    let expected = [
        ("code", "code-canary"),
        ("code_verifier", VERIFIER),
        ("grant_type", "authorization_code"),
        ("redirect_uri", redirect.as_str()),
    ];
    assert_eq!(form, expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
}

#[tokio::test]
async fn t2_t3_t4_each_defect_of_the_claims_alone() {
    const ABSURD: IdTokenError = IdTokenError::Time;
    let defects: &[Defect] = &[
        ("other iss", |c| c["iss"] = "https://evil.example".into(), IdTokenError::Issuer),
        ("iss with a slash", |c| c["iss"] = format!("{}/", c["iss"].as_str().unwrap()).into(), IdTokenError::Issuer),
        ("no iss", |c| remove(c, "iss"), IdTokenError::Issuer),
        ("other aud", |c| c["aud"] = "other".into(), IdTokenError::Audience),
        ("one more aud", |c| c["aud"] = json!(["cloakroom", "other"]), IdTokenError::Audience),
        ("empty aud", |c| c["aud"] = json!([]), IdTokenError::Audience),
        ("aud of numbers", |c| c["aud"] = json!([1]), IdTokenError::Audience),
        ("no aud", |c| remove(c, "aud"), IdTokenError::Audience),
        ("other azp", |c| c["azp"] = "other".into(), IdTokenError::Audience),
        ("other nonce", |c| c["nonce"] = "nonce-of-another-login".into(), IdTokenError::Nonce),
        ("no nonce", |c| remove(c, "nonce"), IdTokenError::Nonce),
        ("null nonce", |c| c["nonce"] = Value::Null, IdTokenError::Nonce),
        ("expired", |c| c["exp"] = (NOW - 60).into(), IdTokenError::Expired),
        ("no exp", |c| remove(c, "exp"), ABSURD),
        ("exp 1e300", |c| c["exp"] = json!(1e300), ABSURD),
        ("exp negative", |c| c["exp"] = json!(-1), ABSURD),
        ("exp as text", |c| c["exp"] = "1900000000".into(), ABSURD),
        ("exp in milliseconds", |c| c["exp"] = (NOW * 1000).into(), ABSURD),
        ("no iat", |c| remove(c, "iat"), ABSURD),
        ("iat from the future", |c| c["iat"] = (NOW + 61).into(), IdTokenError::NotYetValid),
        ("nbf from the future", |c| c["nbf"] = (NOW + 61).into(), IdTokenError::NotYetValid),
        ("nbf as text", |c| c["nbf"] = "now".into(), ABSURD),
        ("auth_time as text", |c| c["auth_time"] = "now".into(), ABSURD),
        ("other at_hash", |c| c["at_hash"] = signer::at_hash("other").into(), IdTokenError::AccessTokenHash),
        ("at_hash as number", |c| c["at_hash"] = 1.into(), IdTokenError::AccessTokenHash),
        ("no sub", |c| remove(c, "sub"), IdTokenError::Subject),
        ("empty sub", |c| c["sub"] = "".into(), IdTokenError::Subject),
        ("sub with a line break", |c| c["sub"] = "a\nb".into(), IdTokenError::Subject),
        ("endless sub", |c| c["sub"] = "a".repeat(256).into(), IdTokenError::Subject),
    ];
    let (fake, provider, _) = ready().await;
    let signer = Signer::es256("key-1");
    for (name, spoil, expected) in defects {
        let mut claims = fake.claims();
        spoil(&mut claims);
        let found = verdict(&fake, &provider, &signer.sign(&claims)).await;
        // A wrong type may be caught by either judge.
        let malformed = name.contains(" as ") || name.contains(" of ");
        assert!(found == Some(*expected) || (malformed && found == Some(IdTokenError::Malformed)), "{name}: {found:?}");
    }
}

#[tokio::test]
async fn t2_t3_t4_what_must_be_taken() {
    let goods: &[Change] = &[
        ("aud as list", |c| c["aud"] = json!(["cloakroom"])),
        ("no azp", |c| remove(c, "azp")),
        ("no at_hash", |c| remove(c, "at_hash")),
        ("expired within the skew", |c| c["exp"] = (NOW - 59).into()),
        ("issued within the skew", |c| c["iat"] = (NOW + 60).into()),
        ("fractions of seconds", |c| c["exp"] = json!(NOW as f64 + 0.5)),
        ("updated_at of Auth0", |c| c["updated_at"] = "2026-05-01T10:00:00.000Z".into()),
        ("email_verified of Cognito", |c| c["email_verified"] = "true".into()),
    ];
    let (fake, provider, _) = ready().await;
    for (name, change) in goods {
        let mut claims = fake.claims();
        change(&mut claims);
        assert_eq!(verdict(&fake, &provider, &Signer::es256("key-1").sign(&claims)).await, None, "{name}");
    }
}

#[tokio::test]
async fn t1_t7_signatures_algorithms_and_headers() {
    let (fake, provider, _) = ready().await;
    let signer = Signer::es256("key-1");
    let good = signer.sign(&fake.claims());
    let claims = fake.claims();
    let header = |change: fn(&mut Value)| {
        let mut header = signer.header();
        change(&mut header);
        signer.sign_with(&header, &claims.to_string())
    };
    let hs256 = json!({"alg": "HS256", "kid": "key-1"});
    let stranger = Signer::es256("stranger").named(Some("key-1"));
    let (head, tail) = good.rsplit_once('.').unwrap();
    let flipped = format!("{head}.{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    for (name, token, expected) in [
        ("none", signer::unsigned(&claims), IdTokenError::Algorithm),
        ("NONE", signer.sign_with(&json!({"alg": "NONE"}), &claims.to_string()), IdTokenError::Algorithm),
        ("HMAC with the public key", signer::hs256(&hs256, &claims, signer.public_key()), IdTokenError::Algorithm),
        ("HMAC with our secret", signer::hs256(&hs256, &claims, CLIENT_SECRET.as_bytes()), IdTokenError::Algorithm),
        ("unknown algorithm", header(|h| h["alg"] = "ES256K".into()), IdTokenError::Algorithm),
        ("algorithm of another key type", header(|h| h["alg"] = "RS256".into()), IdTokenError::KeysUnavailable),
        ("signature of another key", stranger.sign(&claims), IdTokenError::Signature),
        ("a bit of the signature", flipped, IdTokenError::Signature),
        ("no signature", format!("{head}."), IdTokenError::Signature),
        ("critical header", header(|h| h["crit"] = json!(["exp"])), IdTokenError::Header),
        ("b64", header(|h| h["b64"] = false.into()), IdTokenError::Header),
        ("zip", header(|h| h["zip"] = "DEF".into()), IdTokenError::Header),
        ("a logout token", header(|h| h["typ"] = "logout+jwt".into()), IdTokenError::Header),
        ("an access token", header(|h| h["typ"] = "at+jwt".into()), IdTokenError::Header),
        ("not a token", "canary".to_owned(), IdTokenError::Malformed),
        ("empty", String::new(), IdTokenError::Malformed),
        ("encrypted", format!("{good}.x.y"), IdTokenError::Malformed),
        ("payload is a list", signer.sign_with(&signer.header(), "[]"), IdTokenError::Malformed),
        ("a claim twice", signer.sign_with(&signer.header(), &doubled(&claims)), IdTokenError::Malformed),
    ] {
        // Unknown keys are another matter: no fetch may help.
        fake.set_jwks(Reply::Json(503, json!({})));
        assert_eq!(verdict(&fake, &provider, &token).await, Some(expected), "{name}");
    }
    assert_eq!(verdict(&fake, &provider, &good).await, None);
}

#[tokio::test]
async fn t1_rsa_signatures_are_known_too() {
    let (fake, _, _) = ready().await;
    let rsa = Signer::rs256("rsa-1");
    fake.set_keys(&[&rsa, &Signer::es256("key-1")]);
    let (provider, _) = client_with(&settings(&fake.issuer()));
    provider.discover().await.unwrap();
    assert_eq!(verdict(&fake, &provider, &rsa.sign(&fake.claims())).await, None);
    let mut forged = rsa.sign(&fake.claims());
    forged.replace_range(forged.len() - 10..forged.len() - 9, "-");
    forged.replace_range(forged.len() - 20..forged.len() - 19, "_");
    assert_eq!(verdict(&fake, &provider, &forged).await, Some(IdTokenError::Signature));
}

#[tokio::test]
async fn a_code_that_is_refused_is_not_worth_another_try() {
    let (fake, provider, _) = ready().await;
    for (reply, transient) in [
        (Reply::Json(400, json!({"error": "invalid_grant", "error_description": "code-canary"})), false),
        (Reply::Json(401, json!({"error": "invalid_client"})), false),
        (Reply::Raw(404, &[], Vec::new()), false),
        (Reply::Raw(429, &[], Vec::new()), true),
        (Reply::Raw(502, &[], Vec::new()), true),
        (Reply::Hang, true),
    ] {
        fake.set_token(reply);
        let error = log_in(&provider).await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_login_without_id_token_is_none() {
    let (fake, provider, _) = ready().await;
    for token in [None, Some(Value::Null)] {
        let mut answer = super::answer("");
        match token {
            None => remove(&mut answer, "id_token"),
            Some(value) => answer["id_token"] = value,
        }
        fake.set_token(Reply::Json(200, answer));
        assert_eq!(log_in(&provider).await.unwrap_err(), OidcError::IdToken(IdTokenError::Missing));
    }
}

#[tokio::test]
async fn t4_an_empty_nonce_equals_nothing() {
    let (fake, provider, _) = ready().await;
    let mut claims = fake.claims();
    claims["nonce"] = "".into();
    fake.grant(&Signer::es256("key-1").sign(&claims));
    let error = provider.redeem("code", VERIFIER, &callback(), "", &Demands::default(), false).await.unwrap_err();
    assert_eq!(error, OidcError::IdToken(IdTokenError::Nonce));
}

#[tokio::test]
async fn t3_max_age_asks_for_a_recent_auth_time() {
    let fake = Fake::start().await;
    let mut settings = settings(&fake.issuer());
    settings.authorization_params.insert("max_age".to_owned(), "600".to_owned());
    let (provider, clock) = client_with(&settings);
    provider.discover().await.unwrap();
    let signer = Signer::es256("key-1");
    for (auth_time, expected) in [
        (json!(NOW - 600), None),
        (json!(NOW - 661), Some(IdTokenError::AuthTime)),
        (Value::Null, Some(IdTokenError::AuthTime)),
    ] {
        let mut claims = fake.claims();
        claims["auth_time"] = auth_time;
        assert_eq!(verdict(&fake, &provider, &signer.sign(&claims)).await, expected);
    }
    let claims = fake.claims();
    clock.advance(Duration::from_secs(300 + 60));
    assert_eq!(verdict(&fake, &provider, &signer.sign(&claims)).await, Some(IdTokenError::Expired));
}

fn remove(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name);
}

/// Some parsers take the first, some the last.
fn doubled(claims: &Value) -> String {
    claims.to_string().replacen('{', &format!("{{\"nonce\":\"{NONCE}\","), 1)
}

/// To many providers both refresh tokens are of one grant, which a revocation of either ends (RFC 7009 §2.1).
#[tokio::test]
async fn a_login_beside_a_session_that_only_cannot_be_finished_revokes_nothing() {
    let (fake, provider, clock) = ready().await;
    let revoked = || fake.hits().other.load(Ordering::SeqCst);
    let fault = |number: usize| match number {
        // No keys, another type of token, another user.
        0 => {
            fake.set_jwks(Reply::Json(503, json!({})));
            fake.grant(&Signer::es256("key-2").sign(&fake.claims()));
        }
        1 => fake.set_token(Reply::Json(200, json!({"access_token": "a", "token_type": "N_A", "refresh_token": "r"}))),
        _ => {
            let mut claims = fake.claims();
            claims["nonce"] = "another".into();
            fake.grant(&Signer::es256("key-1").sign(&claims));
        }
    };
    for (number, with_former, without) in [(0, 0, 1), (1, 0, 1), (2, 1, 1)] {
        let mut before = revoked();
        for (has_former, expected) in [(true, with_former), (false, without)] {
            fault(number);
            log_in_beside(&provider, has_former).await.unwrap_err();
            // Each revocation has a task of its own; one that we wait for comes after it.
            let known = SecretText::new("known".to_owned());
            until(|| revoked() >= before + expected).await;
            provider.revoke(&known).await.unwrap();
            assert_eq!(revoked(), before + expected + 1, "{number} {has_former}");
            before = revoked();
        }
        clock.advance(Duration::from_secs(5));
    }
}
