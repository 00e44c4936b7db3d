//! Levels: anonymous, returning, logged on. Who returns passes where a route lets him, without a token.

use std::time::Duration;

use cloakroom::demo::Fault;
use cloakroom::demo::provider::Endpoint;
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Seen, Wishes, World, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::wire::{Peer, Wire, read_head};

const MINUTE: Duration = secs(60);

const ROUTES: &str = r#"
      - { path: /shop/, upstream: demo, level: returning, level_header: X-User-Level, identity_headers: { X-User-Id: sub } }
      - { path: /cart/, upstream: demo, level: returning, allow: [{ claim: realm_access.roles, any_of: [admin] }] }
      - { path: /maybe/, upstream: demo, access: optional, level_header: X-User-Level, identity_headers: { X-User-Id: sub } }
      - { path: /maybe-known/, upstream: demo, access: optional, level: returning, level_header: X-User-Level }
      - { path: /, upstream: demo }
"#;

async fn world_with(tokens: &str, wishes: Wishes) -> World {
    let session = format!("  returning_timeout: 7d\n  returning_tokens: {tokens}");
    world(Wishes { session, routes: ROUTES.into(), provider: lasting_tokens(), ..wishes }).await
}

/// What the upstream heard of the user: level, name, and whether there was a token.
fn heard(world: &World) -> (String, bool, bool) {
    let last = world.demo.upstream.recorder().last().expect("a request");
    (
        last.header("x-user-level").unwrap_or_default().to_owned(),
        last.header("x-user-id").is_some(),
        last.bearer().is_some(),
    )
}

fn level(level: &str, named: bool, token: bool) -> (String, bool, bool) {
    (level.to_owned(), named, token)
}

async fn passes(browser: &mut Browser, target: &str) -> Seen {
    let answer = browser.fetch(target).await;
    assert_eq!(answer.status, StatusCode::OK, "{target} {answer:?}");
    answer
}

