//! What is known of a connection, handed to each of its requests.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use pingora::server::ShutdownWatch;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::Instant;

use super::crowd::Seat;
use super::held::{self, Held};

use crate::config::settings::ForwardAuth;
use crate::telemetry::metrics::Metrics;

/// `true`: the server is about to stop, and clients should not come back on the connection they have.
pub type Leaving = watch::Receiver<bool>;

tokio::task_local! {
    /// The request that this task serves.
    static CURRENT: Current;
}

/// A request being served.
struct Current {
    connection: Arc<Connection>,
    /// What it was tied to, or that it was untied, since the last look.
    tied: RefCell<Option<Option<Tie>>>,
}

/// The end of it is the end of the request.
pub type Tie = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ties the present request to `tie`, until [`untie`]: when that ends first, the request is dropped as it stands, without
/// an end of its answer, and over HTTP/1 the connection with it. `tie` is first looked at when the request has to wait for
/// something. A later tie takes the place of an earlier one.
pub fn tie(tie: Tie) {
    let _ = CURRENT.try_with(|current| current.tied.replace(Some(Some(tie))));
}

/// The present request is over: a connection that is kept for the next one must not be cut for its sake.
pub fn untie() {
    let _ = CURRENT.try_with(|current| {
        if !current.connection.is_http2() {
            current.connection.held.forget();
        }
        current.tied.replace(Some(None))
    });
}

