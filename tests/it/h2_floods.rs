//! Known attacks on HTTP/2, frame by frame: the connection ends or the server holds back, memory stays bounded, and
//! others are served meanwhile.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::{PATIENCE, Wishes, World, eventually};
use crate::process::{Process, free_address};
use crate::wire::{Peer, ask};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Cancelled.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block (RFC 7541): GET or POST, scheme `http`, this path and authority, in the static table's terms.
fn block(post: bool, path: &str, authority: &str) -> Vec<u8> {
    let text =
        |index: u8, text: &str| [&[index, u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    [vec![if post { 0x83 } else { 0x82 }, 0x86], text(4, path), text(1, authority)].concat()
}

/// A client with its preface and settings sent. What the server says is read and thrown away, or not read at all.
struct Attacker {
    write: tokio::net::tcp::OwnedWriteHalf,
    /// Ends when the server closes.
    reading: Option<JoinHandle<()>>,
    _unread: Option<tokio::net::tcp::OwnedReadHalf>,
    sent: usize,
}

impl Attacker {
    async fn connect(address: std::net::SocketAddr, reads: bool, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (mut read, write) = stream.into_split();
        let (reading, unread) = if reads {
            let drain = async move {
                let mut all = vec![0; 64 * 1024];
                while matches!(read.read(&mut all).await, Ok(1..)) {}
            };
            (Some(tokio::spawn(drain)), None)
        } else {
            (None, Some(read))
        };
        let mut attacker = Self { write, reading, _unread: unread, sent: 0 };
        attacker.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat()).await;
        attacker
    }

    /// Whether the server still takes bytes; it has a second for each piece.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        matches!(tokio::time::timeout(Duration::from_secs(1), self.write.write_all(bytes)).await, Ok(Ok(())))
    }

    async fn is_closed(&mut self) -> bool {
        let Some(reading) = &mut self.reading else { return false };
        tokio::time::timeout(PATIENCE, reading).await.is_ok()
    }
}

/// An upstream that takes requests and never answers.
async fn silent() -> Peer {
    Peer::start(|_, mut stream| async move {
        let mut all = vec![0; 4096];
        while matches!(stream.read(&mut all).await, Ok(1..)) {}
    })
    .await
}

