//! WebSocket tunnels through a session: token in, cookies out, bytes both ways.

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use std::sync::{Arc, Mutex};

use crate::harness::{SESSION, Wishes, World, XSRF};
use crate::wire::{Peer, Wire, read_head};

/// Switches protocols and sends back whatever comes; keeps the headers it saw.
async fn echo() -> (Peer, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let peer = Peer::start(move |_, mut stream| {
        let kept = kept.clone();
        async move {
            let head = read_head(&mut stream).await;
            kept.lock().expect("heads").push(head);
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Set-Cookie: XSRF-TOKEN=evil\r\nSet-Cookie: theirs=1\r\nCloakroom-Error: x\r\n\r\n";
            if stream.write_all(switch).await.is_err() {
                return;
            }
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                if stream.write_all(&piece[..count]).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (peer, heads)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_has_the_token_and_no_cookie_of_ours() {
    let (peer, heads) = echo().await;
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: echo, endpoints: [\"{}\"], timeouts: {{ read: 200ms }} }}", peer.address),
        routes: r#"
      - { path: /ws/, upstream: echo, access: required, identity_headers: { X-User-Id: sub } }
      - { path: /chat/, upstream: echo, access: optional }
      - { path: /open/, upstream: echo, access: public }
      - { path: /, upstream: demo, access: required }
"#
        .into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let browser = world.logged_in().await;
    let (home, session) = (browser.home, browser.cookie(SESSION).expect("a session"));
    let upgrade = |path: &str, fields: &str| {
        format!(
            "GET {path}?room=1 HTTP/1.1\r\nHost: {home}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer evil\r\n\
             X-User-Id: evil\r\n{fields}\r\n"
        )
    };
    let fields = format!("Origin: {}\r\nCookie: a=1; {SESSION}={session}; {XSRF}=t; b=2\r\n", browser.origin());

    for (path, token) in [("/ws/x", true), ("/chat/x", true), ("/open/x", false)] {
        for round in 0..25 {
            let mut wire = Wire::connect(home).await;
            wire.send(upgrade(path, &fields)).await;
            let switched = wire.any_answer(false).await.expect("an answer");
            assert_eq!(switched.status, StatusCode::SWITCHING_PROTOCOLS, "{path} {round}");
            assert_eq!(switched.set_cookies(), ["theirs=1"]);
            assert_eq!(switched.code(), "");
            for message in [&b"\x81\x05hello"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100_000]] {
                wire.send(message).await;
                assert_eq!(wire.take(message.len()).await, message, "{path} {round}");
            }
        }
        let head = heads.lock().expect("heads").last().expect("a head").clone();
        let lower = head.to_ascii_lowercase();
        assert!(head.starts_with(&format!("GET {path}?room=1 HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("a=1; b=2\r\n") && !head.contains(session) && !head.contains("evil"), "{head}");
        assert!(lower.contains("upgrade: websocket") && lower.contains("sec-websocket-key: dghlihnhbxbszsbub25jzq=="));
        assert_eq!(lower.matches("authorization: bearer ").count(), usize::from(token), "{head}");
        assert_eq!(lower.contains("x-user-id: a11ce000"), path == "/ws/x", "{head}");
    }

    let before = heads.lock().expect("heads").len();
    let stranger = format!("Origin: {}\r\n", browser.origin());
    for (fields, status) in [
        (stranger.clone(), StatusCode::UNAUTHORIZED),
        (stranger + "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", StatusCode::UNAUTHORIZED),
        (fields.replace("http://", "https://"), StatusCode::FORBIDDEN),
        (fields.replacen("Origin", "X-Origin", 1), StatusCode::FORBIDDEN),
    ] {
        let answer = Wire::connect(home).await.exchange(upgrade("/ws/x", &fields)).await;
        assert_eq!(answer.status, status, "{fields}");
    }
    assert_eq!(heads.lock().expect("heads").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_websocket_handshake_lifts_limits() {
    let (peer, heads) = echo().await;
    let slow = Peer::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        read_head(&mut stream).await;
    })
    .await;
    let world = World::with(Wishes {
        upstreams: format!(
            "  - {{ name: echo, endpoints: [\"{}\"] }}\n  - {{ name: slow, endpoints: [\"{}\"], timeouts: {{ read: 300ms }} }}",
            peer.address, slow.address
        ),
        routes: r#"
      - { path: /small/, upstream: demo, access: public, max_body: 1KiB }
      - { path: /slow/, upstream: slow, access: public }
      - { path: /ws/, upstream: echo, access: public }
"#
        .into(),
        ..Wishes::default()
    })
    .await;
    let (home, recorder) = (world.proxy.address, world.demo.upstream.recorder());
    let head = |line: &str, upgrade: &str| {
        format!("{line} HTTP/1.1\r\nHost: {home}\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n")
    };
    // Another protocol is not spoken: the request goes on as if nothing had been asked, limits and all.
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    let request = head("POST /small/x", "h2c") + "Transfer-Encoding: chunked\r\n\r\n" + &chunk;
    let answer = Wire::connect(home).await.exchange(request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    let answer = Wire::connect(home).await.exchange(head("GET /slow/x", "h2c") + "\r\n").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"));
    let answer = Wire::connect(home).await.exchange(head("GET /small/x", "h2c") + "\r\n").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(recorder.last().expect("a request").header("upgrade"), None);
    // A WebSocket begins with a GET without a body.
    for request in [
        head("POST /ws/x", "websocket") + "\r\n",
        head("GET /ws/x", "websocket") + "Content-Length: 3\r\n\r\nabc",
        head("GET /ws/x", "websocket") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = Wire::connect(home).await.exchange(&request).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad_request"), "{request}");
    }
    assert!(heads.lock().expect("heads").is_empty());
}
