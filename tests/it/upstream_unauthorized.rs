//! B5: an upstream that refuses a token of ours gets the request once more with a newer one, if there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom::demo::Fault;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{SESSION, Wishes, World};
use crate::kit::*;
use crate::wire::{Peer, Wire, h2c_client, read_head};

/// From then on a session's token may be replaced before its time again.
const FORCE_EVERY: Duration = secs(300);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Tokens that last, under a clock of ours.
fn lasting() -> Wishes {
    Wishes { provider: lasting_tokens(), ..ticking() }
}

/// A world whose routes all go to `peer` and send a token.
async fn world_over(peer: &Peer, more: &str) -> World {
    world(Wishes {
        upstreams: format!("  - {{ name: odd, endpoints: [\"{}\"] }}", peer.address),
        routes: format!(
            "      - {{ path: /odd/, upstream: odd, csrf: false{more} }}\n      - {{ path: /, upstream: demo }}"
        ),
        ..lasting()
    })
    .await
}

/// The upstream refuses the present token of the session from now on.
fn refuse_present(world: &World) {
    world.demo.upstream.refuse_token(&newest(world).access_token);
}

async fn counted(world: &World, result: &str) -> f64 {
    world.metric(&format!("cloakroom_upstream_unauthorized_retries_total{{result=\"{result}\"")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_every_token_costs_one_refresh_in_five_minutes() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    world.demo.upstream.refuse_next(usize::MAX);
    for round in 1..=3 {
        recorder.clear();
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!((answer.status, answer.code(), recorder.count()), (StatusCode::UNAUTHORIZED, "", 2), "{answer:?}");
        assert!(answer.header("www-authenticate").contains("invalid_token"));
        let statuses = volley(&browser, "/api/whoami", 50).await;
        assert!(statuses.iter().all(|status| *status == StatusCode::UNAUTHORIZED));
        world.clock.advance(secs(299));
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!((token_calls(&world), recorder.count()), (1 + round, 53), "no request but the first is sent twice");
        // And the half minute for which that last one's result is believed.
        world.clock.advance(secs(31));
    }
    assert_eq!(counted(&world, "refused_again").await, 3.0);
    assert_shown_once(&world);
    // The session is as it was.
    assert_eq!(browser.fetch("/bare/x").await.status, StatusCode::OK);
    assert_eq!(browser.fetch("/auth/session").await.json()["authenticated"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_many_requests_with_a_refused_token_are_one_refresh() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    let gate = hold_tokens(&world, false);
    let (statuses, ()) = tokio::join!(volley(&browser, "/api/whoami", 50), async {
        gate.arrived(1).await;
        world.demo.upstream.recorder().reached(51).await;
        gate.open();
    });
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!((token_calls(&world), world.demo.upstream.recorder().count()), (2, 101));
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_newer_token_that_is_there_already_is_used_and_no_provider_is_asked() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    let gate = cloakroom::demo::Gate::closed();
    world.demo.upstream.faults().add(Fault::hold(&gate).times(1));
    let late = fetch_soon(&browser, "/api/late");
    gate.arrived(1).await;
    refuse_present(&world);
    // This one is refused and refreshes; the late one finds what it got.
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(token_calls(&world), 2);
    gate.open();
    assert_eq!(late.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(token_calls(&world), 2);
    assert_eq!(relayed(&world), newest(&world).access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_what_asks_for_more_than_a_better_token_passes_on() {
    for (challenge, asked) in [
        ("WWW-Authenticate: Bearer error=\"insufficient_user_authentication\"\r\n", 1),
        ("WWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n", 1),
        ("WWW-Authenticate: Basic realm=\"x\"\r\n", 1),
        ("WWW-Authenticate: Bearer realm=\"x\"\r\n", 2),
        ("", 2),
    ] {
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{challenge}X-Mine: 1\r\nContent-Length: 4\r\n\r\nmine");
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let peer = Peer::start(move |_, mut stream| {
            let (answer, counter) = (answer.clone(), counter.clone());
            async move {
                while !read_head(&mut stream).await.is_empty() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        let world = world_over(&peer, "").await;
        let mut browser = world.logged_in().await;
        let seen = browser.fetch("/odd/x").await;
        assert_eq!((seen.status, seen.body.as_str(), seen.header("x-mine")), (StatusCode::UNAUTHORIZED, "mine", "1"));
        assert_eq!(count.load(Ordering::SeqCst), asked, "{challenge}");
        assert_eq!(token_calls(&world), asked, "{challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_without_a_newer_token_the_upstreams_401_stands_and_the_session_is_kept() {
    for (what, fault) in [
        ("down", Fault::status(503)),
        ("busy", Fault::retry_after(429, 5)),
        ("lost", Fault::cut_json()),
        ("gone", Fault::reset().after_work()),
    ] {
        let world = world(lasting()).await;
        let mut browser = world.logged_in().await;
        browser.fetch("/api/whoami").await;
        refuse_present(&world);
        token_fault(&world, fault);
        for _ in 0..5 {
            let answer = browser.fetch("/api/whoami").await;
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, ""), "{what}: {answer:?}");
            assert!(answer.header("www-authenticate").contains("invalid_token") && answer.set_cookies().is_empty());
        }
        assert_eq!(token_calls(&world), 2, "{what}: the provider is asked once, not for every request");
        assert_eq!(browser.fetch("/bare/x").await.status, StatusCode::OK, "{what}");
        assert_shown_once(&world);
        if what == "down" {
            heal(&world);
            world.clock.advance(secs(61));
            assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_session_that_the_provider_has_ended_is_told_as_such() {
    let world = world(lasting()).await;
    let refuse = || world.demo.provider.switches().set(|switch| switch.refuse_refresh = Some("invalid_grant".into()));
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    refuse();
    let script = browser.fetch("/api/whoami").await;
    assert_eq!((script.status, script.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"), "{script:?}");
    assert_eq!(script.json()["login_url"], "/auth/login");
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");

    heal(&world);
    browser.log_in("/").await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    refuse();
    let page = browser.navigate("/api/page?a=b&c=%2F").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
    assert_eq!(page.location(), "/auth/login?return_to=%2Fapi%2Fpage%3Fa%3Db%26c%3D%252F");
    heal(&world);
    let page = browser.log_in(page.location()).await;
    assert!(page.body.contains("/api/page?a=b"), "{page:?}");

    // Where a session is not needed the upstream has the last word.
    refuse_present(&world);
    refuse();
    let answer = browser.fetch("/maybe/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, ""), "{answer:?}");
    assert_eq!(browser.fetch("/maybe/x").await.status, StatusCode::OK, "a guest by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_only_where_the_route_wants_it_and_a_token_of_ours_was_sent() {
    let world = world(Wishes {
        routes: r#"
      - { path: /off/, upstream: demo, retry_unauthorized: false }
      - { path: /bare/, upstream: demo, token: { kind: none } }
      - { path: /open/, upstream: demo, access: public }
      - { path: /id/, upstream: demo, token: { kind: id } }
      - { path: /, upstream: demo }
"#
        .into(),
        ..lasting()
    })
    .await;
    let mut browser = world.logged_in().await;
    world.demo.upstream.faults().add(Fault::status(401));
    for path in ["/off/x", "/bare/x", "/open/x"] {
        assert_eq!(browser.fetch(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(token_calls(&world), 1);
    world.demo.upstream.faults().clear();
    world.demo.upstream.refuse_next(1);
    assert_eq!(browser.fetch("/id/x").await.status, StatusCode::OK);
    assert_eq!(token_calls(&world), 2);
    // A provider that sends no new ID token has nothing newer for this route.
    world.demo.provider.switches().set(|switch| switch.no_id_token_on_refresh = true);
    world.clock.advance(FORCE_EVERY);
    world.demo.upstream.refuse_next(1);
    world.demo.upstream.recorder().clear();
    let answer = browser.fetch("/id/x").await;
    assert_eq!((answer.status, world.demo.upstream.recorder().count()), (StatusCode::UNAUTHORIZED, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_before_it_has_read_the_body() {
    const SIZE: usize = 30_000;
    // The first connection is refused at once; who asks for leave to send gets it from the second.
    let peer = Peer::start(|number, mut stream| async move {
        let head = read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
            return;
        }
        let mut got = head.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if head.to_ascii_lowercase().contains("expect: 100-continue") {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let mut piece = [0; 16 * 1024];
        while got < SIZE {
            got += stream.read(&mut piece).await.expect("the body").max(1);
        }
        let _ = stream.write_all(OK).await;
    })
    .await;
    let world = world_over(&peer, "").await;
    let browser = world.logged_in().await;
    let mut wire = Wire::connect(browser.home).await;
    let (home, ticket) = (browser.home, ticket(&browser));
    wire.send(format!(
        "POST /odd/x HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={ticket}\r\nExpect: 100-continue\r\nContent-Length: {SIZE}\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::CONTINUE);
    wire.send(vec![b'x'; SIZE]).await;
    let answer = wire.any_answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "ok"));
    assert_eq!(token_calls(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_tunnel_whose_token_is_refused_is_asked_for_again() {
    let peer = Peer::start(|number, mut stream| async move {
        read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
            return;
        }
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi";
        let _ = stream.write_all(switch).await;
        let mut piece = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            let _ = stream.write_all(&piece[..count]).await;
        }
    })
    .await;
    let world = world_over(&peer, "").await;
    let browser = world.logged_in().await;
    let mut wire = Wire::connect(browser.home).await;
    wire.send(format!(
        "GET /odd/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {}\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.home,
        browser.origin(),
        ticket(&browser)
    ))
    .await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(wire.take(2).await, b"hi");
    wire.send("\u{1}echo").await;
    assert_eq!(wire.take(5).await, b"\x01echo");
    assert_eq!(token_calls(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_client_that_goes_away_meanwhile_spoils_nothing() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    let gate = hold_tokens(&world, false);
    let mut wire = Wire::connect(browser.home).await;
    let line =
        format!("GET /api/gone HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={}\r\n\r\n", browser.home, ticket(&browser));
    wire.send(line).await;
    gate.arrived(1).await;
    drop(wire);
    gate.open();
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!((relayed(&world), token_calls(&world)), (newest(&world).access_token, 2));
    at_rest(&world).await;
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_grpc_call_that_is_refused_at_once_counts_as_a_401() {
    let peer = Peer::start(|number, mut stream| async move {
        read_head(&mut stream).await;
        let refusal =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web\r\nGrpc-Status: 16\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(if number == 0 { refusal } else { OK }).await;
    })
    .await;
    let world = world_over(&peer, "").await;
    let mut browser = world.logged_in().await;
    browser.client = h2c_client();
    let draft = browser.draft(Method::POST, "/odd/Service/Method").header("content-type", "application/grpc-web");
    let answer = browser.send(draft.body("\0\0\0\0\0")).await;
    assert_eq!((answer.status, answer.body.as_str(), token_calls(&world)), (StatusCode::OK, "ok", 2), "{answer:?}");
}
