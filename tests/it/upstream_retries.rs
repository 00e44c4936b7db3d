//! Which requests are sent to an upstream again, and how many of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Wishes, World, free_address};
use crate::wire::{Peer, read_head, requests};

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// What an endpoint does once it has read a whole request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Answers.
    Good,
    /// Closes without a word.
    Silent,
    /// Breaks off within the header of its answer.
    HalfHeader,
    /// Breaks off within the body of its answer.
    HalfBody,
    /// Closes as soon as it has seen the first bytes.
    Hasty,
}

/// Request lines by how often they arrived anywhere.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<BTreeMap<String, usize>>>);

impl Arrivals {
    fn note(&self, line: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(line.to_owned()).or_default() += 1;
    }

    fn of(&self, method: &Method) -> Vec<usize> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(line, _)| line.starts_with(&format!("{method} "))).map(|(_, count)| *count).collect()
    }
}

async fn endpoint(manner: Manner, arrivals: &Arrivals) -> Peer {
    let arrivals = arrivals.clone();
    Peer::start(move |_, mut stream| {
        let arrivals = arrivals.clone();
        async move {
            let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                bytes.extend_from_slice(&piece[..count]);
                if let Manner::Hasty = manner {
                    arrivals.note(String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default());
                    return;
                }
                let (whole, rest) = requests(&bytes);
                let rest = rest.to_vec();
                for line in &whole {
                    arrivals.note(line);
                    let answer = match manner {
                        Manner::Good => GOOD,
                        Manner::HalfHeader => b"HTTP/1.1 200 OK\r\nContent-Le",
                        Manner::HalfBody => b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nhalf",
                        Manner::Silent | Manner::Hasty => b"",
                    };
                    if stream.write_all(answer).await.is_err() || !matches!(manner, Manner::Good) {
                        return;
                    }
                }
                bytes = rest;
            }
        }
    })
    .await
}

async fn world(endpoints: &[SocketAddr], retries: &str) -> World {
    world_with(endpoints, retries, "      - { path: /, upstream: odd, access: public }").await
}

