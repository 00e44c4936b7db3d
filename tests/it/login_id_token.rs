//! ID tokens with one thing wrong each, through the whole login (behaviour T1–T5).

use std::time::Duration;

use cloakroom::demo::provider::{Endpoint, IdTokenFault};
use cloakroom::demo::{Fault, Gate};
use cloakroom::primitives::clock::{Clock, Timestamp};
use reqwest::StatusCode;

use crate::harness::{Wishes, World, eventually};
use crate::kit::newest;
use crate::login_kit::{refused, sessions_begun, token_calls};

async fn by_hand() -> World {
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    let world = World::with(Wishes { clock, ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_to_t5_every_fault_alone_ends_the_login() {
    let world = by_hand().await;
    let provider = &world.demo.provider;
    // With two keys to choose from, a token without key id names none of them.
    provider.rotate_keys().expect("a key");
    world.browser().log_in("/").await;

    for fault in IdTokenFault::ALL {
        let begun = sessions_begun(&world).await;
        let redeemed = token_calls(&world);
        provider.switches().spoil_id_token(fault);
        let mut browser = world.browser();
        let callback = browser.authorize("/page").await;
        let page = browser.navigate(&callback).await;
        let what = format!("{fault:?}");
        refused(&browser, &page, &callback, &what);
        assert!(page.body.contains("/auth/login?return_to=%2Fpage"), "{what}: a way to go on: {page:?}");
        assert_eq!(token_calls(&world), redeemed + 1, "{what}: the code was redeemed");
        assert_eq!(sessions_begun(&world).await, begun, "{what}: nothing was stored");
        // A token that nobody holds is good at the provider for as long as it lives.
        let orphan = newest(&world).refresh_token.expect("a refresh token");
        eventually(&format!("{what}: it is revoked"), || async { provider.ledger().revoked().contains(&orphan) }).await;
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED, "{what}");

        provider.switches().set(|switch| switch.id_token.clear());
        browser.log_in("/page").await;
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{what}: and then a good one");
        // Each fetch of keys has its own throttle window.
        world.clock.advance(Duration::from_secs(6));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_one_published_key_needs_no_name() {
    let world = by_hand().await;
    world.demo.provider.switches().spoil_id_token(IdTokenFault::MissingKeyId);
    world.browser().log_in("/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_rotated_key_is_fetched_once() {
    let world = by_hand().await;
    let provider = &world.demo.provider;
    let fetched = || provider.ledger().count(Endpoint::Jwks);
    let before = fetched();
    world.browser().log_in("/").await;
    assert_eq!(fetched(), before, "known keys are not fetched");

    provider.rotate_keys().expect("a key");
    provider.retire_old_keys();
    let mut callbacks = Vec::new();
    for _ in 0..8 {
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        callbacks.push((browser, callback));
    }
    let logins = callbacks.iter_mut().map(async |(browser, callback)| browser.navigate(callback).await.status);
    for status in futures::future::join_all(logins).await {
        assert_eq!(status, StatusCode::OK);
    }
    assert_eq!(fetched(), before + 1, "one fetch for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_invented_keys_cost_one_fetch_a_window() {
    let world = by_hand().await;
    let provider = &world.demo.provider;
    let before = provider.ledger().count(Endpoint::Jwks);
    provider.switches().set(|switch| switch.stale_jwks = true);
    for window in 1..=3 {
        for _ in 0..10 {
            let mut browser = world.browser();
            let callback = browser.authorize("/").await;
            let page = browser.navigate(&callback).await;
            refused(&browser, &page, &callback, "a key that nobody published");
        }
        assert_eq!(provider.ledger().count(Endpoint::Jwks), before + window);
        world.clock.advance(Duration::from_secs(6));
    }
    provider.rotate_keys().expect("a key");
    provider.switches().set(|switch| switch.stale_jwks = false);
    world.browser().log_in("/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_keys_that_cannot_be_fetched_close_the_door() {
    let world = by_hand().await;
    let provider = &world.demo.provider;
    for fault in [Fault::status(503), Fault::page(200), Fault::cut_json(), Fault::reset()] {
        provider.rotate_keys().expect("a key");
        provider.switches().fault(Endpoint::Jwks, fault.clone());
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        let page = browser.navigate(&callback).await;
        refused(&browser, &page, &callback, &format!("{fault:?}"));
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{page:?}");
        let orphan = newest(&world).refresh_token.expect("a refresh token");
        eventually("it is revoked", || async { provider.ledger().revoked().contains(&orphan) }).await;
        provider.switches().faults(Endpoint::Jwks).clear();
        world.clock.advance(Duration::from_secs(6));
        browser.log_in("/").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_f11_a_token_may_be_a_minute_late() {
    let world = by_hand().await;
    for (late, good) in [(60, true), (119, true), (121, false)] {
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        let gate = Gate::closed();
        world.demo.provider.switches().fault(Endpoint::Token, Fault::hold(&gate).after_work().times(1));
        // The token is made to live a minute; then so much time goes by before it is read.
        let (page, ()) = tokio::join!(browser.navigate(&callback), async {
            gate.arrived(1).await;
            world.clock.advance(Duration::from_secs(late));
            gate.open();
        });
        assert_eq!(page.status == StatusCode::OK, good, "{late}: {page:?}");
    }
}
