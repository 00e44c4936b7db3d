//! H9 and Pingora #935: whatever a client sends, at most one request leaves for each that came in, and it is framed
//! without doubt.

use http::Request;
use reqwest::StatusCode;

use crate::harness::{Wishes, World};
use crate::wire::{H2, Peer, Wire, requests};

async fn world() -> (World, Peer) {
    let peer = Peer::recorder().await;
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: raw, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /, upstream: raw, access: public }".into(),
        ..Wishes::default()
    })
    .await;
    (world, peer)
}

/// Framings that two servers may read differently: request line, fields, body. A hidden request follows each.
const AMBIGUOUS: [(&str, &str, &str); 34] = [
    ("POST /x HTTP/1.1", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.0", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: identity\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", " Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Content-Length: 4\r\nContent-Length: 5\r\n", "body\n"),
    ("POST /x HTTP/1.1", "Content-Length: 4, 5\r\n", "body\n"),
    ("POST /x HTTP/1.1", "Content-Length: +4\r\n", "body"),
    ("POST /x HTTP/1.1", "Content-Length: -1\r\n", "body"),
    ("POST /x HTTP/1.1", "Content-Length: 0x4\r\n", "body"),
    ("POST /x HTTP/1.1", "Content-Length: 4 4\r\n", "body"),
    ("POST /x HTTP/1.1", "Content-Length: 99999999999999999999\r\n", "body"),
    ("POST /x HTTP/1.1", "Content-Length : 4\r\n", "body"),
    ("POST /x HTTP/1.1", "Content_Length: 9\r\nContent-Length: 4\r\n", "body"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\n", "4\nbody\r\n0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\n", "0x4\r\nbody\r\n0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\n", "4;a=\nb\r\nbody\r\n0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\n", "FFFFFFFFFFFFFFFF4\r\nbody\r\n0\r\n\r\n"),
    ("POST /x HTTP/1.1", "Transfer-Encoding: chunked\r\n", "4\r\nbodyXX0\r\n\r\n"),
    ("POST /x HTTP/1.1\r\nX: a\rTransfer-Encoding: chunked", "Content-Length: 5\r\n", "0\r\n\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn h9_no_ambiguous_framing_smuggles_a_second_request() {
    for (line, fields, body) in AMBIGUOUS {
        let (world, peer) = world().await;
        let home = world.proxy.address;
        let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {home}\r\n\r\n");
        let mut wire = Wire::connect(home).await;
        wire.send(format!("{line}\r\nHost: {home}\r\n{fields}\r\n{body}{hidden}")).await;
        let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
        let shown = format!("{line} {fields:?} {body:?}");
        assert!(rest.matches("HTTP/1.1 ").count() <= 1, "one answer at most: {shown}\n{rest}");
        let mut lines = Vec::new();
        for bytes in peer.seen() {
            let (found, left) = requests(bytes.as_bytes());
            lines.extend(found);
            // A body that broke off ends with its connection.
            assert!(!left.windows(7).any(|window| window == b"/hidden"), "{shown}\n{bytes}");
            let lower = bytes.to_ascii_lowercase();
            assert!(!(lower.contains("content-length:") && lower.contains("transfer-encoding:")), "{shown}\n{bytes}");
        }
        assert!(lines.len() <= 1 && lines.iter().all(|line| line == "POST /x HTTP/1.1"), "{shown}\n{lines:?}");
        if rest.starts_with("HTTP/1.1 200") {
            assert_eq!(lines.len(), 1, "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h9_two_framings_at_once_are_refused_and_the_connection_ends() {
    let (world, peer) = world().await;
    let home = world.proxy.address;
    for (version, fields) in [
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\ncontent-length: 5"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked"),
    ] {
        let mut wire = Wire::connect(home).await;
        wire.send(format!("POST /x HTTP/{version}\r\nHost: {home}\r\n{fields}\r\n\r\n0\r\n\r\n")).await;
        let answer = wire.answer().await.expect("an answer");
        // Pingora itself knows that HTTP/1.0 has no chunks.
        let code = if version == "1.0" { "" } else { "bad_request" };
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, code), "{fields}");
        assert!(wire.is_closed().await);
    }
    assert_eq!(peer.seen().concat(), "");
    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"framing\"}").await, 3.0);
}

