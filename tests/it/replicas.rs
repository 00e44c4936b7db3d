//! Several proxies over one Redis, and proxies that come and go.

use reqwest::StatusCode;

use crate::harness::{Browser, PATIENCE, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_login_on_one_replica_is_a_login_on_all() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let other = world.replica().await;
    other.knows_provider().await;

    // The login itself may begin here and end there.
    let mut here = world.browser();
    let callback = here.authorize("/deep").await;
    let mut there = carry(&here, &other);
    let callback = callback.replace(&here.home.to_string(), &there.home.to_string());
    let page = there.navigate(&callback).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert!(page.body.contains("/deep"));
    let mut here = carry(&there, &world.proxy);
    for browser in [&mut here, &mut there] {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(browser.fetch("/userinfo").await.json()["preferred_username"], "alice");
    }
    assert_eq!(token_calls(&world), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_on_one_replica_serves_the_others() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let other = world.replica().await;
    other.knows_provider().await;
    let mut here = world.logged_in().await;
    let mut there = carry(&here, &other);

    for round in 1..=3 {
        // The other one has the old token in its cache, and that is the newest it knows.
        world.clock.advance(secs(48));
        assert_eq!(there.fetch("/api/whoami").await.status, StatusCode::OK);
        world.clock.advance(secs(4));
        assert_eq!(here.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(there.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(relayed(&world), newest(&world).access_token, "it takes the new one, and asks for none itself");
        assert_eq!(token_calls(&world), 1 + round);
    }
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_on_one_replica_ends_the_session_on_all_within_the_caches_life() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let (one, two) = (world.replica().await, world.replica().await);
    let mut here = world.logged_in().await;
    let mut others = [carry(&here, &one), carry(&here, &two)];
    for browser in &mut others {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
    assert_eq!(log_out(&mut here).await.status, StatusCode::SEE_OTHER);
    world.clock.advance(CACHE_TTL);
    for browser in &mut others {
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_expired"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_cache_life_ends_it_sooner() {
    let redis = RedisServer::start();
    let mut wishes = ticking_on(&redis);
    wishes.session = "  cache: { ttl: 1s }".to_owned();
    let world = world(wishes).await;
    let other = world.replica().await;
    let mut here = world.logged_in().await;
    let mut there = carry(&here, &other);
    assert_eq!(there.fetch("/api/whoami").await.status, StatusCode::OK);
    log_out(&mut here).await;
    world.clock.advance(secs(1));
    assert_eq!(there.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_started_anew_knows_its_sessions() {
    let redis = RedisServer::start();
    let mut world = world(ticking_on(&redis)).await;
    let mut browsers = Vec::new();
    for _ in 0..5 {
        browsers.push(world.logged_in().await);
    }
    // The old one is gone before the new one has its first request.
    world.proxy = world.replica().await;
    world.proxy.knows_provider().await;
    for browser in &browsers {
        let mut browser = carry(browser, &world.proxy);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(browser.write(reqwest::Method::POST, "/api/whoami", "").await.status, StatusCode::OK);
    }
    world.clock.advance(OVER);
    for browser in &browsers {
        let mut browser = carry(browser, &world.proxy);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(relayed(&world), newest(&world).access_token);
    }
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_redis_that_is_killed_and_started_again_loses_nothing_it_had_on_disk() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let world = world(ticking_on(&redis)).await;
    let mut browsers = Vec::new();
    for _ in 0..5 {
        browsers.push(world.logged_in().await);
    }
    for round in 0..3 {
        redis.kill();
        world.clock.advance(CACHE_TTL);
        for browser in &mut browsers {
            assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
        }
        redis.restart();
        for browser in &mut browsers {
            returns(browser, round).await;
        }
    }
    assert_eq!(token_calls(&world), browsers.len());
}

async fn returns(browser: &mut Browser, round: usize) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = browser.fetch("/api/whoami").await;
        if answer.status == StatusCode::OK {
            return;
        }
        assert_not_now(&answer, "store_unavailable");
        assert!(std::time::Instant::now() < until, "round {round}: the store is not found again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_its_sessions_to_itself() {
    let world = world(ticking()).await;
    let other = world.replica().await;
    let here = world.logged_in().await;
    let mut there = carry(&here, &other);
    assert_eq!(there.fetch("/api/whoami").await.code(), "session_expired");
    eventually("the first one is unmoved", || async {
        carry(&here, &world.proxy).fetch("/api/whoami").await.status == StatusCode::OK
    })
    .await;
}
