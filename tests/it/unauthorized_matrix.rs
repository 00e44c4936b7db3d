//! B5: a request whose token is refused is sent again once, whole, whatever the protocols on both sides and however its body
//! comes.

use cloakroom::demo::Received;
use http::Request;
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Seen, Wishes, World};
use crate::kit::*;
use crate::secure_upstream::Secure;
use crate::wire::{H2, Wire};

/// From then on a session's token may be replaced before its time again.
const FORCE_EVERY: std::time::Duration = secs(300);
/// What is kept of a body for a second try.
const KEPT: usize = 64 * 1024;

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

const MATRIX: [Framing; 12] = [
    Framing::None,
    Framing::Sized(0),
    Framing::Sized(10),
    Framing::Sized(KEPT),
    Framing::Sized(KEPT + 1),
    Framing::Chunked(0),
    Framing::Chunked(10),
    Framing::Chunked(KEPT),
    Framing::Chunked(KEPT + 1),
    Framing::Expected(10),
    Framing::Expected(KEPT),
    Framing::Expected(KEPT + 1),
];
/// Bodies of the matrix that are too long, from both kinds of client.
const TOO_LONG: f64 = 6.0;
/// And those that are not.
const SENT_AGAIN: f64 = 18.0;

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| u8::try_from(index % 251).expect("small")).collect()
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

/// One request as it reached the upstream: its token, and its body.
type Arrived = (String, String);

/// What serves the path of the matrix.
enum Upstream {
    Http1,
    Http2(Secure),
}

impl Upstream {
    async fn world(&self) -> World {
        let wishes = match self {
            Self::Http1 => Wishes::default(),
            Self::Http2(secure) => Wishes {
                upstreams: format!("  - {{ name: h2c, endpoints: [\"127.0.0.1:{}\"], protocol: h2c }}", secure.port),
                routes: r"
      - { path: /nocsrf/, upstream: h2c, csrf: false }
      - { path: /open/, upstream: demo, access: public }
      - { path: /, upstream: demo }"
                    .into(),
                ..Wishes::default()
            },
        };
        let ticking = ticking();
        world(Wishes { provider: lasting_tokens(), clock: ticking.clock, ..wishes }).await
    }

    /// The present token of the session is refused from now on, here and there.
    fn refuse_present(&self, world: &World) {
        let token = newest(world).access_token;
        world.demo.upstream.refuse_token(&token);
        if let Self::Http2(secure) = self {
            secure.refuse_token(&token);
        }
    }

    /// What came on the path of the matrix.
    fn arrived(&self, world: &World) -> Vec<Arrived> {
        match self {
            Self::Http1 => {
                let all = world.demo.upstream.recorder().all().into_iter().filter(|seen| seen.path == "/nocsrf/x");
                let token = |seen: &Received| seen.bearer().expect("a token").to_owned();
                // The recorder keeps no more of a body than the proxy does, but counts it.
                let body =
                    |seen: &Received| text(&[&seen.body[..], &content(seen.body_bytes)[seen.body.len()..]].concat());
                all.map(|seen| (token(&seen), body(&seen))).collect()
            }
            Self::Http2(secure) => {
                let token = |seen: &Request<String>| seen.headers()["authorization"].to_str().expect("text").to_owned();
                let bare = |token: String| token.strip_prefix("Bearer ").expect("a token").to_owned();
                secure.seen().iter().map(|seen| (bare(token(seen)), seen.body().clone())).collect()
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn whole_matrix(upstream: Upstream) {
    let world = upstream.world().await;
    let mut browser = world.logged_in().await;
    let name = if matches!(upstream, Upstream::Http1) { "demo" } else { "h2c" };
    for h2 in [false, true] {
        for framing in MATRIX {
            // Keeps the session in use, and its ticket young.
            world.clock.advance(FORCE_EVERY);
            browser.fetch("/open/x").await;
            browser.fetch("/api/whoami").await;
            let (old, calls, before) = (relayed(&world), token_calls(&world), upstream.arrived(&world).len());
            upstream.refuse_present(&world);
            let answer = if h2 { send_h2(&browser, framing).await } else { send_h1(&browser, framing).await };
            let what = format!("{framing:?} h2: {h2}, {:?} {:?}", answer.status, answer.headers);
            let requests = upstream.arrived(&world).split_off(before);
            assert_eq!(requests[0].0, old, "{what}");
            assert!(requests.iter().all(|(_, body)| *body == text(&content(framing.size()))), "{what}");
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
                assert_eq!(requests[1].0, newest(&world).access_token, "{what}");
            }
            assert_ne!(newest(&world).access_token, old);
        }
    }
    assert_shown_once(&world);
    let all = format!("upstream=\"{name}\"");
    for (result, count) in [("body_too_long", TOO_LONG), ("refused_again", 0.0)] {
        let series = format!("cloakroom_upstream_unauthorized_retries_total{{result=\"{result}\",{all}");
        assert_eq!(world.metric(&series).await, count, "{result}");
    }
    // After each that was too long the demo upstream refused the old token once more.
    let again =
        world.metric(&format!("cloakroom_upstream_unauthorized_retries_total{{result=\"sent_again\",{all}")).await;
    assert_eq!(again, SENT_AGAIN + if name == "demo" { TOO_LONG } else { 0.0 });
    let forced = "cloakroom_token_refreshes_total{mode=\"forced\",provider=\"demo\",result=\"ok\"}";
    assert_eq!(world.metric(forced).await, SENT_AGAIN + TOO_LONG);
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_the_whole_matrix_is_sent_again_once_or_passes_the_401_on() {
    whole_matrix(Upstream::Http1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_the_whole_matrix_towards_http2_is_sent_again_once_or_passes_the_401_on() {
    whole_matrix(Upstream::Http2(Secure::h2c().await)).await;
}
