//! ID tokens, read by a verifier that is not ours.

use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{AccessToken, AccessTokenHash, ClientId, ClientSecret, IssuerUrl, Nonce};
use serde_json::{Value, json};

use super::guest::{Guest, json as body, start};
use crate::demo::provider::{IdTokenFault, Provider, Signing};
use crate::demo::support::{from_base64url, unverified_claims};
use crate::demo::{CLIENT_ID, CLIENT_SECRET};

/// Whether the verifier of openidconnect takes the ID token of `tokens`, for our nonce, with a fitting `at_hash`.
async fn verdict(provider: &Provider, guest: &Guest, tokens: &Value) -> Result<(), String> {
    let keys: CoreJsonWebKeySet = serde_json::from_value(body(guest.get("/oauth/jwks").await).await).unwrap();
    let issuer = IssuerUrl::new(provider.issuer().to_owned()).unwrap();
    let verifier = CoreIdTokenVerifier::new_confidential_client(
        ClientId::new(CLIENT_ID.to_owned()),
        ClientSecret::new(CLIENT_SECRET.to_owned()),
        issuer,
        keys,
    )
    .set_allowed_algs([CoreJwsSigningAlgorithm::EcdsaP256Sha256]);
    let token: CoreIdToken = tokens["id_token"].as_str().unwrap().parse().map_err(|error| format!("{error}"))?;
    let claims = token.claims(&verifier, &Nonce::new("the-nonce".to_owned())).map_err(|error| format!("{error}"))?;
    let algorithm = token.signing_alg().map_err(|error| format!("{error}"))?;
    let key = token.signing_key(&verifier).map_err(|error| format!("{error}"))?;
    let access_token = AccessToken::new(tokens["access_token"].as_str().unwrap().to_owned());
    let hash = AccessTokenHash::from_token(&access_token, algorithm, key).map_err(|error| format!("{error}"))?;
    if claims.access_token_hash() == Some(&hash) { Ok(()) } else { Err("at_hash".to_owned()) }
}

#[tokio::test]
async fn a_good_id_token_passes() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    assert_eq!(verdict(&provider, &guest, &tokens).await, Ok(()));
    let claims = unverified_claims(tokens["id_token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["name"], "Alice Ærø");
    assert_eq!(claims["realm_access"]["roles"], json!(["user", "admin"]));
    assert!(claims["sid"].is_string() && claims["auth_time"].is_u64());
}

/// Faults that the foreign verifier overlooks, as known: it takes tokens without `kid` if one key fits,
/// and leaves `iat` and `azp` to the caller.
const OVERLOOKED: [IdTokenFault; 3] =
    [IdTokenFault::MissingKeyId, IdTokenFault::WrongAuthorizedParty, IdTokenFault::FutureIssuedAt];

#[tokio::test]
async fn every_fault_is_a_fault() {
    let (provider, guest) = start();
    for fault in IdTokenFault::ALL {
        provider.switches().spoil_id_token(fault);
        let tokens = guest.log_in().await;
        let verdict = verdict(&provider, &guest, &tokens).await;
        assert_eq!(verdict.is_ok(), OVERLOOKED.contains(&fault), "{fault:?}: {verdict:?}");
    }
    provider.switches().reset();
    let tokens = guest.log_in().await;
    assert_eq!(verdict(&provider, &guest, &tokens).await, Ok(()));
}

#[tokio::test]
async fn a_rotated_key_is_published_late_when_switched() {
    let (provider, guest) = start();
    provider.switches().set(|switch| switch.stale_jwks = true);
    let early = guest.log_in().await;
    assert!(verdict(&provider, &guest, &early).await.is_err());
    provider.switches().reset();
    provider.rotate_keys().unwrap();
    assert_eq!(verdict(&provider, &guest, &early).await, Ok(()), "now its key is published");
    let late = guest.log_in().await;
    provider.retire_old_keys();
    assert_eq!(verdict(&provider, &guest, &late).await, Ok(()));
}

#[tokio::test]
async fn an_access_token_says_that_it_is_one() {
    let (_provider, guest) = start();
    let tokens = guest.log_in().await;
    let token = tokens["access_token"].as_str().unwrap();
    let header: Value = serde_json::from_slice(&from_base64url(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));
    let claims = unverified_claims(token).unwrap();
    for name in ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti"] {
        assert!(!claims[name].is_null(), "{name}");
    }
}

#[tokio::test]
async fn any_claims_can_be_signed_well_or_badly() {
    let (provider, _guest) = start();
    let claims = provider.logout_claims(CLIENT_ID, Some("alice"), None);
    assert!(claims["events"]["http://schemas.openid.net/event/backchannel-logout"].is_object());
    let good = provider.sign("logout+jwt", &claims, &Signing::Honest).unwrap();
    let bare = provider.sign("logout+jwt", &claims, &Signing::Unsigned).unwrap();
    assert_eq!(unverified_claims(&good), unverified_claims(&bare));
    assert!(bare.ends_with('.') && !good.ends_with('.'));
}
