//! `/auth/events`: what happens to a session, told to its pages as it happens (behaviour S9, O8, D1).

use std::time::{Duration, Instant};

use cloakroom::demo::ProviderConfig;
use reqwest::header::COOKIE;
use reqwest::{Client, Method, StatusCode};

use crate::harness::{Browser, PATIENCE, Proxy, SESSION, Wishes, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::wire::{Wire, h2c_client};

const MINUTE: Duration = Duration::from_secs(60);
const OPEN: &str = "cloakroom_event_streams_open";

/// The usual world on a manual clock, with refresh tokens that outlive every session.
fn by_hand() -> Wishes {
    let provider = ProviderConfig { refresh_token_lifetime: 1000 * MINUTE, ..ProviderConfig::default() };
    Wishes { provider, ..ticking() }
}

/// An `EventSource`.
struct Listener {
    response: reqwest::Response,
    text: String,
}

async fn ask(client: &Client, browser: &Browser, fields: &[(&str, &str)]) -> reqwest::Response {
    let mut request = client.get(format!("{}/auth/events", browser.origin()));
    request = request.header("accept", "text/event-stream");
    if let Some(session) = browser.cookie(SESSION) {
        request = request.header(COOKIE, format!("{SESSION}={session}"));
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

impl Listener {
    async fn on(client: &Client, browser: &Browser) -> Self {
        let response = ask(client, browser, &[("sec-fetch-site", "same-origin")]).await;
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        let mut listener = Self { response, text: String::new() };
        assert_eq!(listener.block().await.as_deref(), Some("retry: 3000"));
        listener
    }

    async fn of(browser: &Browser) -> Self {
        Self::on(&browser.client, browser).await
    }

    /// The next block of lines; `None` at an orderly end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let piece = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("a piece in time");
            match piece.expect("no broken stream") {
                Some(piece) => self.text.push_str(std::str::from_utf8(&piece).expect("text")),
                None => {
                    assert_eq!(self.text, "");
                    return None;
                }
            }
        }
    }

    /// The next event, signs of life left out.
    async fn event(&mut self) -> Option<(String, serde_json::Value)> {
        loop {
            let block = self.block().await?;
            if block == ":" {
                continue;
            }
            let (name, data) = block.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name").to_owned();
            let data = data.strip_prefix("data: ").expect("data");
            return Some((name, serde_json::from_str(data).expect("JSON")));
        }
    }

    async fn expect(&mut self, name: &str, data: serde_json::Value) {
        assert_eq!(self.event().await, Some((name.to_owned(), data)));
    }

    async fn expect_end(&mut self, reason: &str) {
        self.expect("logged_out", serde_json::json!({ "reason": reason })).await;
        assert_eq!(self.block().await, None, "nothing follows");
    }
}

async fn eventually_open(proxy: &Proxy, streams: u32) {
    eventually("the streams are counted right", || async {
        proxy.admin_page("/metrics").await.1.lines().any(|line| line == format!("{OPEN} {streams}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_hears_everything_in_order_over_both_protocols() {
    let world = world(by_hand()).await;
    for client in [Client::new(), h2c_client()] {
        let mut browser = world.logged_in().await;
        let start = world.clock.now().as_secs();
        let mut listener = Listener::on(&client, &browser).await;
        let headers = listener.response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(!headers.contains_key("content-length"));

        world.clock.advance(secs(15));
        assert_eq!(listener.block().await.as_deref(), Some(":"), "a sign of life");
        world.clock.advance(secs(40));
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        listener.expect("refreshed", serde_json::json!({ "token_expires_at": start + 55 + 60 })).await;
        world.clock.advance(28 * MINUTE);
        let end = start + 55 + 30 * 60;
        listener.expect("expiring", serde_json::json!({ "limit": "idle", "at": end, "seconds": 120 })).await;
        // Used again, so the end has moved.
        world.clock.advance(MINUTE);
        assert_eq!(browser.fetch("/bare/x").await.status, StatusCode::OK);
        world.clock.advance(28 * MINUTE);
        let end = start + 55 + 59 * 60;
        listener.expect("expiring", serde_json::json!({ "limit": "idle", "at": end, "seconds": 120 })).await;
        world.clock.advance(2 * MINUTE);
        listener.expect_end("idle").await;
        assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
        eventually_open(&world.proxy, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o8_a_logout_ends_every_stream_of_the_session_at_once_and_no_other() {
    let world = world(by_hand()).await;
    let (mut browser, stranger) = (world.logged_in().await, world.logged_in().await);
    let mut listeners = Vec::new();
    for client in [Client::new(), h2c_client()] {
        listeners.push(Listener::on(&client, &browser).await);
    }
    let mut other = Listener::of(&stranger).await;
    assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
    let since = Instant::now();
    for listener in &mut listeners {
        listener.expect_end("ended").await;
    }
    assert!(since.elapsed() < PATIENCE);
    eventually_open(&world.proxy, 1).await;
    assert_eq!(world.metric("cloakroom_streams_ended_total{kind=\"events\"}").await, 2.0);
    world.clock.advance(secs(15));
    assert_eq!(other.block().await.as_deref(), Some(":"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_listening_is_no_use_and_starts_no_login() {
    let world = world(by_hand()).await;
    let mut browser = world.logged_in().await;
    let before = browser.fetch("/auth/session").await.json()["idle_expires_at"].clone();
    world.clock.advance(10 * MINUTE);
    let mut listener = Listener::of(&browser).await;
    world.clock.advance(10 * MINUTE);
    assert_eq!(listener.block().await.as_deref(), Some(":"));
    assert_eq!(browser.fetch("/auth/session").await.json()["idle_expires_at"], before);

    let stranger = world.browser();
    for fields in [
        &[][..],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
    ] {
        let answer = ask(&stranger.client, &stranger, fields).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{fields:?}");
        assert_eq!(answer.headers()["cloakroom-error"], "session_missing");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(answer.text().await.expect("a body").contains("\"login_url\":\"/auth/login\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_and_other_methods_are_refused() {
    let world = world(by_hand()).await;
    let mut browser = world.logged_in().await;
    for fields in [
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("origin", "https://evil.example.com")],
        [("origin", "null")],
    ] {
        let answer = ask(&browser.client, &browser, &fields).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{fields:?}");
        assert_eq!(answer.headers()["cloakroom-error"], "csrf_failed");
    }
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
        let answer = browser.write(method.clone(), "/auth/events", "").await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"), "{method}");
    }
    eventually_open(&world.proxy, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_a_page_that_goes_frees_its_own_at_once() {
    let world = world(by_hand()).await;
    let (browser, other) = (world.logged_in().await, world.logged_in().await);
    for client in [Client::new(), h2c_client()] {
        let mut listeners = Vec::new();
        for _ in 0..16 {
            listeners.push(Listener::on(&client, &browser).await);
        }
        let refused = ask(&client, &browser, &[]).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["cloakroom-error"], "too_many_streams");
        assert_eq!(refused.headers()["retry-after"], "10");
        let others = Listener::of(&other).await;
        eventually_open(&world.proxy, 17).await;
        drop((listeners, others));
        eventually_open(&world.proxy, 0).await;
        Listener::on(&client, &browser).await;
    }
    eventually_open(&world.proxy, 0).await;
    at_rest(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_serves_on_after_the_stream_and_a_client_that_talks_is_left() {
    let world = world(by_hand()).await;
    let mut browser = world.logged_in().await;
    let (home, session) = (browser.home, ticket(&browser));
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={session}\r\n\r\n");
    let mut wire = Wire::connect(home).await;
    wire.send(request("/auth/events")).await;
    let mut talker = Wire::connect(home).await;
    talker.send(request("/auth/events")).await;
    eventually_open(&world.proxy, 2).await;
    talker.send(request("/auth/session")).await;
    talker.rest_or_reset().await;
    eventually_open(&world.proxy, 1).await;
    log_out(&mut browser).await;
    let whole = wire.answer().await.expect("an answer");
    assert_eq!(whole.body, "retry: 3000\n\nevent: logged_out\ndata: {\"reason\":\"ended\"}\n\n");
    let after = wire.exchange(request("/auth/session")).await;
    assert_eq!(after.json()["authenticated"], false);

    let mut old = Wire::connect(home).await;
    let browser = world.logged_in().await;
    let session = ticket(&browser);
    old.send(format!("GET /auth/events HTTP/1.0\r\nHost: {home}\r\nCookie: {SESSION}={session}\r\n\r\n")).await;
    eventually_open(&world.proxy, 1).await;
    log_out(&mut holder(&browser)).await;
    assert!(old.answer().await.expect("an answer").body.ends_with("{\"reason\":\"ended\"}\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_silent_store_ends_no_stream() {
    let redis = RedisServer::start();
    let mut wishes = by_hand();
    wishes.store = store_at(&redis);
    let world = world(wishes).await;
    let browser = world.logged_in().await;
    let mut listener = Listener::of(&browser).await;
    // So that the first look at the store is over.
    world.clock.advance(secs(15));
    assert_eq!(listener.block().await.as_deref(), Some(":"));
    redis.freeze();
    for _ in 0..2 {
        world.clock.advance(31 * MINUTE);
        assert_eq!(listener.block().await.as_deref(), Some(":"), "its time is over, but who knows");
    }
    redis.thaw();
    let until = Instant::now() + PATIENCE;
    let last = loop {
        world.clock.advance(secs(15));
        match listener.block().await.as_deref() {
            Some(":") => assert!(Instant::now() < until, "the store is not found again"),
            other => break other.map(str::to_owned),
        }
    };
    assert_eq!(last.as_deref(), Some("event: logged_out\ndata: {\"reason\":\"idle\"}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_sends_its_pages_elsewhere() {
    let world = world(by_hand()).await;
    let browser = world.logged_in().await;
    let mut listeners = Vec::new();
    for client in [Client::new(), h2c_client()] {
        listeners.push(Listener::on(&client, &browser).await);
    }
    world.proxy.drain();
    for mut listener in listeners {
        let last = listener.block().await.expect("a last word");
        let millis: u64 = last.strip_prefix("retry: ").expect("a time").parse().expect("a number");
        assert!((1_000..5_000).contains(&millis), "{millis}");
        assert_eq!(listener.block().await, None);
    }
}
