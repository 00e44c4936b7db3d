//! Claims of the UserInfo endpoint: added, never of another user (behaviour T6).

use std::time::Duration;

use cloakroom::demo::provider::Endpoint;
use cloakroom::demo::{Fault, Gate};
use reqwest::StatusCode;

use crate::harness::{SESSION, Wishes, World, eventually};
use crate::kit::{NEARLY_OVER, assert_logs_in_again, fetch_soon, newest, relayed, ticking, world};
use crate::login_kit::refused;

async fn merging() -> World {
    world(Wishes { provider_yaml: "    userinfo: merge".to_owned(), ..ticking() }).await
}

fn asked(world: &World) -> usize {
    world.demo.provider.ledger().count(Endpoint::Userinfo)
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_login_takes_the_claims_of_its_user_alone() {
    let world = merging().await;
    world.demo.provider.switches().set(|switch| switch.userinfo = Some(("department".into(), "sales".into())));
    let mut browser = world.logged_in().await;
    let claims = browser.fetch("/auth/userinfo").await.json();
    assert_eq!((&claims["department"], &claims["preferred_username"]), (&"sales".into(), &"alice".into()));
    assert_eq!(asked(&world), 1);

    world.demo.provider.switches().set(|switch| switch.userinfo = Some(("acr".into(), "gold".into())));
    let mut browser = world.logged_in().await;
    let claims = browser.fetch("/auth/userinfo").await.json();
    assert!(claims.get("acr").is_none(), "that is for a signed token to say: {claims}");

    world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = true);
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    let page = browser.navigate(&callback).await;
    refused(&browser, &page, &callback, "somebody else");
    world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = false);

    for (fault, status) in [
        (Fault::status(503), StatusCode::SERVICE_UNAVAILABLE),
        (Fault::page(200), StatusCode::BAD_REQUEST),
        (Fault::page(302), StatusCode::BAD_REQUEST),
    ] {
        world.demo.provider.switches().fault(Endpoint::Userinfo, fault);
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        let page = browser.navigate(&callback).await;
        refused(&browser, &page, &callback, "no claims");
        assert_eq!(page.status, status, "{page:?}");
        world.demo.provider.switches().faults(Endpoint::Userinfo).clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_refresh_renews_the_claims_or_leaves_them() {
    let world = merging().await;
    let value =
        |text: &str| world.demo.provider.switches().set(|s| s.userinfo = Some(("department".into(), text.into())));
    value("sales");
    let mut browser = world.logged_in().await;
    for (department, fault, expected) in [("research", None, "research"), ("law", Some(Fault::status(503)), "research")]
    {
        value(department);
        if let Some(fault) = fault {
            world.demo.provider.switches().fault(Endpoint::Userinfo, fault);
        }
        world.clock.advance(NEARLY_OVER);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(browser.fetch("/auth/userinfo").await.json()["department"], expected);
    }
    world.demo.provider.switches().faults(Endpoint::Userinfo).clear();
    world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = true);
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED, "the session ends");
    let orphan = newest(&world).refresh_token.expect("a refresh token");
    let revoked = || async { world.demo.provider.ledger().revoked().contains(&orphan) };
    eventually("nobody holds its refresh token, so it is revoked", revoked).await;
    world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = false);
    assert_logs_in_again(&mut browser).await;
    assert!(browser.cookie(SESSION).is_some());
}

/// With a provider that rotates there is no other copy of the tokens: whatever happens while UserInfo is asked must not cost
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn r4_refreshed_tokens_are_stored_before_anybody_asks_for_claims() {
    let world = merging().await;
    let browser = world.logged_in().await;
    let gate = Gate::closed();
    world.demo.provider.switches().fault(Endpoint::Userinfo, Fault::hold(&gate));
    world.clock.advance(NEARLY_OVER);
    let first = fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    // Others find them in the store, and wait for no claims: less long than UserInfo may take.
    let others = async {
        loop {
            let answer = fetch_soon(&browser, "/api/whoami").await.expect("no panic");
            if answer.status == StatusCode::OK && relayed(&world) == newest(&world).access_token {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(1_800), others).await.expect("they are stored");
    gate.open();
    assert_eq!(first.await.expect("no panic").status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nobody_asks() {
    let world = world(ticking()).await;
    world.logged_in().await;
    assert_eq!(asked(&world), 0);
}
