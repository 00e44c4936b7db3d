//! Below the browser: raw sockets, HTTP/2 by hand, upstreams with one bad manner each.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{PATIENCE, Seen};

/// A client that speaks HTTP/2 from the first byte on.
pub(crate) fn h2c_client() -> reqwest::Client {
    cloakroom::listener::tls::install_crypto_provider();
    let none = reqwest::redirect::Policy::none();
    reqwest::Client::builder().http2_prior_knowledge().redirect(none).no_proxy().build().expect("client")
}

/// A connection whose bytes the test writes itself.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A proxy that has closed already is seen by the next read.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next whole answer, interim ones left out; `None` if the connection ends before one begins.
    pub(crate) async fn answer(&mut self) -> Option<Seen> {
        loop {
            let seen = self.any_answer(false).await?;
            if !seen.status.is_informational() {
                return Some(seen);
            }
        }
    }

    /// The next answer, `100 Continue` included. `headless`: an answer to HEAD has no body whatever its header says.
    pub(crate) async fn any_answer(&mut self, to_head: bool) -> Option<Seen> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let status = StatusCode::from_bytes(status.as_bytes()).expect("a status");
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a field");
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
        }
        let bodiless = to_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let body = if bodiless { Vec::new() } else { self.body(&headers).await };
        Some(Seen { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn body(&mut self, headers: &HeaderMap) -> Vec<u8> {
        if let Some(length) = headers.get("content-length") {
            let length = length.to_str().expect("text").parse().expect("a number");
            return self.take(length).await;
        }
        if headers.contains_key("transfer-encoding") {
            let mut body = Vec::new();
            loop {
                let size = self.line().await;
                let size = usize::from_str_radix(&size, 16).expect("a chunk size");
                let piece = self.take(size).await;
                assert_eq!(self.line().await, "");
                if size == 0 {
                    return body;
                }
                body.extend_from_slice(&piece);
            }
        }
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.fill().await, "a line breaks off");
        }
    }

    /// So many bytes, or what there is until the end.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.fill().await {}
        self.buffer.drain(..count.min(self.buffer.len())).collect()
    }

    /// Everything until the other side closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Sends and waits for the answer.
    pub(crate) async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Seen {
        self.send(request).await;
        self.answer().await.expect("an answer")
    }

    /// Reads until the other side closes or resets the connection.
    pub(crate) async fn rest_or_reset(&mut self) {
        while self.fill().await {}
    }

    /// Whether the other side closes without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    /// Whether something has come that was not read yet. Does not wait.
    pub(crate) fn has_bytes(&mut self) -> bool {
        matches!(self.stream.try_read_buf(&mut self.buffer), Ok(1..)) || !self.buffer.is_empty()
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
        matches!(read.await.expect("bytes or an end in time"), Ok(n) if n > 0)
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Seen> {
    let mut wire = Wire::connect(address).await;
    wire.send(request).await;
    wire.answer().await
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// An HTTP/2 connection on plain TCP, frame by frame.
pub(crate) struct H2(h2::client::SendRequest<Bytes>);

impl H2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends the header, each piece as a DATA frame, the last one with END_STREAM, and perhaps trailers instead of it.
    pub(crate) async fn ask(
        &self,
        request: Request<()>,
        pieces: &[&[u8]],
        trailers: Option<HeaderMap>,
    ) -> Result<Seen, h2::Error> {
        let mut sender = self.0.clone().ready().await?;
        let (answer, mut body) = sender.send_request(request, pieces.is_empty() && trailers.is_none())?;
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len() && trailers.is_none();
            // The answer may come, and end the stream, before all is sent.
            if body.send_data(Bytes::copy_from_slice(piece), last).is_err() {
                break;
            }
        }
        if let Some(trailers) = trailers {
            let _ = body.send_trailers(trailers);
        }
        let read = async {
            let (parts, mut body) = answer.await?.into_parts();
            let mut bytes = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
                bytes.extend_from_slice(&piece);
            }
            let body = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Seen { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time")
    }
}

/// An upstream that does with each connection what the test says.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Serves each connection with `serve`, which gets its number.
    pub(crate) async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(number, stream));
                number += 1;
            }
        });
        Self { address, seen: Arc::default(), task }
    }

    /// Keeps every byte of each connection and answers each header section with `200` and no body, without waiting for
    /// a request body.
    pub(crate) async fn recorder() -> Self {
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = seen.clone();
        let mut peer = Self::start(move |_, mut stream| {
            let kept = kept.clone();
            async move {
                let slot = {
                    let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(Vec::new());
                    all.len() - 1
                };
                let (mut piece, mut heads) = (vec![0; 64 * 1024], 0);
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    let complete = {
                        let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        all[slot].extend_from_slice(&piece[..count]);
                        whole_requests(&all[slot])
                    };
                    while heads < complete {
                        heads += 1;
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                            return;
                        }
                    }
                }
            }
        })
        .await;
        peer.seen = seen;
        peer
    }

    /// The bytes of each connection, as text.
    pub(crate) fn seen(&self) -> Vec<String> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

/// How many requests with a whole body these bytes hold.
fn whole_requests(bytes: &[u8]) -> usize {
    requests(bytes).0.len()
}

/// The request lines in these bytes as a strict server frames them, and what is left over.
pub(crate) fn requests(bytes: &[u8]) -> (Vec<String>, &[u8]) {
    let (mut rest, mut lines) = (bytes, Vec::new());
    while let Some(end) = find(rest, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        let fields = head.to_ascii_lowercase();
        let body = &rest[end + 4..];
        let length = if fields.contains("transfer-encoding: chunked") {
            chunked_length(body)
        } else {
            let length = fields.split("content-length: ").nth(1).and_then(|text| text.split("\r\n").next());
            Some(length.map_or(0, |text| text.trim().parse().expect("a length")))
        };
        let Some(length) = length.filter(|length| body.len() >= *length) else { break };
        lines.push(head.split("\r\n").next().unwrap_or_default().to_owned());
        rest = &body[length..];
    }
    (lines, rest)
}

/// Bytes of a chunked body without trailers, its last chunk included; `None` if it is not whole.
fn chunked_length(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = find(body.get(at..)?, b"\r\n")?;
        let size = std::str::from_utf8(&body[at..at + line]).ok()?;
        let size = usize::from_str_radix(size, 16).expect("a chunk size and nothing else");
        at += line + 2 + size + 2;
        assert!(at > body.len() || body[..at].ends_with(b"\r\n"), "a chunk ends with a line break");
        if size == 0 {
            return (at <= body.len()).then_some(at);
        }
    }
}

/// Reads up to the end of a header section.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while find(&head, b"\r\n\r\n").is_none() {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut head)).await;
        if !matches!(read, Ok(Ok(1..))) {
            break;
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
