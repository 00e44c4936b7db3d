//! Upstreams over TLS: whoever cannot prove its name is no upstream.

use http::Request;
use reqwest::StatusCode;

use crate::harness::{Wishes, World, logs};
use crate::secure_upstream::{Authority, Secure};
use crate::wire::{H2, Wire};

async fn world(upstreams: &[String]) -> World {
    let route = |index: usize| format!("      - {{ path: /{index}/, upstream: u{index}, access: public }}\n");
    let items: Vec<_> = upstreams.iter().enumerate().map(|(i, rest)| format!("  - {{ name: u{i}, {rest} }}")).collect();
    let world = World::with(Wishes {
        upstreams: items.join("\n"),
        routes: (0..upstreams.len()).map(route).collect::<String>()
            + "      - { path: /, upstream: demo, access: public }",
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

fn at(upstream: &Secure, tls: &str) -> String {
    format!("endpoints: [\"127.0.0.1:{}\"], tls: {{ {tls} }}, timeouts: {{ connect: 2s, read: 2s }}", upstream.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_upstream_that_proves_its_name_is_spoken_to() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let good = Secure::tls(&ours.issue("api.internal"), &["http/1.1"], None).await;
    let expired = ours.issue_with("api.internal", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let expired = Secure::tls(&expired, &["http/1.1"], None).await;
    let picky = Secure::tls(&ours.issue("api.internal"), &["http/1.1"], Some(&ours)).await;
    let (ca, other) = (format!("ca: \"{}\"", ours.file()), format!("ca: \"{}\"", foreign.file()));
    let client = format!("client_certificate: {}", ours.files(&ours.issue("cloakroom")));
    let stranger = format!("client_certificate: {}", foreign.files(&foreign.issue("cloakroom")));
    let named = "server_name: api.internal";
    let cases = [
        (at(&good, &format!("{ca}, {named}")), None),
        (at(&good, &format!("{ca}, server_name: other.internal")), Some("not valid for name")),
        (at(&good, &format!("{other}, {named}")), Some("UnknownIssuer")),
        (at(&good, named), Some("UnknownIssuer")),
        (at(&expired, &format!("{ca}, {named}")), Some("expired")),
        (at(&picky, &format!("{ca}, {named}, {client}")), None),
        (at(&picky, &format!("{ca}, {named}")), Some("")),
        (at(&picky, &format!("{ca}, {named}, {stranger}")), Some("")),
        (format!("endpoints: [\"127.0.0.1:{}\"]", good.port), Some("")),
    ];
    let world = world(&cases.iter().map(|(upstream, _)| upstream.clone()).collect::<Vec<_>>()).await;
    let mut browser = world.browser();
    // Twice, so that connections which the good ones have left in the pool would be found.
    for round in 0..2 {
        for (index, (upstream, problem)) in cases.iter().enumerate() {
            let answer = browser.fetch(&format!("/{index}/x")).await;
            let Some(reason) = problem else {
                assert_eq!(
                    (answer.status, answer.body.as_str()),
                    (StatusCode::OK, "h1"),
                    "{round} {upstream}: {answer:?}"
                );
                continue;
            };
            assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_failed"), "{upstream}");
            let logs = logs();
            let told = logs.lines().any(|line| {
                line.contains("no connection to an address of an upstream")
                    && line.contains(&format!("upstream=u{index} "))
                    && line.contains(reason)
            });
            // A client without a certificate hears of it only when it reads, and a plain one never.
            assert!(told || reason.is_empty(), "{upstream}");
        }
    }
    let seen = good.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(picky.seen().len(), 2);
    assert!(expired.seen().is_empty());

    // The same for tunnels, which shake hands by themselves.
    let home = world.proxy.address;
    for (index, (upstream, problem)) in cases.iter().enumerate() {
        let mut wire = Wire::connect(home).await;
        wire.send(format!(
            "GET /{index}/ws HTTP/1.1\r\nHost: {home}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        let answer = wire.any_answer(false).await.expect("an answer");
        if problem.is_some() {
            assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_failed"), "{upstream}");
            continue;
        }
        assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS, "{upstream}: {answer:?}");
        for message in [&b"\x81\x05hello"[..], &[0xff; 50_000]] {
            wire.send(message).await;
            assert_eq!(wire.take(message.len()).await, message, "{upstream}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_to_an_upstream_keeps_bodies_trailers_and_te() {
    let authority = Authority::new();
    let secure = Secure::tls(&authority.issue("localhost"), &["h2", "http/1.1"], None).await;
    let plain = Secure::h2c().await;
    let old = Secure::tls(&authority.issue("localhost"), &["http/1.1"], None).await;
    let ca = format!("tls: {{ ca: \"{}\" }}", authority.file());
    let named = |upstream: &Secure| format!("endpoints: [\"https://localhost:{}\"], {ca}, protocol: h2", upstream.port);
    let world =
        world(&[named(&secure), format!("endpoints: [\"127.0.0.1:{}\"], protocol: h2c", plain.port), named(&old)])
            .await;
    let (home, mut browser) = (world.proxy.address, world.browser());
    for (index, upstream) in [(0, &secure), (1, &plain)] {
        // From HTTP/1.
        for size in [0, 10, 200_000] {
            let body = "b".repeat(size);
            let answer = browser.write(reqwest::Method::POST, &format!("/{index}/x?q"), &body).await;
            assert_eq!((answer.status, answer.header("x-protocol")), (StatusCode::OK, "h2"), "{answer:?}");
            assert!(answer.body == body, "{index} {size}");
        }
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!(seen.version(), http::Version::HTTP_2);
        assert_eq!(seen.uri().path_and_query().expect("a target").as_str(), format!("/{index}/x?q"));
        assert_eq!(seen.uri().authority().expect("an authority").as_str(), home.to_string());
        assert_eq!(seen.uri().scheme_str(), Some(if index == 0 { "https" } else { "http" }));
        assert_eq!(seen.headers()["x-forwarded-for"], "127.0.0.1");

        // From HTTP/2, as gRPC does it.
        let stream = tokio::net::TcpStream::connect(home).await.expect("a connection");
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let request = Request::post(format!("http://{home}/{index}/pkg.Service/Call"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .expect("a request");
        let mut sender = sender.ready().await.expect("room");
        let (answer, mut body) = sender.send_request(request, false).expect("sent");
        for _ in 0..3 {
            body.send_data(bytes::Bytes::from_static(b"message"), false).expect("sent");
        }
        body.send_data(bytes::Bytes::new(), true).expect("sent");
        let (parts, mut body) = answer.await.expect("an answer").into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            bytes.extend_from_slice(&piece.expect("a piece"));
        }
        assert_eq!(bytes, b"messagemessagemessage");
        let trailers = body.trailers().await.expect("no error").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!(seen.headers()["te"], "trailers");
        assert_eq!(upstream.connections(), 1, "one connection serves them all");
    }
    // Nobody falls back to what was not asked for.
    let answer = browser.fetch("/2/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_failed"), "{answer:?}");
    assert!(old.seen().is_empty(), "{:?}", old.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn split_cookies_of_http2_reach_http1_as_one_field() {
    let authority = Authority::new();
    let upstream = Secure::tls(&authority.issue("localhost"), &["http/1.1"], None).await;
    let ca = authority.file();
    let world =
        world(&[format!("endpoints: [\"https://localhost:{}\"], tls: {{ ca: \"{ca}\" }}", upstream.port)]).await;
    let home = world.proxy.address;
    let mut request = Request::get(format!("http://{home}/0/x"));
    for cookie in ["a=1", "XSRF-TOKEN=t", "b=2", "c=3"] {
        request = request.header("cookie", cookie);
    }
    let answer = H2::connect(home).await.ask(request.body(()).expect("a request"), &[], None).await;
    assert_eq!(answer.expect("an answer").body, "h1");
    let seen = upstream.seen().pop().expect("a request");
    let cookies: Vec<_> = seen.headers().get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}
