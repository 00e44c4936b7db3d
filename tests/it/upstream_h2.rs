//! HTTP/2 towards the upstream: what it says that it has not touched is sent again, and what a call brings comes through.

use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, Request, Response};
use reqwest::{Method, StatusCode};

use crate::h2_peer::{CANCEL, Does, ENHANCE_YOUR_CALM, H2Peer, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM};
use crate::harness::{SESSION, Wishes, World};
use crate::kit::*;
use crate::upstream_retries::{counted, world_with};
use crate::wire::{H2, Peer, Wire, h2c_client};

/// As much of a body as is kept for another attempt.
const KEPT: usize = 64 * 1024;

async fn world_of(endpoints: &[&H2Peer], retries: &str) -> World {
    let endpoints: Vec<_> = endpoints.iter().map(|peer| peer.address).collect();
    let routes = "      - { path: /short/, upstream: odd, access: public, max_body: 1KiB }\n      - { path: /, upstream: odd, access: public }";
    world_with(&endpoints, &format!(", protocol: h2c{retries}"), routes).await
}

/// A POST over HTTP/1 or HTTP/2 with so much of a body.
async fn post(world: &World, h2: bool, size: usize) -> StatusCode {
    let body = vec![b'x'; size];
    if h2 {
        let request = Request::post(format!("http://{}/x", world.proxy.address)).body(()).expect("a request");
        let pieces: Vec<&[u8]> = body.chunks(10_000).chain([&[][..]]).collect();
        let answer = H2::connect(world.proxy.address).await.ask(request, &pieces, None).await;
        answer.expect("an answer").status
    } else {
        let body = String::from_utf8(body).expect("text");
        world.browser().write(Method::POST, "/x", &body).await.status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_has_not_touched_goes_elsewhere_whatever_its_method() {
    for does in [
        Does::Resets(REFUSED_STREAM),
        Does::ReadsAndResets(REFUSED_STREAM),
        Does::LeavesBehind(NO_ERROR),
        Does::LeavesBehind(INTERNAL_ERROR),
        Does::LeavesBehind(ENHANCE_YOUR_CALM),
    ] {
        let (bad, good) = (H2Peer::start(move |_| does).await, H2Peer::start(|_| Does::Answers).await);
        let world = world_of(&[&bad, &good], "").await;
        let mut sizes = Vec::new();
        for h2 in [false, true] {
            for size in [0, 10, KEPT] {
                for _ in 0..4 {
                    assert_eq!(post(&world, h2, size).await, StatusCode::OK, "{does:?} h2: {h2}, {size}");
                    sizes.push(size);
                }
            }
        }
        assert_eq!(good.answered(), sizes, "{does:?}: whole, and none twice");
        assert!(bad.asked() >= 8, "{does:?}: {}", bad.asked());
        assert_eq!(counted(&world, "sent_again").await, bad.asked() as f64, "{does:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_endpoint_gets_it_again_too() {
    for does in [Does::Resets(REFUSED_STREAM), Does::LeavesBehind(NO_ERROR)] {
        let peer = H2Peer::start(move |number| if number % 2 == 0 { does } else { Does::Answers }).await;
        let world = world_of(&[&peer], "").await;
        for round in 1..=4 {
            assert_eq!(post(&world, round % 2 == 0, 10).await, StatusCode::OK, "{does:?}");
            assert_eq!((peer.asked(), peer.answered().len()), (2 * round, round), "{does:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_everything_is_asked_within_attempts_and_budget() {
    const REQUESTS: usize = 220;
    let peer = H2Peer::start(|_| Does::Resets(REFUSED_STREAM)).await;
    let once = world_of(&[&peer], ", retries: { attempts: 1 }").await;
    assert_eq!((post(&once, true, 10).await, peer.asked()), (StatusCode::BAD_GATEWAY, 1));
    let patient = world_of(&[&peer], "").await;
    assert_eq!((post(&patient, true, 10).await, peer.asked()), (StatusCode::BAD_GATEWAY, 4));
    // What was read and not kept cannot be sent again.
    let slow = H2Peer::start(|_| Does::ReadsAndResets(REFUSED_STREAM)).await;
    let patient = world_of(&[&slow], "").await;
    assert_eq!((post(&patient, false, KEPT + 1).await, slow.asked()), (StatusCode::BAD_GATEWAY, 1));
    assert_eq!((post(&patient, false, KEPT).await, slow.asked()), (StatusCode::BAD_GATEWAY, 4));

    let (world, before) = (world_of(&[&peer], ", retries: { attempts: 2, budget: 0% }").await, peer.asked());
    let begun = Instant::now();
    let (client, url) = (h2c_client(), format!("http://{}/x", world.proxy.address));
    for _ in 0..REQUESTS / 20 {
        let answers = join_all((0..20).map(|_| client.post(&url).body("once").send())).await;
        assert!(answers.into_iter().all(|answer| answer.expect("an answer").status() == StatusCode::BAD_GATEWAY));
    }
    let (again, over) = (counted(&world, "sent_again").await, counted(&world, "over_budget").await);
    assert_eq!(again + over, REQUESTS as f64);
    // A hundred in each window of ten seconds.
    let windows = begun.elapsed().as_secs() / 10 + 2;
    assert!(again >= 100.0 && again <= 100.0 * windows as f64, "{again} in {windows} windows");
    assert_eq!((peer.asked() - before) as f64, REQUESTS as f64 + again);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_touched_is_not_sent_again() {
    for does in [Does::Resets(INTERNAL_ERROR), Does::Resets(CANCEL), Does::Resets(NO_ERROR), Does::KeepsAndDies] {
        let peer = H2Peer::start(move |_| does).await;
        let world = world_of(&[&peer], "").await;
        for h2 in [false, true] {
            let before = peer.asked();
            assert_eq!(post(&world, h2, 10).await, StatusCode::BAD_GATEWAY, "{does:?}");
            assert_eq!(peer.asked(), before + 1, "{does:?} h2: {h2}");
        }
    }
    // Once an answer has begun, whatever the upstream says.
    let peer = H2Peer::start(|_| Does::AnswersAndRefuses).await;
    let world = world_of(&[&peer], "").await;
    let answer = reqwest::Client::new().post(format!("http://{}/x", world.proxy.address)).body("x").send().await;
    let whole = match answer {
        Ok(answer) => answer.status() == StatusCode::OK && answer.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert_eq!((whole, peer.asked()), (false, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_longer_than_the_route_takes_is_refused_at_once() {
    let peer = H2Peer::start(|_| Does::Answers).await;
    let world = world_of(&[&peer], "").await;
    let home = world.proxy.address;
    let request = Request::post(format!("http://{home}/short/x")).body(()).expect("a request");
    let answer = H2::connect(home).await.ask(request, &[&[0; 1000], &[0; 1000], &[]], None).await.expect("an answer");
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    let mut wire = Wire::connect(home).await;
    wire.send(format!("POST /short/x HTTP/1.1\r\nHost: {home}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    for _ in 0..2 {
        wire.send(format!("3e8\r\n{}\r\n", "x".repeat(1000))).await;
    }
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    assert_eq!(peer.answered(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_leave_gets_it() {
    let peer = H2Peer::start(|number| if number == 0 { Does::Resets(REFUSED_STREAM) } else { Does::Answers }).await;
    let world = world_of(&[&peer], "").await;
    let home = world.proxy.address;
    for size in [10, KEPT] {
        let mut wire = Wire::connect(home).await;
        wire.send(format!(
            "POST /x HTTP/1.1\r\nHost: {home}\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.any_answer(false).await.expect("leave").status, StatusCode::CONTINUE);
        wire.send(vec![b'x'; size]).await;
        assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::OK, "and leave only once");
    }
    assert_eq!(peer.answered(), [10, KEPT]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_a_token_before_it_has_read_the_body() {
    let peer = H2Peer::start(|number| if number % 2 == 0 { Does::Refuses401 } else { Does::Answers }).await;
    let world = world(Wishes {
        upstreams: format!("  - {{ name: odd, protocol: h2c, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /odd/, upstream: odd, csrf: false }\n      - { path: /, upstream: demo }".into(),
        provider: lasting_tokens(),
        ..ticking()
    })
    .await;
    let mut browser = world.logged_in().await;
    for (round, size) in [0, 10, 30_000, KEPT].into_iter().enumerate() {
        // Keeps the session in use, and its ticket young.
        world.clock.advance(secs(300));
        browser.fetch("/x").await;
        let request = Request::post(format!("http://{}/odd/x", browser.home)).header("origin", browser.origin());
        let request = request.header("cookie", format!("{SESSION}={}", ticket(&browser)));
        let body = vec![b'x'; size];
        let pieces: Vec<&[u8]> = body.chunks(10_000).chain([&[][..]]).collect();
        let h2 = H2::connect(browser.home).await;
        let answer = h2.ask(request.body(()).expect("a request"), &pieces, None).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{size}: {answer:?}");
        assert_eq!((peer.asked(), peer.answered().pop()), (2 * round + 2, Some(size)));
        assert_eq!(token_calls(&world), round + 2);
    }
    assert_shown_once(&world);
}

/// Messages of a gRPC service come as they are sent, and its status behind them.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_with_a_session_comes_and_goes_whole() {
    const MESSAGE: &[u8] = &[7; 50_000];
    const MESSAGES: usize = 8;
    let peer = Peer::start(|_, stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let (parts, mut body) = request.into_parts();
                let text = |name: &str| {
                    parts.headers.get(name).map_or(Bytes::new(), |value| Bytes::copy_from_slice(value.as_bytes()))
                };
                assert!(text("authorization").starts_with(b"Bearer ") && text("te") == "trailers");
                let answer = Response::builder().header("content-type", "application/grpc").body(()).expect("it");
                let mut stream = respond.send_response(answer, false).expect("sent");
                // Each message is answered before the next one comes.
                while let Some(Ok(piece)) = body.data().await {
                    let _ = body.flow_control().release_capacity(piece.len());
                    if !piece.is_empty() {
                        stream.send_data(piece, false).expect("sent");
                    }
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("16"));
                trailers.insert("grpc-message", HeaderValue::from_static("late%20refusal"));
                trailers.insert("x-more-bin", HeaderValue::from_static("AAEC"));
                trailers.insert("x-user-context-update", HeaderValue::from_static("e30"));
                let _ = stream.send_trailers(trailers);
            });
        }
    })
    .await;
    let world = world(Wishes {
        upstreams: format!("  - {{ name: service, protocol: h2c, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /pkg.Service/, upstream: service, csrf: false }\n      - { path: /, upstream: demo }"
            .into(),
        ..Wishes::default()
    })
    .await;
    let browser = world.logged_in().await;
    let stream = tokio::net::TcpStream::connect(browser.home).await.expect("a connection");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}/pkg.Service/Call", browser.home))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("cookie", format!("{SESSION}={}", ticket(&browser)));
    let (answer, mut requests) = sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
    let answer = answer.await.expect("an answer before there was a message");
    assert_eq!(
        (answer.status(), &answer.headers()["content-type"]),
        (StatusCode::OK, &"application/grpc".parse().expect("it"))
    );
    let mut answers = answer.into_body();
    for _ in 0..MESSAGES {
        requests.send_data(Bytes::from_static(MESSAGE), false).expect("sent");
        let mut got = Vec::new();
        while got.len() < MESSAGE.len() {
            let piece = answers.data().await.expect("more").expect("a piece");
            answers.flow_control().release_capacity(piece.len()).expect("room");
            got.extend_from_slice(&piece);
        }
        assert_eq!(got, MESSAGE);
    }
    requests.send_data(Bytes::new(), true).expect("sent");
    while let Some(piece) = answers.data().await {
        assert!(piece.expect("no error").is_empty());
    }
    let trailers = answers.trailers().await.expect("no error").expect("trailers");
    assert_eq!(trailers["grpc-status"], "16");
    assert_eq!(
        (&trailers["grpc-message"], &trailers["x-more-bin"]),
        (&"late%20refusal".parse().expect("it"), &"AAEC".parse().expect("it"))
    );
    assert_eq!(trailers.len(), 3, "what is ours stays here: {trailers:?}");
    // A status behind an answer refuses no token: it has been answered.
    assert_eq!(token_calls(&world), 1);
}
