//! Time limits of a route: in place of its upstream's, and for the whole request.

use std::time::{Duration, Instant};

use http::Request;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Wishes, World, eventually};
use crate::kit::*;
use crate::wire::{H2, Peer, Wire, h2c_client, read_head};

/// What the tests allow a limit of some hundred milliseconds to take on a machine under load.
const AT_MOST: Duration = Duration::from_secs(8);

/// `/slow` answers after half a second, `/trickle` without end, all else never.
async fn upstream() -> Peer {
    Peer::start(|_, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.contains("/slow") {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
            } else if head.contains("/trickle") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                while stream.write_all(b"4\r\ndrop\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            } else {
                let _ = stream.read(&mut vec![0; 1024]).await;
                let _ = stream.read(&mut vec![0; 1024]).await;
                return;
            }
        }
    })
    .await
}

async fn world_over(peer: &Peer) -> World {
    world(Wishes {
        upstreams: format!(
            "  - {{ name: hasty, endpoints: [\"{0}\"], timeouts: {{ read: 100ms }} }}\n  - {{ name: calm, endpoints: [\"{0}\"] }}",
            peer.address
        ),
        routes: r#"
      - { path: /hasty/, upstream: hasty, access: public }
      - { path: /patient/, upstream: hasty, access: public, timeouts: { read: 20s } }
      - { path: /hurried/, upstream: calm, access: public, timeouts: { read: 100ms } }
      - { path: /limited/, upstream: calm, access: public, timeouts: { request: 300ms } }
      - { path: /member/, upstream: calm, csrf: false, timeouts: { request: 300ms } }
      - { path: /, upstream: demo }
"#
        .into(),
        ..Wishes::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routes_limits_stand_in_place_of_its_upstreams() {
    let peer = upstream().await;
    let world = world_over(&peer).await;
    let mut browser = world.browser();
    for (path, status) in [
        ("/hasty/slow", StatusCode::GATEWAY_TIMEOUT),
        ("/patient/slow", StatusCode::OK),
        ("/hurried/slow", StatusCode::GATEWAY_TIMEOUT),
    ] {
        for h2 in [false, true] {
            browser.client = if h2 { h2c_client() } else { reqwest::Client::new() };
            assert_eq!(browser.fetch(path).await.status, status, "{path} h2: {h2}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_no_answer_at_its_deadline_is_told_so() {
    let peer = upstream().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    for path in ["/limited/x", "/member/x"] {
        for h2 in [false, true] {
            browser.client = if h2 { h2c_client() } else { reqwest::Client::new() };
            let begun = Instant::now();
            let answer = browser.write(Method::POST, path, "body").await;
            assert_eq!((answer.status, answer.code()), (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"), "{path}");
            assert!((Duration::from_millis(300)..AT_MOST).contains(&begun.elapsed()));
        }
    }
    // A client that does not send what it has announced.
    let home = world.proxy.address;
    let request = format!("POST /limited/x HTTP/1.1\r\nHost: {home}\r\nContent-Length: 9\r\n\r\n123");
    let answer = Wire::connect(home).await.exchange(request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::REQUEST_TIMEOUT, "request_timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_trickles_beyond_the_deadline_is_cut_and_counted_once() {
    let peer = upstream().await;
    let world = world_over(&peer).await;
    let browser = world.logged_in().await;
    let home = world.proxy.address;
    for (path, cookie) in [("/limited/trickle", String::new()), ("/member/trickle", ticket(&browser))] {
        let begun = Instant::now();
        let mut wire = Wire::connect(home).await;
        let cookie = format!("{}={cookie}", crate::harness::SESSION);
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {home}\r\nCookie: {cookie}\r\n\r\n")).await;
        let bytes = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(bytes.starts_with("HTTP/1.1 200") && bytes.contains("drop") && !bytes.contains("\r\n0\r\n"), "{bytes}");
        assert!((Duration::from_millis(300)..AT_MOST).contains(&begun.elapsed()));
        let request = Request::get(format!("http://{home}{path}")).header("cookie", cookie).body(());
        let answer = H2::connect(home).await.ask(request.expect("a request"), &[], None).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    for route in ["/limited", "/member"] {
        let series = format!("cloakroom_http_requests_total{{code=\"200\",method=\"GET\",route=\"{route}\"");
        assert_eq!(world.metric(&series).await, 2.0, "{route}");
    }
    assert_eq!(world.metric("cloakroom_upstream_requests_total{code=\"deadline\",upstream=\"calm\"}").await, 4.0);
    at_rest(&world).await;
    // A connection that is kept is not cut for a request that was over in time.
    let mut wire = Wire::connect(home).await;
    wire.send(format!("GET /limited/x HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
    assert_eq!(wire.answer().await.expect("an answer").status, StatusCode::GATEWAY_TIMEOUT);
    eventually("all is settled", || async { world.metric("cloakroom_http_requests_in_flight{").await == 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_outlives_the_deadline_of_its_route() {
    let peer = Peer::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let _ = stream.write_all(switch).await;
        let mut piece = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            let _ = stream.write_all(&piece[..count]).await;
        }
    })
    .await;
    let world = world_over(&peer).await;
    let home = world.proxy.address;
    let mut wire = Wire::connect(home).await;
    wire.send(format!(
        "GET /limited/ws HTTP/1.1\r\nHost: {home}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://{home}\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        wire.send("\u{1}echo").await;
        assert_eq!(wire.take(5).await, b"\x01echo");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
