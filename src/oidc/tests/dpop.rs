//! Bound tokens (RFC 9449): what the provider is shown, and what its nonces do.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519};

use super::signer::Signer;
use super::*;
use crate::config::settings::ClientAuth;
use crate::oidc::RefreshError;
use crate::primitives::signing::SigningKey;

fn key() -> SigningKey {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    SigningKey::from_pkcs8(&pair.serialize_der(), None, None).unwrap()
}

/// A provider whose client has a key.
async fn bound(auth: Option<ClientAuth>) -> (Fake, Arc<Provider>) {
    let fake = Fake::start().await;
    let mut settings = settings(&fake.issuer());
    settings.dpop = Some(key());
    settings.client_auth = auth.unwrap_or(settings.client_auth);
    let (provider, _) = client_with(&settings);
    provider.discover().await.unwrap();
    (fake, provider)
}

fn claims(headers: &HeaderMap) -> Value {
    let mut proofs = headers.get_all("dpop").iter();
    let (Some(proof), None) = (proofs.next(), proofs.next()) else { panic!("not one proof") };
    let claims = URL_SAFE_NO_PAD.decode(proof.to_str().unwrap().split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

fn good() -> Vec<u8> {
    json!({ "access_token": "at", "token_type": "DPoP", "refresh_token": "rt" }).to_string().into_bytes()
}

fn wanted() -> Vec<u8> {
    json!({ "error": "use_dpop_nonce" }).to_string().into_bytes()
}

#[tokio::test]
async fn tokens_are_asked_for_with_a_proof_and_nothing_else_is() {
    let (fake, provider) = bound(None).await;
    fake.set_token(Reply::Json(200, {
        let mut answer = answer(&Signer::es256("key-1").sign(&fake.claims()));
        answer["token_type"] = "DPoP".into();
        answer
    }));
    let login = log_in(&provider).await.unwrap();
    assert!(login.tokens.bound);
    let claims = claims(&fake.last_post().0);
    assert_eq!((&claims["htm"], &claims["iat"]), (&"POST".into(), &NOW.into()));
    assert_eq!(claims["htu"], format!("{}/token", fake.issuer()));
    assert!(claims.get("ath").is_none() && claims.get("nonce").is_none(), "{claims}");
    provider.revoke(&SecretText::new(REFRESH_TOKEN.to_owned())).await.unwrap();
    assert!(!fake.last_post().0.contains_key("dpop"), "nothing is bound there");
}

#[tokio::test]
async fn a_nonce_is_asked_for_once_and_each_attempt_is_proved_anew() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let signing = SigningKey::from_pkcs8(&pair.serialize_der(), Some("auth"), None).unwrap();
    let (fake, provider) = bound(Some(ClientAuth::PrivateKeyJwt([signing].into()))).await;
    // It never has enough: then it has the last word, and the session is kept.
    fake.set_token(Reply::Raw(400, &[("dpop-nonce", "n-1")], wanted()));
    let error = refresh(&provider).await.unwrap_err();
    assert!(matches!(error, RefreshError::Unavailable { .. }), "nothing was done: {error}");
    let posts = fake.posts();
    assert_eq!(posts.len(), 2);
    let said: Vec<_> = posts.iter().map(|(headers, _)| claims(headers)).collect();
    assert_eq!((said[0].get("nonce"), &said[1]["nonce"]), (None, &"n-1".into()));
    let ids: BTreeSet<_> = said.iter().map(|claims| claims["jti"].to_string()).collect();
    let assertions: BTreeSet<_> = posts.iter().map(|(_, form)| form["client_assertion"].clone()).collect();
    assert_eq!((ids.len(), assertions.len()), (2, 2), "behaviour L8");
    assert!(posts.iter().all(|(_, form)| form["refresh_token"] == REFRESH_TOKEN));
}

#[tokio::test]
async fn the_nonce_of_any_answer_is_in_the_next_proof() {
    let (fake, provider) = bound(None).await;
    let sent = || claims(&fake.last_post().0).get("nonce").and_then(Value::as_str).map(str::to_owned);
    for (reply, calls, good_answer) in [
        (Reply::Raw(200, &[("dpop-nonce", "n-1")], good()), 1, true),
        (Reply::Raw(400, &[("dpop-nonce", "n-2")], br#"{"error":"invalid_dpop_proof"}"#.to_vec()), 2, false),
        (Reply::Raw(503, &[("dpop-nonce", "n-3")], Vec::new()), 3, false),
        // Asked for, and none is given: asking again would change nothing.
        (Reply::Raw(400, &[], wanted()), 4, false),
        (Reply::Raw(200, &[], good()), 5, true),
        // Some refuse with 200.
        (Reply::Raw(200, &[("dpop-nonce", "n-4")], wanted()), 7, false),
    ] {
        fake.set_token(reply);
        assert_eq!(refresh(&provider).await.is_ok(), good_answer);
        assert_eq!(fake.hits().token.load(Ordering::SeqCst), calls);
    }
    assert_eq!(sent(), Some("n-4".to_owned()));
    let nonces: Vec<_> = fake.posts().iter().map(|(headers, _)| claims(headers)["nonce"].clone()).collect();
    assert_eq!(
        nonces,
        [Value::Null, "n-1".into(), "n-2".into(), "n-3".into(), "n-3".into(), "n-3".into(), "n-4".into()]
    );
}

#[tokio::test]
async fn a_token_of_the_other_type_is_refused_and_its_refresh_token_revoked() {
    let (fake, provider) = bound(None).await;
    fake.grant(&Signer::es256("key-1").sign(&fake.claims()));
    let error = log_in(&provider).await.unwrap_err();
    assert!(matches!(&error, OidcError::Unexpected(why) if why.contains("not bound to our key")), "{error}");
    until(|| fake.hits().other.load(Ordering::SeqCst) == 1).await;
    let error = refresh(&provider).await.unwrap_err();
    assert!(matches!(error, RefreshError::Unusable { successor: Some(_), .. }), "one came in its place: {error}");

    let (fake, provider, _) = ready().await;
    fake.set_token(Reply::Raw(200, &[], good()));
    let error = refresh(&provider).await.unwrap_err();
    assert!(matches!(error, RefreshError::Unusable { .. }), "no key was shown: {error}");
    assert!(!fake.last_post().0.contains_key("dpop"));
}

#[tokio::test]
async fn a_login_names_the_key_and_the_metadata_must_take_it() {
    let (fake, provider) = bound(None).await;
    let redirect_uri = callback();
    let asked = &[];
    let request = crate::oidc::AuthorizationRequest {
        redirect_uri: &redirect_uri,
        state: "state-1",
        nonce: NONCE,
        pkce_verifier: VERIFIER,
        asked,
    };
    let url = provider.authorization_url(&request).unwrap();
    let named: Vec<_> = url.query_pairs().filter(|(name, _)| name == "dpop_jkt").map(|(_, value)| value).collect();
    assert_eq!(named, [provider.prover().unwrap().thumbprint()]);

    fake.offer_pushed(Reply::Json(201, json!({ "request_uri": "urn:x:1" })));
    provider.discover().await.unwrap();
    provider.begin(&request).await.unwrap();
    let (headers, form) = fake.last_post();
    assert_eq!(claims(&headers)["htu"], format!("{}/par", fake.issuer()));
    assert_eq!(form["dpop_jkt"], provider.prover().unwrap().thumbprint());

    for (algorithms, good) in
        [(json!(["ES256", "EdDSA"]), true), (json!(["ES256"]), false), (json!([]), false), (json!(null), true)]
    {
        let mut document = metadata(&fake.issuer());
        document["dpop_signing_alg_values_supported"] = algorithms;
        fake.set_metadata(Reply::Json(200, document));
        let told = provider.discover().await;
        assert_eq!(told.is_ok(), good, "{told:?}");
        assert!(good || told.unwrap_err().contains("takes no DPoP proofs that are signed with EdDSA"));
    }
}