/// The upstream `odd` at these addresses, with more settings of its own.
pub(crate) async fn world_with(endpoints: &[SocketAddr], more: &str, routes: &str) -> World {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let world = World::with(Wishes {
        // However often an address fails, it stays where it is to be met.
        upstreams: format!(
            "  - {{ name: odd, endpoints: [{}], ejection: {{ after: 0 }}{more} }}",
            endpoints.join(", ")
        ),
        routes: routes.into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

pub(crate) async fn counted(world: &World, result: &str) -> f64 {
    world.metric(&format!("cloakroom_upstream_retries_total{{result=\"{result}\",upstream=\"odd\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_connection_broke_goes_elsewhere_if_its_method_is_idempotent() {
    for manner in [Manner::Silent, Manner::HalfHeader, Manner::Hasty] {
        let arrivals = Arrivals::default();
        let (bad, good) = (endpoint(manner, &arrivals).await, endpoint(Manner::Good, &arrivals).await);
        let world = world(&[bad.address, good.address], "").await;
        let mut browser = world.browser();
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
            for round in 0..6 {
                let body = "x".repeat(if method == Method::PUT { 60_000 } else { 0 });
                let answer = browser.write(method.clone(), &format!("/{round}"), &body).await;
                assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "good"), "{method} {manner:?}");
            }
        }
        let mut lost = 0;
        for method in [Method::POST, Method::PATCH] {
            for round in 0..6 {
                let answer = browser.write(method.clone(), &format!("/{round}"), "once").await;
                match answer.status {
                    StatusCode::OK => {}
                    StatusCode::BAD_GATEWAY => lost += 1,
                    _ => panic!("{answer:?}"),
                }
            }
            assert_eq!(arrivals.of(&method), [1; 6], "{method} {manner:?}: none arrives twice");
        }
        assert!((4..=8).contains(&lost), "{lost} of 12 had half the endpoints to meet");
        assert!(counted(&world, "sent_again").await >= 8.0);
        assert_eq!(counted(&world, "over_budget").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let arrivals = Arrivals::default();
    let bad = endpoint(Manner::HalfBody, &arrivals).await;
    let world = world(&[bad.address], "").await;
    for _ in 0..3 {
        let answer = reqwest::get(format!("http://{}/x", world.proxy.address)).await.expect("a header");
        assert!(answer.bytes().await.is_err(), "half a body is no whole one");
    }
    assert_eq!(arrivals.of(&Method::GET), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_not_kept_is_not_sent_again() {
    let arrivals = Arrivals::default();
    let (bad, worse) = (endpoint(Manner::Silent, &arrivals).await, endpoint(Manner::Silent, &arrivals).await);
    let world = world(&[bad.address, worse.address], "").await;
    let answer = world.browser().write(Method::PUT, "/long", &"x".repeat(65_537)).await;
    assert_eq!((answer.status, arrivals.of(&Method::PUT)), (StatusCode::BAD_GATEWAY, vec![1]), "{answer:?}");
    let answer = world.browser().write(Method::PUT, "/long", &"x".repeat(65_536)).await;
    assert_eq!((answer.status, arrivals.of(&Method::PUT)), (StatusCode::BAD_GATEWAY, vec![4]), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_endpoints_three_may_refuse_within_four_attempts() {
    let arrivals = Arrivals::default();
    let (good, other) = (endpoint(Manner::Good, &arrivals).await, endpoint(Manner::Good, &arrivals).await);
    let endpoints = [free_address(), good.address, free_address(), free_address(), other.address];
    let patient = world(&endpoints, ", retries: { attempts: 4, budget: 100% }").await;
    let mut browser = patient.browser();
    for round in 0..10 {
        let answer = browser.write(Method::POST, &format!("/{round}"), "once").await;
        assert_eq!(answer.status, StatusCode::OK, "no endpoint that failed is tried again: {answer:?}");
    }
    assert_eq!(arrivals.of(&Method::POST), [1; 10]);
    let hasty = world(&endpoints, ", retries: { attempts: 1 }").await;
    let mut browser = hasty.browser();
    let mut refused = 0;
    for _ in 0..10 {
        refused += usize::from(browser.fetch("/x").await.status == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(refused, 6, "one attempt each");
    assert_eq!(counted(&hasty, "sent_again").await + counted(&hasty, "over_budget").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_gets_a_fifth_more_and_not_three_times_as_much() {
    const REQUESTS: usize = 600;
    let arrivals = Arrivals::default();
    let (bad, worse) = (endpoint(Manner::Silent, &arrivals).await, endpoint(Manner::Silent, &arrivals).await);
    let world = world(&[bad.address, worse.address], ", retries: { attempts: 10 }").await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/x", world.proxy.address));
    for _ in 0..REQUESTS / 20 {
        let answers = join_all((0..20).map(|_| client.get(&url).send())).await;
        assert!(answers.into_iter().all(|answer| answer.expect("an answer").status() == StatusCode::BAD_GATEWAY));
    }
    let (again, over) = (counted(&world, "sent_again").await, counted(&world, "over_budget").await);
    let arrived = arrivals.of(&Method::GET)[0];
    assert_eq!(again, (arrived - REQUESTS) as f64);
    // A hundred in each window of ten seconds beside; two of them if this machine is very slow.
    assert!((200.0..=320.0).contains(&again), "{again} retries of {REQUESTS} requests");
    assert!(over > 300.0, "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_got_a_100_is_still_told_how_it_ended() {
    let peer = Peer::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let _ = stream.read(&mut [0; 64]).await;
    })
    .await;
    let world = world(&[peer.address], "").await;
    let home = world.proxy.address;
    let mut wire = crate::wire::Wire::connect(home).await;
    wire.send(format!("POST /x HTTP/1.1\r\nHost: {home}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")).await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::CONTINUE);
    wire.send("body").await;
    let answer = wire.any_answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_failed"));
    let requests = world.metric("cloakroom_http_requests_total{code=\"502\",method=\"POST\"").await;
    assert_eq!(requests, 1.0);
}
