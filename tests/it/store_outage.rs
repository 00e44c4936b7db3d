//! The store is not there (behaviour D1): no cookie is touched, no login begins, and afterwards all is as it was.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, LOGIN, PATIENCE, SESSION, XSRF, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;

async fn eventually_served(browser: &mut Browser) {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = browser.fetch("/api/whoami").await;
        if answer.status == StatusCode::OK {
            return;
        }
        assert_not_now(&answer, "store_unavailable");
        assert!(Instant::now() < until, "the store is not found again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_frozen_store_costs_no_session() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let other = world.replica().await;
    let mut browsers = [world.logged_in().await, world.logged_in().await, world.logged_in().await];
    let before: Vec<_> = browsers.iter().map(|browser| browser.jars.clone()).collect();
    let mut uncached = carry(&browsers[0], &other);

    redis.freeze();
    for browser in &mut browsers {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "cached sessions go on");
    }
    assert_not_now(&uncached.fetch("/api/whoami").await, "store_unavailable");
    world.clock.advance(CACHE_TTL);
    for browser in &mut browsers {
        for target in ["/api/whoami", "/auth/session", "/auth/userinfo", "/maybe/x"] {
            let answer = browser.fetch(target).await;
            assert_not_now(&answer, "store_unavailable");
            assert_eq!(answer.header("content-type"), "application/problem+json", "{target}");
        }
        for target in ["/", "/auth/login", "/auth/login?return_to=/x"] {
            let answer = browser.navigate(target).await;
            assert_not_now(&answer, "store_unavailable");
            assert!(answer.header("content-type").starts_with("text/html"), "{target}: {answer:?}");
        }
        assert_not_now(&browser.write(Method::POST, "/api/whoami", "x").await, "store_unavailable");
        assert_not_now(&log_out(browser).await, "store_unavailable");
    }
    assert_not_now(&world.browser().navigate("/").await, "store_unavailable");
    assert_eq!(world.browser().fetch("/open/x").await.status, StatusCode::OK, "a public page needs no store");
    assert_eq!(world.browser().fetch("/api/whoami").await.code(), "session_missing", "no cookie, nothing to look up");

    redis.thaw();
    for browser in &mut browsers {
        eventually_served(browser).await;
        assert_eq!(browser.fetch("/auth/session").await.json()["authenticated"], true);
    }
    eventually_served(&mut uncached).await;
    for (browser, before) in browsers.iter().zip(&before) {
        assert_eq!(browser.jars, *before, "every cookie is as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_once_known_to_be_away_the_store_is_not_waited_for() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(CACHE_TTL);
    redis.freeze();
    assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
    // The best of several: what else this machine is doing is not the question.
    let mut best = Duration::MAX;
    for _ in 0..8 {
        let started = Instant::now();
        assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
        best = best.min(started.elapsed());
    }
    assert!(best <= Duration::from_millis(250), "{best:?}");
    redis.thaw();
    eventually_served(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_login_that_ends_in_an_outage_gives_no_cookie() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    redis.freeze();
    assert_not_now(&browser.navigate(&callback).await, "store_unavailable");
    assert!(browser.cookie(SESSION).is_none() && browser.cookie(LOGIN).is_some());
    assert_eq!(token_calls(&world), 0, "the code is not redeemed without the login's record");
    redis.thaw();
    eventually("a login works", || async {
        let mut browser = world.browser();
        let start = browser.navigate("/").await;
        start.status == StatusCode::SEE_OTHER
    })
    .await;
    world.browser().log_in("/").await;
}

/// The code is spent by then: a new login would be the only way out.
#[tokio::test(flavor = "multi_thread")]
async fn d1_a_login_outlasts_a_store_that_fails_for_a_moment() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    let gate = hold_tokens(&world, true);
    let arrival = tokio::spawn(async move {
        let page = browser.navigate(&callback).await;
        (browser, page)
    });
    gate.arrived(1).await;
    redis.freeze();
    gate.open();
    eventually("the session could not be stored", || async {
        world.metric(r#"cloakroom_store_operations_total{op="create",result="unavailable"}"#).await >= 1.0
    })
    .await;
    redis.thaw();
    let (mut browser, page) = arrival.await.expect("an answer");
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(token_calls(&world), 1, "the code was shown once");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_logout_in_an_outage_is_not_done_and_says_so() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.logged_in().await;
    // Still in the cache, so that the logout gets as far as the store.
    redis.freeze();
    assert_not_now(&log_out(&mut browser).await, "store_unavailable");
    let asked = browser.draft(Method::GET, "/auth/logout").navigation();
    assert_not_now(&browser.send(asked).await, "store_unavailable");
    assert!(browser.cookie(SESSION).is_some() && browser.cookie(XSRF).is_some());
    redis.thaw();
    world.clock.advance(CACHE_TTL);
    eventually_served(&mut browser).await;
    assert!(world.demo.provider.ledger().revoked().is_empty(), "the tokens of a living session are not revoked");
    assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_token_that_must_be_renewed_waits_for_the_store() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    world.demo.provider.switches().set(|switch| switch.access_token_lifetime = Some(secs(12)));
    let mut browser = world.logged_in().await;
    // Cached, with a token that is nearly over: first it is used to its end, then there is nothing to be done.
    world.clock.advance(secs(8));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    world.clock.advance(secs(8));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let calls = token_calls(&world);
    redis.freeze();
    world.clock.advance(secs(4));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    world.clock.advance(secs(9));
    assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
    redis.thaw();
    eventually_served(&mut browser).await;
    assert_eq!(relayed(&world), newest(&world).access_token);
    assert!(token_calls(&world) > calls);
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_store_starts_and_is_ready_once_it_was_reached() {
    let mut redis = RedisServer::start();
    redis.kill();
    let world = world(ticking_on(&redis)).await;
    assert_eq!(world.proxy.admin_page("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.proxy.admin_page("/livez").await.0, StatusCode::OK);
    assert!(world.proxy.admin_page("/readyz?verbose").await.1.contains("store: not ready"));
    assert_not_now(&world.browser().navigate("/").await, "store_unavailable");
    assert_eq!(world.browser().fetch("/open/x").await.status, StatusCode::OK);

    redis.restart();
    eventually("ready", || async { world.proxy.admin_page("/readyz").await.0 == StatusCode::OK }).await;
    let mut browser = world.logged_in().await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);

    redis.freeze();
    world.clock.advance(CACHE_TTL);
    assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
    assert_eq!(world.proxy.admin_page("/readyz").await.0, StatusCode::OK, "an outage later on is no reason to leave");
    redis.thaw();
    eventually_served(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_calls_to_a_store_that_hangs_do_not_pile_up() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let browser = world.logged_in().await;
    world.clock.advance(CACHE_TTL);
    redis.freeze();
    let answers = volley(&browser, "/api/whoami", 200).await;
    assert!(answers.iter().all(|status| *status == StatusCode::SERVICE_UNAVAILABLE), "{answers:?}");
    at_rest(&world).await;
    redis.thaw();
    eventually_served(&mut holder(&browser)).await;
}
