//! Claims of UserInfo that come after the refreshed tokens are stored, and what can happen between the two (behaviour R2, R4,
//! T6).

use std::time::Duration;

use cloakroom::demo::provider::Endpoint;
use cloakroom::demo::{Fault, Gate};
use reqwest::StatusCode;

use crate::backchannel_kit::{shared, store};
use crate::harness::{Browser, Wishes, World, eventually};
use crate::kit::*;
use crate::shared_store::Op;

async fn merging() -> World {
    world(Wishes { provider_yaml: "    userinfo: merge".to_owned(), ..shared() }).await
}

fn says(world: &World, department: &str) {
    world.demo.provider.switches().set(|switch| switch.userinfo = Some(("department".into(), department.into())));
}

async fn department(browser: &mut Browser) -> serde_json::Value {
    browser.fetch("/auth/userinfo").await.json()["department"].take()
}

fn asked(world: &World) -> usize {
    world.demo.provider.ledger().count(Endpoint::Userinfo)
}

fn hold_claims(world: &World, times: u32) -> Gate {
    let gate = Gate::closed();
    world.demo.provider.switches().fault(Endpoint::Userinfo, Fault::hold(&gate).times(times));
    gate
}

/// The second refresh has its intent in the record when the claims of the first arrive there.
#[tokio::test(flavor = "multi_thread")]
async fn r2_claims_that_come_late_cost_another_replica_no_tokens() {
    let world = merging().await;
    let other = world.replica().await;
    other.knows_provider().await;
    let mut browser = world.logged_in().await;
    says(&world, "research");
    let asking = hold_claims(&world, 1);
    world.clock.advance(NEARLY_OVER);
    let first = fetch_soon(&browser, "/api/whoami");
    asking.arrived(1).await;
    // The token of the first is nearly over as well.
    world.clock.advance(NEARLY_OVER);
    let gate = hold_tokens(&world, true);
    let mut there = carry(&browser, &other);
    let second = fetch_soon(&there, "/api/whoami");
    gate.arrived(1).await;
    asking.open();
    first.await.expect("an answer");
    gate.open();
    assert_eq!(second.await.expect("an answer").status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    for browser in [&mut browser, &mut there] {
        assert_eq!(department(browser).await, "research");
        world.clock.advance(OVER);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "its refresh token is the newest");
    }
    assert_eq!(token_calls(&world), 5);
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_tokens_are_asked_about_also_where_the_store_did_not_say_that_it_took_them() {
    let world = merging().await;
    let mut browser = world.logged_in().await;
    for (stranger, status) in [(false, StatusCode::OK), (true, StatusCode::UNAUTHORIZED)] {
        says(&world, "research");
        world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = stranger);
        let (gate, before) = (hold_tokens(&world, true), asked(&world));
        world.clock.advance(OVER);
        let waiting = fetch_soon(&browser, "/api/whoami");
        gate.arrived(1).await;
        store(&world).lose(Op::Replace);
        gate.open();
        assert_eq!(waiting.await.expect("an answer").status, status);
        assert_eq!(asked(&world), before + 1);
        if !stranger {
            assert_eq!(department(&mut browser).await, "research");
        }
    }
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_session_with_a_strangers_tokens_ends_when_the_store_is_back() {
    let world = merging().await;
    let mut browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = true);
    store(&world).fail(Op::Delete, 0);
    world.clock.advance(OVER);
    assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
    let orphan = newest(&world).refresh_token.expect("a refresh token");
    let ledger = world.demo.provider.ledger();
    assert!(!ledger.revoked().contains(&orphan), "it is in the store still");
    store(&world).heal();
    eventually("its refresh token is revoked", || async { ledger.revoked().contains(&orphan) }).await;
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
}

/// One at a time at the token endpoint is one at a time at UserInfo.
#[tokio::test(flavor = "multi_thread")]
async fn b2_claims_are_asked_for_no_faster_than_tokens() {
    let refresh = "{ ahead: 0s, concurrency: 1 }".to_owned();
    let world = world(Wishes { provider_yaml: "    userinfo: merge".to_owned(), refresh, ..ticking() }).await;
    let browsers = [world.logged_in().await, world.logged_in().await];
    let (asking, before) = (hold_claims(&world, 2), asked(&world));
    world.clock.advance(NEARLY_OVER);
    let waiting = browsers.map(|browser| fetch_soon(&browser, "/api/whoami"));
    eventually("both have tokens", || async {
        world.metric("cloakroom_token_refreshes_total{mode=\"inline\",provider=\"demo\",result=\"ok\"}").await == 2.0
    })
    .await;
    asking.arrived(1).await;
    let second = tokio::time::timeout(Duration::from_millis(500), asking.arrived(2)).await;
    assert!(second.is_err(), "{} at a time", asked(&world) - before);
    asking.open();
    for waiting in waiting {
        assert_eq!(waiting.await.expect("an answer").status, StatusCode::OK);
    }
    assert_eq!(asked(&world), before + 2);
}