/// What is no request to a strict reader, though a lenient one may see one or two. `@` stands for our host.
const MALFORMED: [(&str, &str); 30] = [
    ("bare line feeds", "POST /x HTTP/1.1\nHost: @\nContent-Length: 4\n\nbody"),
    ("one bare line feed", "GET /x HTTP/1.1\r\nHost: @\nX: y\r\n\r\n"),
    ("a bare line feed behind the request line", "GET /x HTTP/1.1\nHost: @\r\n\r\n"),
    ("a bare line feed for the empty line", "GET /x HTTP/1.1\r\nHost: @\r\n\nGET /y HTTP/1.1\r\nHost: @\r\n\r\n"),
    ("a folded field", "GET /x HTTP/1.1\r\nHost: @\r\nX: y\r\n z\r\n\r\n"),
    ("a field folded with a tab", "GET /x HTTP/1.1\r\nHost: @\r\nX: y\r\n\tz\r\n\r\n"),
    ("a folded first field", "GET /x HTTP/1.1\r\n Host: @\r\n\r\n"),
    ("a blank before the colon", "GET /x HTTP/1.1\r\nHost : @\r\n\r\n"),
    ("a tab before the colon", "GET /x HTTP/1.1\r\nHost: @\r\nX\t: y\r\n\r\n"),
    ("no colon", "GET /x HTTP/1.1\r\nHost: @\r\nnonsense\r\n\r\n"),
    ("no name", "GET /x HTTP/1.1\r\nHost: @\r\n: y\r\n\r\n"),
    ("NUL in a value", "GET /x HTTP/1.1\r\nHost: @\r\nX: a\0b\r\n\r\n"),
    ("NUL in a name", "GET /x HTTP/1.1\r\nHost: @\r\nX\0: b\r\n\r\n"),
    ("a bare carriage return in a value", "GET /x HTTP/1.1\r\nHost: @\r\nX: a\rY: b\r\n\r\n"),
    ("a control character in a value", "GET /x HTTP/1.1\r\nHost: @\r\nX: a\x01b\r\n\r\n"),
    ("no host", "GET /x HTTP/1.1\r\nX: y\r\n\r\n"),
    ("an empty host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n"),
    ("two hosts", "GET /x HTTP/1.1\r\nHost: @\r\nHost: other.test\r\n\r\n"),
    ("the same host twice", "GET /x HTTP/1.1\r\nHost: @\r\nHost: @\r\n\r\n"),
    ("another host in the target", "GET http://other.test/x HTTP/1.1\r\nHost: @\r\n\r\n"),
    ("another host in the field", "GET http://@/x HTTP/1.1\r\nHost: other.test\r\n\r\n"),
    ("chunks in HTTP/1.0", "POST /x HTTP/1.0\r\nHost: @\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("an unknown coding", "POST /x HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", "POST /x HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("two lengths", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody."),
    ("the same length twice", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody"),
    (
        "the same length twice, written otherwise",
        "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 04\r\n\r\nbody",
    ),
    ("a list of lengths", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4, 4\r\n\r\nbody"),
    ("a length with a sign", "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: +4\r\n\r\nbody"),
    (
        "length and chunks",
        "POST /x HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn h9_what_is_no_request_is_refused_and_the_connection_ends() {
    let (world, peer) = world().await;
    let home = world.proxy.address.to_string();
    for (what, request) in MALFORMED {
        let mut wire = Wire::connect(world.proxy.address).await;
        wire.send(request.replace('@', &home)).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("no answer: {what}"));
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
        assert_eq!(peer.seen().concat(), "", "{what}");
        // Where the end of a refused request is in doubt, nothing behind it is read.
        if !what.contains("host") {
            assert!(wire.is_closed().await, "{what}");
        }
    }
    // Blank lines in front of a request are another thing: a client may send one (RFC 9112 §2.2).
    let mut wire = Wire::connect(world.proxy.address).await;
    let answer = wire.exchange(format!("\r\nGET /x HTTP/1.1\r\nHost: {home}\r\n\r\n")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn h9_bytes_behind_an_upgrade_request_wait_for_101() {
    let (world, peer) = world().await;
    let home = world.proxy.address;
    let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {home}\r\n\r\n");
    let mut wire = Wire::connect(home).await;
    let upgrade = format!(
        "GET /x HTTP/1.1\r\nHost: {home}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    wire.send(upgrade + &hidden).await;
    // The upstream answers 200, so there is no tunnel.
    let answers = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(!peer.seen().concat().contains("/hidden"), "{:?}", peer.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn h9_a_name_from_http2_that_http1_does_not_know_is_refused() {
    let (world, peer) = world().await;
    let home = world.proxy.address;
    let h2 = H2::connect(home).await;
    for name in ["transfer-encoding\"", "\"x\""] {
        let name = http::HeaderName::from_lowercase(name.as_bytes()).expect("a name to the library");
        let request = Request::get(format!("http://{home}/x")).header(name, "chunked").body(()).expect("a request");
        let answer = h2.ask(request, &[], None).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(peer.seen().concat(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_last_frame_from_http2_leaves_the_pooled_connection_whole() {
    let (world, peer) = world().await;
    let home = world.proxy.address;
    let h2 = H2::connect(home).await;
    let bodies: [&[&[u8]]; 5] = [&[b"abc", b""], &[b""], &[b"", b""], &[b"a", b"", b"b", b""], &[b"abc"]];
    for pieces in bodies.iter().cycle().take(20) {
        let request = Request::post(format!("http://{home}/x")).body(()).expect("a request");
        let answer = h2.ask(request, pieces, None).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{pieces:?}");
    }
    let seen = peer.seen();
    let mut count = 0;
    for bytes in &seen {
        let (lines, left) = requests(bytes.as_bytes());
        assert_eq!(left, b"", "{bytes}");
        count += lines.len();
    }
    assert_eq!(count, 20);
    // An answer may be with the client a moment before its connection is back in the pool.
    assert!(seen.len() < 5, "few connections carried them all: {}", seen.len());
}
