//! Refresh: rotation, reuse detection, revocation, lifetimes.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::guest::{Hands, json, start, start_with};
use crate::demo::provider::{Endpoint, Rotation};
use crate::demo::support::unverified_claims;

fn refresh_token(tokens: &Value) -> &str {
    tokens["refresh_token"].as_str().unwrap()
}

#[tokio::test]
async fn a_refresh_rotates_and_a_reuse_kills_the_family() {
    let (provider, guest) = start();
    let first = guest.log_in().await;
    let second = json(guest.refresh(refresh_token(&first)).await).await;
    assert_ne!(refresh_token(&first), refresh_token(&second));
    assert_ne!(first["access_token"], second["access_token"]);

    let reuse = guest.refresh(refresh_token(&first)).await;
    assert_eq!(reuse.status(), StatusCode::BAD_REQUEST);
    assert_eq!(json(reuse).await["error"], "invalid_grant");
    let heir = json(guest.refresh(refresh_token(&second)).await).await;
    assert_eq!(heir["error"], "invalid_grant", "the whole family is dead");

    assert_eq!(provider.ledger().presentations(refresh_token(&first)), 2);
    assert_eq!(provider.ledger().all_presentations()[refresh_token(&second)], 1);
    assert_eq!(provider.ledger().requests(Endpoint::Token).len(), 4);
}

#[tokio::test]
async fn within_the_grace_a_used_token_works_again() {
    let hands = Hands::new();
    let (provider, guest) = start_with(hands.config());
    provider.switches().set(|switch| switch.reuse_grace = Duration::from_secs(10));
    let first = guest.log_in().await;
    guest.refresh(refresh_token(&first)).await;
    hands.advance(10);
    assert_eq!(guest.refresh(refresh_token(&first)).await.status(), StatusCode::OK);
    hands.advance(1);
    assert_eq!(guest.refresh(refresh_token(&first)).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn without_rotation_the_token_stays() {
    let (provider, guest) = start();
    let first = guest.log_in().await;
    provider.switches().set(|switch| switch.rotation = Rotation::Same);
    assert_eq!(json(guest.refresh(refresh_token(&first)).await).await["refresh_token"], first["refresh_token"]);
    provider.switches().set(|switch| switch.rotation = Rotation::Silent);
    assert_eq!(json(guest.refresh(refresh_token(&first)).await).await["refresh_token"], Value::Null);
    assert_eq!(guest.refresh(refresh_token(&first)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn refusals_on_demand() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    for (error, status) in [("invalid_grant", 400), ("invalid_client", 401)] {
        provider.switches().set(|switch| switch.refuse_refresh = Some(error.to_owned()));
        let refused = guest.refresh(refresh_token(&tokens)).await;
        assert_eq!(refused.status(), status);
        assert_eq!(json(refused).await["error"], error);
    }
    provider.switches().reset();
    assert_eq!(guest.refresh(refresh_token(&tokens)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_login_can_come_without_a_refresh_token() {
    let (provider, guest) = start();
    provider.switches().set(|switch| switch.no_refresh_token = true);
    let tokens = guest.log_in().await;
    assert_eq!(tokens["refresh_token"], Value::Null);
    assert_eq!(tokens["refresh_expires_in"], Value::Null);
}

#[tokio::test]
async fn a_refreshed_id_token_keeps_its_subject_unless_switched() {
    let (provider, guest) = start();
    let first = guest.log_in().await;
    let before = unverified_claims(first["id_token"].as_str().unwrap()).unwrap();
    let second = json(guest.refresh(refresh_token(&first)).await).await;
    let after = unverified_claims(second["id_token"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&before["sub"], &before["auth_time"], &before["sid"]),
        (&after["sub"], &after["auth_time"], &after["sid"])
    );
    provider.switches().set(|switch| {
        switch.other_subject_on_refresh = true;
        switch.roles = Some(vec!["user".to_owned()]);
    });
    let third = json(guest.refresh(refresh_token(&second)).await).await;
    let other = unverified_claims(third["id_token"].as_str().unwrap()).unwrap();
    assert_ne!(other["sub"], before["sub"]);
    assert_eq!(other["realm_access"]["roles"], serde_json::json!(["user"]));
}

#[tokio::test]
async fn tokens_end_by_the_clock() {
    let hands = Hands::new();
    let (provider, guest) = start_with(hands.config());
    provider.switches().set(|switch| switch.access_token_lifetime = Some(Duration::from_secs(5)));
    let tokens = guest.log_in().await;
    assert_eq!(tokens["expires_in"], 5);
    let userinfo = || {
        guest
            .http
            .get(format!("{}/oauth/userinfo", provider.issuer()))
            .bearer_auth(tokens["access_token"].as_str().unwrap())
            .send()
    };
    assert_eq!(userinfo().await.unwrap().status(), StatusCode::OK);
    hands.advance(5);
    assert_eq!(userinfo().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    hands.advance(30 * 60);
    assert_eq!(guest.refresh(refresh_token(&tokens)).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_revoked_refresh_token_takes_its_family_along() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    assert_eq!(guest.post("/oauth/revoke", &[("token", "never heard of")]).await.status(), StatusCode::OK);
    assert_eq!(guest.post("/oauth/revoke", &[("token", refresh_token(&tokens))]).await.status(), StatusCode::OK);
    assert_eq!(json(guest.refresh(refresh_token(&tokens)).await).await["error"], "invalid_grant");
    assert_eq!(provider.ledger().revoked(), ["never heard of", refresh_token(&tokens)]);
    assert_eq!(guest.post_bare("/oauth/revoke", &[("token", "x")]).await.status(), StatusCode::UNAUTHORIZED);
}
