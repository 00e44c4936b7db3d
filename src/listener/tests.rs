//! Real sockets, Pingora's real proxy, clients with one bad manner each. Deadlines are short; nothing waits by sleeping.

mod memory;

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::prelude::{HttpPeer, ProxyHttp, Session};
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::config::settings::{Certificate, Limits, Listener, ListenerTls, Most, TlsVersion};
use crate::telemetry::metrics::Metrics;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers every request with what it knows of the connection, below `/large` without end.
struct Tell;

#[async_trait]
impl ProxyHttp for Tell {
    type CTX = Option<Arc<Connection>>;

    fn new_ctx(&self) -> Self::CTX {
        request_began()
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora::Result<bool> {
        let connection = ctx.as_ref().expect("no connection around the request");
        if session.req_header().uri.path() == "/large" {
            session.write_response_header(Box::new(ResponseHeader::build(200, None)?), false).await?;
            loop {
                let mut piece = Bytes::from(vec![0; 64 << 10]);
                connection.hold(&mut piece);
                session.write_response_body(Some(piece), false).await?;
            }
        }
        let text = format!(
            "tls={} sni={} peer_is_client={}",
            connection.tls,
            connection.server_name.as_deref().unwrap_or("-"),
            session.client_addr().and_then(|a| a.as_inet()) == Some(&connection.peer),
        );
        while session.read_request_body().await?.is_some() {}
        let mut header = ResponseHeader::build(200, Some(1))?;
        header.insert_header("content-length", text.len())?;
        session.write_response_header(Box::new(header), false).await?;
        session.write_response_body(Some(Bytes::from(text)), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        unreachable!("every request is answered")
    }
}

/// A running edge; stops when dropped.
struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    overload: Overload,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _files: tempfile::TempDir,
    certificates: Vec<reqwest::Certificate>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        self.task.abort();
    }
}

impl Running {
    /// With TLS if there are names: one self-signed certificate each.
    async fn start(limits: Limits, names: &[&str]) -> Self {
        tls::install_crypto_provider();
        let files = tempfile::tempdir().unwrap();
        let (mut settings, mut certificates) = (Vec::new(), Vec::new());
        for name in names {
            let made = rcgen::generate_simple_self_signed(vec![(*name).to_owned()]).unwrap();
            let path = |end: &str| -> PathBuf { files.path().join(format!("{name}.{end}")) };
            std::fs::write(path("crt"), made.cert.pem()).unwrap();
            std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
            settings.push(Certificate { certificate: path("crt"), key: path("key") });
            certificates.push(reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap());
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tls = ListenerTls { certificates: settings, min_version: TlsVersion::Tls12, clients: None };
        let tls = (!names.is_empty()).then_some(tls);
        let listener = Listener { address, tls, redirect_to_https: None, proxy_protocol: false, forward_auth: None };
        let (metrics, overload) = (Arc::new(Metrics::new().unwrap()), Overload::default());
        let app = Arc::new(http_proxy(&Arc::new(ServerConf::default()), Tell));
        let (edge, _) = Edge::new(
            app,
            std::slice::from_ref(&listener),
            &Trusted::default(),
            &watch::channel(false).1,
            &limits,
            &overload,
            &metrics,
        )
        .unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut service = edge.into_service();
        let task = tokio::spawn(async move { service.start_service(None, stopped, 1).await });
        tokio::time::timeout(PATIENCE, until_listening(&[listener])).await.unwrap();
        Self { address, metrics, overload, stop, task, _files: files, certificates }
    }

    async fn plain(limits: Limits) -> Self {
        Self::start(limits, &[]).await
    }

    fn open(&self, protocol: &str) -> i64 {
        self.metrics.connections_open.with_label_values(&[&*self.address.to_string(), protocol]).get()
    }

    fn all_open(&self) -> i64 {
        ["new", "http1", "h2"].iter().map(|protocol| self.open(protocol)).sum()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metrics.connections_rejected_total.with_label_values(&[reason]).get()
    }

    fn rejected(&self, reason: &str) -> u64 {
        self.metrics.requests_rejected_total.with_label_values(&[reason]).get()
    }

    /// A client that trusts one of the certificates only, and finds every name at our address.
    fn client(&self, trusted: usize, name: &str) -> reqwest::ClientBuilder {
        reqwest::Client::builder().tls_certs_only([self.certificates[trusted].clone()]).resolve(name, self.address)
    }

    fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/", self.address.port())
    }
}

