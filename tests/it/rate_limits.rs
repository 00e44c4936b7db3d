//! Routes that may be asked only so often, by client address and by session.

use std::time::Duration;

use http::header::HeaderName;
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Seen, Wishes, World};
use crate::kit::*;
use crate::wire::{Wire, h2c_client};

const TOO_MANY: (StatusCode, &str) = (StatusCode::TOO_MANY_REQUESTS, "too_many_requests");
const ROUTES: &str = r#"
      - { path: /open/, upstream: demo, access: public, rate_limits: [{ by: address, requests: 3, per: 1m }] }
      - { path: /api/, upstream: demo, csrf: false, rate_limits: [{ by: address, requests: 5, per: 1m }, { by: session, requests: 3, per: 10s }] }
      - { path: /maybe/, upstream: demo, access: optional, rate_limits: [{ by: session, requests: 2, per: 10s }] }
      - { path: /fixed, access: public, respond: { body: x }, rate_limits: [{ by: address, requests: 2, per: 1s }] }
      - path: /shared/
        upstream: demo
        access: public
        cors: { origins: ["https://partner.example"] }
        rate_limits: [{ by: address, requests: 2, per: 1m }]
      - { path: /, upstream: demo }
"#;

/// A load balancer that tells whose request it is, and a clock of ours.
async fn limited() -> World {
    world(Wishes { routes: ROUTES.into(), more: "trusted_proxies: [127.0.0.0/8]".into(), ..ticking() }).await
}

fn outcome(answer: &Seen) -> (StatusCode, &str) {
    (answer.status, answer.code())
}

fn wait(answer: &Seen) -> Duration {
    secs(answer.header("retry-after").parse().expect("whole seconds"))
}

async fn from(browser: &mut Browser, address: &str, path: &str) -> Seen {
    let draft = browser.draft(Method::GET, path).header("x-forwarded-for", address);
    browser.send(draft.header("sec-fetch-mode", "cors").header("sec-fetch-site", "same-origin")).await
}

