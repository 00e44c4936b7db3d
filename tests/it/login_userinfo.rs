//! Claims of the UserInfo endpoint: added, never of another user (behaviour T6).

use cloakroom::demo::Fault;
use cloakroom::demo::provider::Endpoint;
use reqwest::StatusCode;

use crate::harness::{SESSION, Wishes, World};
use crate::kit::{NEARLY_OVER, assert_logs_in_again, ticking, world};
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
    world.demo.provider.switches().set(|switch| switch.other_subject_at_userinfo = false);
    assert_logs_in_again(&mut browser).await;
    assert!(browser.cookie(SESSION).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nobody_asks() {
    let world = world(ticking()).await;
    world.logged_in().await;
    assert_eq!(asked(&world), 0);
}