/// Polls until a condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads until the other side closes; what came, and that it came to an end in time.
async fn read_to_close(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    // A reset is a close as well.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection stays open");
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads one answer of [`Tell`] to its end.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"peer_is_client=true") {
        assert_ne!(tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
    }
}

fn short(header: u64) -> Limits {
    let time = Duration::from_millis(header);
    Limits { header_timeout: time, handshake_timeout: time, ..Limits::default() }
}

#[tokio::test]
async fn both_protocols_work_in_the_clear_and_connections_are_counted_by_protocol() {
    let edge = Running::plain(Limits::default()).await;
    let url = format!("http://{}/", edge.address);
    let http1 = reqwest::Client::builder().build().unwrap();
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (client, version) in [(&http1, reqwest::Version::HTTP_11), (&http2, reqwest::Version::HTTP_2)] {
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.version(), version);
        assert_eq!(answer.text().await.unwrap(), "tls=false sni=- peer_is_client=true");
        let answer = client.post(&url).body("x".repeat(100_000)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "a second request on the same connection");
    }
    until("one of each", || edge.open("http1") == 1 && edge.open("h2") == 1).await;
    drop((http1, http2));
    until("none", || edge.all_open() == 0).await;
}

#[tokio::test]
async fn tls_offers_both_protocols_and_chooses_the_certificate_by_name() {
    let edge = Running::start(Limits::default(), &["one.test", "*.two.test"]).await;
    for (trusted, name) in [(0, "one.test"), (1, "app.two.test")] {
        for (client, version) in [
            (edge.client(trusted, name), reqwest::Version::HTTP_2),
            (edge.client(trusted, name).http1_only(), reqwest::Version::HTTP_11),
        ] {
            let answer = client.build().unwrap().get(edge.url(name)).send().await.unwrap();
            assert_eq!(answer.version(), version, "{name}");
            assert_eq!(answer.text().await.unwrap(), format!("tls=true sni={name} peer_is_client=true"));
        }
        let wrong = edge.client(1 - trusted, name).build().unwrap();
        assert!(wrong.get(edge.url(name)).send().await.is_err(), "{name} must not be served by the other certificate");
    }
    until("none", || edge.all_open() == 0).await;
}

