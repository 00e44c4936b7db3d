//! Limits as the settings say: `limits` takes effect where it should.

use std::time::Duration;

use reqwest::StatusCode;

use crate::harness::{Wishes, World};
use crate::wire::{H2, Wire, ask};

async fn world(limits: &str) -> World {
    let world = World::with(Wishes { more: format!("limits: {limits}"), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn header_limits_are_those_of_the_settings() {
    let world = world("{ header_size: 2KiB, header_fields: 10, uri_length: 300 }").await;
    let home = world.proxy.address;
    let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: {home}\r\n{fields}\r\n");
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let long = |length: usize| format!("/open/{}", "x".repeat(length - "/open/".len()));
    for (request, status) in [
        (get("/open/x", ""), StatusCode::OK),
        (get("/open/x", &many(9)), StatusCode::OK),
        (get("/open/x", &many(10)), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (get("/open/x", &format!("x: {}\r\n", "y".repeat(1900))), StatusCode::OK),
        (get("/open/x", &format!("x: {}\r\n", "y".repeat(2100))), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (get(&long(300), ""), StatusCode::OK),
        (get(&long(301), ""), StatusCode::URI_TOO_LONG),
    ] {
        assert_eq!(ask(home, &request).await.expect("an answer").status, status, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_requests_are_shed_and_told_when_to_come_back() {
    // This process has more than that.
    let world = world("{ memory: 32MiB }").await;
    let home = world.proxy.address;
    assert!(world.metric("cloakroom_memory_bytes").await > 32.0 * 1024.0 * 1024.0);
    assert_eq!(world.metric("cloakroom_memory_limit_bytes").await, 32.0 * 1024.0 * 1024.0);
    for path in ["/open/x", "/auth/session", "/api/x"] {
        let mut wire = Wire::connect(home).await;
        let answer = wire.exchange(format!("GET {path} HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
        assert_eq!(answer.header("retry-after"), "5");
        assert!(wire.is_closed().await);
    }
    let h2 = H2::connect(home).await;
    let request = http::Request::get(format!("http://{home}/open/x")).body(()).expect("a request");
    let answer = h2.ask(request, &[], None).await.expect("an answer");
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"memory\"}").await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_cut_though_no_gap_is_long() {
    let world = world("{ body_timeout: 500ms, body_rate: 1MiB }").await;
    let home = world.proxy.address;
    let post =
        |fields: &str| format!("POST /open/x HTTP/1.1\r\nHost: {home}\r\nContent-Length: 100000\r\n{fields}\r\n");
    for (fields, status) in [
        ("", StatusCode::REQUEST_TIMEOUT),
        // There is no gRPC over HTTP/1, whatever the content type says; its refusal is dressed as one all the same.
        ("Content-Type: application/grpc+proto\r\n", StatusCode::OK),
    ] {
        let mut wire = Wire::connect(home).await;
        wire.send(post(fields)).await;
        for _ in 0..40 {
            wire.send("x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if wire.has_bytes() {
                break;
            }
        }
        assert!(wire.has_bytes(), "{fields}");
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.code()), (status, "request_timeout"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_may_be_silent_between_its_messages() {
    let world = world("{ body_timeout: 500ms, body_rate: 1MiB }").await;
    let stream = tokio::net::TcpStream::connect(world.proxy.address).await.expect("a connection");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    for (kind, refused) in [("application/octet-stream", true), ("application/grpc+proto", false)] {
        let request =
            http::Request::post(format!("http://{}/open/x", world.proxy.address)).header("content-type", kind);
        let (mut answer, mut body) =
            sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
        // A second and a half: three times what others get.
        let mut early = None;
        for _ in 0..30 {
            let _ = body.send_data(bytes::Bytes::from_static(b"x"), false);
            if let Ok(answer) = tokio::time::timeout(Duration::from_millis(50), &mut answer).await {
                early = Some(answer.expect("an answer").status());
                break;
            }
        }
        assert_eq!(early, refused.then_some(StatusCode::REQUEST_TIMEOUT), "{kind}");
        if !refused {
            body.send_data(bytes::Bytes::new(), true).expect("the end");
            assert_eq!(answer.await.expect("an answer").status(), StatusCode::OK);
        }
    }
}
