//! Rotated, unknown and invented keys (behaviour T5).

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;

use super::signer::Signer;
use super::{Reply, client_with, log_in, ready, settings};
use crate::oidc::{IdTokenError, OidcError};

fn fetches(fake: &super::Fake) -> usize {
    fake.hits().jwks.load(Ordering::SeqCst)
}

#[tokio::test]
async fn t5_a_rotated_key_is_fetched_once_and_the_old_one_goes() {
    let (fake, provider, _) = ready().await;
    let (old, new) = (Signer::es256("key-1"), Signer::es256("key-2"));
    fake.set_keys(&[&new]);
    fake.grant(&old.sign(&fake.claims()));
    log_in(&provider).await.unwrap();
    assert_eq!(fetches(&fake), 1, "a known key is not fetched again");

    fake.grant(&new.sign(&fake.claims()));
    log_in(&provider).await.unwrap();
    assert_eq!(fetches(&fake), 2);

    fake.grant(&old.sign(&fake.claims()));
    assert_eq!(log_in(&provider).await.unwrap_err(), OidcError::IdToken(IdTokenError::KeysUnavailable));
}

#[tokio::test]
async fn t5_a_thousand_invented_keys_cost_one_fetch_a_window() {
    let (fake, provider, clock) = ready().await;
    let signer = Signer::es256("key-1");
    for window in 1..=2 {
        for i in 0..500 {
            fake.grant(&signer.named(Some(&format!("invented-{window}-{i}"))).sign(&fake.claims()));
            let error = log_in(&provider).await.unwrap_err();
            assert!(matches!(error, OidcError::IdToken(IdTokenError::UnknownKey | IdTokenError::KeysUnavailable)));
        }
        assert_eq!(fetches(&fake), 1 + window);
        clock.advance(Duration::from_secs(5));
    }
}

#[tokio::test]
async fn t5_many_logins_wait_for_one_fetch() {
    let (fake, provider, _) = ready().await;
    let new = Signer::es256("key-2");
    fake.set_keys(&[&new]);
    fake.grant(&new.sign(&fake.claims()));
    for login in futures::future::join_all((0..20).map(|_| log_in(&provider))).await {
        login.unwrap();
    }
    assert_eq!(fetches(&fake), 2);
}

#[tokio::test]
async fn t5_a_failed_fetch_keeps_the_old_keys_and_fails_closed() {
    let (fake, provider, clock) = ready().await;
    let (old, new) = (Signer::es256("key-1"), Signer::es256("key-2"));
    for reply in [Reply::Json(503, json!({})), Reply::Json(200, json!({"keys": []})), Reply::Hang] {
        fake.set_jwks(reply);
        fake.grant(&new.sign(&fake.claims()));
        let error = log_in(&provider).await.unwrap_err();
        assert_eq!(error, OidcError::IdToken(IdTokenError::KeysUnavailable));
        assert!(error.is_transient());
        fake.grant(&old.sign(&fake.claims()));
        log_in(&provider).await.unwrap();
        clock.advance(Duration::from_secs(5));
    }
    fake.set_keys(&[&new]);
    fake.grant(&new.sign(&fake.claims()));
    log_in(&provider).await.unwrap();
}

#[tokio::test]
async fn t5_a_login_given_up_does_not_spoil_the_fetch() {
    let (fake, provider, _) = ready().await;
    let new = Signer::es256("key-2");
    fake.set_keys(&[&new]);
    let seen = provider.jwks().current().unwrap();
    // Polled once, then dropped: its fetch goes on.
    assert!(provider.jwks().newer_than(seen.clone()).now_or_never().is_none());
    tokio::task::yield_now().await;
    provider.jwks().newer_than(seen).await.unwrap();
    assert_eq!(fetches(&fake), 2);
}

#[tokio::test]
async fn t5_without_key_id_exactly_one_key_may_fit() {
    let (fake, provider, _) = ready().await;
    let nameless = Signer::es256("key-1").named(None);
    fake.grant(&nameless.sign(&fake.claims()));
    log_in(&provider).await.unwrap();

    fake.set_keys(&[&Signer::es256("key-1"), &Signer::rs256("rsa-1")]);
    let (provider, _) = client_with(&settings(&fake.issuer()));
    provider.discover().await.unwrap();
    log_in(&provider).await.unwrap();

    fake.set_keys(&[&Signer::es256("key-1"), &Signer::es256("key-2")]);
    let (provider, _) = client_with(&settings(&fake.issuer()));
    provider.discover().await.unwrap();
    assert_eq!(log_in(&provider).await.unwrap_err(), OidcError::IdToken(IdTokenError::AmbiguousKey));
}
