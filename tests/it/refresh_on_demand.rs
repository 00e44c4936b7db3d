//! A token that is about to end is renewed before the request goes on (behaviour R1, R2, R5, R11, R12, S8).

use std::collections::BTreeMap;

use cloakroom::demo::provider::Rotation;
use reqwest::{Method, StatusCode};

use crate::harness::{SESSION, World, XSRF, eventually};
use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_token_with_too_little_life_left_is_not_relayed() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let first = relayed(&world);

    world.clock.advance(secs(49));
    browser.fetch("/api/whoami").await;
    assert_eq!((relayed(&world), token_calls(&world)), (first.clone(), 1), "eleven seconds are enough");

    world.clock.advance(secs(2));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_ne!(relayed(&world), first);
    assert_eq!((relayed(&world), token_calls(&world)), (newest(&world).access_token, 2));
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_r2_a_hundred_parallel_requests_are_one_token_call() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    for round in 1..=3 {
        world.demo.upstream.recorder().clear();
        world.clock.advance(OVER);
        let gate = hold_tokens(&world, false);
        let (answers, ()) = tokio::join!(volley(&browser, "/api/whoami", 100), async {
            gate.arrived(1).await;
            eventually("all wait", || async { world.metric("cloakroom_token_refresh_waiters{").await == 100.0 }).await;
            assert_eq!(world.demo.upstream.recorder().count(), 0, "nobody passes with a dead token");
            gate.open();
        });
        assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
        assert_eq!(token_calls(&world), 1 + round);
        let fresh = newest(&world).access_token;
        assert!(world.demo.upstream.recorder().all().iter().all(|request| request.bearer() == Some(&fresh)));
    }
    assert_shown_once(&world);
    at_rest(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_the_newest_refresh_token_is_kept_and_none_returned_keeps_the_old() {
    let world = world(ticking()).await;
    for rotation in [Rotation::Rotate, Rotation::Same, Rotation::Silent] {
        world.demo.provider.switches().set(|switch| switch.rotation = rotation);
        world.demo.provider.ledger().clear();
        let mut browser = world.logged_in().await;
        let first = newest(&world).refresh_token.expect("a refresh token");
        for _ in 0..4 {
            world.clock.advance(NEARLY_OVER);
            assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{rotation:?}");
            assert_eq!(relayed(&world), newest(&world).access_token, "{rotation:?}");
        }
        let expected = if rotation == Rotation::Rotate { 1 } else { 4 };
        assert_eq!(world.demo.provider.ledger().presentations(&first), expected, "{rotation:?}");
        assert_eq!(token_calls(&world), 5, "{rotation:?}");
        if rotation == Rotation::Rotate {
            assert_shown_once(&world);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_very_short_tokens_are_not_renewed_by_each_request() {
    let world = world(ticking()).await;
    world.demo.provider.switches().set(|switch| switch.access_token_lifetime = Some(secs(3)));
    let mut browser = world.logged_in().await;
    for _ in 0..20 {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
    assert_eq!(token_calls(&world), 1);
    for life in 1..=5 {
        world.clock.advance(secs(2));
        assert!(volley(&browser, "/api/whoami", 20).await.iter().all(|status| *status == StatusCode::OK));
        assert_eq!(token_calls(&world), 1 + life, "one refresh a token");
    }
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_claims_and_tokens_change_together() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    let old = relayed(&world);
    world.demo.provider.switches().set(|switch| switch.roles = Some(vec!["guest".to_owned()]));
    assert_eq!(browser.fetch("/userinfo").await.json()["realm_access"]["roles"], serde_json::json!(["user", "admin"]));

    world.demo.upstream.recorder().clear();
    world.clock.advance(NEARLY_OVER);
    // Held so long that some of them give up waiting and go on with the old token, which still lives.
    let gate = hold_tokens(&world, true);
    let (early, late) = tokio::join!(volley(&browser, "/api/whoami", 20), async {
        world.demo.upstream.recorder().reached(20).await;
        gate.open();
        let mut late = holder(&browser);
        eventually_relayed(&world, &mut late, &newest(&world).access_token).await;
        volley(&late, "/api/whoami", 20).await
    });
    assert!(early.iter().chain(&late).all(|status| *status == StatusCode::OK));

    let mut roles = BTreeMap::new();
    for request in world.demo.upstream.recorder().all() {
        let (token, seen) = (request.bearer().expect("a token"), request.header("x-user-roles").expect("roles"));
        roles.entry(token.to_owned()).or_insert_with(Vec::new).push(seen.to_owned());
    }
    assert_eq!(roles.len(), 2, "an old and a new token");
    assert!(roles.get(&old).is_some_and(|seen| seen.iter().all(|roles| roles == "user,admin")), "{roles:?}");
    assert!(roles[&newest(&world).access_token].iter().all(|roles| roles == "guest"), "{roles:?}");
    assert_eq!(browser.fetch("/userinfo").await.json()["realm_access"]["roles"], serde_json::json!(["guest"]));
    assert_shown_once(&world);
}

async fn eventually_relayed(world: &World, browser: &mut crate::harness::Browser, token: &str) {
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        if relayed(world) == token {
            return;
        }
        assert!(std::time::Instant::now() < until, "the new token never came");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_refresh_without_id_token_keeps_the_claims() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.no_id_token_on_refresh = true);
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    assert_eq!(world.demo.upstream.recorder().last().expect("it").header("x-user-roles"), Some("user,admin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_another_subject_ends_the_session_and_its_new_tokens() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    let switches = world.demo.provider.switches();
    switches.set(|switch| switch.other_subject_on_refresh = true);
    world.clock.advance(NEARLY_OVER);
    world.demo.upstream.recorder().clear();
    let refused = browser.fetch("/api/whoami").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"));
    assert_eq!(world.demo.upstream.recorder().count(), 0, "nothing of somebody else reaches the upstream");
    let late = newest(&world).refresh_token.expect("a refresh token");
    eventually("the late token is revoked", || async { world.demo.provider.ledger().revoked().contains(&late) }).await;
    switches.set(|switch| switch.other_subject_on_refresh = false);
    assert_logs_in_again(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_refresh_token_a_session_lasts_as_long_as_its_access_token() {
    let world = world(ticking()).await;
    world.demo.provider.switches().set(|switch| switch.no_refresh_token = true);
    let mut browser = world.logged_in().await;
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    assert_eq!(browser.fetch("/maybe/x").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);

    world.clock.advance(REST);
    let guest = browser.fetch("/maybe/x").await;
    assert_eq!(guest.status, StatusCode::OK, "an optional route goes on without the session: {guest:?}");
    assert!(world.demo.upstream.recorder().last().expect("a request").bearer().is_none());
    assert_eq!(token_calls(&world), 1);
    assert_logs_in_again(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_refresh_changes_no_cookie() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    let before = (ticket(&browser), browser.cookie(XSRF).expect("a CSRF cookie").to_owned());
    for _ in 0..2 {
        world.clock.advance(NEARLY_OVER);
        let answer = browser.write(Method::POST, "/api/whoami", "").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(relayed(&world), newest(&world).access_token);
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
    }
    assert_eq!(browser.cookie(SESSION), Some(before.0.as_str()));
    assert_eq!(browser.cookie(XSRF), Some(before.1.as_str()));
}
