//! The public sockets: one service for all of them, so that they share one runtime and one upstream pool.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora::services::listening::Service;
use prometheus::IntCounter;
use tokio::time::Instant;

use super::connection::{Connection, Count, Gauges, Protocol};
use super::tls::{Tls, TlsError};
use crate::config::settings::Listener;
use crate::telemetry::metrics::Metrics;

/// How long a client may take, and how much it may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TLS handshake.
    pub handshake: Duration,
    /// From the open connection to a whole request header; on HTTP/2 and h2c this includes the preface. Later
    /// requests on an HTTP/1 connection have `keepalive` more.
    pub header: Duration,
    /// An HTTP/1 connection may be idle this long between two requests; whole seconds.
    pub keepalive: Duration,
    /// Longest gap between two reads of an HTTP/1 request body.
    pub body_gap: Duration,
    /// Longest wait for a client to take a piece of the answer.
    pub write: Duration,
    /// An HTTP/2 connection without a request is closed after this.
    pub h2_idle: Duration,
    /// Bytes of one decoded HTTP/2 header list.
    pub h2_header_list: u32,
    /// Concurrent requests on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Bytes of request bodies that may be under way on one HTTP/2 connection.
    pub h2_window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            body_gap: Duration::from_secs(30),
            write: Duration::from_secs(30),
            h2_idle: Duration::from_secs(300),
            h2_header_list: 16 * 1024,
            h2_streams: 100,
            h2_window: 1024 * 1024,
        }
    }
}

/// All public sockets in front of one HTTP application, which must call [`super::request_began`] for each request.
pub struct Edge<A> {
    app: Arc<A>,
    sockets: Vec<Socket>,
    limits: Limits,
    options: HttpServerOptions,
    h2: H2Options,
    header_timeouts: IntCounter,
    failed_handshakes: IntCounter,
}

/// One public socket.
struct Socket {
    address: SocketAddr,
    tls: Option<Tls>,
    gauges: Arc<Gauges>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Loads the certificates of all listeners.
    ///
    /// # Errors
    /// [`TlsError`] if a certificate or key cannot be used.
    pub fn new(app: Arc<A>, listeners: &[Listener], limits: Limits, metrics: &Metrics) -> Result<Self, TlsError> {
        let sockets = listeners
            .iter()
            .map(|listener| {
                Ok(Socket {
                    address: listener.address,
                    tls: listener.tls.as_deref().map(Tls::load).transpose()?,
                    gauges: Gauges::new(metrics, &listener.address.to_string()),
                })
            })
            .collect::<Result<_, TlsError>>()?;
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(limits.h2_idle);
        let mut h2 = default_h2_options();
        h2.max_header_list_size(limits.h2_header_list)
            .max_concurrent_streams(limits.h2_streams)
            .initial_connection_window_size(limits.h2_window);
        let rejected = |reason| metrics.requests_rejected_total.with_label_values(&[reason]);
        Ok(Self {
            app,
            sockets,
            limits,
            options,
            h2,
            header_timeouts: rejected("header_timeout"),
            failed_handshakes: rejected("tls_handshake"),
        })
    }

    /// The service to add to the server.
    #[must_use]
    pub fn into_service(self) -> Service<Self> {
        let addresses: Vec<_> = self.sockets.iter().map(|socket| socket.address.to_string()).collect();
        let mut service = Service::new("public listeners".to_owned(), self);
        for address in addresses {
            service.add_tcp(&address);
        }
        service
    }

    /// The socket that a connection came in on, by our end of it.
    fn socket(&self, local: SocketAddr) -> Option<(usize, &Socket)> {
        let mut by_port = None;
        for (index, socket) in self.sockets.iter().enumerate() {
            if socket.address == local {
                return Some((index, socket));
            }
            if socket.address.port() == local.port() && socket.address.ip().is_unspecified() {
                by_port = Some((index, socket));
            }
        }
        by_port
    }