async fn is_refused(browser: &mut Browser, target: &str, code: &str) {
    let answer = browser.fetch(target).await;
    assert_eq!((answer.status.is_client_error(), answer.code()), (true, code), "{target} {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_passes_where_that_is_enough_and_without_a_token() {
    let redis = RedisServer::start();
    for (tokens, wishes) in [("drop", ticking()), ("keep", ticking()), ("drop", ticking_on(&redis))] {
        let world = world_with(tokens, wishes).await;
        let mut browser = world.logged_in().await;
        passes(&mut browser, "/shop/x").await;
        assert_eq!(heard(&world), level("logged_on", true, true));

        world.clock.advance(31 * MINUTE);
        let before = ticket(&browser);
        for _ in 0..3 {
            passes(&mut browser, "/shop/x").await;
            assert_eq!(heard(&world), level("returning", true, false));
        }
        passes(&mut browser, "/cart/x").await;
        assert!(!heard(&world).2, "rules hold for who returns too, and bring no token");
        passes(&mut browser, "/maybe-known/x").await;
        assert_eq!(heard(&world), level("returning", false, false));
        passes(&mut browser, "/maybe/x").await;
        assert_eq!(heard(&world), level("", false, false), "elsewhere the user is a stranger");
        is_refused(&mut browser, "/api/x", "session_expired").await;
        assert_eq!(browser.fetch("/auth/session").await.json()["level"], "returning");
        is_refused(&mut browser, "/auth/userinfo", "session_expired").await;
        assert_eq!(token_calls(&world), 1, "nothing is refreshed for who is not logged on");

        // A use of the returning user makes nobody logged on.
        world.clock.advance(31 * MINUTE);
        passes(&mut browser, "/shop/x").await;
        assert_eq!((heard(&world), ticket(&browser)), (level("returning", true, false), before.clone()));

        // Up again only by a login, under a new id.
        let answer = browser.navigate("/api/x").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        browser.log_in("/api/x").await;
        assert_ne!(ticket(&browser), before);
        passes(&mut browser, "/shop/x").await;
        assert_eq!(heard(&world), level("logged_on", true, true));
        let mut thief = world.browser();
        thief.set_cookie(SESSION, &before);
        is_refused(&mut thief, "/shop/x", "session_expired").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_is_dead_passes_where_it_is_enough_to_return() {
    let session = "  returning_timeout: 7d".into();
    let world = world(Wishes { session, routes: ROUTES.into(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    token_fault(&world, Fault::status(503));
    world.clock.advance(NEARLY_OVER);
    passes(&mut browser, "/shop/x").await;
    assert_eq!(heard(&world), level("logged_on", true, true), "it still lives");
    world.clock.advance(REST);
    for target in ["/shop/x", "/cart/x", "/maybe-known/x"] {
        passes(&mut browser, target).await;
        assert!(!heard(&world).2, "{target}: a dead token goes nowhere");
    }
    passes(&mut browser, "/shop/x").await;
    assert_eq!(heard(&world), level("returning", true, false));
    assert_not_now(&browser.fetch("/api/x").await, "provider_unavailable");
    // It is no end of the session.
    heal(&world);
    world.clock.advance(secs(2));
    passes(&mut browser, "/shop/x").await;
    assert_eq!(heard(&world), level("logged_on", true, true));

    // One that can never be renewed.
    token_fault(&world, Fault::cut_json());
    world.clock.advance(OVER);
    passes(&mut browser, "/shop/x").await;
    assert_eq!(heard(&world), level("returning", true, false));
    is_refused(&mut browser, "/api/x", "session_expired").await;

    // Whom the provider refuses is nobody's guest any more, nor is who has logged out.
    heal(&world);
    let mut other = world.logged_in().await;
    world.demo.provider.forget_tokens();
    world.clock.advance(OVER);
    is_refused(&mut other, "/shop/x", "refresh_rejected").await;
    is_refused(&mut other, "/shop/x", "session_expired").await;
    log_out(&mut browser).await;
    is_refused(&mut holder(&browser), "/shop/x", "session_missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_is_guarded_like_anybody_and_forgotten_in_time() {
    let world = world_with("drop", ticking()).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(31 * MINUTE);
    passes(&mut browser, "/shop/x").await;
    let forged = browser.draft(Method::POST, "/shop/x");
    assert_eq!(browser.send(forged).await.code(), "csrf_failed");
    assert_eq!(browser.write(Method::POST, "/shop/x", "{}").await.status, StatusCode::OK);
    let mut bob = {
        world.demo.provider.switches().auto_login("bob");
        world.logged_in().await
    };
    world.clock.advance(31 * MINUTE);
    is_refused(&mut bob, "/cart/x", "rule_failed").await;
    // The roles are those of the login: nothing asks the provider any more.
    world.clock.advance(7 * 24 * 60 * MINUTE);
    is_refused(&mut browser, "/shop/x", "session_expired").await;
    is_refused(&mut bob, "/shop/x", "session_expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_what_is_known_of_who_returns() {
    let world = world_with("drop", ticking()).await;
    let mut browser = world.logged_in().await;
    let mut twin = holder(&browser);
    world.clock.advance(31 * MINUTE);
    passes(&mut twin, "/shop/x").await;
    log_out(&mut browser).await;
    is_refused(&mut twin, "/shop/x", "session_expired").await;
    assert_eq!(twin.fetch("/auth/session").await.json()["level"], "anonymous");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_who_is_no_longer_logged_on_are_dropped_and_revoked() {
    let redis = RedisServer::start();
    for (tokens, wishes, dropped) in
        [("drop", ticking(), true), ("drop", ticking_on(&redis), true), ("keep", ticking(), false)]
    {
        let world = world_with(tokens, wishes).await;
        let mut browser = world.logged_in().await;
        passes(&mut browser, "/shop/x").await;
        let revoked = || world.demo.provider.ledger().count(Endpoint::Revoke);
        world.clock.advance(30 * MINUTE + secs(1));
        passes(&mut browser, "/shop/x").await;
        assert_eq!(revoked(), 0, "a use on another replica may still be on its way");
        world.clock.advance(MINUTE);
        passes(&mut browser, "/shop/x").await;
        if dropped {
            eventually("the refresh token is revoked", || async { revoked() == 1 }).await;
        }
        for _ in 0..3 {
            world.clock.advance(CACHE_TTL);
            passes(&mut browser, "/shop/x").await;
            assert_eq!(heard(&world), level("returning", true, false));
        }
        assert_eq!(revoked(), usize::from(dropped), "once");
        log_out(&mut browser).await;
        eventually("what was kept is revoked at the logout", || async { revoked() == 1 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o8_a_tunnel_of_who_returns_lasts_until_the_logout() {
    let peer = Peer::start(|_, mut stream| async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        read_head(&mut stream).await;
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let _ = stream.write_all(switch).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let world = world(Wishes {
        session: "  returning_timeout: 7d".into(),
        upstreams: format!("  - {{ name: peer, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /ws/, upstream: peer, level: returning }\n      - { path: /, upstream: demo }".into(),
        provider: lasting_tokens(),
        ..ticking()
    })
    .await;
    let mut browser = world.logged_in().await;
    world.clock.advance(31 * MINUTE);
    let mut wire = Wire::connect(browser.home).await;
    wire.send(format!(
        "GET /ws/x HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {}\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.home,
        browser.origin(),
        ticket(&browser)
    ))
    .await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(world.metric("cloakroom_streams_ended_total{kind=\"tunnel\"}").await, 0.0);
    log_out(&mut browser).await;
    eventually("the tunnel is told to end", || async {
        world.metric("cloakroom_streams_ended_total{kind=\"tunnel\"}").await == 1.0
    })
    .await;
}
