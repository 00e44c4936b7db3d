//! The public sockets: one service for all of them, so that they share one runtime and one upstream pool.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::BoxFuture;
use ipnet::IpNet;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::server::ShutdownWatch;
use pingora::services::listening::Service;
use prometheus::IntCounter;
use tokio::sync::watch;

use super::connection::{Connection, Count, Gauges, Leaving, Opened, Protocol};
use super::crowd::Crowd;
use super::cut::{Cut, while_in_time};
use super::overload::{Overload, Watch};
use super::proxy_protocol::Said;
use super::tls::{Secured, Tls, TlsError};
use super::upkeep::Upkeep;
use super::{descriptors, proxy_protocol, upkeep};
use crate::config::settings::{ForwardAuth, Limits, Listener, Most};
use crate::telemetry::Throttle;
use crate::telemetry::metrics::Metrics;

/// A connection with more than about so many requests under way is cut when memory runs out, as is one whose client does not
/// take what it has asked for. Browsers seldom have as many; a proxy in front, which has those of many users, is spared as
/// one of `trusted_proxies`.
const HEAVY: usize = 16;

/// How much of what a frame of data costs beside its data may wait on a connection, as a part of its window, in bytes of
/// `h2`'s reckoning: about 256 for each frame that the proxy has not read. By itself it is half the window, which frames of one
/// octet turn into fifteen times what the client has sent.
const FRAME_BUDGET: u32 = 8;
/// The least that it may be.
const LEAST_FRAME_BUDGET: usize = 32 << 10;

/// Peers that are believed, as the settings say at the time.
pub type Trusted = Arc<ArcSwap<Vec<IpNet>>>;

/// All public sockets in front of one HTTP application, which must call [`super::request_began`] for each request.
pub struct Edge<A> {
    app: Arc<A>,
    sockets: Vec<Socket>,
    /// Peers whose PROXY headers are believed and who may have any number of connections.
    trusted: Trusted,
    leaving: Leaving,
    crowd: Arc<Crowd>,
    overload: Overload,
    limits: Limits,
    options: HttpServerOptions,
    h2: H2Options,
    header_timeouts: IntCounter,
    resets: IntCounter,
    failed_handshakes: IntCounter,
    refused: Refusals,
}

/// One public socket.
struct Socket {
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    redirect_to_https: Option<u16>,
    forward_auth: Option<ForwardAuth>,
    proxy_protocol: bool,
    gauges: Arc<Gauges>,
}

/// Counts connections that are not taken, by reason.
struct Refusals {
    connections: IntCounter,
    address: IntCounter,
    memory: IntCounter,
    proxy_protocol: IntCounter,
}

