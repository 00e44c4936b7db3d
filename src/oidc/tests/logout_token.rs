//! Logout tokens: each defect alone, keys, and the line between them and ID tokens (behaviour O4, T1, T5, T7).

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::signer::{self, Signer};
use super::{Fake, NONCE, NOW, log_in, ready, refresh};
use crate::oidc::{IdTokenError, JwtError, LogoutTokenError, OidcError, Provider, RefreshError, Whose};
use crate::primitives::clock::Timestamp;

fn claims(fake: &Fake) -> Value {
    json!({
        "iss": fake.issuer(), "aud": "cloakroom", "iat": NOW, "exp": NOW + 120, "jti": "j", "sub": "alice", "sid": "s",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    })
}

fn typed(signer: &Signer, typ: Option<&str>, claims: &Value) -> String {
    let mut header = signer.header();
    match typ {
        Some(typ) => header["typ"] = typ.into(),
        None => drop(header.as_object_mut().unwrap().remove("typ")),
    }
    signer.sign_with(&header, &claims.to_string())
}

async fn verdict(provider: &Provider, token: &str) -> Option<LogoutTokenError> {
    provider.logout_token(token).await.err()
}

#[tokio::test]
async fn o4_whom_a_good_token_names() {
    let (fake, provider, _) = ready().await;
    let session = |subject: Option<&str>| Whose::Session { sid: "s".into(), subject: subject.map(str::to_owned) };
    for (left_out, whose) in
        [("", session(Some("alice"))), ("sub", session(None)), ("sid", Whose::Subject("alice".into()))]
    {
        let mut claims = claims(&fake);
        claims.as_object_mut().unwrap().remove(left_out);
        for signer in [Signer::es256("key-1"), Signer::es256("key-1").named(None)] {
            for typ in [Some("logout+jwt"), Some("application/LOGOUT+JWT"), None] {
                let token = provider.logout_token(&typed(&signer, typ, &claims)).await.unwrap();
                assert_eq!((&token.whose, token.id.as_str()), (&whose, "j"));
                assert_eq!(token.issued, Timestamp::from_secs(NOW));
                assert_eq!(token.dead, Timestamp::from_secs(NOW + 180));
            }
        }
    }
}

#[tokio::test]
async fn o4_edges_of_time() {
    let (fake, provider, _) = ready().await;
    let signer = Signer::es256("key-1");
    for (name, value, expected) in [
        ("exp", json!(NOW - 59), None),
        ("exp", json!(NOW - 60), Some(LogoutTokenError::Expired)),
        ("iat", json!(NOW + 60), None),
        ("iat", json!(NOW + 61), Some(LogoutTokenError::NotYetValid)),
        ("nbf", json!(NOW + 61), Some(LogoutTokenError::NotYetValid)),
        ("nbf", json!(NOW), None),
        ("iat", json!("1800000000"), Some(LogoutTokenError::Jwt(JwtError::Time))),
        ("exp", json!(-1), Some(LogoutTokenError::Jwt(JwtError::Time))),
        ("exp", Value::Null, Some(LogoutTokenError::TimeMissing)),
        ("sub", json!("a\nb"), Some(LogoutTokenError::Nobody)),
        ("sub", json!(["alice"]), Some(LogoutTokenError::Nobody)),
        ("sid", json!("x".repeat(1_025)), Some(LogoutTokenError::Nobody)),
        ("jti", json!("x".repeat(1_025)), Some(LogoutTokenError::Id)),
        ("events", json!({ "http://schemas.openid.net/event/backchannel-logout": [] }), Some(LogoutTokenError::Kind)),
    ] {
        let mut claims = claims(&fake);
        claims[name] = value.clone();
        assert_eq!(verdict(&provider, &typed(&signer, None, &claims)).await, expected, "{name} {value}");
    }
}

