//! What lasts ends with its session: tunnels and answers that go on (behaviour O8).

use std::time::{Duration, Instant};

use http::Request;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::harness::{Browser, SESSION, Wishes, World, eventually};
use crate::kit::*;
use crate::wire::{H2, Peer, Wire, read_head};

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// Close frames with 4401 and 1001.
const SESSION_OVER: [u8; 4] = [0x88, 2, 0x11, 0x31];
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
/// A logout is felt everywhere within a second; the rest is for a machine under load.
const SOON: Duration = Duration::from_secs(5);

const ROUTES: &str = r#"
      - { path: /ws/, upstream: peer, access: required }
      - { path: /chat/, upstream: peer, access: optional }
      - { path: /open/, upstream: peer, access: public }
      - { path: /assets/, upstream: peer, access: optional, token: { kind: none } }
      - { path: /context/, upstream: peer, access: optional, token: { kind: none }, context: read }
      - { path: /level/, upstream: peer, access: optional, token: { kind: none }, level_header: X-User-Level }
      - { path: /, upstream: demo, access: required }
"#;

/// An upstream that sends `begin` to whoever comes, and reports what it hears; nothing at the end of a connection.
async fn upstream(begin: Vec<u8>) -> (Peer, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (report, heard) = mpsc::unbounded_channel();
    let peer = Peer::start(move |_, mut stream: TcpStream| {
        let (begin, report) = (begin.clone(), report.clone());
        async move {
            read_head(&mut stream).await;
            if stream.write_all(&begin).await.is_err() {
                return;
            }
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                let _ = report.send(piece[..count].to_vec());
            }
            let _ = report.send(Vec::new());
        }
    })
    .await;
    (peer, heard)
}

async fn world_with(peer: &Peer) -> World {
    world_over(peer, ticking()).await
}

async fn world_over(peer: &Peer, wishes: Wishes) -> World {
    let upstreams = format!("  - {{ name: peer, endpoints: [\"{}\"] }}", peer.address);
    world(Wishes { upstreams, routes: ROUTES.into(), ..wishes }).await
}

fn handshake(browser: &Browser, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {}\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.home,
        browser.origin(),
        ticket(browser)
    )
}

