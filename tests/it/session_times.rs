//! When a session ends by itself (behaviour S9).

use std::time::Duration;

use cloakroom::demo::ProviderConfig;
use reqwest::StatusCode;

use crate::harness::{Browser, Wishes, World, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;

const MINUTE: Duration = Duration::from_secs(60);

/// A world for each kind of store.
async fn worlds(redis: &RedisServer) -> [World; 2] {
    let of = |wishes: Wishes| world(Wishes { provider: lasting_tokens(), ..wishes });
    [of(ticking()).await, of(ticking_on(redis)).await]
}

async fn is_alive(browser: &mut Browser) -> bool {
    let answer = browser.fetch("/api/whoami").await;
    if answer.status == StatusCode::UNAUTHORIZED {
        assert_eq!(answer.code(), "session_expired");
        return false;
    }
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    true
}

/// Uses the session and waits until the store knows; no request waits for that, so neither may the clock.
async fn is_used(world: &World, browser: &mut Browser) {
    let written = || world.metric("cloakroom_store_operations_total{op=\"touch\",result=\"ok\"}");
    let before = written().await;
    assert!(is_alive(browser).await);
    eventually("the use is written down", || async { written().await > before }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_an_unused_session_ends_and_each_use_puts_that_off() {
    let redis = RedisServer::start();
    for world in worlds(&redis).await {
        let mut browser = world.logged_in().await;
        for _ in 0..6 {
            world.clock.advance(25 * MINUTE);
            is_used(&world, &mut browser).await;
        }
        world.clock.advance(30 * MINUTE + secs(1));
        assert!(!is_alive(&mut browser).await);
        let state = browser.fetch("/auth/session").await;
        assert_eq!(state.json()["authenticated"], false);
        assert_logs_in_again(&mut browser).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_asking_about_a_session_is_no_use() {
    let redis = RedisServer::start();
    for world in worlds(&redis).await {
        let mut browser = world.logged_in().await;
        let end = browser.fetch("/auth/session").await.json()["idle_expires_at"].clone();
        for _ in 0..5 {
            world.clock.advance(5 * MINUTE + secs(59));
            assert_eq!(browser.fetch("/auth/session").await.json()["idle_expires_at"], end);
            assert_eq!(browser.fetch("/auth/userinfo").await.status, StatusCode::OK);
            assert_eq!(browser.fetch("/userinfo").await.status, StatusCode::OK);
        }
        world.clock.advance(6 * secs(1));
        assert!(!is_alive(&mut browser).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_session_in_steady_use_ends_all_the_same() {
    let redis = RedisServer::start();
    for world in worlds(&redis).await {
        let mut browser = world.logged_in().await;
        for _ in 0..28 {
            world.clock.advance(25 * MINUTE);
            is_used(&world, &mut browser).await;
        }
        // Eleven hours and forty minutes; the tokens live on.
        world.clock.advance(20 * MINUTE);
        assert!(!is_alive(&mut browser).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_session_ends_with_its_refresh_token() {
    let lives = ProviderConfig { refresh_token_lifetime: 50 * MINUTE, ..lasting_tokens() };
    let world = world(Wishes { provider: lives, ..ticking() }).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(25 * MINUTE);
    is_used(&world, &mut browser).await;
    world.clock.advance(25 * MINUTE);
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_the_next_refresh_token_puts_the_end_off() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    for _ in 0..6 {
        // Each refresh brings thirty minutes more.
        world.clock.advance(20 * MINUTE);
        is_used(&world, &mut browser).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_use_is_known_to_the_other_replicas() {
    let redis = RedisServer::start();
    let world =
        world(Wishes { session: STEADY_TICKET.to_owned(), provider: lasting_tokens(), ..ticking_on(&redis) }).await;
    let other = world.replica().await;
    let mut here = world.logged_in().await;
    let mut there = carry(&here, &other);
    for _ in 0..4 {
        world.clock.advance(25 * MINUTE);
        is_used(&world, &mut here).await;
        let state = there.fetch("/auth/session").await;
        let end = state.json()["idle_expires_at"].as_u64().expect("an end");
        assert_eq!(end, world.clock.now().plus(30 * MINUTE).as_secs());
    }
    world.clock.advance(25 * MINUTE);
    assert!(is_alive(&mut there).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_redis_forgets_a_session_by_itself() {
    let redis = RedisServer::start();
    // The clock stands still: whatever goes, goes by Redis' own.
    let wishes = Wishes {
        session: "  cache: { ttl: 1s }".to_owned(),
        provider: ProviderConfig { refresh_token_lifetime: secs(2), ..ProviderConfig::default() },
        ..ticking_on(&redis)
    };
    let world = world(wishes).await;
    let mut browser = world.logged_in().await;
    assert!(is_alive(&mut browser).await);
    let keys = || String::from_utf8_lossy(&redis.raw("KEYS cloakroom:*s:*\r\n")).into_owned();
    assert!(keys().contains("s:"));
    eventually("the record is gone", || async { !keys().contains("s:") }).await;
    world.clock.advance(secs(1));
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returning_user_is_recognised_and_not_logged_on() {
    let redis = RedisServer::start();
    for wishes in [ticking(), ticking_on(&redis)] {
        let session = format!("{STEADY_TICKET}\n  returning_timeout: 7d");
        let world = world(Wishes { session, provider: lasting_tokens(), ..wishes }).await;
        let mut browser = world.logged_in().await;
        world.clock.advance(29 * MINUTE);
        assert!(is_alive(&mut browser).await, "a use puts both ends off");
        world.clock.advance(31 * MINUTE);
        let refused = browser.fetch("/api/whoami").await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "session_expired"));
        assert_eq!(browser.fetch("/userinfo").await.status, StatusCode::UNAUTHORIZED);
        let seen = browser.fetch("/auth/session").await.json();
        assert_eq!((&seen["authenticated"], &seen["level"]), (&false.into(), &"returning".into()), "{seen}");
        assert_eq!(seen["user"]["preferred_username"], "alice");
        assert!(seen.get("token_expires_at").is_none());
        // Neither a logged-on session nor a new end comes of it.
        world.clock.advance(7 * 24 * 60 * MINUTE - 31 * MINUTE - secs(1));
        assert_eq!(browser.fetch("/auth/session").await.json()["level"], "returning");
        world.clock.advance(secs(1));
        assert_eq!(browser.fetch("/auth/session").await.json()["level"], "anonymous");
    }
}
