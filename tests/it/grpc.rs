//! A gRPC call gets our refusals as its own kind of answer: never a redirect, a page or JSON.

use bytes::Bytes;
use http::Request;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncReadExt as _;

use crate::harness::{Browser, SESSION, Seen, Wishes, World, free_address};
use crate::kit::ticket;
use crate::wire::{H2, Peer, h2c_client};

async fn world() -> (World, Peer) {
    let silent = Peer::start(|_, mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let world = World::with(Wishes {
        upstreams: format!(
            "  - {{ name: away, endpoints: [\"{}\"] }}\n  - {{ name: silent, endpoints: [\"{}\"], timeouts: {{ read: 200ms }} }}",
            free_address(),
            silent.address
        ),
        routes: r#"
      - { path: /needed.Service/, upstream: demo }
      - { path: /forced.Service/, upstream: demo, on_missing: redirect }
      - { path: /open.Service/, upstream: demo, access: public, max_body: 1KiB }
      - { path: /away.Service/, upstream: away, access: public }
      - { path: /silent.Service/, upstream: silent, access: public }
"#
        .into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    (world, silent)
}

fn assert_status(answer: &Seen, status: &str, code: &str) {
    assert_eq!(
        (answer.status, answer.header("grpc-status"), answer.code()),
        (StatusCode::OK, status, code),
        "{answer:?}"
    );
    assert_eq!((answer.body.as_str(), answer.header("content-type")), ("", "application/grpc"), "{answer:?}");
    assert!(!answer.header("grpc-message").is_empty() && answer.header("location").is_empty(), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// As a gRPC client calls: whatever it accepts, it is no page.
async fn call(browser: &mut Browser, target: &str, size: usize) -> Seen {
    let draft = browser.draft(Method::POST, target).header("content-type", "application/grpc").header("te", "trailers");
    browser.send(draft.header("accept", "text/html, */*").body(vec![0; size])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_grpc_calls_are_grpc_statuses() {
    let (world, _silent) = world().await;
    let recorder = world.demo.upstream.recorder();
    let mut browser = world.browser();
    browser.client = h2c_client();
    for (target, size, status, code) in [
        ("/needed.Service/Call", 5, "16", "session_missing"),
        ("/forced.Service/Call", 5, "16", "session_missing"),
        ("/unknown.Service/Call", 5, "12", "not_found"),
        ("/open.Service/%2f", 5, "3", "bad_request"),
        ("/open.Service/Call", 2000, "8", "body_too_large"),
        ("/away.Service/Call", 5, "14", "upstream_unavailable"),
        ("/silent.Service/Call", 5, "4", "upstream_timeout"),
        ("/auth/nothing", 5, "12", "not_found"),
    ] {
        assert_status(&call(&mut browser, target, size).await, status, code);
    }
    let draft = browser.draft(Method::POST, "/needed.Service/Call").header("content-type", "application/grpc");
    let answer = browser.send(draft.header("cookie", &format!("{SESSION}={}", "x".repeat(64)))).await;
    assert_eq!(answer.header("grpc-status"), "16", "{answer:?}");
    assert_eq!(recorder.count(), 0);

    let mut member = world.browser();
    member.log_in("/auth/login").await;
    member.client = h2c_client();
    recorder.clear();
    assert_status(&call(&mut member, "/needed.Service/Call", 5).await, "7", "csrf_failed");
    assert_eq!(recorder.count(), 0);
    let unknown = Request::post("http://elsewhere.test/open.Service/Call").header("content-type", "application/grpc");
    let h2 = H2::connect(world.proxy.address).await;
    let answer = h2.ask(unknown.body(()).expect("a request"), &[b"12345"], None).await.expect("an answer");
    assert_status(&answer, "5", "unknown_host");
    // A body whose length nobody told is cut off under way.
    let long = Request::post(format!("http://{}/open.Service/Call", world.proxy.address));
    let long = long.header("content-type", "application/grpc").body(()).expect("a request");
    let answer = h2.ask(long, &[&[0; 1000], &[0; 1000]], None).await.expect("an answer");
    assert_status(&answer, "8", "body_too_large");
    // What is no gRPC stays as it was.
    let plain = member.draft(Method::POST, "/needed.Service/Call").header("content-type", "application/grpcx");
    assert_eq!(member.send(plain).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_stream_with_its_header() {
    let (world, _silent) = world().await;
    let stream = tokio::net::TcpStream::connect(world.proxy.address).await.expect("a connection");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}/needed.Service/Call", world.proxy.address));
    let request = request.header("content-type", "application/grpc+proto").header("te", "trailers");
    let (answer, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
    // The answer may come before this is sent.
    let _ = body.send_data(Bytes::from_static(b"\0\0\0\0\0"), true);
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(answer.body().is_end_stream(), "trailers only: nothing follows the header");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_over_http1_is_answered_alike() {
    let (world, _silent) = world().await;
    let mut browser = world.browser();
    browser.log_in("/auth/login").await;
    let ticket = ticket(&browser);
    for (kind, answered) in [
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text+proto"),
    ] {
        let draft = browser.draft(Method::POST, "/needed.Service/Call").header("content-type", kind).body("AAAA");
        let answer = browser.send(draft).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (StatusCode::OK, "7"), "{answer:?}");
        assert_eq!((answer.header("content-type"), answer.body.as_str()), (answered, ""));
        assert!(answer.set_cookies().iter().all(|cookie| !cookie.contains(&ticket)));
    }
}
