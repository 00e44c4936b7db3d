//! Sizes, and connections after answers of our own: 431, 413, large streams, `Expect`, HEAD, keep-alive.

use std::time::{Duration, Instant};

use http::Request;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{SESSION, Seen, Wishes, World, XSRF};
use crate::wire::{H2, Peer, Wire, ask, h2c_client};

async fn world() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

fn with_fields(world: &World, target: &str, fields: &[(String, String)]) -> String {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", world.proxy.address)
}

fn is_problem(answer: &Seen, code: &str) -> bool {
    answer.code() == code
        && answer.header("content-type") == "application/problem+json"
        && answer.json()["code"] == code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_too_large_is_answered_431_and_reaches_nobody() {
    let world = world().await;
    let recorder = world.demo.upstream.recorder();
    let many = |count: usize| (0..count).map(|n| (format!("x-field-{n}"), "1".into())).collect::<Vec<_>>();
    let large = |bytes: usize| vec![("x-large".to_owned(), "x".repeat(bytes))];
    let split = |bytes: usize| (0..4).map(|n| (format!("x-{n}"), "x".repeat(bytes / 4))).collect::<Vec<_>>();
    let long = format!("/open/{}", "x".repeat(33 * 1024));
    for (target, fields, passes) in [
        ("/open/x", many(90), true),
        ("/open/x", many(100), false),
        ("/open/x", many(200), false),
        ("/open/x", large(31 * 1024), true),
        ("/open/x", large(33 * 1024), false),
        ("/open/x", split(33 * 1024), false),
        ("/open/x", large(300 * 1024), false),
        (&long, many(1), false),
    ] {
        let before = recorder.count();
        let mut wire = Wire::connect(world.proxy.address).await;
        wire.send(with_fields(&world, target, &fields)).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(recorder.count() - before, usize::from(passes));
        if passes {
            assert_eq!(answer.status, StatusCode::OK);
        } else {
            let (status, code) = match target.len() {
                ..8192 => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large"),
                _ => (StatusCode::URI_TOO_LONG, "uri_too_long"),
            };
            assert_eq!(answer.status, status);
            assert!(is_problem(&answer, code), "{answer:?}");
            assert_eq!(answer.header("connection"), "close");
            assert!(wire.is_closed().await);
        }
    }
    // The proxy may close before a megabyte is written; what counts is that nobody sees it.
    let mut wire = Wire::connect(world.proxy.address).await;
    let before = recorder.count();
    wire.send(with_fields(&world, "/open/x", &large(2 * 1024 * 1024))).await;
    wire.rest_or_reset().await;
    assert_eq!(recorder.count(), before);

    let h2 = H2::connect(world.proxy.address).await;
    for (fields, ours) in [(many(101), true), (large(20 * 1024), false)] {
        let mut request = Request::get(format!("http://{}/open/x", world.proxy.address));
        for (name, value) in &fields {
            request = request.header(name, value);
        }
        let answer = h2.ask(request.body(()).expect("a request"), &[], None).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        // A header list above 16 KiB is refused by the HTTP/2 layer before anything of ours sees it.
        assert_eq!(answer.code() == "header_too_large", ours);
    }
    assert_eq!(recorder.count(), before);
    assert!(world.metric("cloakroom_requests_rejected_total{reason=\"header_too_large\"}").await >= 6.0);
    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"uri_too_long\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_long_is_answered_413_and_poisons_no_connection() {
    let world = world().await;
    let (home, recorder) = (world.proxy.address, world.demo.upstream.recorder());
    let post = |framing: &str| format!("POST /small/x HTTP/1.1\r\nHost: {home}\r\n{framing}\r\n\r\n");
    let chunked = |sizes: &[usize]| {
        let chunks: String = sizes.iter().map(|size| format!("{size:x}\r\n{}\r\n", "x".repeat(*size))).collect();
        post("Transfer-Encoding: chunked") + &chunks + "0\r\n\r\n"
    };
    let sized = |size: usize| post(&format!("Content-Length: {size}")) + &"x".repeat(size);
    for (request, passes) in [
        (sized(1024), true),
        (sized(1025), false),
        (sized(3 * 1024 * 1024), false),
        (chunked(&[512, 512]), true),
        (chunked(&[512, 513]), false),
        (chunked(&[1, 1, 2000]), false),
        (chunked(&[100_000; 20]), false),
        (chunked(&[]), true),
    ] {
        let (before, shown) = (recorder.count(), request.len());
        let answer = ask(home, request).await.expect("an answer");
        if passes {
            assert_eq!((answer.status, recorder.count()), (StatusCode::OK, before + 1), "{shown}");
        } else {
            assert_eq!((answer.status, recorder.count()), (StatusCode::PAYLOAD_TOO_LARGE, before), "{shown}");
            assert!(is_problem(&answer, "body_too_large"), "{answer:?}");
            assert_eq!(answer.header("connection"), "close");
        }
        for round in 0..3 {
            let target = format!("/open/{shown}.{round}");
            let next = ask(home, format!("GET {target} HTTP/1.1\r\nHost: {home}\r\n\r\n")).await.expect("an answer");
            assert_eq!((next.status, next.json()["path"].as_str()), (StatusCode::OK, Some(target.as_str())));
        }
    }
    let h2 = H2::connect(home).await;
    for (length, pieces, passes) in [
        (Some(1025), vec![&[b'x'; 1025][..]], false),
        (None, vec![&[b'x'; 512][..], &[b'x'; 513]], false),
        (None, vec![&[b'x'; 512][..], &[b'x'; 512]], true),
        (Some(1024), vec![&[b'x'; 1024][..], b""], true),
    ] {
        let before = recorder.count();
        let mut request = Request::post(format!("http://{home}/small/x"));
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let answer = h2.ask(request.body(()).expect("a request"), &pieces, None).await.expect("an answer");
        let expected = if passes { StatusCode::OK } else { StatusCode::PAYLOAD_TOO_LARGE };
        assert_eq!((answer.status, recorder.count() - before), (expected, usize::from(passes)));
        let request = Request::get(format!("http://{home}/open/after")).body(()).expect("a request");
        assert_eq!(h2.ask(request, &[], None).await.expect("an answer").status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_stream_in_both_directions() {
    const UP: usize = 9 * 1024 * 1024;
    const DOWN: usize = 24 * 1024 * 1024;
    let world = world().await;
    let recorder = world.demo.upstream.recorder();
    let mut browser = world.logged_in().await;
    for h2 in [false, true] {
        if h2 {
            browser.client = h2c_client();
        }
        let answer = browser.write(Method::PUT, "/api/x", &"x".repeat(UP)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(recorder.last().expect("a request").body_bytes, UP);
        let answer = browser.fetch(&format!("/api/large?bytes={DOWN}")).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, DOWN));
        browser.received.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_met_by_the_upstream_and_by_our_own_endpoints() {
    let world = world().await;
    let browser = world.logged_in().await;
    let (home, recorder) = (world.proxy.address, world.demo.upstream.recorder());
    let value = |name| browser.cookie(name).expect("a cookie");
    let ours = format!(
        "Origin: {}\r\nCookie: {SESSION}={}; {XSRF}={}\r\nX-XSRF-TOKEN: {}\r\n",
        browser.origin(),
        value(SESSION),
        value(XSRF),
        value(XSRF)
    );
    let expecting = |path: &str, fields: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {home}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n{fields}\r\n")
    };
    let tokenless = ours.lines().filter(|line| !line.starts_with("X-XSRF")).map(|line| format!("{line}\r\n"));
    let tokenless: String = tokenless.collect();
    for (path, fields, last) in [("/api/x", &ours, StatusCode::OK), ("/auth/logout", &tokenless, StatusCode::FORBIDDEN)]
    {
        let mut wire = Wire::connect(home).await;
        wire.send(expecting(path, fields)).await;
        assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::CONTINUE, "{path}");
        wire.send("a=b&").await;
        assert_eq!(wire.answer().await.expect("an answer").status, last, "{path}");
    }
    // A body that decides nothing is not asked for.
    let strangers = Wire::connect(home).await.exchange(expecting("/auth/logout", "")).await;
    assert_eq!(strangers.status, StatusCode::FORBIDDEN);
    let answer = Wire::connect(home).await.exchange(expecting("/auth/logout", &ours)).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    // A refusal comes at once: no body was asked for, so none is awaited.
    for (path, fields, status) in [
        ("/api/x", "", StatusCode::UNAUTHORIZED),
        ("/small/x", "Content-Length: 9000\r\n", StatusCode::BAD_REQUEST),
        ("/auth/session", "", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let before = recorder.count();
        let answer = Wire::connect(home).await.exchange(expecting(path, fields)).await;
        assert_eq!((answer.status, recorder.count()), (status, before), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_header_of_get_and_no_body() {
    let world = world().await;
    let home = world.proxy.address;
    let mut wire = Wire::connect(home).await;
    for (path, status) in [
        ("/open/x", StatusCode::OK),
        ("/api/x", StatusCode::UNAUTHORIZED),
        ("/auth/session", StatusCode::OK),
        ("/auth/logged-out", StatusCode::OK),
        ("/auth/userinfo", StatusCode::UNAUTHORIZED),
        ("/auth/login", StatusCode::METHOD_NOT_ALLOWED),
        ("/%00", StatusCode::BAD_REQUEST),
        ("/open/y", StatusCode::OK),
    ] {
        wire.send(format!("HEAD {path} HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
        let answer = wire.any_answer(true).await.expect("an answer");
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.header("content-length").parse::<usize>().is_ok_and(|length| length > 0), "{answer:?}");
        wire.send(format!("GET /open/after HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, StatusCode::OK, "after HEAD {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_our_own_answers_or_says_that_it_ends() {
    let world = world().await;
    let (home, recorder) = (world.proxy.address, world.demo.upstream.recorder());
    let mut wire = Wire::connect(home).await;
    for (line, fields, status) in [
        ("GET /api/x", "", 401),
        ("GET /api/x", "Accept: text/html\r\n", 303),
        ("GET /open/%2f", "", 400),
        ("GET /auth/session", "", 200),
        ("GET /auth/nothing", "", 404),
        ("TRACE /open/x", "", 405),
        ("DELETE /api/x", "", 401),
    ] {
        wire.send(format!("{line} HTTP/1.1\r\nHost: {home}\r\n{fields}\r\n")).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{line}");
        assert_ne!(answer.header("connection"), "close", "{line}");
    }
    wire.send("GET /open/x HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("an answer").status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(recorder.count(), 0);

    // A body that nobody reads must not become the next request.
    let hidden = format!("GET /open/hidden HTTP/1.1\r\nHost: {home}\r\n\r\n");
    for framing in
        [format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()), format!("Content-Length: 5000\r\n\r\n{hidden}")]
    {
        let mut wire = Wire::connect(home).await;
        wire.send(format!("POST /api/x HTTP/1.1\r\nHost: {home}\r\n{framing}")).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        if answer.header("connection") == "close" {
            assert!(wire.is_closed().await);
        } else {
            let next = wire.exchange(format!("GET /open/next HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
            assert_eq!(next.json()["path"], "/open/next");
        }
        assert!(recorder.all().iter().all(|received| received.path != "/open/hidden"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_read_for_a_while_so_that_its_sender_sees_the_answer() {
    let world = world().await;
    let home = world.proxy.address;
    let size = 4 * 1024 * 1024;
    let body = vec![b'x'; size];
    for (path, status) in [("/api/x", StatusCode::UNAUTHORIZED), ("/small/x", StatusCode::PAYLOAD_TOO_LARGE)] {
        // As a browser does it: the whole body first, then the answer.
        let mut stream = TcpStream::connect(home).await.expect("a connection");
        let head = format!("POST {path} HTTP/1.1\r\nHost: {home}\r\nContent-Length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        stream.write_all(&body).await.expect("the body is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer and an end, no reset");
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {}", status.as_u16())), "{text}");
        assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
    }
    // Whoever never ends is not read for ever.
    let mut wire = Wire::connect(home).await;
    let begun = Instant::now();
    wire.send(format!("POST /api/x HTTP/1.1\r\nHost: {home}\r\nContent-Length: 9\r\n\r\n1")).await;
    assert_eq!(wire.answer().await.expect("an answer").status, StatusCode::UNAUTHORIZED);
    assert!(wire.is_closed().await);
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_its_body_is_told_so() {
    let peer = Peer::start(|_, mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: odd, endpoints: [\"{}\"], timeouts: {{ read: 300ms }} }}", peer.address),
        routes: "      - { path: /, upstream: odd, access: public }".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let home = world.proxy.address;
    for (body, status, code) in [
        ("123", StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        ("123456789", StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
    ] {
        let request = format!("POST /x HTTP/1.1\r\nHost: {home}\r\nContent-Length: 9\r\n\r\n{body}");
        let answer = Wire::connect(home).await.exchange(request).await;
        assert_eq!((answer.status, answer.code()), (status, code));
    }
    // Our own endpoints wait five seconds for a whole body.
    let mut browser = world.browser();
    browser.log_in("/auth/login").await;
    let fields = format!("Cookie: {SESSION}={}\r\nContent-Length: 9\r\n", browser.cookie(SESSION).expect("a session"));
    let request = format!("POST /auth/logout HTTP/1.1\r\nHost: {home}\r\n{fields}\r\n123");
    let answer = Wire::connect(home).await.exchange(request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::REQUEST_TIMEOUT, "request_timeout"));
    let failed = world.metric("cloakroom_upstream_requests_total{code=\"request_timeout\"").await;
    assert_eq!(failed, 0.0, "the upstream is not blamed");
}
