//! The keys that seal sessions come and go (behaviour K4).

use reqwest::StatusCode;

use crate::harness::{Browser, Proxy};
use crate::kit::*;
use crate::redis_server::RedisServer;

const NOW: &str = "keys: [{ id: \"test\", secret: { env: TEST_KEY } }]";
const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn keys(list: &str) -> String {
    format!("keys: [{}]", list.replace("OTHER", OTHER))
}

async fn answer(browser: &Browser, proxy: &Proxy) -> (StatusCode, String) {
    let seen = carry(browser, proxy).fetch("/api/whoami").await;
    (seen.status, seen.code().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_wrong_key_opens_nothing_and_deletes_nothing() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let browser = world.logged_in().await;
    let none = (StatusCode::UNAUTHORIZED, "session_expired".to_owned());
    for list in [r#"{ id: "other", secret: "OTHER" }"#, r#"{ id: "test", secret: "OTHER" }"#] {
        let stranger = world.replica_with(NOW, &keys(list)).await;
        assert_eq!(answer(&browser, &stranger).await, none);
        world.clock.advance(CACHE_TTL);
        assert_eq!(answer(&browser, &world.proxy).await.0, StatusCode::OK, "it is still there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_rotated_ring_opens_the_old_and_seals_with_the_new() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let browser = world.logged_in().await;
    let unused = world.logged_in().await;

    let rotated = keys(r#"{ id: "newer", secret: "OTHER" }, { id: "test", secret: { env: TEST_KEY } }"#);
    let rotated = world.replica_with(NOW, &rotated).await;
    rotated.knows_provider().await;
    assert_eq!(answer(&browser, &rotated).await.0, StatusCode::OK);
    world.clock.advance(OVER);
    assert_eq!(answer(&browser, &rotated).await.0, StatusCode::OK, "and renews its tokens");

    // The old key is taken away: what was written since is open to the new one, the rest is over.
    let later = world.replica_with(NOW, &keys(r#"{ id: "newer", secret: "OTHER" }"#)).await;
    assert_eq!(answer(&browser, &later).await.0, StatusCode::OK);
    assert_eq!(answer(&unused, &later).await.1, "session_expired");
    assert_eq!(answer(&browser, &world.proxy).await.1, "session_expired", "the old key does not open the new seal");
    assert_shown_once(&world);
}
