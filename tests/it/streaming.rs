//! Bodies pass piece by piece: an event is there before the next one is sent, and a hundred megabytes need no more
//! memory than one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::{PATIENCE, SESSION, Wishes, eventually, free_address};
use crate::kit::*;
use crate::process::Process;
use crate::wire::{Peer, read_head};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 100 * MIB;
/// What a stream may take beside what the process has anyway: sockets' and windows' worth.
const ROOM: usize = 20 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_pass_one_by_one() {
    let next = Arc::new(Notify::new());
    let told = next.clone();
    let peer = Peer::start(move |_, mut stream| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            for number in 0..5 {
                let event = format!("data: {number}\n\n");
                let _ = stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await;
                // Not before the client has the one before.
                told.notified().await;
            }
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
    })
    .await;
    let world = world(Wishes {
        upstreams: format!("  - {{ name: events, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /events/, upstream: events }\n      - { path: /, upstream: demo }".into(),
        ..Wishes::default()
    })
    .await;
    let browser = world.logged_in().await;
    for client in [reqwest::Client::new(), crate::wire::h2c_client()] {
        let request = client.get(format!("http://{}/events/x", world.proxy.address));
        let mut answer =
            request.header("cookie", format!("{SESSION}={}", ticket(&browser))).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        for number in 0..5 {
            let piece = tokio::time::timeout(PATIENCE, answer.chunk()).await.expect("an event in time");
            assert_eq!(piece.expect("a piece").expect("an event"), format!("data: {number}\n\n"));
            next.notify_one();
        }
        while let Some(rest) = answer.chunk().await.expect("an end") {
            assert!(rest.is_empty(), "{rest:?}");
        }
    }
}

/// The proxy as a process of its own, whose memory is nobody else's.
struct Edge {
    process: Process,
    address: SocketAddr,
}

impl Edge {
    async fn start(upstream: SocketAddr) -> Self {
        let address = free_address();
        let yaml = format!(
            "listeners: [{{ address: \"{address}\" }}]\n\
             threads: 2\n\
             keys: [{{ id: test, secret: {{ env: TEST_KEY }} }}]\n\
             upstreams: [{{ name: bulk, endpoints: [\"{upstream}\"] }}]\n\
             sites: [{{ hosts: [\"*\"], routes: [{{ path: /, upstream: bulk, access: public, max_body: 1GiB }}] }}]\n"
        );
        let process = Process::start(&yaml, &[("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]);
        let edge = Self { process, address };
        eventually("the proxy listens", || async { TcpStream::connect(address).await.is_ok() }).await;
        edge
    }

    /// The most memory it has had at any time, in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") * 1024
    }
}

/// Swallows bodies and answers with their size; answers GET with `LARGE` bytes. Knows how much it has sent.
async fn bulk() -> (Peer, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let peer = Peer::start(move |_, mut stream| {
        let count = count.clone();
        async move {
            let mut piece = vec![b'x'; 256 * 1024];
            loop {
                let head = read_head(&mut stream).await;
                let Some((fields, body)) = head.split_once("\r\n\r\n") else { return };
                if fields.starts_with("GET") {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes()).await;
                    for _ in 0..LARGE / piece.len() {
                        if stream.write_all(&piece).await.is_err() {
                            return;
                        }
                        count.fetch_add(piece.len(), Ordering::SeqCst);
                    }
                    continue;
                }
                // By its end alone: both framings end the same way here.
                let chunked = fields.to_ascii_lowercase().contains("transfer-encoding");
                let (mut got, mut tail) = (body.len(), body.as_bytes().to_vec());
                while if chunked { !tail.ends_with(b"\r\n0\r\n\r\n") } else { got < LARGE } {
                    let Ok(read @ 1..) = stream.read(&mut piece).await else { return };
                    got += read;
                    tail.extend_from_slice(&piece[..read]);
                    tail.drain(..tail.len().saturating_sub(16));
                }
                piece.fill(b'x');
                let _ =
                    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{got:09}").as_bytes()).await;
            }
        }
    })
    .await;
    (peer, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_stream_at_constant_memory() {
    let (peer, sent) = bulk().await;
    let edge = Edge::start(peer.address).await;
    let url = format!("http://{}/x", edge.address);
    let clients = [crate::wire::h2c_client(), reqwest::Client::new()];
    for client in &clients {
        // Everything that is made once is there before anything is measured.
        client.post(&url).body("x".repeat(LARGE / 100)).timeout(Duration::from_millis(300)).send().await.ok();
    }
    let before = edge.peak();
    for client in &clients {
        let mut answer = client.get(&url).send().await.expect("an answer");
        let mut got = 0;
        while let Some(piece) = answer.chunk().await.expect("a piece") {
            got += piece.len();
        }
        assert_eq!(got, LARGE);
    }
    upload_h1(edge.address, true).await;
    upload_h1(edge.address, false).await;
    slow_reader(edge.address, &sent).await;
    let grown = edge.peak() - before;
    assert!(grown < ROOM, "{} MiB more than before", grown / MIB);
}

async fn upload_h1(address: SocketAddr, chunked: bool) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let framing = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {LARGE}") };
    stream
        .write_all(format!("POST /x HTTP/1.1\r\nHost: x.test\r\n{framing}\r\n\r\n").as_bytes())
        .await
        .expect("a head");
    let piece = vec![b'x'; MIB];
    for _ in 0..LARGE / MIB {
        if chunked {
            stream.write_all(b"100000\r\n").await.expect("a size");
        }
        stream.write_all(&piece).await.expect("a piece");
        if chunked {
            stream.write_all(b"\r\n").await.expect("an end");
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await.expect("the end");
    }
    let answer = read_head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A client that stops reading stops the upstream, and gets the rest when it goes on.
async fn slow_reader(address: SocketAddr, sent: &AtomicUsize) {
    sent.store(0, Ordering::SeqCst);
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: x.test\r\n\r\n").await.expect("a request");
    let (mut seen, mut since, until) = (usize::MAX, Instant::now(), Instant::now() + PATIENCE);
    while since.elapsed() < Duration::from_millis(500) || seen == 0 {
        assert!(Instant::now() < until, "the upstream never comes to rest");
        let now = sent.load(Ordering::SeqCst);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen < LARGE / 2, "{} MiB lie somewhere between", seen / MIB);
    let (mut got, mut piece) = (0, vec![0; MIB]);
    while got < LARGE {
        let read = stream.read(&mut piece).await.expect("more");
        assert!(read > 0, "it breaks off at {got}");
        got += read;
    }
}
