//! B5: an upstream that refuses a token of ours gets the request once more with a newer one, if there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom::demo::Fault;
use http::Request;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Browser, SESSION, Seen, Wishes, World};
use crate::kit::*;
use crate::wire::{H2, Peer, Wire, h2c_client, read_head};

/// From then on a session's token may be replaced before its time again.
const FORCE_EVERY: Duration = secs(300);
/// What is kept of a body for a second try.
const KEPT: usize = 64 * 1024;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How a body comes.
#[derive(Clone, Copy, Debug)]
enum Framing {
    None,
    Sized(usize),
    Chunked(usize),
    Expected(usize),
}

impl Framing {
    fn size(self) -> usize {
        match self {
            Self::None => 0,
            Self::Sized(size) | Self::Chunked(size) | Self::Expected(size) => size,
        }
    }
}

const MATRIX: [Framing; 11] = [
    Framing::None,
    Framing::Sized(0),
    Framing::Sized(10),
    Framing::Sized(KEPT),
    Framing::Sized(KEPT + 1),
    Framing::Chunked(10),
    Framing::Chunked(KEPT),
    Framing::Chunked(KEPT + 1),
    Framing::Expected(10),
    Framing::Expected(KEPT),
    Framing::Expected(KEPT + 1),
];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| u8::try_from(index % 251).expect("small")).collect()
}

/// Tokens that last, under a clock of ours.
fn lasting() -> Wishes {
    Wishes { provider: lasting_tokens(), ..ticking() }
}

/// A world whose routes all go to `peer` and send a token.
async fn world_over(peer: &Peer, more: &str) -> World {
    world(Wishes {
        upstreams: format!("  - {{ name: odd, endpoints: [\"{}\"] }}", peer.address),
        routes: format!(
            "      - {{ path: /odd/, upstream: odd, csrf: false{more} }}\n      - {{ path: /, upstream: demo }}"
        ),
        ..lasting()
    })
    .await
}

/// The upstream refuses the present token of the session from now on.
fn refuse_present(world: &World) {
    world.demo.upstream.refuse_token(&newest(world).access_token);
}

async fn counted(world: &World, result: &str) -> f64 {
    world.metric(&format!("cloakroom_upstream_unauthorized_retries_total{{result=\"{result}\"")).await
}