/// Sends a header without end, a byte every few milliseconds, so that each single read is short.
fn trickle(mut write: OwnedWriteHalf) -> JoinHandle<()> {
    tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

#[tokio::test]
async fn a_trickled_header_is_cut() {
    let edge = Running::plain(short(300)).await;
    let (mut read, write) = TcpStream::connect(edge.address).await.unwrap().into_split();
    let trickle = trickle(write);
    assert_eq!(read_to_close(&mut read).await, "");
    trickle.abort();
    until("none", || edge.all_open() == 0).await;
    assert_eq!(edge.rejected("header_timeout"), 1);
}

#[tokio::test]
async fn a_trickled_second_header_is_cut_too() {
    let edge = Running::plain(Limits { keepalive_timeout: Duration::from_secs(1), ..short(1000) }).await;
    let (mut read, mut write) = TcpStream::connect(edge.address).await.unwrap().into_split();
    write.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Bytes that come before the answer is out would end the connection for another reason.
    read_answer(&mut read).await;
    let trickle = trickle(write);
    assert_eq!(read_to_close(&mut read).await, "");
    trickle.abort();
    until("none", || edge.all_open() == 0).await;
    assert_eq!(edge.rejected("header_timeout"), 1);
}

#[tokio::test]
async fn whoever_says_nothing_or_half_a_preface_is_cut() {
    let edge = Running::plain(short(200)).await;
    // The probe for the HTTP/2 preface waits for 24 bytes; the second is a whole request of 18.
    for opening in [&b""[..], b"GET / HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let before = edge.rejected("header_timeout");
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        read_to_close(&mut stream).await;
        until("counted", || edge.rejected("header_timeout") == before + 1).await;
    }
    until("none", || edge.all_open() == 0).await;
}

#[tokio::test]
async fn a_handshake_that_never_begins_is_cut() {
    let edge = Running::start(short(200), &["one.test"]).await;
    let failed = edge.rejected("tls_handshake");
    let mut silent = TcpStream::connect(edge.address).await.unwrap();
    until("counted as new", || edge.open("new") == 1).await;
    assert_eq!(read_to_close(&mut silent).await, "");
    let mut stranger = TcpStream::connect(edge.address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_to_close(&mut stranger).await;
    until("none", || edge.all_open() == 0).await;
    assert!(edge.rejected("tls_handshake") >= failed + 2);
}

#[tokio::test]
async fn a_request_may_take_longer_than_its_header_may() {
    let edge = Running::plain(short(500)).await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\nConnection: close\r\n\r\n").await.unwrap();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(read_to_close(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(edge.rejected("header_timeout"), 0);
}

#[tokio::test]
async fn a_stopping_edge_closes_idle_connections_at_once() {
    let edge = Running::plain(Limits::default()).await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_answer(&mut stream).await;
    edge.stop.send(true).unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
    until("none", || edge.all_open() == 0).await;
    assert_eq!(edge.rejected("header_timeout"), 0, "closed by the stop, not by a deadline");
}

/// Opens a connection and makes a request on it; `None` if it is not taken.
async fn served(edge: &Running) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut first = [0];
    let read = tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await.expect("an answer or an end");
    matches!(read, Ok(1)).then_some(stream)
}

/// Waits until what [`until_listening`] has opened is gone: connections are taken in turn.
async fn settled(edge: &Running) {
    drop(served(edge).await.expect("room"));
    until("none", || edge.all_open() == 0).await;
}

#[tokio::test]
async fn no_more_connections_are_taken_than_there_is_room_for() {
    for (limits, reason) in [
        (
            Limits { connections: Most::Given(2), connections_per_address: Most::Unlimited, ..Limits::default() },
            "connections",
        ),
        (Limits { connections_per_address: Most::Given(2), ..Limits::default() }, "address"),
    ] {
        let edge = Running::plain(limits).await;
        settled(&edge).await;
        let before = edge.refused(reason);
        let held = (served(&edge).await.expect("the first"), served(&edge).await.expect("the second"));
        assert!(served(&edge).await.is_none() && served(&edge).await.is_none());
        assert_eq!(edge.refused(reason) - before, 2, "{reason}");
        drop(held.0);
        until("a place is free", || edge.all_open() == 1).await;
        assert!(served(&edge).await.is_some());
        drop(held.1);
    }
}

#[tokio::test]
async fn a_connection_ends_in_good_order_after_so_many_requests() {
    let edge = Running::plain(Limits { requests_per_connection: NonZeroU32::new(3), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_answer(&mut stream).await;
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let last = read_to_close(&mut stream).await.to_ascii_lowercase();
    assert!(last.starts_with("http/1.1 200") && last.contains("connection: close"), "{last}");

    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for _ in 0..20 {
        let answer = http2.get(format!("http://{}/", edge.address)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "GOAWAY lets what has begun go on");
    }
    drop(http2);
    until("none", || edge.all_open() == 0).await;
}

#[tokio::test]
async fn http2_is_told_to_go_after_so_many_requests_and_at_the_stop() {
    for (most, requests, stops) in [(Some(3), 3, false), (None, 1, true)] {
        let most = most.and_then(NonZeroU32::new);
        let edge = Running::plain(Limits { requests_per_connection: most, ..Limits::default() }).await;
        let stream = TcpStream::connect(edge.address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let ended = tokio::spawn(connection);
        for _ in 0..requests {
            sender = sender.ready().await.unwrap();
            let request = http::Request::get("http://a/").body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            let (head, mut body) = answer.await.unwrap().into_parts();
            assert_eq!(head.status, 200);
            while body.data().await.is_some() {}
        }
        if stops {
            edge.stop.send(true).unwrap();
        }
        // The client's end is over as soon as it is told, for it has no streams left.
        let end = tokio::time::timeout(PATIENCE, ended).await.expect("an end").unwrap();
        assert!(end.is_ok(), "{end:?}");
        until("none", || edge.all_open() == 0).await;
    }
}