/// Runs the work of a request until it ends or what it is tied to does.
async fn until_cut<T>(work: impl Future<Output = Option<T>>) -> Option<T> {
    let mut work = pin!(work);
    let mut tie: Option<Tie> = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        if let Ok(Some(new)) = CURRENT.try_with(|current| current.tied.take()) {
            tie = new;
        }
        match &mut tie {
            Some(tie) => tie.as_mut().poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// So many requests taken back are no whim of a user who leaves a page.
const MANY_CANCELLED: u32 = 200;
/// No request header is awaited.
const NOTHING_DUE: u64 = u64::MAX;

/// One client connection. It counts as open until the last request on it has ended.
#[derive(Debug)]
pub struct Connection {
    /// Position of the listener in the settings.
    pub listener: usize,
    /// Whether it came in over TLS.
    pub tls: bool,
    /// The name that the client asked for in the TLS handshake, in lower case.
    pub server_name: Option<Arc<str>>,
    /// Its listener asks clients for certificates, which holds for the site of `server_name` alone.
    pub asks_clients: bool,
    /// The certificate that the client has shown, as the value of `Client-Cert` (RFC 9440).
    pub client_certificate: Option<HeaderValue>,
    /// Plain requests are sent to `https` on this port.
    pub redirect_to_https: Option<u16>,
    /// Requests are questions of proxies in front, told in this manner.
    pub forward_auth: Option<ForwardAuth>,
    /// The client: the other end of the socket, or what a load balancer says in a PROXY header.
    pub peer: SocketAddr,
    /// A load balancer passes on a client that it cannot name: `peer` is its own address, and what is said of the client in
    /// header fields the client may have written.
    pub nameless: bool,
    /// Our end of the socket.
    pub local: SocketAddr,
    opened: Instant,
    /// A request has begun on it at some time.
    started: AtomicBool,
    /// When the request header that is awaited must be complete, in nanoseconds since `opened`; [`NOTHING_DUE`] while
    /// none is awaited.
    due: AtomicU64,
    /// The peer's address as a header value, written out once a connection.
    peer_text: HeaderValue,
    shutdown: ShutdownWatch,
    leaving: Leaving,
    /// Asks Pingora to close the connection in good order (GOAWAY); `None` where that is not done so.
    retire: Option<watch::Sender<bool>>,
    /// Requests on HTTP/2 so far.
    requests: AtomicU32,
    /// Those of them that the client took back before their answer began.
    cancelled: AtomicU32,
    /// It must end at once.
    cut: AtomicBool,
    held: Held,
    count: Count,
    _seat: Seat,
}

/// What is known when a connection is open.
pub(super) struct Opened {
    pub(super) listener: usize,
    pub(super) tls: bool,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) asks_clients: bool,
    pub(super) client_certificate: Option<HeaderValue>,
    pub(super) redirect_to_https: Option<u16>,
    pub(super) forward_auth: Option<ForwardAuth>,
    pub(super) peer: SocketAddr,
    pub(super) nameless: bool,
    pub(super) local: SocketAddr,
    /// How long the first request header may take from now.
    pub(super) header: Duration,
    pub(super) shutdown: ShutdownWatch,
    pub(super) leaving: Leaving,
    pub(super) retire: Option<watch::Sender<bool>>,
    pub(super) count: Count,
    pub(super) seat: Seat,
}

/// Opens the gate of the header deadline and returns the connection of the present request; `None` outside a
/// connection. Must be called from `ProxyHttp::new_ctx`, which runs as soon as a request header is parsed; a
/// connection whose first request does not call it is cut off.
pub fn request_began() -> Option<Arc<Connection>> {
    CURRENT
        .try_with(|current| {
            current.tied.replace(Some(None));
            current.connection.begin();
            Arc::clone(&current.connection)
        })
        .ok()
}

impl Connection {
    pub(super) fn new(opened: Opened) -> Self {
        let peer_text = HeaderValue::from_str(&opened.peer.ip().to_canonical().to_string());
        Self {
            listener: opened.listener,
            tls: opened.tls,
            server_name: opened.server_name,
            asks_clients: opened.asks_clients,
            client_certificate: opened.client_certificate,
            redirect_to_https: opened.redirect_to_https,
            forward_auth: opened.forward_auth,
            peer: opened.peer,
            nameless: opened.nameless,
            local: opened.local,
            opened: Instant::now(),
            started: AtomicBool::new(false),
            due: AtomicU64::new(nanos(opened.header)),
            peer_text: peer_text.unwrap_or(HeaderValue::from_static("unknown")),
            shutdown: opened.shutdown,
            leaving: opened.leaving,
            retire: opened.retire,
            requests: AtomicU32::new(0),
            cancelled: AtomicU32::new(0),
            cut: AtomicBool::new(false),
            held: Held::new(),
            count: opened.count,
            _seat: opened.seat,
        }
    }

    /// The peer's address as a header value.
    #[must_use]
    pub fn peer_text(&self) -> &HeaderValue {
        &self.peer_text
    }

    /// Whether the client should go elsewhere with its next request: the server stops, or soon will. Takes no lock.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        // An error means that the server is gone altogether.
        self.shutdown.has_changed().unwrap_or(true) || self.leaving.has_changed().unwrap_or(false)
    }

    /// Waits until the client should go elsewhere.
    pub(super) fn sent_away(&self) -> impl Future<Output = ()> + use<> {
        let (mut shutdown, mut leaving) = (self.shutdown.clone(), self.leaving.clone());
        async move {
            let stop = async {
                let _ = shutdown.wait_for(|down| *down).await;
            };
            tokio::select! {
                () = stop => {}
                // Where nobody can say so any more, the stop does.
                Ok(_) = leaving.wait_for(|leaving| *leaving) => {}
            }
        }
    }

    /// Whether the server stops.
    pub(super) fn shutdown(&self) -> &ShutdownWatch {
        &self.shutdown
    }

    /// One more request on HTTP/2; with the last one that it may have the connection is closed in good order.
    pub(super) fn count_request(&self, most: u32) {
        if self.requests.fetch_add(1, Ordering::Relaxed).checked_add(1) == Some(most) {
            self.retire();
        }
    }

    /// The client has taken a request back before its answer began. Who does little else on HTTP/2 has us work for nothing
    /// (rapid reset, CVE-2023-44487) and is cut off.
    pub fn request_cancelled(&self) {
        if !self.is_http2() {
            return;
        }
        let cancelled = self.cancelled.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if cancelled >= MANY_CANCELLED && cancelled > self.requests.load(Ordering::Relaxed) / 2 {
            self.cut.store(true, Ordering::Relaxed);
            // Wakes the task that serves the connection.
            self.retire();
        }
    }

    /// Remembers a piece of an answer until the client has taken it, if it is large enough to matter. Must be called for what an
    /// upstream sends: of that much may be read ahead.
    pub fn hold(self: &Arc<Self>, piece: &mut Bytes) {
        held::hold(self, piece);
    }

    /// What the client has not taken yet.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Whether it must end at once.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// No new requests: the client is told to open another connection.
    pub(super) fn retire(&self) {
        if let Some(retire) = &self.retire {
            retire.send_replace(true);
        }
    }

    /// Waits until the server begins to stop.
    pub async fn closing(&self) {
        if self.shutdown.clone().wait_for(|down| *down).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs the work of an HTTP/1 connection or of an HTTP/2 stream such that [`request_began`] finds this connection and
    /// [`tie`] takes effect.
    pub(super) async fn scope<T>(self: &Arc<Self>, work: impl Future<Output = Option<T>>) -> Option<T> {
        let current = Current { connection: Arc::clone(self), tied: RefCell::new(None) };
        CURRENT.scope(current, until_cut(work)).await
    }

    /// A request header is complete.
    pub(super) fn begin(&self) {
        self.due.store(NOTHING_DUE, Ordering::Relaxed);
        // Streams of one HTTP/2 connection share the flag; reading it is cheaper than writing it again.
        if !self.has_started() {
            self.started.store(true, Ordering::Relaxed);
        }
    }

    /// The next header on a kept-alive connection is awaited, for so long.
    pub(super) fn await_header(&self, limit: Duration) {
        self.due.store(nanos(self.opened.elapsed() + limit), Ordering::Relaxed);
    }

    /// When the awaited request header must be complete; `None` while none is awaited.
    pub(super) fn header_due(&self) -> Option<Instant> {
        let due = self.due.load(Ordering::Relaxed);
        (due != NOTHING_DUE).then(|| self.opened + Duration::from_nanos(due))
    }

    pub(super) fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.count.protocol.load(Ordering::Relaxed) == Protocol::Http2 as u8
    }

    /// The protocol is known now; moves the connection from `new` to its own gauge.
    pub(super) fn speaks(&self, protocol: Protocol) {
        self.count.move_to(protocol);
    }
}