/// Sends over HTTP/1.1 as `framing` says; the connection goes on to be good for another request.
async fn send_h1(browser: &Browser, framing: Framing) -> Seen {
    let (home, body) = (browser.home, content(framing.size()));
    let method = if matches!(framing, Framing::None) { "GET" } else { "POST" };
    let mut request = format!(
        "{method} /nocsrf/x HTTP/1.1\r\nHost: {home}\r\nOrigin: {}\r\nCookie: {SESSION}={}\r\n",
        browser.origin(),
        ticket(browser)
    );
    match framing {
        Framing::None => {}
        Framing::Sized(size) => request += &format!("Content-Length: {size}\r\n"),
        Framing::Expected(size) => request += &format!("Content-Length: {size}\r\nExpect: 100-continue\r\n"),
        Framing::Chunked(_) => request += "Transfer-Encoding: chunked\r\n",
    }
    let mut wire = Wire::connect(home).await;
    wire.send(request + "\r\n").await;
    match framing {
        Framing::None => {}
        Framing::Sized(_) => wire.send(&body).await,
        Framing::Expected(_) => {
            assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::CONTINUE);
            wire.send(&body).await;
        }
        Framing::Chunked(_) => {
            for piece in body.chunks(10_000) {
                wire.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
            }
            wire.send("0\r\n\r\n").await;
        }
    }
    let answer = wire.any_answer(false).await.expect("an answer");
    // Nothing of another answer stands between this one and the next.
    if answer.header("connection") != "close" {
        let next = wire.exchange(format!("GET /open/next HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
        assert_eq!(next.json()["path"], "/open/next", "{framing:?}");
    }
    answer
}

/// The same over HTTP/2; `Expect` and chunks are not of its world, so pieces stand in for them.
async fn send_h2(browser: &Browser, framing: Framing) -> Seen {
    let body = content(framing.size());
    let url = format!("http://{}/nocsrf/x", browser.home);
    let method = if matches!(framing, Framing::None) { Method::GET } else { Method::POST };
    let mut request = Request::builder().method(method).uri(url).header("origin", browser.origin());
    request = request.header("cookie", format!("{SESSION}={}", ticket(browser)));
    let pieces: Vec<&[u8]> = match framing {
        Framing::None => Vec::new(),
        Framing::Sized(size) => {
            request = request.header("content-length", size);
            vec![&body]
        }
        Framing::Chunked(_) | Framing::Expected(_) => body.chunks(10_000).chain([&[][..]]).collect(),
    };
    H2::connect(browser.home).await.ask(request.body(()).expect("a request"), &pieces, None).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_the_whole_matrix_is_sent_again_once_or_passes_the_401_on() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    for h2 in [false, true] {
        for framing in MATRIX {
            // Keeps the session in use, and its ticket young.
            world.clock.advance(FORCE_EVERY);
            browser.fetch("/open/x").await;
            browser.fetch("/api/whoami").await;
            let (old, calls) = (relayed(&world), token_calls(&world));
            refuse_present(&world);
            recorder.clear();
            let answer = if h2 { send_h2(&browser, framing).await } else { send_h1(&browser, framing).await };
            let what = format!("{framing:?} h2: {h2}, {answer:?}");
            let requests: Vec<_> = recorder.all().into_iter().filter(|seen| seen.path == "/nocsrf/x").collect();
            let tokens: Vec<_> = requests.iter().map(|seen| seen.bearer().expect("a token").to_owned()).collect();
            assert_eq!(tokens[0], old, "{what}");
            assert!(requests.iter().all(|seen| seen.body_bytes == framing.size()), "{what}");
            assert!(requests.iter().all(|seen| seen.body == content(framing.size().min(KEPT))), "{what}");
            if framing.size() > KEPT {
                assert_eq!(
                    (answer.status, requests.len(), token_calls(&world)),
                    (StatusCode::UNAUTHORIZED, 1, calls),
                    "{what}"
                );
                assert!(
                    answer.header("www-authenticate").contains("invalid_token") && answer.code().is_empty(),
                    "{what}"
                );
                // The next request that fits brings the new token.
                assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
            } else {
                assert_eq!(
                    (answer.status, requests.len(), token_calls(&world)),
                    (StatusCode::OK, 2, calls + 1),
                    "{what}"
                );
                assert_eq!(tokens[1], newest(&world).access_token, "{what}");
            }
            assert_ne!(newest(&world).access_token, old);
        }
    }
    assert_shown_once(&world);
    assert_eq!(counted(&world, "body_too_long").await, 6.0);
    assert_eq!(counted(&world, "sent_again").await, 22.0);
    assert_eq!(counted(&world, "refused_again").await, 0.0);
    let forced = "cloakroom_token_refreshes_total{mode=\"forced\",provider=\"demo\",result=\"ok\"}";
    assert_eq!(world.metric(forced).await, 22.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_every_token_costs_one_refresh_in_five_minutes() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    world.demo.upstream.refuse_next(usize::MAX);
    for round in 1..=3 {
        recorder.clear();
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!((answer.status, answer.code(), recorder.count()), (StatusCode::UNAUTHORIZED, "", 2), "{answer:?}");
        assert!(answer.header("www-authenticate").contains("invalid_token"));
        let statuses = volley(&browser, "/api/whoami", 50).await;
        assert!(statuses.iter().all(|status| *status == StatusCode::UNAUTHORIZED));
        world.clock.advance(secs(299));
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!((token_calls(&world), recorder.count()), (1 + round, 53), "no request but the first is sent twice");
        // And the half minute for which that last one's result is believed.
        world.clock.advance(secs(31));
    }
    assert_eq!(counted(&world, "refused_again").await, 3.0);
    assert_shown_once(&world);
    // The session is as it was.
    assert_eq!(browser.fetch("/bare/x").await.status, StatusCode::OK);
    assert_eq!(browser.fetch("/auth/session").await.json()["authenticated"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_many_requests_with_a_refused_token_are_one_refresh() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    let gate = hold_tokens(&world, false);
    let (statuses, ()) = tokio::join!(volley(&browser, "/api/whoami", 50), async {
        gate.arrived(1).await;
        world.demo.upstream.recorder().reached(51).await;
        gate.open();
    });
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!((token_calls(&world), world.demo.upstream.recorder().count()), (2, 101));
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_newer_token_that_is_there_already_is_used_and_no_provider_is_asked() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    let gate = cloakroom::demo::Gate::closed();
    world.demo.upstream.faults().add(Fault::hold(&gate).times(1));
    let late = fetch_soon(&browser, "/api/late");
    gate.arrived(1).await;
    refuse_present(&world);
    // This one is refused and refreshes; the late one finds what it got.
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(token_calls(&world), 2);
    gate.open();
    assert_eq!(late.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(token_calls(&world), 2);
    assert_eq!(relayed(&world), newest(&world).access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_what_asks_for_more_than_a_better_token_passes_on() {
    for (challenge, asked) in [
        ("WWW-Authenticate: Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\"\r\n", 1),
        ("WWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n", 1),
        ("WWW-Authenticate: Basic realm=\"x\"\r\n", 1),
        ("WWW-Authenticate: Bearer realm=\"x\"\r\n", 2),
        ("", 2),
    ] {
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{challenge}X-Mine: 1\r\nContent-Length: 4\r\n\r\nmine");
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let peer = Peer::start(move |_, mut stream| {
            let (answer, counter) = (answer.clone(), counter.clone());
            async move {
                while !read_head(&mut stream).await.is_empty() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        let world = world_over(&peer, "").await;
        let mut browser = world.logged_in().await;
        let seen = browser.fetch("/odd/x").await;
        assert_eq!((seen.status, seen.body.as_str(), seen.header("x-mine")), (StatusCode::UNAUTHORIZED, "mine", "1"));
        assert_eq!(count.load(Ordering::SeqCst), asked, "{challenge}");
        assert_eq!(token_calls(&world), asked, "{challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_without_a_newer_token_the_upstreams_401_stands_and_the_session_is_kept() {
    for (what, fault) in [
        ("down", Fault::status(503)),
        ("busy", Fault::retry_after(429, 5)),
        ("lost", Fault::cut_json()),
        ("gone", Fault::reset().after_work()),
    ] {
        let world = world(lasting()).await;
        let mut browser = world.logged_in().await;
        browser.fetch("/api/whoami").await;
        refuse_present(&world);
        token_fault(&world, fault);
        for _ in 0..5 {
            let answer = browser.fetch("/api/whoami").await;
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, ""), "{what}: {answer:?}");
            assert!(answer.header("www-authenticate").contains("invalid_token") && answer.set_cookies().is_empty());
        }
        assert_eq!(token_calls(&world), 2, "{what}: the provider is asked once, not for every request");
        assert_eq!(browser.fetch("/bare/x").await.status, StatusCode::OK, "{what}");
        assert_shown_once(&world);
        if what == "down" {
            heal(&world);
            world.clock.advance(secs(61));
            assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_session_that_the_provider_has_ended_is_told_as_such() {
    let world = world(lasting()).await;
    let refuse = || world.demo.provider.switches().set(|switch| switch.refuse_refresh = Some("invalid_grant".into()));
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    refuse();
    let script = browser.fetch("/api/whoami").await;
    assert_eq!((script.status, script.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"), "{script:?}");
    assert_eq!(script.json()["login_url"], "/auth/login");
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");

    heal(&world);
    browser.log_in("/").await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    refuse();
    let page = browser.navigate("/api/page?a=b&c=%2F").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
    assert_eq!(page.location(), "/auth/login?return_to=%2Fapi%2Fpage%3Fa%3Db%26c%3D%252F");
    heal(&world);
    let page = browser.log_in(page.location()).await;
    assert!(page.body.contains("/api/page?a=b"), "{page:?}");

    // Where a session is not needed the upstream has the last word.
    refuse_present(&world);
    refuse();
    let answer = browser.fetch("/maybe/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, ""), "{answer:?}");
    assert_eq!(browser.fetch("/maybe/x").await.status, StatusCode::OK, "a guest by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_only_where_the_route_wants_it_and_a_token_of_ours_was_sent() {
    let world = world(Wishes {
        routes: r#"
      - { path: /off/, upstream: demo, retry_unauthorized: false }
      - { path: /bare/, upstream: demo, token: { kind: none } }
      - { path: /open/, upstream: demo, access: public }
      - { path: /id/, upstream: demo, token: { kind: id } }
      - { path: /, upstream: demo }
"#
        .into(),
        ..lasting()
    })
    .await;
    let mut browser = world.logged_in().await;
    world.demo.upstream.faults().add(Fault::status(401));
    for path in ["/off/x", "/bare/x", "/open/x"] {
        assert_eq!(browser.fetch(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(token_calls(&world), 1);
    world.demo.upstream.faults().clear();
    world.demo.upstream.refuse_next(1);
    assert_eq!(browser.fetch("/id/x").await.status, StatusCode::OK);
    assert_eq!(token_calls(&world), 2);
    // A provider that sends no new ID token has nothing newer for this route.
    world.demo.provider.switches().set(|switch| switch.no_id_token_on_refresh = true);
    world.clock.advance(FORCE_EVERY);
    world.demo.upstream.refuse_next(1);
    world.demo.upstream.recorder().clear();
    let answer = browser.fetch("/id/x").await;
    assert_eq!((answer.status, world.demo.upstream.recorder().count()), (StatusCode::UNAUTHORIZED, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_before_it_has_read_the_body() {
    const SIZE: usize = 30_000;
    // The first connection is refused at once; who asks for leave to send gets it from the second.
    let peer = Peer::start(|number, mut stream| async move {
        let head = read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
            return;
        }
        let mut got = head.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if head.to_ascii_lowercase().contains("expect: 100-continue") {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let mut piece = [0; 16 * 1024];
        while got < SIZE {
            got += stream.read(&mut piece).await.expect("the body").max(1);
        }
        let _ = stream.write_all(OK).await;
    })
    .await;
    let world = world_over(&peer, "").await;
    let browser = world.logged_in().await;
    let mut wire = Wire::connect(browser.home).await;
    let (home, ticket) = (browser.home, ticket(&browser));
    wire.send(format!(
        "POST /odd/x HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={ticket}\r\nExpect: 100-continue\r\nContent-Length: {SIZE}\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::CONTINUE);
    wire.send(vec![b'x'; SIZE]).await;
    let answer = wire.any_answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "ok"));
    assert_eq!(token_calls(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_tunnel_whose_token_is_refused_is_asked_for_again() {
    let peer = Peer::start(|number, mut stream| async move {
        read_head(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
            return;
        }
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi";
        let _ = stream.write_all(switch).await;
        let mut piece = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            let _ = stream.write_all(&piece[..count]).await;
        }
    })
    .await;
    let world = world_over(&peer, "").await;
    let browser = world.logged_in().await;
    let mut wire = Wire::connect(browser.home).await;
    wire.send(format!(
        "GET /odd/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {}\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.home,
        browser.origin(),
        ticket(&browser)
    ))
    .await;
    assert_eq!(wire.any_answer(false).await.expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(wire.take(2).await, b"hi");
    wire.send("\u{1}echo").await;
    assert_eq!(wire.take(5).await, b"\x01echo");
    assert_eq!(token_calls(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_client_that_goes_away_meanwhile_spoils_nothing() {
    let world = world(lasting()).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    refuse_present(&world);
    let gate = hold_tokens(&world, false);
    let mut wire = Wire::connect(browser.home).await;
    let line =
        format!("GET /api/gone HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={}\r\n\r\n", browser.home, ticket(&browser));
    wire.send(line).await;
    gate.arrived(1).await;
    drop(wire);
    gate.open();
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!((relayed(&world), token_calls(&world)), (newest(&world).access_token, 2));
    at_rest(&world).await;
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_grpc_call_that_is_refused_at_once_counts_as_a_401() {
    let peer = Peer::start(|number, mut stream| async move {
        read_head(&mut stream).await;
        let refusal =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web\r\nGrpc-Status: 16\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(if number == 0 { refusal } else { OK }).await;
    })
    .await;
    let world = world_over(&peer, "").await;
    let mut browser = world.logged_in().await;
    browser.client = h2c_client();
    let draft = browser.draft(Method::POST, "/odd/Service/Method").header("content-type", "application/grpc-web");
    let answer = browser.send(draft.body("\0\0\0\0\0")).await;
    assert_eq!((answer.status, answer.body.as_str(), token_calls(&world)), (StatusCode::OK, "ok", 2), "{answer:?}");
}
