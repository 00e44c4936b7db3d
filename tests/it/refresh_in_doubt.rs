//! A refresh whose outcome nobody knows (behaviour R8): the refresh token is not shown again, the access token is used
//! to its end, then the user logs in.

use cloakroom::demo::Fault;
use reqwest::StatusCode;

use crate::harness::{Browser, World};
use crate::kit::*;
use crate::redis_server::RedisServer;

async fn is_in_doubt(world: &World, browser: &mut Browser, fault: Fault, what: &str) {
    let tokens = newest(world);
    let refresh_token = tokens.refresh_token.expect("a refresh token");
    let shown = || world.demo.provider.ledger().presentations(&refresh_token);
    token_fault(world, fault);
    world.clock.advance(NEARLY_OVER);
    for _ in 0..5 {
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!(answer.status, StatusCode::OK, "{what}: {answer:?}");
        assert_eq!(relayed(world), tokens.access_token, "{what}");
    }
    heal(world);
    let calls = token_calls(world);
    world.clock.advance(REST);
    for minutes in [0, 5, 10] {
        world.clock.advance(secs(minutes * 60));
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{what}: {answer:?}");
    }
    assert_eq!((shown(), token_calls(world)), (1, calls), "{what}: the refresh token is not shown again");
    assert_logs_in_again(browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r8_after_a_lost_answer_the_refresh_token_is_not_shown_again() {
    let world = world(ticking()).await;
    for (what, fault) in [
        ("a cut answer", Fault::cut_json()),
        ("a reset", Fault::reset().after_work()),
        ("502", Fault::status(502).after_work()),
        ("504", Fault::status(504).after_work()),
        ("a page with 502", Fault::page(502).after_work()),
        ("a page with 200", Fault::page(200).after_work()),
    ] {
        let mut browser = world.logged_in().await;
        is_in_doubt(&world, &mut browser, fault, what).await;
    }
    assert_eq!(world.metric("cloakroom_audit_events_total{event=\"refresh_in_doubt\"}").await, 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn r8_doubt_is_known_to_every_replica_and_outlives_a_restart() {
    let redis = RedisServer::start();
    let mut world = world(ticking_on(&redis)).await;
    let other = world.replica().await;
    let mut browser = world.logged_in().await;
    let tokens = newest(&world);
    token_fault(&world, Fault::cut_json());
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    heal(&world);

    let mut elsewhere = carry(&browser, &other);
    world.clock.advance(CACHE_TTL - secs(1));
    assert_eq!(elsewhere.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), tokens.access_token);
    world.proxy = world.replica().await;
    world.proxy.knows_provider().await;
    let mut browser = carry(&browser, &world.proxy);
    world.clock.advance(REST);
    for browser in [&mut elsewhere, &mut browser] {
        assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
    }
    assert_eq!(world.demo.provider.ledger().presentations(&tokens.refresh_token.expect("one")), 1);
    other.knows_provider().await;
    assert_logs_in_again(&mut elsewhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r8_a_logout_in_doubt_still_revokes_the_refresh_token() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    let refresh_token = newest(&world).refresh_token.expect("a refresh token");
    token_fault(&world, Fault::cut_json());
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    heal(&world);
    assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
    crate::harness::eventually("revoked", || async { world.demo.provider.ledger().revoked().contains(&refresh_token) })
        .await;
}