/// 584 years fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NOTHING_DUE)
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Not known yet.
    New = 0,
    Http1 = 1,
    Http2 = 2,
}

/// The gauges of one listener, by [`Protocol`].
#[derive(Debug)]
pub(super) struct Gauges([IntGauge; 3]);

impl Gauges {
    pub(super) fn new(metrics: &Metrics, listener: &str) -> Arc<Self> {
        let gauge = |protocol| metrics.connections_open.with_label_values(&[listener, protocol]);
        Arc::new(Self([gauge("new"), gauge("http1"), gauge("h2")]))
    }

    fn get(&self, protocol: u8) -> Option<&IntGauge> {
        self.0.get(usize::from(protocol))
    }
}

/// Counts one connection in exactly one gauge until it is dropped.
#[derive(Debug)]
pub(super) struct Count {
    gauges: Arc<Gauges>,
    protocol: AtomicU8,
}

impl Count {
    pub(super) fn new(gauges: &Arc<Gauges>) -> Self {
        let count = Self { gauges: Arc::clone(gauges), protocol: AtomicU8::new(Protocol::New as u8) };
        if let Some(gauge) = count.gauges.get(Protocol::New as u8) {
            gauge.inc();
        }
        count
    }

    fn move_to(&self, protocol: Protocol) {
        let to = protocol as u8;
        if self.protocol.load(Ordering::Relaxed) == to {
            return;
        }
        let from = self.protocol.swap(to, Ordering::Relaxed);
        // Streams of one HTTP/2 connection may race here; only one of them sees the old value.
        if from != to {
            if let Some(gauge) = self.gauges.get(from) {
                gauge.dec();
            }
            if let Some(gauge) = self.gauges.get(to) {
                gauge.inc();
            }
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(gauge) = self.gauges.get(*self.protocol.get_mut()) {
            gauge.dec();
        }
    }
}