    async fn open(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<(Arc<Connection>, Stream)> {
        let digest = stream.get_socket_digest()?;
        let local = *digest.local_addr()?.as_inet()?;
        let peer = *digest.peer_addr()?.as_inet()?;
        let (listener, socket) = self.socket(local)?;
        let count = Count::new(&socket.gauges);
        let header = self.limits.header;
        let Some(tls) = &socket.tls else {
            let connection = Connection::new(listener, (false, None), (peer, local), (header, shutdown.clone()), count);
            return Some((Arc::new(connection), stream));
        };
        let answer = tokio::time::timeout(self.limits.handshake, tls.accept(stream)).await;
        let stream = answer.unwrap_or_else(|_| Err("no handshake in time".to_owned()));
        match stream {
            Ok((stream, server_name)) => {
                let connection =
                    Connection::new(listener, (true, server_name), (peer, local), (header, shutdown.clone()), count);
                Some((Arc::new(connection), stream))
            }
            Err(problem) => {
                // Strangers do this all day long; it is no trouble of ours.
                tracing::debug!(%peer, %problem, "TLS handshake failed");
                self.failed_handshakes.inc();
                None
            }
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Edge<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (connection, stream) = self.open(stream, shutdown).await?;
        let app = Arc::new(ConnectionApp { edge: Arc::clone(self), connection: Arc::clone(&connection) });
        let served = connection.scope(app.process_new(stream, shutdown));
        match while_in_time(&connection, served).await {
            Some(reusable) => reusable,
            None => {
                self.header_timeouts.inc();
                tracing::debug!(peer = %connection.peer, "no whole request header in time");
                None
            }
        }
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}

/// The application as one connection sees it. Pingora clones the `Arc` into each HTTP/2 stream, which may outlive the
/// accept loop, so the connection counts as open as long as one of them lives.
struct ConnectionApp<A> {
    edge: Arc<Edge<A>>,
    connection: Arc<Connection>,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for ConnectionApp<A> {
    // By hand what `async fn` would be: nothing is awaited here, so the proxy's own future can be returned as it is.
    fn process_new_http<'app, 'shutdown, 'future>(
        self: &'app Arc<Self>,
        mut session: ServerSession,
        shutdown: &'shutdown ShutdownWatch,
    ) -> BoxFuture<'future, Option<ReusedHttpStream>>
    where
        'app: 'future,
        'shutdown: 'future,
        Self: 'future,
    {
        let (connection, limits) = (&self.connection, &self.edge.limits);
        session.set_write_timeout(Some(limits.write));
        if session.is_http2() {
            connection.speaks(Protocol::Http2);
            connection.begin();
            // Each stream is a task of its own.
            return Box::pin(connection.scope(self.edge.app.process_new_http(session, shutdown)));
        }
        session.set_read_timeout(Some(limits.body_gap));
        if connection.has_started() {
            connection.await_header(limits.keepalive + limits.header);
        } else {
            connection.speaks(Protocol::Http1);
            if session.get_keepalive().is_some() {
                // Pingora carries it over to the later requests of the connection.
                session.set_keepalive(Some(limits.keepalive.as_secs()));
            }
        }
        self.edge.app.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.edge.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.edge.options)
    }
}

/// Runs `work` to its end, or drops it and returns `None` when the connection's request header is overdue.
///
/// One timer serves all requests of a connection: it is not set anew for each of them, but goes off at a time that was
/// right once, and then sees how long there is to go. The time that is due only ever moves forward.
async fn while_in_time<F: Future>(connection: &Connection, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut timer = pin!(tokio::time::sleep_until(connection.header_due().unwrap_or_else(Instant::now)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        while let Some(due) = connection.header_due() {
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if due <= Instant::now() {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

/// Waits until every listener accepts connections. Pingora calls a listener ready before it is bound, so readiness
/// asks the sockets themselves.
pub async fn until_listening(listeners: &[Listener]) {
    for listener in listeners {
        let mut address = listener.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