fn routes(upstream: &Peer) -> Wishes {
    Wishes {
        upstreams: format!("  - {{ name: silent, endpoints: [\"{}\"] }}", upstream.address),
        routes: "      - { path: /silent/, upstream: silent, access: public }
      - { path: /open/, upstream: demo, access: public }"
            .into(),
        ..Wishes::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_made_to_be_taken_back_end_the_connection() {
    let upstream = silent().await;
    let world = World::with(routes(&upstream)).await;
    let home = world.proxy.address;
    let block = block(false, "/silent/x", &home.to_string());
    // Of many at once the HTTP/2 layer sees too many; of one after the other, the work begun each time, we keep count.
    for (at_once, pause) in [(20, None), (1, Some(Duration::from_millis(5)))] {
        let mut attacker = Attacker::connect(home, true, &[]).await;
        let mut taken_back = 0;
        for first in (1_u32..).step_by(2 * at_once).take(20_000) {
            let streams = || (first..).step_by(2).take(at_once);
            let all: Vec<u8> =
                streams().flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).collect();
            let resets: Vec<u8> = streams().flat_map(|stream| frame(RST_STREAM, 0, stream, &CANCEL)).collect();
            if !attacker.send(&all).await {
                break;
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            if !attacker.send(&resets).await {
                break;
            }
            taken_back += at_once;
        }
        assert!(attacker.is_closed().await, "after {taken_back} requests taken back");
        // What the sockets hold is sent before the end is seen.
        assert!(taken_back < 20_000 * at_once, "it was let go on to the end");
        println!("closed after {taken_back} requests taken back");
        if pause.is_some() {
            assert!(world.metric("cloakroom_requests_rejected_total{reason=\"resets\"}").await >= 1.0);
        }
    }
    eventually("everything of it is over", || async { world.metric("cloakroom_http_requests_in_flight").await == 0.0 })
        .await;
    let answer = ask(home, format!("GET /open/x HTTP/1.1\r\nHost: {home}\r\n\r\n")).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_without_end_ends_the_connection() {
    let world = World::with(routes(&silent().await)).await;
    let home = world.proxy.address;
    for payload in [vec![], vec![0x82; 1], vec![0x40; 1024]] {
        let mut attacker = Attacker::connect(home, true, &[]).await;
        attacker.send(&frame(HEADERS, END_STREAM, 1, &block(false, "/open/x", "a"))).await;
        let continuation = frame(CONTINUATION, 0, 1, &payload);
        let many = continuation.repeat(100);
        let mut pieces = 0;
        while pieces < 10_000 && attacker.send(&many).await {
            pieces += 100;
        }
        // Well before the deadline for a header.
        let closed = tokio::time::timeout(Duration::from_secs(5), attacker.is_closed()).await;
        assert_eq!(closed, Ok(true), "{pieces} of {} bytes", payload.len());
    }
}

/// Resident memory of a process in bytes.
fn resident(process: &Process) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", process.id())).expect("a process");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

/// Ninety-nine requests that get no answer, and nothing else: what a bomb is compared with.
const HELD: &str = "held requests";

/// What one connection does.
struct Flood {
    name: &'static str,
    /// Whether the client reads what the server answers.
    reads: bool,
    settings: Vec<u8>,
    opening: Vec<u8>,
    piece: Vec<u8>,
}

fn floods(authority: &str) -> Vec<Flood> {
    let open = frame(HEADERS, END_HEADERS, 1, &block(true, "/silent/x", authority));
    let flood = |name, piece: Vec<u8>| Flood { name, reads: false, settings: vec![], opening: vec![], piece };
    // One entry of 3,900 bytes in the table, then a header that names it four times.
    let entry = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d], &[b'y'; 3900][..]].concat();
    let bomb = [block(false, "/silent/x", authority), entry].concat();
    let requests = |more: &[u8]| -> Vec<u8> {
        let block = [&block(false, "/silent/x", authority), more].concat();
        (1..100).flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block)).collect()
    };
    // No window for answers.
    let shut = vec![0, 4, 0, 0, 0, 0];
    vec![
        flood("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(500)),
        flood("PING", frame(PING, 0, 0, &[0; 8]).repeat(500)),
        flood("PRIORITY", (0..500).flat_map(|n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1])).collect()),
        flood("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(500)),
        Flood { opening: open.clone(), ..flood("empty DATA", frame(DATA, 0, 1, &[]).repeat(500)) },
        Flood { opening: open, ..flood("tiny DATA", frame(DATA, 0, 1, b"x").repeat(500)) },
        Flood { reads: true, settings: shut.clone(), ..flood(HELD, requests(&[])) },
        Flood {
            reads: true,
            settings: shut,
            opening: frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb),
            ..flood("HPACK bomb", requests(&[0xbe; 4]))
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_cost_bounded_memory_and_nobody_else_the_service() {
    const CONNECTIONS: usize = 10;
    let (upstream, recorder) = (silent().await, Peer::recorder().await);
    let (home, admin) = (free_address(), free_address());
    let yaml = format!(
        "listeners: [{{ address: \"{home}\" }}]
admin: {{ address: \"{admin}\" }}
keys: [{{ id: one, secret: {{ env: TEST_KEY }} }}]
upstreams:
  - {{ name: silent, endpoints: [\"{}\"] }}
  - {{ name: open, endpoints: [\"{}\"] }}
sites:
  - hosts: [\"*\"]
    routes:
      - {{ path: /silent/, upstream: silent, access: public }}
      - {{ path: /, upstream: open, access: public }}
",
        upstream.address, recorder.address
    );
    let process = Process::start(&yaml, &[("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]);
    eventually("it listens", || async { TcpStream::connect(home).await.is_ok() }).await;
    let get = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for _ in 0..20 {
        ask(home, get).await.expect("an answer");
    }
    let mut held = 0;
    for flood in floods("a") {
        let before = resident(&process);
        let (mut attackers, mut sent, mut closed) = (Vec::new(), 0, 0);
        for _ in 0..CONNECTIONS {
            let mut attacker = Attacker::connect(home, flood.reads, &flood.settings).await;
            attacker.send(&flood.opening).await;
            let pieces = if flood.reads { 1 } else { 40 };
            for _ in 0..pieces {
                if !attacker.send(&flood.piece).await {
                    closed += 1;
                    break;
                }
            }
            sent += attacker.sent;
            attackers.push(attacker);
        }
        let begun = Instant::now();
        let answer = ask(home, get).await.expect("an answer");
        let took = begun.elapsed();
        assert_eq!(answer.status, StatusCode::OK, "{}", flood.name);
        let grown = resident(&process).saturating_sub(before);
        let each = grown / CONNECTIONS;
        println!(
            "{}: {sent} bytes sent, {grown} bytes of memory ({each} a connection, {:.1}:1), {closed} held back or closed, a good request took {took:?}",
            flood.name,
            grown as f64 / sent as f64,
        );
        assert!(took < Duration::from_secs(5), "{}: others wait", flood.name);
        assert!(each < 4 * 1024 * 1024, "{}: {each} bytes a connection", flood.name);
        match flood.name {
            HELD => held = each,
            // Four bytes name a header of 16 KiB, in each of a hundred requests: that much and no more is kept of it.
            "HPACK bomb" => {
                assert!(each < held + 2 * 1024 * 1024, "{each} bytes a connection, without the bomb {held}");
            }
            _ => {}
        }
        drop(attackers);
    }
}