/// A connection that is ready for its first request.
struct Open {
    connection: Arc<Connection>,
    stream: Stream,
    /// Tells Pingora when to close it in good order.
    closing: ShutdownWatch,
    /// It is one of the trusted proxies.
    trusted: bool,
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Loads the certificates of all listeners. `overload` is raised by the [`Upkeep`] that comes along.
    ///
    /// # Errors
    /// [`TlsError`] if a certificate or key cannot be used.
    pub fn new(
        app: Arc<A>,
        listeners: &[Listener],
        trusted: &Trusted,
        leaving: &Leaving,
        limits: &Limits,
        overload: &Overload,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Upkeep), TlsError> {
        let socket = |listener: &Listener| Socket::open(listener, metrics);
        let sockets: Vec<_> = listeners.iter().map(socket).collect::<Result<_, TlsError>>()?;
        let watched = sockets.iter().filter_map(|socket| Some((socket.address.to_string(), socket.tls.clone()?)));
        let memory = Watch::new(limits.memory, overload.clone(), metrics);
        let upkeep = Upkeep::new(watched.collect(), memory, metrics.clone());
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(limits.http2.idle);
        // Pingora counts how often a connection is used again.
        options.keepalive_request_limit = limits.requests_per_connection.map(|most| most.get() - 1);
        let mut h2 = default_h2_options();
        h2.max_header_list_size(limits.http2.header_list)
            .max_concurrent_streams(limits.http2.streams)
            .initial_connection_window_size(limits.http2.window)
            .data_frame_budget(LEAST_FRAME_BUDGET.max((limits.http2.window / FRAME_BUDGET) as usize));
        let rejected = |reason| metrics.requests_rejected_total.with_label_values(&[reason]);
        let edge = Self {
            app,
            sockets,
            trusted: trusted.clone(),
            leaving: leaving.clone(),
            crowd: crowd(limits),
            overload: overload.clone(),
            limits: limits.clone(),
            options,
            h2,
            header_timeouts: rejected("header_timeout"),
            resets: rejected("resets"),
            failed_handshakes: rejected("tls_handshake"),
            refused: Refusals::new(metrics),
        };
        Ok((edge, upkeep))
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

    /// `None`: the connection is not taken, which has been counted.
    async fn open(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Open> {
        let digest = stream.get_socket_digest()?;
        let local = *digest.local_addr()?.as_inet()?;
        let peer = *digest.peer_addr()?.as_inet()?;
        let (listener, socket) = self.socket(local)?;
        if self.overload.refuses_connections() {
            self.refused.memory.inc();
            return None;
        }
        let Some(mut seat) = self.crowd.enter() else {
            self.refused.connections.inc();
            return None;
        };
        let count = Count::new(&socket.gauges);
        let mut stream = *stream.into_any().downcast::<TcpStream>().ok()?;
        let said = if socket.proxy_protocol { self.announced(&mut stream, peer).await? } else { Said::Itself };
        let peer = if let Said::Client(client) = said { client } else { peer };
        let trusted = self.is_trusted(peer);
        if !trusted && !seat.claim(peer.ip()) {
            self.refused.address.inc();
            static CROWDED: Throttle = Throttle::new();
            if let Some(held_back) = CROWDED.pass() {
                let help =
                    "a proxy or load balancer belongs in `trusted_proxies`; see `limits.connections_per_address`";
                tracing::warn!(address = %peer.ip(), held_back, help, "no more connections of this address");
            }
            return None;
        }
        let secured = match &socket.tls {
            Some(tls) => self.secure(tls, stream, peer).await?,
            None => Secured { stream: Box::new(stream), server_name: None, client_certificate: None, http2: true },
        };
        // Only HTTP/2 has a way to say that no more requests are taken while others go on.
        let retire = secured.http2.then(|| watch::channel(*shutdown.borrow()));
        let (retire, closing) = retire.map_or((None, shutdown.clone()), |(retire, closing)| (Some(retire), closing));
        let connection = Connection::new(Opened {
            listener,
            tls: socket.tls.is_some(),
            server_name: secured.server_name,
            asks_clients: socket.tls.as_ref().is_some_and(|tls| tls.asks_clients()),
            client_certificate: secured.client_certificate,
            redirect_to_https: socket.redirect_to_https,
            forward_auth: socket.forward_auth,
            peer,
            nameless: said == Said::Somebody,
            local,
            header: self.limits.header_timeout,
            shutdown: shutdown.clone(),
            leaving: self.leaving.clone(),
            retire,
            count,
            seat,
        });
        Some(Open { connection: Arc::new(connection), stream: secured.stream, closing, trusted })
    }

    /// What the PROXY header says; `None` if there is none that counts.
    async fn announced(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<Said> {
        let said = if self.is_trusted(peer) {
            let read = tokio::time::timeout(self.limits.handshake_timeout, proxy_protocol::read(stream)).await;
            read.unwrap_or_else(|_| Err("no PROXY header in time".to_owned()))
        } else {
            Err("not one of the trusted proxies".to_owned())
        };
        match said {
            Ok(said) => Some(said),
            Err(problem) => {
                tracing::debug!(%peer, %problem, "PROXY protocol");
                self.refused.proxy_protocol.inc();
                None
            }
        }
    }

    async fn secure(&self, tls: &Tls, stream: TcpStream, peer: SocketAddr) -> Option<Secured> {
        let secured = tokio::time::timeout(self.limits.handshake_timeout, tls.accept(stream)).await;
        match secured.unwrap_or_else(|_| Err("no handshake in time".to_owned())) {
            Ok(secured) => Some(secured),
            Err(problem) => {
                // Strangers do this all day long; it is no trouble of ours.
                tracing::debug!(%peer, %problem, "TLS handshake failed");
                self.failed_handshakes.inc();
                None
            }
        }
    }

    fn is_trusted(&self, peer: SocketAddr) -> bool {
        let peer = peer.ip().to_canonical();
        self.trusted.load().iter().any(|network| network.contains(&peer))
    }
}

impl Socket {
    fn open(listener: &Listener, metrics: &Metrics) -> Result<Self, TlsError> {
        let load = |tls| {
            let (tls, expiries) = Tls::load(tls)?;
            upkeep::tell(&expiries, metrics);
            Ok(Arc::new(tls))
        };
        Ok(Self {
            address: listener.address,
            tls: listener.tls.as_ref().map(load).transpose()?,
            redirect_to_https: listener.redirect_to_https,
            forward_auth: listener.forward_auth,
            proxy_protocol: listener.proxy_protocol,
            gauges: Gauges::new(metrics, &listener.address.to_string()),
        })
    }
}

impl Refusals {
    fn new(metrics: &Metrics) -> Self {
        let refused = |reason| metrics.connections_rejected_total.with_label_values(&[reason]);
        Self {
            connections: refused("connections"),
            address: refused("address"),
            memory: refused("memory"),
            proxy_protocol: refused("proxy_protocol"),
        }
    }
}

fn crowd(limits: &Limits) -> Arc<Crowd> {
    let most = most_connections(limits.connections);
    let of_one = match limits.connections_per_address {
        Most::Fitting => most.map(|most| most / 2),
        Most::Given(most) => Some(most),
        Most::Unlimited => None,
    };
    Crowd::new(most, of_one.and_then(|most| NonZeroU32::new(u32::try_from(most).unwrap_or(u32::MAX).max(1))))
}

/// How many connections are taken; told in the log.
fn most_connections(most: Most) -> Option<u64> {
    let descriptors = descriptors::raise_limit();
    let fitting = descriptors::connections_for(descriptors);
    let most = match most {
        Most::Fitting => Some(fitting),
        Most::Given(most) => Some(most),
        Most::Unlimited => None,
    };
    match most {
        Some(most) if most <= fitting => tracing::info!(connections = most, descriptors, "limit on client connections"),
        _ => {
            let help = "each connection may need two descriptors; raise the limit (`ulimit -n`, `LimitNOFILE=`)";
            tracing::warn!(connections = most, descriptors, help, "more client connections than descriptors bear");
        }
    }
    most
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Edge<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Open { connection, stream, closing, trusted } = self.open(stream, shutdown).await?;
        let app = Arc::new(ConnectionApp { edge: Arc::clone(self), connection: Arc::clone(&connection) });
        let served = connection.scope(app.process_new(stream, &closing));
        // Each request of HTTP/2 holds the application as long as it is under way.
        let is_heavy = || !trusted && (Arc::strong_count(&app) > HEAVY || connection.held().is_stuck());
        let cut = match while_in_time(&connection, &self.overload, is_heavy, served).await {
            Ok(reusable) => return reusable,
            Err(cut) => cut,
        };
        let (counter, problem) = match cut {
            Cut::Resets => (&self.resets, "requests are made to be taken back"),
            Cut::Late => (&self.header_timeouts, "no whole request header in time"),
            Cut::Memory => (&self.refused.memory, "it holds memory that runs out"),
        };
        counter.inc();
        tracing::debug!(peer = %connection.peer, problem, "the connection is cut");
        None
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
        _: &'shutdown ShutdownWatch,
    ) -> BoxFuture<'future, Option<ReusedHttpStream>>
    where
        'app: 'future,
        'shutdown: 'future,
        Self: 'future,
    {
        let (connection, limits) = (&self.connection, &self.edge.limits);
        let shutdown = connection.shutdown();
        session.set_write_timeout(Some(limits.write_timeout));
        if session.is_http2() {
            connection.speaks(Protocol::Http2);
            connection.begin();
            connection.count_request(limits.requests_per_connection.map_or(u32::MAX, NonZeroU32::get));
            // Each stream is a task of its own.
            return Box::pin(connection.scope(self.edge.app.process_new_http(session, shutdown)));
        }
        session.set_read_timeout(Some(limits.body_timeout));
        if connection.has_started() {
            connection.await_header(limits.keepalive_timeout + limits.header_timeout);
        } else {
            connection.speaks(Protocol::Http1);
            if session.get_keepalive().is_some() {
                // Pingora carries it over to the later requests of the connection.
                session.set_keepalive(Some(limits.keepalive_timeout.as_secs()));
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
