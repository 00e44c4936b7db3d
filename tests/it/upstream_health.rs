//! Addresses of an upstream go and come: requests and health checks find out, and the balance follows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::harness::{Wishes, World, eventually, free_address};
use crate::wire::{Peer, read_head};

/// Answers with a letter, and with a status that can be changed; counts checks and other requests.
struct Letter {
    peer: Peer,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Letter {
    async fn start(letter: char) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let (checks, requests): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (now, checked, asked) = (status.clone(), checks.clone(), requests.clone());
        let peer = Peer::start(move |_, mut stream| {
            let (now, checked, asked) = (now.clone(), checked.clone(), asked.clone());
            async move {
                loop {
                    let head = read_head(&mut stream).await;
                    if head.is_empty() {
                        return;
                    }
                    let count = if head.starts_with("GET /healthz?full ") { &checked } else { &asked };
                    count.fetch_add(1, Ordering::SeqCst);
                    let status = now.load(Ordering::SeqCst);
                    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 1\r\n\r\n{letter}");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { peer, status, checks, requests }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

async fn world(endpoints: &[SocketAddr], more: &str) -> World {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: odd, endpoints: [{}], {more} }}", endpoints.join(", ")),
        routes: "      - { path: /my/, upstream: odd, access: required }\n      - { path: /, upstream: odd, access: public }"
            .into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

async fn standing(world: &World, state: &str) -> f64 {
    world.metric(&format!("cloakroom_upstream_endpoints{{state=\"{state}\",upstream=\"odd\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_reached_is_left_alone_and_tried_again() {
    let (good, dead) = (Letter::start('a').await, free_address());
    let failures = "cloakroom_upstream_requests_total{code=\"connect\",upstream=\"odd\"}";
    let patient = world(&[good.peer.address, dead], "ejection: { after: 3, pause: 1h }").await;
    let mut browser = patient.browser();
    for _ in 0..20 {
        assert_eq!(browser.fetch("/x").await.body, "a");
    }
    assert_eq!(patient.metric(failures).await, 3.0, "it is left alone then");
    assert_eq!((standing(&patient, "in_service").await, standing(&patient, "ejected").await), (1.0, 1.0));

    let world = world(&[good.peer.address, dead], "ejection: { after: 3, pause: 300ms, longest_pause: 300ms }").await;
    assert_eq!(standing(&world, "in_service").await, 2.0);
    let mut browser = world.browser();
    for _ in 0..10 {
        assert_eq!(browser.write(Method::POST, "/x", "body").await.body, "a");
    }
    assert!(world.metric("cloakroom_upstream_ejections_total{upstream=\"odd\"}").await >= 1.0);
    assert!(world.metric(failures).await >= 3.0);

    let listener = TcpListener::bind(dead).await.expect("the port");
    let other = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while !read_head(&mut stream).await.is_empty() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").await;
                }
            });
        }
    });
    eventually("both are in service", || async { standing(&world, "in_service").await == 2.0 }).await;
    let mut turns = String::new();
    for _ in 0..10 {
        turns += &browser.fetch("/x").await.body;
    }
    assert_eq!(turns.matches('b').count(), 5, "{turns}");
    other.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_followed_by_another_counts_against_its_address() {
    let (good, met) = (Letter::start('a').await, Arc::new(AtomicUsize::new(0)));
    let count = met.clone();
    let mute = Peer::start(move |_, mut stream| {
        let count = count.clone();
        async move {
            if !read_head(&mut stream).await.is_empty() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let world = world(&[good.peer.address, mute.address], "ejection: { after: 3, pause: 1h }").await;
    let mut browser = world.browser();
    for _ in 0..20 {
        assert_eq!(browser.fetch("/x").await.body, "a");
    }
    assert_eq!(met.load(Ordering::SeqCst), 3, "it is left alone then");
    assert_eq!(standing(&world, "ejected").await, 1.0);
    assert_eq!(world.metric("cloakroom_upstream_retries_total{result=\"sent_again\",upstream=\"odd\"}").await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_500_eject_where_the_settings_say_so_and_never_all() {
    for (on_5xx, expected) in [(true, 3), (false, 20)] {
        let (good, bad) = (Letter::start('a').await, Letter::start('b').await);
        let world = world(
            &[good.peer.address, bad.peer.address],
            &format!("ejection: {{ after: 3, on_5xx: {on_5xx}, pause: 1h }}"),
        )
        .await;
        bad.set(503);
        let mut browser = world.browser();
        for _ in 0..40 {
            browser.fetch("/x").await;
        }
        assert_eq!(bad.requests.load(Ordering::SeqCst), expected, "{on_5xx}");
        good.set(500);
        for _ in 0..20 {
            browser.fetch("/x").await;
        }
        assert!(bad.requests.load(Ordering::SeqCst) > expected, "with both out, both are used");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_take_addresses_out_of_service_and_back() {
    let (a, b) = (Letter::start('a').await, Letter::start('b').await);
    let check =
        "health_check: { path: /healthz?full, interval: 40ms, unhealthy_after: 2, healthy_after: 2, expect: [200] }";
    let world = world(&[a.peer.address, b.peer.address], check).await;
    eventually("both are checked", || async {
        a.checks.load(Ordering::SeqCst) > 3 && b.checks.load(Ordering::SeqCst) > 3
    })
    .await;
    let mut browser = world.browser();
    b.set(204);
    eventually("one is out", || async { standing(&world, "unhealthy").await == 1.0 }).await;
    for _ in 0..6 {
        assert_eq!(browser.fetch("/x").await.body, "a");
    }
    a.set(500);
    eventually("both are out", || async { standing(&world, "unhealthy").await == 2.0 }).await;
    let (status, text) = world.proxy.admin_page("/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK, "an upstream is no reason to leave");
    assert!(text.contains("upstreams: not ready (odd: none of 2 addresses in service)"), "{text}");
    let answers = [browser.fetch("/x").await.status, browser.fetch("/x").await.status];
    assert!(answers.contains(&StatusCode::NO_CONTENT), "all are used: {answers:?}");
    a.set(200);
    b.set(200);
    eventually("both are back", || async { standing(&world, "in_service").await == 2.0 }).await;
    assert!(world.proxy.admin_page("/readyz?verbose").await.1.contains("upstreams: ready\n"));
    assert!(world.metric("cloakroom_upstream_health_checks_total{result=\"error\",upstream=\"odd\"}").await >= 4.0);
    assert_eq!(a.requests.load(Ordering::SeqCst) + b.requests.load(Ordering::SeqCst), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_without_a_path_asks_for_a_connection_only() {
    let (a, dead) = (Letter::start('a').await, free_address());
    let world = world(&[a.peer.address, dead], "ejection: { after: 0 }, health_check: { interval: 40ms }").await;
    eventually("the dead one is out", || async { standing(&world, "unhealthy").await == 1.0 }).await;
    assert_eq!(world.browser().fetch("/x").await.body, "a");
    assert_eq!((a.checks.load(Ordering::SeqCst), a.requests.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_more_than_an_upstream_may_have_is_refused_at_once() {
    let held = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = held.clone();
    let slow = Peer::start(move |_, mut stream| {
        let gate = gate.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let _permit = gate.acquire().await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let world = world(&[slow.address], "max_requests: 2").await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut browser = world.browser();
            tokio::spawn(async move { browser.fetch("/x").await.status })
        })
        .collect();
    eventually("two are under way", || async { world.metric("cloakroom_http_requests_in_flight{").await == 2.0 }).await;
    let mut browser = world.browser();
    let answer = browser.fetch("/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable"));
    held.add_permits(10);
    for one in waiting {
        assert_eq!(one.await.expect("an answer"), StatusCode::OK);
    }
    assert_eq!(browser.fetch("/x").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_session_or_header_goes_to_the_same_address() {
    let letters = [Letter::start('a').await, Letter::start('b').await, Letter::start('c').await];
    let addresses: Vec<_> = letters.iter().map(|letter| letter.peer.address).collect();
    let by_session = world(&addresses, "balance: consistent_hash").await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let mut browser = by_session.browser();
        browser.log_in("/my/").await;
        let first = browser.fetch("/my/x").await.body;
        for _ in 0..3 {
            assert_eq!(browser.fetch("/my/x").await.body, first);
        }
        seen.insert(first);
    }
    assert!(seen.len() >= 2, "{seen:?}");

    let by_header = world(&addresses, "balance: consistent_hash, hash_on: header, hash_header: X-Tenant").await;
    let mut browser = by_header.browser();
    let mut seen = std::collections::BTreeSet::new();
    for tenant in 0..30 {
        let mut ask = async || {
            let draft = browser.draft(Method::GET, "/x").header("x-tenant", &tenant.to_string());
            browser.send(draft).await.body
        };
        let first = ask().await;
        assert_eq!(ask().await, first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3);
    // Without the header the address of the client counts.
    let first = browser.fetch("/x").await.body;
    assert_eq!(browser.fetch("/x").await.body, first);
}