#[tokio::test]
async fn t1_t5_signatures_and_keys() {
    let (fake, provider, clock) = ready().await;
    let (signer, claims) = (Signer::es256("key-1"), claims(&fake));
    let refused = |error: JwtError| Some(LogoutTokenError::Jwt(error));
    assert_eq!(verdict(&provider, &signer::unsigned(&claims)).await, refused(JwtError::Algorithm));
    let mut header = signer.header();
    header["alg"] = "HS256".into();
    header.as_object_mut().unwrap().remove("typ");
    let forged = signer::hs256(&header, &claims, signer.public_key());
    assert_eq!(verdict(&provider, &forged).await, refused(JwtError::Algorithm));
    let good = typed(&signer, None, &claims);
    let (body, _) = good.rsplit_once('.').unwrap();
    for cut in [body.to_owned(), format!("{body}."), format!("{good}.x"), String::new(), "a.b.c".to_owned()] {
        let found = verdict(&provider, &cut).await;
        assert!(
            matches!(found, Some(LogoutTokenError::Jwt(JwtError::Malformed | JwtError::Signature))),
            "{cut}: {found:?}"
        );
    }
    let other = Signer::es256("key-2");
    let swapped = typed(&other.named(Some("key-1")), None, &claims);
    assert_eq!(verdict(&provider, &swapped).await, refused(JwtError::Signature));
    for (name, value) in [("crit", json!(["x"])), ("zip", json!("DEF")), ("b64", json!(false)), ("cty", json!("JWT"))] {
        let mut header = signer.header();
        header.as_object_mut().unwrap().remove("typ");
        header[name] = value;
        let token = signer.sign_with(&header, &claims.to_string());
        assert_eq!(verdict(&provider, &token).await, refused(JwtError::Header), "{name}");
    }
    assert_eq!(fake.hits().jwks.load(Ordering::SeqCst), 1, "rubbish costs the provider nothing");

    // A new key is fetched once; without an id several keys are one too many.
    fake.set_keys(&[&signer, &other]);
    assert_eq!(verdict(&provider, &typed(&other, None, &claims)).await, None);
    assert_eq!(verdict(&provider, &typed(&signer.named(None), None, &claims)).await, refused(JwtError::AmbiguousKey));
    let invented = typed(&signer.named(Some("invented")), None, &claims);
    assert_eq!(verdict(&provider, &invented).await, Some(LogoutTokenError::KeysUnavailable), "asked a moment ago");
    clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(verdict(&provider, &invented).await, refused(JwtError::UnknownKey));
    fake.set_keys(&[&Signer::rs256("rsa")]);
    clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(verdict(&provider, &typed(&Signer::rs256("rsa"), None, &claims)).await, None);
}

#[tokio::test]
async fn t7_neither_is_the_other() {
    let (fake, provider, _) = ready().await;
    let signer = Signer::es256("key-1");
    for typ in [Some("JWT"), Some("logout+jwt"), None] {
        let id_token = typed(&signer, typ, &fake.claims());
        assert_eq!(verdict(&provider, &id_token).await, Some(LogoutTokenError::Kind), "{typ:?}");
        // A refreshed ID token needs no nonce, so only the kind tells them apart.
        let mut refreshed = fake.claims();
        refreshed.as_object_mut().unwrap().remove("nonce");
        assert_eq!(verdict(&provider, &typed(&signer, typ, &refreshed)).await, Some(LogoutTokenError::Kind));

        fake.grant(&typed(&signer, typ, &claims(&fake)));
        assert_eq!(refresh(&provider).await.unwrap_err(), RefreshError::IdentityChanged(IdTokenError::Kind), "{typ:?}");
        let mut with_nonce = claims(&fake);
        with_nonce["nonce"] = NONCE.into();
        fake.grant(&typed(&signer, typ, &with_nonce));
        assert_eq!(log_in(&provider).await.unwrap_err(), OidcError::IdToken(IdTokenError::Kind), "{typ:?}");
    }
    // `typ` alone is enough as well.
    fake.grant(&typed(&signer, Some("logout+jwt"), &fake.claims()));
    assert_eq!(log_in(&provider).await.unwrap_err(), OidcError::IdToken(IdTokenError::Header));
}