async fn tunnel(browser: &Browser, path: &str) -> Wire {
    let mut wire = Wire::connect(browser.home).await;
    wire.send(handshake(browser, path)).await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn o8_an_idle_tunnel_is_closed_with_4401_at_logout() {
    let (peer, mut heard) = upstream(SWITCH.to_vec()).await;
    let world = world_with(&peer).await;
    let (mut browser, other) = (world.logged_in().await, world.logged_in().await);
    let mut others = tunnel(&other, "/ws/x").await;
    let mut public = tunnel(&browser, "/open/x").await;
    let tied = ["/ws/x", "/chat/x", "/context/x", "/level/x"];
    for path in tied {
        let mut wire = tunnel(&browser, path).await;
        wire.send(b"\x81\x85....hello").await;
        assert_eq!(heard.recv().await.expect("a message"), b"\x81\x85....hello", "{path}");
        log_out(&mut browser).await;
        let since = Instant::now();
        assert_eq!(wire.take(4).await, SESSION_OVER, "{path}");
        // What the client says to that goes nowhere.
        wire.send(b"\x88\x82....\x11\x31").await;
        assert!(wire.is_closed().await, "{path}");
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        assert_eq!(heard.recv().await.expect("an end"), b"", "{path}");
        browser.log_in("/").await;
    }
    assert_eq!(world.metric("cloakroom_streams_ended_total{kind=\"tunnel\"}").await, 4.0);
    for wire in [&mut others, &mut public] {
        wire.send(b"\x81\x80....").await;
        assert_eq!(heard.recv().await.expect("a message"), b"\x81\x80....", "other tunnels go on");
    }
    drop((others, public));
    for _ in 0..2 {
        assert_eq!(heard.recv().await.expect("an end"), b"");
    }
    at_rest(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_into_the_middle_of_a_frame_or_after_a_close() {
    for (sent, why) in [
        (&b"\x82\x64ten bytes!"[..], "a frame that never ends"),
        (b"\x82\x7e\x01", "a header that never ends"),
        (b"\x81\x02hi\x88\x02\x03\xe8", "a close frame"),
    ] {
        let (peer, mut heard) = upstream([SWITCH, sent].concat()).await;
        let world = world_with(&peer).await;
        let mut browser = world.logged_in().await;
        let mut wire = tunnel(&browser, "/ws/x").await;
        assert_eq!(wire.take(sent.len()).await, sent, "{why}");
        log_out(&mut browser).await;
        let since = Instant::now();
        assert!(wire.is_closed().await, "{why}");
        assert!(since.elapsed() < SOON, "{why}");
        heard.recv().await.expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_tunnel_ends_with_a_close_frame_where_a_frame_ends() {
    let peer = Peer::start(|_, mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        let mut sent = stream.write_all(SWITCH).await;
        let mut length = 1u16;
        while sent.is_ok() {
            length = length.wrapping_mul(31).wrapping_add(7) % 5_000 + 126;
            let mut frame = vec![0x82, 126];
            frame.extend(length.to_be_bytes());
            // Every byte of the payload looks like a close frame.
            frame.resize(frame.len() + usize::from(length), 0x88);
            sent = stream.write_all(&frame).await;
        }
    })
    .await;
    let world = world_with(&peer).await;
    for _ in 0..5 {
        let mut browser = world.logged_in().await;
        let mut wire = tunnel(&browser, "/ws/x").await;
        let mut received = wire.take(100_000).await;
        let leaving = tokio::spawn(async move { log_out(&mut browser).await.status });
        received.extend(wire.rest().await);
        assert_eq!(leaving.await.expect("a logout"), StatusCode::SEE_OTHER);
        let mut rest = &received[..];
        while let [0x82, 126, high, low, more @ ..] = rest {
            rest = &more[usize::from(u16::from_be_bytes([*high, *low]))..];
        }
        assert_eq!(rest, SESSION_OVER);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_when_the_sessions_time_does_for_its_frames_are_no_use() {
    let (peer, _heard) = upstream([SWITCH, b"\x81\x02hi"].concat()).await;
    let world = world_with(&peer).await;
    let browser = world.logged_in().await;
    let mut wire = tunnel(&browser, "/ws/x").await;
    assert_eq!(wire.take(4).await, b"\x81\x02hi");
    world.clock.advance(secs(29 * 60));
    wire.send(b"\x81\x80....").await;
    world.clock.advance(secs(60));
    assert_eq!(wire.take(4).await, SESSION_OVER);
    assert!(wire.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_says_1001() {
    let (peer, _heard) = upstream(SWITCH.to_vec()).await;
    let world = world_with(&peer).await;
    let browser = world.logged_in().await;
    let mut wires = [tunnel(&browser, "/ws/x").await, tunnel(&browser, "/open/x").await];
    world.proxy.drain();
    for wire in &mut wires {
        assert_eq!(wire.take(4).await, GOING_AWAY);
        assert!(wire.is_closed().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o8_an_answer_that_goes_on_is_cut_off_at_logout() {
    let stream =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let download = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nhello";
    for (begin, wire_body) in [(stream, &b"5\r\nhello\r\n"[..]), (download, b"hello")] {
        let (peer, mut heard) = upstream(begin.as_bytes().to_vec()).await;
        let world = world_with(&peer).await;
        let mut browser = world.logged_in().await;
        let (home, session) = (browser.home, ticket(&browser));
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={session}\r\n\r\n");
        let mut wires = Vec::new();
        for path in ["/ws/x", "/assets/x", "/open/x"] {
            let mut wire = Wire::connect(home).await;
            wire.send(ask(path)).await;
            wires.push(wire);
        }
        let http2 = H2::connect(home).await;
        let request = Request::get(format!("http://{home}/chat/x")).header("cookie", format!("{SESSION}={session}"));
        let over_http2 = tokio::spawn(async move { http2.ask(request.body(()).expect("a request"), &[], None).await });
        eventually("all are under way", || async { world.metric("cloakroom_http_requests_in_flight{").await == 4.0 })
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        log_out(&mut browser).await;
        let since = Instant::now();
        for _ in 0..2 {
            heard.recv().await.expect("an end");
        }
        let got = String::from_utf8_lossy(&wires.remove(0).rest().await).into_owned();
        assert!(got.as_bytes().ends_with(wire_body), "no end of a chunked body, no whole length: {got}");
        let error = over_http2.await.expect("a task").expect_err("a reset stream");
        assert!(error.is_reset(), "{error}");
        assert!(since.elapsed() < SOON);
        assert!(heard.try_recv().is_err(), "what anybody may have goes on");
        assert_eq!(world.metric("cloakroom_http_requests_in_flight{").await, 2.0);
        assert_eq!(world.metric("cloakroom_streams_ended_total{kind=\"answer\"}").await, 2.0);
        let counted = "cloakroom_http_requests_total{code=\"200\",method=\"GET\",route=\"/ws\"";
        assert_eq!(world.metric(counted).await, 1.0, "{}", world.metrics().await);
    }
}

/// What goes on while a process stops still ends with its session.
#[tokio::test(flavor = "multi_thread")]
async fn o8_a_logout_elsewhere_is_heard_of_while_the_process_stops() {
    let download = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nhello";
    let (peer, mut heard) = upstream(download.as_bytes().to_vec()).await;
    let world = world_over(&peer, crate::backchannel_kit::shared()).await;
    let other = world.replica().await;
    let browser = world.logged_in().await;
    let (home, session) = (browser.home, ticket(&browser));
    let mut wire = Wire::connect(home).await;
    wire.send(format!("GET /ws/x HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={session}\r\n\r\n")).await;
    eventually("it is under way", || async { world.metric("cloakroom_http_requests_in_flight{").await == 1.0 }).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.proxy.drain();
    // As long as a stopping process takes to notice that it is one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut there = carry(&browser, &other);
    log_out(&mut there).await;
    tokio::time::timeout(SOON, heard.recv()).await.expect("it is cut off").expect("an end");
}

/// An answer without a length is done when its last piece is: the connection is then tied to no session any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_done_leaves_its_connection_alone() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let peer = Peer::start(move |_, mut stream: TcpStream| async move {
        while !read_head(&mut stream).await.is_empty() && stream.write_all(whole.as_bytes()).await.is_ok() {}
    })
    .await;
    let world = world_with(&peer).await;
    let mut browser = world.logged_in().await;
    let (home, session) = (browser.home, ticket(&browser));
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={session}\r\n\r\n");
    let mut wire = Wire::connect(home).await;
    assert_eq!(wire.exchange(ask("/chat/x")).await.body, "hello");
    let asked = "cloakroom_store_operations_total{op=\"load\",result=\"ok\"}";
    let before = world.metric(asked).await;
    // Longer than an answer must last to be watched over.
    let closed = tokio::time::timeout(Duration::from_millis(700), wire.is_closed());
    assert!(closed.await.is_err(), "kept for the next request");
    assert_eq!(world.metric(asked).await, before, "nothing asks for the sake of an answer that is done");
    log_out(&mut browser).await;
    let closed = tokio::time::timeout(Duration::from_millis(300), wire.is_closed());
    assert!(closed.await.is_err(), "the end of a session cuts nothing off that does not depend on it");
    assert_eq!(wire.exchange(ask("/open/x")).await.body, "hello");
    assert_eq!(world.metric("cloakroom_streams_ended_total{kind=\"answer\"}").await, 0.0);
    let counted = "cloakroom_http_requests_total{code=\"200\",method=\"GET\",route=\"/chat\"";
    assert_eq!(world.metric(counted).await, 1.0, "{}", world.metrics().await);
}
