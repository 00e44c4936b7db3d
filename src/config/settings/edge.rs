//! Public sockets, and what a stranger may ask of them.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// One public socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address and port to bind.
    pub address: SocketAddr,
    /// How it speaks TLS; `None` = not at all.
    pub tls: Option<ListenerTls>,
    /// Plain requests are sent to `https` on this port, unless a trusted proxy says that they came over `https`.
    pub redirect_to_https: Option<u16>,
    /// Each connection begins with a PROXY header, version 1 or 2, and comes from a trusted proxy; default false.
    pub proxy_protocol: bool,
    /// Each request on it is a question of a trusted proxy about another request, told in this manner; `None` = none is.
    pub forward_auth: Option<ForwardAuth>,
}

/// Where a proxy that asks about a request tells what was asked of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardAuth {
    /// In `X-Forwarded-Method`, `-Proto`, `-Host` and `-Uri`: Traefik, Caddy.
    XForwarded,
    /// In `X-Original-Method` and `X-Original-URL`: nginx.
    XOriginal,
    /// In the question itself, with `X-Forwarded-Proto`: Envoy.
    ExtAuthz,
}

/// TLS of a public socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Chosen by SNI, the first is the default; at least one.
    pub certificates: Vec<Certificate>,
    /// Oldest version spoken; default 1.2.
    pub min_version: TlsVersion,
    /// Certificates asked of clients; `None` = none.
    pub clients: Option<ClientCertificates>,
}

/// Versions of TLS that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and authenticated encryption only.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Which certificates clients may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file with the authorities that sign them.
    pub authorities: PathBuf,
    /// Whether a client without one is refused; default true.
    pub required: bool,
}

/// What a client may ask for, and how long it may take. `None` of an amount = no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the open connection to a whole request header, the HTTP/2 preface included; default 10 s. Later requests on
    /// an HTTP/1 connection have `keepalive_timeout` more.
    pub header_timeout: Duration,
    /// PROXY header and TLS handshake, each; default 10 s.
    pub handshake_timeout: Duration,
    /// Between two requests of an HTTP/1 connection; whole seconds; default 60 s.
    pub keepalive_timeout: Duration,
    /// Longest gap between two pieces of an HTTP/1 request body; default 30 s.
    pub body_timeout: Duration,
    /// Bytes a second that a request body must bring on average, once it has taken longer than `body_timeout`; default
    /// 240, 0 = any.
    pub body_rate: u64,
    /// Longest wait for a client to take a piece of the answer; default 30 s.
    pub write_timeout: Duration,
    /// Most bytes of request target and header fields; default 32 KiB.
    pub header_size: usize,
    /// Most header fields; default 100.
    pub header_fields: usize,
    /// Most bytes of a request target; default 8 KiB.
    pub uri_length: usize,
    /// Requests on one connection, after which it is closed in good order; default 10,000.
    pub requests_per_connection: Option<NonZeroU32>,
    /// Open connections.
    pub connections: Most,
    /// Open connections of one address, or of one IPv6 /64; trusted proxies have no such limit. Fitting is half of
    /// `connections`: nobody may take them all, and many may come through one gateway.
    pub connections_per_address: Most,
    /// Resident memory from which on new work is refused.
    pub memory: Most,
    /// What is peculiar to HTTP/2.
    pub http2: Http2,
}

/// An amount that the environment decides unless the settings do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// What the environment bears.
    Fitting,
    /// This much.
    Given(u64),
    /// No limit.
    Unlimited,
}

/// Limits of one HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Concurrent requests; default 100.
    pub streams: u32,
    /// Bytes of one decoded header list (RFC 9113 §6.5.2); default 16 KiB.
    pub header_list: u32,
    /// Bytes of request bodies that may be under way; default 1 MiB.
    pub window: u32,
    /// Closed after so long without a request; default 5 min.
    pub idle: Duration,
}

/// A certificate chain and its key, both PEM files, joined to the folder of the settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}
