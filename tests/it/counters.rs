//! What `/metrics` says of what was done.

use cloakroom::demo::Fault;
use reqwest::{Method, StatusCode};

use crate::harness::World;
use crate::kit::*;
use crate::redis_server::RedisServer;

async fn assert_counts(world: &World, expected: &[(&str, f64)]) {
    let page = world.metrics().await;
    for (series, value) in expected {
        let line = page.lines().find(|line| line.starts_with(&format!("cloakroom_{series} ")));
        let seen = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0);
        assert!((seen - value).abs() < f64::EPSILON, "{series}: {seen}, not {value}\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_lookups_refreshes_and_refusals_are_counted() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    world.clock.advance(CACHE_TTL);
    browser.fetch("/api/whoami").await;
    assert_counts(
        &world,
        &[
            (r#"logins_total{provider="demo",reason="ok",result="success"}"#, 1.0),
            (r#"login_duration_seconds_count{provider="demo"}"#, 1.0),
            (r#"session_lookups_total{result="found",source="cache"}"#, 1.0),
            (r#"session_lookups_total{result="found",source="store"}"#, 1.0),
            (r#"store_operations_total{op="create",result="ok"}"#, 1.0),
            (r#"store_operations_total{op="put_login",result="ok"}"#, 2.0),
            (r#"store_operations_total{op="take_login",result="ok"}"#, 1.0),
            (r#"store_operations_total{op="load",result="ok"}"#, 1.0),
            (r#"idp_requests_total{endpoint="token",provider="demo",result="ok"}"#, 1.0),
        ],
    )
    .await;

    let origin = browser.origin();
    let forged = browser.draft(Method::POST, "/api/whoami").header("origin", &origin);
    assert_eq!(browser.send(forged).await.status, StatusCode::FORBIDDEN);
    let foreign = browser.draft(Method::POST, "/api/whoami").header("origin", "https://evil.example");
    assert_eq!(browser.send(foreign).await.status, StatusCode::FORBIDDEN);
    let page = world.metrics().await;
    let rejections = page.lines().filter(|line| line.starts_with("cloakroom_csrf_rejections_total{"));
    let rejections: f64 = rejections.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert!((rejections - 2.0).abs() < f64::EPSILON, "{page}");

    world.browser().fetch("/api/whoami").await;
    world.browser().navigate("/").await;
    world.clock.advance(OVER);
    browser.fetch("/api/whoami").await;
    world.clock.advance(OVER);
    token_fault(&world, Fault::retry_after(429, 1).times(1));
    browser.fetch("/api/whoami").await;
    world.clock.advance(secs(2));
    token_fault(&world, Fault::status(500).times(1));
    browser.fetch("/api/whoami").await;
    world.clock.advance(secs(2));
    world.demo.provider.forget_tokens();
    browser.fetch("/api/whoami").await;
    let refreshes =
        |result: &str| format!(r#"token_refreshes_total{{mode="inline",provider="demo",result="{result}"}}"#);
    assert_counts(
        &world,
        &[
            (r#"unauthenticated_total{answer="401"}"#, 2.0),
            (r#"unauthenticated_total{answer="redirect"}"#, 2.0),
            (r#"unauthenticated_total{answer="503"}"#, 2.0),
            (&refreshes("ok"), 1.0),
            (&refreshes("throttled"), 1.0),
            (&refreshes("error"), 1.0),
            (&refreshes("invalid_grant"), 1.0),
            // One intent each; tokens stored once, intents taken back twice, and one session ended.
            (r#"store_operations_total{op="replace",result="ok"}"#, 7.0),
            (r#"logouts_total{kind="refresh_rejected",provider="demo"}"#, 1.0),
        ],
    )
    .await;

    let mut second = world.logged_in().await;
    log_out(&mut second).await;
    assert_counts(&world, &[(r#"logouts_total{kind="user",provider="demo"}"#, 1.0)]).await;
    at_rest(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_counted() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(CACHE_TTL);
    redis.freeze();
    assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
    redis.thaw();
    assert_counts(
        &world,
        &[
            (r#"store_operations_total{op="load",result="unavailable"}"#, 1.0),
            (r#"session_lookups_total{result="error",source="store"}"#, 1.0),
            (r#"unauthenticated_total{answer="503"}"#, 1.0),
        ],
    )
    .await;
}
