//! L17 and F33: what a client gets when an upstream does not answer as it should, and which requests are repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::Request;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Seen, Wishes, World, free_address};
use crate::wire::{H2, Peer, Wire, ask, h2c_client, read_head};

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

async fn world(endpoints: &[std::net::SocketAddr]) -> World {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let world = World::with(Wishes {
        upstreams: format!(
            "  - {{ name: odd, endpoints: [{}], timeouts: {{ connect: 1s, read: 300ms }} }}",
            endpoints.join(", ")
        ),
        routes: "      - { path: /, upstream: odd, access: public }".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

/// An answer of ours: marked, never cached, a page for a navigation and a problem for a script.
fn is_ours(page: &Seen, problem: &Seen, status: StatusCode, code: &str) {
    for answer in [page, problem] {
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("connection"), "close", "{answer:?}");
    }
    assert!(page.header("content-type").starts_with("text/html") && page.body.contains("<html"), "{page:?}");
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(problem.json()["code"], code);
}

async fn both(world: &World) -> (Seen, Seen) {
    let mut browser = world.browser();
    (browser.navigate("/x").await, browser.fetch("/x").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_is_503_with_retry_after() {
    let world = world(&[free_address()]).await;
    let (page, problem) = both(&world).await;
    is_ours(&page, &problem, StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable");
    assert_eq!((page.header("retry-after"), problem.header("retry-after")), ("1", "1"));
    let mut browser = world.browser();
    browser.client = h2c_client();
    let answer = browser.fetch("/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_keeps_silent_is_504_and_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let peer = Peer::start(move |_, mut stream| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
            read_head(&mut stream).await;
        }
    })
    .await;
    let world = world(&[peer.address]).await;
    let begun = Instant::now();
    let (page, problem) = both(&world).await;
    is_ours(&page, &problem, StatusCode::GATEWAY_TIMEOUT, "upstream_timeout");
    assert!(begun.elapsed() >= std::time::Duration::from_millis(600));
    let answer = world.browser().write(Method::POST, "/x", "once").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_502_without_a_byte_of_them() {
    for nonsense in [
        &b"HELLO secret\r\n\r\n"[..],
        b"HTTP/1.1 secret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nsecret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Secret: secret",
        b"HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\nsecret",
        b"",
    ] {
        let peer = Peer::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(nonsense).await;
        })
        .await;
        let world = world(&[peer.address]).await;
        let (page, problem) = both(&world).await;
        is_ours(&page, &problem, StatusCode::BAD_GATEWAY, "upstream_failed");
        assert!(!format!("{page:?}{problem:?}").to_ascii_lowercase().contains("secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_never_shown_as_a_whole_one() {
    for cut in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nXX\r\n",
    ] {
        let peer = Peer::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(cut).await;
        })
        .await;
        let world = world(&[peer.address]).await;
        let home = world.proxy.address;
        let mut wire = Wire::connect(home).await;
        wire.send(format!("GET /x HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
        let bytes = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(bytes.contains("half") && !bytes.contains("\r\n0\r\n"), "{bytes}");
        assert_eq!(bytes.matches("HTTP/1.1 ").count(), 1, "nothing of ours behind the half answer: {bytes}");
        let request = Request::get(format!("http://{home}/x")).body(()).expect("a request");
        let answer = H2::connect(home).await.ask(request, &[], None).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_take_turns_and_a_dead_one_is_passed_over_for_any_method() {
    let good = |letter: u8| {
        Peer::start(move |_, mut stream| async move {
            while !read_head(&mut stream).await.is_empty() {
                let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", &[letter][..]].concat();
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        })
    };
    let (a, b) = (good(b'a').await, good(b'b').await);
    let alive = world(&[a.address, b.address]).await;
    let mut browser = alive.browser();
    let mut turns = String::new();
    for _ in 0..20 {
        turns += &browser.fetch("/x").await.body;
    }
    assert!(turns == "ab".repeat(10) || turns == "ba".repeat(10), "{turns}");

    let dead = world(&[free_address(), a.address, free_address()]).await;
    let mut browser = dead.browser();
    for method in [Method::GET, Method::POST, Method::DELETE] {
        for _ in 0..6 {
            let answer = browser.write(method.clone(), "/x", "body").await;
            assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "a"), "{method}");
        }
    }
    assert!(dead.metric("cloakroom_upstream_requests_total{code=\"connect\",upstream=\"odd\"}").await >= 6.0);
    assert_eq!(dead.metric("cloakroom_upstream_requests_total{code=\"200\",upstream=\"odd\"}").await, 18.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_died_is_replaced_for_safe_methods_only() {
    // Each connection answers one request and dies at the second.
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = arrived.clone();
    let peer = Peer::start(move |_, mut stream| {
        let count = count.clone();
        async move {
            for last in [false, true] {
                if read_head(&mut stream).await.is_empty() {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                if last || stream.write_all(GOOD).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let world = world(&[peer.address]).await;
    let home = world.proxy.address;
    let get = format!("GET /x HTTP/1.1\r\nHost: {home}\r\n\r\n");
    for round in 0..10 {
        let answer = ask(home, &get).await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "good"), "{round}");
    }
    let before = arrived.load(Ordering::SeqCst);
    let post = format!("POST /x HTTP/1.1\r\nHost: {home}\r\nContent-Length: 0\r\n\r\n");
    let mut refused = 0;
    for _ in 0..10 {
        let answer = ask(home, &post).await.expect("an answer");
        refused += usize::from(answer.status == StatusCode::BAD_GATEWAY);
    }
    assert_eq!(arrived.load(Ordering::SeqCst) - before, 10, "no POST arrives twice");
    assert!(refused >= 1);
}