/// How many of so many requests pass; the others are refused for their number.
async fn passes(browser: &mut Browser, address: &str, path: &str, count: usize) -> usize {
    let mut passed = 0;
    for _ in 0..count {
        let answer = from(browser, address, path).await;
        if answer.status == StatusCode::OK {
            passed += 1;
        } else {
            assert_eq!(outcome(&answer), TOO_MANY, "{answer:?}");
        }
    }
    passed
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_has_its_limit_and_passes_again_when_it_was_told() {
    let world = limited().await;
    let (mut browser, recorder) = (world.browser(), world.demo.upstream.recorder());
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 10).await, 3);
    assert_eq!(recorder.count(), 3, "what is refused goes nowhere");
    let refused = from(&mut browser, "192.0.2.1", "/open/x").await;
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("cache-control"), "no-store");
    assert!(secs(60) <= wait(&refused) && wait(&refused) <= secs(68), "{refused:?}");
    // Another address, another route, and one /64 as one.
    assert_eq!(passes(&mut browser, "192.0.2.2", "/open/x", 4).await, 3);
    assert_eq!(passes(&mut browser, "192.0.2.1", "/fixed", 4).await, 2);
    assert_eq!(passes(&mut browser, "2001:db8::1", "/open/x", 2).await, 2);
    assert_eq!(passes(&mut browser, "2001:db8::ffff:2", "/open/x", 2).await, 1);
    assert_eq!(passes(&mut browser, "2001:db8:0:1::1", "/open/x", 2).await, 2);
    // A client that claims to be another one behind the first stranger is who it is.
    assert_eq!(passes(&mut browser, "203.0.113.9, 192.0.2.1", "/open/x", 1).await, 0);

    world.clock.advance(secs(59));
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 2).await, 0, "before its time");
    world.clock.advance(wait(&refused) - secs(59));
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 5).await, 3);

    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"rate_address\"}").await, 17.0);
    let refusals = "cloakroom_http_requests_total{code=\"429\",method=\"GET\",route=\"/open\"";
    assert_eq!(world.metric(refusals).await, 15.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_a_script_and_a_grpc_call_are_told_in_their_language() {
    let world = limited().await;
    let mut browser = world.browser();
    for _ in 0..5 {
        // Nobody is logged in: each of these would be sent to log in, and counts.
        let answer = browser.navigate("/api/x").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    }
    let page = browser.navigate("/api/x").await;
    assert_eq!(outcome(&page), TOO_MANY, "no login for one request too many: {page:?}");
    assert!(page.header("content-type").starts_with("text/html") && page.set_cookies().is_empty(), "{page:?}");
    assert!(page.body.contains("Too many requests in a short time") && wait(&page) >= secs(60), "{page:?}");
    let script = browser.fetch("/api/x").await;
    assert_eq!(outcome(&script), TOO_MANY);
    assert_eq!(
        (script.json()["code"].as_str(), script.json()["status"].as_u64()),
        (Some("too_many_requests"), Some(429))
    );
    assert_eq!(script.json()["login_url"].as_str(), None);
    browser.client = h2c_client();
    let call = browser.draft(Method::POST, "/api/x").header("content-type", "application/grpc");
    let call = browser.send(call.header("te", "trailers")).await;
    assert_eq!((call.status, call.header("grpc-status")), (StatusCode::OK, "8"), "{call:?}");
    assert_eq!((call.code(), call.body.as_str()), ("too_many_requests", ""));
    assert!(wait(&call) >= secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_has_its_limit_whatever_its_address_and_ticket() {
    let world = limited().await;
    let (mut alice, mut other) = (world.browser(), world.browser());
    alice.log_in("/").await;
    other.log_in("/").await;
    let recorder = world.demo.upstream.recorder();
    recorder.clear();
    for n in 0..3 {
        assert_eq!(from(&mut alice, &format!("192.0.2.{n}"), "/api/x").await.status, StatusCode::OK);
    }
    let refused = from(&mut alice, "192.0.2.9", "/api/x").await;
    assert_eq!(outcome(&refused), TOO_MANY);
    assert!(secs(10) <= wait(&refused) && wait(&refused) <= secs(12), "{refused:?}");
    assert_eq!(passes(&mut alice, "192.0.2.1", "/maybe/x", 4).await, 2, "each route counts for itself");
    assert_eq!(passes(&mut other, "198.51.100.1", "/api/x", 5).await, 3, "another session of the same user");
    assert_eq!(recorder.count(), 8);
    world.clock.advance(wait(&refused));
    assert_eq!(passes(&mut alice, "192.0.2.8", "/api/x", 5).await, 3);

    // A new ticket is the same session.
    world.clock.advance(secs(16 * 60));
    let before = ticket(&alice);
    assert_eq!(from(&mut alice, "192.0.2.20", "/api/x").await.status, StatusCode::OK);
    assert_ne!(ticket(&alice), before);
    assert_eq!(passes(&mut alice, "192.0.2.21", "/api/x", 4).await, 2);
    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"rate_session\"}").await, 9.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_session_is_not_counted_by_it() {
    let world = limited().await;
    let mut nobody = world.browser();
    assert_eq!(passes(&mut nobody, "192.0.2.1", "/maybe/x", 10).await, 10);
    let mut invented = world.browser();
    invented.set_cookie(SESSION, &"A".repeat(64));
    assert_eq!(passes(&mut invented, "192.0.2.1", "/maybe/x", 10).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_asks_the_store_for_nothing() {
    let world = limited().await;
    let lookups = "cloakroom_session_lookups_total{result=\"missing\",source=\"store\"}";
    let mut browser = world.browser();
    for round in 0..40_u8 {
        // Each time a session that nobody knows: a look into the store.
        browser.set_cookie(SESSION, &format!("{}{}", "A".repeat(63), char::from(b'A' + round % 26)));
        from(&mut browser, "192.0.2.1", "/api/x").await;
    }
    assert_eq!(world.metric(lookups).await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_counts_only_where_it_goes_upstream() {
    let world = limited().await;
    let mut browser = world.browser();
    let preflight = async |browser: &mut Browser, path: &str| {
        let draft = browser.draft(Method::OPTIONS, path).header("origin", "https://partner.example");
        browser.send(draft.header("access-control-request-method", "GET").header("x-forwarded-for", "192.0.2.1")).await
    };
    for _ in 0..5 {
        assert_eq!(preflight(&mut browser, "/shared/x").await.status, StatusCode::NO_CONTENT);
    }
    let asked = async |browser: &mut Browser| {
        let draft = browser.draft(Method::GET, "/shared/x").header("origin", "https://partner.example");
        browser.send(draft.header("x-forwarded-for", "192.0.2.1")).await
    };
    for _ in 0..2 {
        assert_eq!(asked(&mut browser).await.status, StatusCode::OK);
    }
    let refused = asked(&mut browser).await;
    assert_eq!(outcome(&refused), TOO_MANY);
    let origin = HeaderName::from_static("access-control-allow-origin");
    assert_eq!(refused.headers[origin], "https://partner.example", "the page may read why");
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(preflight(&mut browser, "/open/x").await.status, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_with_a_newer_token_is_one_request() {
    let world = limited().await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    recorder.clear();
    for _ in 0..3 {
        // The upstream refuses every token, so each of these goes there twice if there is a newer one.
        assert_eq!(from(&mut browser, "192.0.2.1", "/api/status/401").await.status, StatusCode::UNAUTHORIZED);
        world.clock.advance(Duration::from_millis(1));
    }
    assert!(recorder.count() > 3, "{}", recorder.count());
    assert_eq!(outcome(&from(&mut browser, "192.0.2.1", "/api/x").await), TOO_MANY);
    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"rate_session\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_handshake_counts_as_one() {
    let world = limited().await;
    let home = world.proxy.address;
    let handshake = format!(
        "GET /open/x HTTP/1.1\r\nHost: {home}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    );
    for expected in [false, false, false, true, true] {
        let answer = Wire::connect(home).await.exchange(&handshake).await;
        assert_eq!(outcome(&answer) == TOO_MANY, expected, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_forgets_nothing() {
    let world = limited().await;
    let mut browser = world.browser();
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 2).await, 2);
    let (old, new) = ("path: /fixed, access: public", "path: /other, access: public");
    world.proxy.reload(old, new).await.expect("applied");
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 5).await, 1, "another route has changed");
    let (old, new) = ("by: address, requests: 3, per: 1m", "by: address, requests: 5, per: 1m");
    world.proxy.reload(old, new).await.expect("applied");
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 5).await, 2, "the limit is higher by two");
    world.proxy.reload(old, "by: address, requests: 3, per: 2m").await.expect("applied");
    assert_eq!(passes(&mut browser, "192.0.2.1", "/open/x", 5).await, 3, "another time is counted anew");
}
