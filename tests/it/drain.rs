//! A stop that is under way: what has begun ends well, and clients are told to go elsewhere.

use std::sync::Arc;

use http::Request;
use reqwest::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::harness::{PATIENCE, Wishes, World, eventually};
use crate::wire::{H2, Peer, Wire, read_head};

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_and_clients_told_to_go() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let slow = Peer::start(move |_, mut stream| {
        let held = held.clone();
        async move {
            read_head(&mut stream).await;
            if let Ok(permit) = held.acquire().await {
                permit.forget();
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
        }
    })
    .await;
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: slow, endpoints: [\"{}\"] }}", slow.address),
        routes: "      - { path: /, upstream: slow, access: public }\n      - { path: /quick/, upstream: demo, access: public }"
            .into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let home = world.proxy.address;
    let quick = format!("GET /quick/x HTTP/1.1\r\nHost: {home}\r\n\r\n");
    let (mut idle, mut busy, h2) = (Wire::connect(home).await, Wire::connect(home).await, H2::connect(home).await);
    for wire in [&mut idle, &mut busy] {
        let answer = wire.exchange(&quick).await;
        assert_ne!(answer.header("connection"), "close", "{answer:?}");
    }
    busy.send(format!("GET /x HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
    let request = |path: &str| Request::get(format!("http://{home}{path}")).body(()).expect("a request");
    let h2 = Arc::new(h2);
    let asked = h2.clone();
    let first = request("/x");
    let late = tokio::spawn(async move { asked.ask(first, &[], None).await });
    eventually("both are under way", || async { world.metric("cloakroom_http_requests_in_flight{").await == 2.0 })
        .await;

    world.proxy.drain();
    assert!(idle.is_closed().await, "an idle connection ends at once");
    eventually("no new stream is taken", || async { h2.ask(request("/quick/x"), &[], None).await.is_err() }).await;
    gate.add_permits(2);
    let answer = busy.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_str(), answer.header("connection")), (StatusCode::OK, "late", "close"));
    assert!(busy.is_closed().await);
    let answer = tokio::time::timeout(PATIENCE, late).await.expect("in time").expect("a task").expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "late"));
    assert!(tokio::net::TcpStream::connect(home).await.is_err(), "nobody is listening any more");
}
