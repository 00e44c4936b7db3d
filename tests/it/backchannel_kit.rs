//! What the tests of back-channel logout share.

use cloakroom::demo::provider::{Delivered, LogoutTokenFault, send_logout_token};
use reqwest::StatusCode;

use crate::harness::{Browser, Proxy, Wishes, World, eventually};
use crate::kit::*;
use crate::shared_store::SharedStore;

pub(crate) const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";
pub(crate) const BOB: &str = "b0b00000-0000-4000-8000-000000000002";

/// A world over a store that proxies share, and that can fail.
pub(crate) fn shared() -> Wishes {
    let wishes = ticking();
    Wishes { shared: Some(SharedStore::new(&wishes.clock)), ..wishes }
}

/// The same, with settings of `backchannel_logout`.
pub(crate) fn shared_with(settings: &str) -> Wishes {
    Wishes { provider_yaml: format!("    backchannel_logout: {settings}"), ..shared() }
}

pub(crate) fn store(world: &World) -> &SharedStore {
    world.shared.as_ref().expect("a shared store")
}

pub(crate) fn address(proxy: &Proxy) -> String {
    format!("http://{}/auth/backchannel-logout", proxy.address)
}

pub(crate) fn token(world: &World, subject: Option<&str>, sid: Option<&str>) -> String {
    spoiled(world, subject, sid, &[])
}

pub(crate) fn spoiled(world: &World, subject: Option<&str>, sid: Option<&str>, faults: &[LogoutTokenFault]) -> String {
    world.demo.provider.logout_token(subject, sid, faults).expect("a token")
}

pub(crate) async fn deliver(proxy: &Proxy, token: &str) -> Delivered {
    let answer = send_logout_token(&address(proxy), token).await.expect("an answer");
    assert_eq!(answer.cache_control, "no-store", "{answer:?}");
    assert!(!answer.body.contains(token), "{answer:?}");
    answer
}

/// The provider's logout is taken.
pub(crate) async fn log_out_at(proxy: &Proxy, token: &str) {
    let answer = deliver(proxy, token).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
}

/// Back-Channel Logout §2.8.
pub(crate) fn assert_bad(answer: &Delivered, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {answer:?}");
    let body: serde_json::Value =
        serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{what}: {e}: {answer:?}"));
    assert_eq!(body["error"], "invalid_request", "{what}: {answer:?}");
    assert!(body["error_description"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {answer:?}");
}

pub(crate) async fn is_alive(browser: &mut Browser) -> bool {
    let answer = browser.fetch("/api/whoami").await;
    match answer.status {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => {
            assert_eq!(answer.code(), "session_expired", "{answer:?}");
            assert!(answer.set_cookies().is_empty(), "{answer:?}");
            false
        }
        _ => panic!("{answer:?}"),
    }
}

/// A browser with a session of its own at the provider, and the `sid` of that.
pub(crate) async fn one_session(world: &World) -> (Browser, String) {
    let browser = world.logged_in().await;
    let sid = newest(world).sid;
    (browser, sid)
}

pub(crate) async fn eventually_revoked(world: &World, token: &str) {
    let ledger = world.demo.provider.ledger();
    eventually("the refresh token is revoked", || async { ledger.revoked().iter().any(|one| one == token) }).await;
}
