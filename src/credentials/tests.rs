//! The client against the backend of the demo.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::settings::{AnswerFields, ClaimPath, Credentials, CredentialsRefresh, LoginLimits, SendToken};
use crate::demo::Fault;
use crate::demo::backend::{Backend as Demo, BackendEndpoint, PASSWORD};
use crate::oidc::http::Client;
use crate::oidc::tls::Tls;
use crate::oidc::{RefreshError, Tokens};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::secret::SecretText;

/// A backend, its client and a clock that stands still.
pub(crate) fn backend() -> (Demo, Arc<Backend>, Clock) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let demo = Demo::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let url = |path: &str| demo.url(path).parse().unwrap();
    let settings = Credentials {
        name: "legacy".into(),
        title: "legacy".into(),
        login_url: url("/login"),
        login_page: None,
        account: ClaimPath(vec!["username".to_owned()]),
        fields: AnswerFields::default(),
        default_lifetime: Duration::from_secs(300),
        refresh: Some(CredentialsRefresh {
            url: url("/refresh"),
            send: SendToken::Body("refreshToken".to_owned()),
            refused: vec![http::StatusCode::UNAUTHORIZED],
        }),
        refresh_token_grace: Duration::ZERO,
        logout_url: Some(url("/logout")),
        limits: LoginLimits::default(),
    };
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    let client = Backend::new(&settings, Client::new(Tls::default(), Arc::new(())).unwrap(), clock.clone());
    (demo, Arc::new(client), clock)
}

/// What the page posts for `alice`.
pub(crate) fn form(backend: &Backend) -> Form {
    let body = serde_json::json!({ "username": "alice", "password": PASSWORD }).to_string();
    backend.form(Bytes::from(body)).unwrap()
}

/// Waits until the demo has been told that the refresh token which it gave out last is done with.
pub(crate) async fn is_revoked(demo: &Demo) {
    let (_, token) = demo.last_issued().unwrap();
    let told = async {
        while !demo.is_revoked(&token) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("it is revoked");
}

async fn tokens(backend: &Arc<Backend>) -> (Tokens, SecretText) {
    let tokens = backend.login(&form(backend)).await.unwrap().tokens;
    let refresh_token = tokens.refresh_token.clone().unwrap();
    (tokens, refresh_token)
}

#[tokio::test]
async fn a_refusal_that_the_settings_do_not_know_names_the_setting() {
    let (demo, backend, _) = backend();
    let (tokens, token) = tokens(&backend).await;
    for status in [400, 403, 404] {
        demo.faults(BackendEndpoint::Refresh).add(Fault::status(status).times(1));
        let Err(RefreshError::Misconfigured(what)) = backend.refresh(&token, "id-of-alice", &tokens.access_token).await
        else {
            panic!("{status}")
        };
        assert!(what.contains(&format!("status {status}")) && what.contains("`refresh.refused`"), "{what}");
    }
    demo.faults(BackendEndpoint::Refresh).add(Fault::status(401).times(1));
    let error = backend.refresh(&token, "id-of-alice", &tokens.access_token).await.unwrap_err();
    assert_eq!(error.word(), "rejected");
}

#[tokio::test]
async fn a_token_without_a_life_is_no_login_and_its_companion_is_revoked() {
    let (demo, backend, _) = backend();
    demo.behave(|manners| manners.access_lifetime = Some(Duration::ZERO));
    let Err(LoginError::Odd(what)) = backend.login(&form(&backend)).await else { panic!() };
    assert!(what.contains("`fields.expires_in`"), "{what}");
    is_revoked(&demo).await;
}

#[tokio::test]
async fn logins_have_a_breaker_of_their_own_with_one_probe() {
    let (demo, backend, clock) = backend();
    let (tokens, token) = tokens(&backend).await;
    let faults = demo.faults(BackendEndpoint::Login);
    faults.add(Fault::status(503).times(5));
    let form = form(&backend);
    for _ in 0..6 {
        assert!(matches!(backend.login(&form).await, Err(LoginError::Unavailable { .. })));
    }
    let calls = || demo.posted(BackendEndpoint::Login).len();
    let before = calls();
    assert!(!backend.breaker().is_open() && backend.breaker().admit().is_none(), "refreshes go on");
    assert!(backend.refresh(&token, "id-of-alice", &tokens.access_token).await.is_ok());
    assert!(backend.login(&form).await.is_err(), "and tell nothing of logins");

    clock.advance(Duration::from_secs(2));
    let gate = crate::demo::Gate::closed();
    faults.add(Fault::hold(&gate).times(1));
    let (probe, ()) = tokio::join!(backend.login(&form), async {
        gate.arrived(1).await;
        for _ in 0..10 {
            assert!(matches!(backend.login(&form).await, Err(LoginError::Unavailable { .. })), "one probe at a time");
        }
        gate.open();
    });
    assert!(probe.is_ok());
    assert_eq!(calls(), before + 1);
    assert!(backend.login(&form).await.is_ok());
}

#[tokio::test]
async fn what_is_said_to_one_user_holds_nobody_else_back() {
    let (demo, backend, _) = backend();
    let faults = demo.faults(BackendEndpoint::Login);
    let form = form(&backend);
    faults.add(Fault::retry_after(429, 7).times(10));
    for _ in 0..10 {
        let wait = Some(Duration::from_secs(7));
        assert_eq!(backend.login(&form).await.unwrap_err(), LoginError::Busy(wait));
    }
    assert!(backend.login(&form).await.is_ok());
    // Nor does a form that upsets the backend.
    faults.add(Fault::status(500).times(10));
    for _ in 0..10 {
        assert!(matches!(backend.login(&form).await, Err(LoginError::Unavailable { .. })));
    }
    assert!(backend.login(&form).await.is_ok());
}
