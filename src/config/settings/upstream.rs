//! Upstreams: groups of endpoints, how they are spoken to and how they are watched.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};

/// A named group of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Name that routes refer to.
    pub name: Arc<str>,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// Which endpoint gets a request; default round robin.
    pub balance: Balance,
    /// What is spoken; default HTTP/1.1.
    pub protocol: Protocol,
    /// `None` = in the clear.
    pub tls: Option<UpstreamTls>,
    /// Whether endpoints are asked how they are; default: not.
    pub health_check: Option<HealthCheck>,
    /// When an endpoint that fails is left alone for a while; `None` = never.
    pub ejection: Option<Ejection>,
    /// Most requests at a time; `None` = no bound of ours.
    pub max_requests: Option<usize>,
    /// How long each step may take.
    pub timeouts: UpstreamTimeouts,
    /// How often requests may be sent again.
    pub retries: Retries,
}

impl Upstream {
    /// An upstream with endpoints alone, all else by default.
    #[must_use]
    pub fn plain(name: impl Into<Arc<str>>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.into(),
            endpoints,
            balance: Balance::RoundRobin,
            protocol: Protocol::Http1,
            tls: None,
            health_check: None,
            ejection: Some(Ejection::default()),
            max_requests: None,
            timeouts: UpstreamTimeouts::default(),
            retries: Retries::default(),
        }
    }
}

/// How often requests to an upstream may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Most attempts at one request, the first included; default 3, 1 = none is sent again.
    pub attempts: usize,
    /// Most retries in ten seconds, in percent of the requests in them, beside a hundred that are always granted; default 20.
    pub budget: u8,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 3, budget: 20 }
    }
}

/// Most attempts that an upstream may be given.
pub const MOST_ATTEMPTS: usize = 10;

/// One `host:port`; a DNS name is re-resolved in the background.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// DNS name or IP address (without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Its share of the requests, in proportion to the other weights; default 1. Each address of a name has it.
    pub weight: u32,
}

impl Endpoint {
    /// One with the usual weight.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1 }
    }
}

/// Which endpoint gets a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Of two taken at random the one with fewer requests under way.
    LeastRequests,
    /// The same key, the same endpoint, as long as the endpoint is there.
    ConsistentHash(HashOn),
}

/// The key of [`Balance::ConsistentHash`]. A request that has none counts by its client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The session.
    Session,
    /// The client's address.
    Address,
    /// The value of a request header.
    Header(HeaderName),
}

/// What is spoken with the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS, nothing else.
    H2,
    /// HTTP/2 in the clear, without asking before.
    H2c,
}

/// TLS towards an upstream. Certificate and name are always verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities that are trusted instead of the system's; not empty.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    /// The name that every endpoint must prove; `None` = each its own host, which is a name then.
    pub server_name: Option<ServerName>,
    /// What is shown to an upstream that asks who we are.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

/// A DNS name that a server must prove to have, in lower case. Never empty, for Pingora takes an empty one for leave to
/// verify nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// `None` if the text is no DNS name; an IP address is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_address = text.parse::<std::net::IpAddr>().is_ok();
        let name = DnsName::try_from(text).ok().filter(|_| !is_address && !text.is_empty())?;
        Some(Self(name.to_lowercase_owned().as_ref().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client's certificate with its key.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Chain, leaf first; not empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Endpoints are asked how they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Target of a GET; `None` = it is enough that a connection can be made.
    pub path: Option<String>,
    /// Pause between two checks; default 5 s.
    pub interval: Duration,
    /// Longest wait for one; default 2 s.
    pub timeout: Duration,
    /// So many good checks in a row and a bad endpoint is good; default 2.
    pub healthy_after: u32,
    /// So many bad checks in a row and a good endpoint is bad; default 3.
    pub unhealthy_after: u32,
    /// Good answers; default: any 2xx.
    pub expect: Vec<u16>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
            expect: Vec::new(),
        }
    }
}

/// An endpoint that fails again and again is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures in a row; default 5.
    pub after: u32,
    /// Whether an answer with 500 to 599 is a failure; default false.
    pub on_5xx: bool,
    /// The first pause; default 10 s. Each further one is twice as long.
    pub pause: Duration,
    /// The longest pause; default 5 min.
    pub longest_pause: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { after: 5, on_5xx: false, pause: Duration::from_secs(10), longest_pause: Duration::from_secs(300) }
    }
}

/// Time limits towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// TCP connect, and again the TLS handshake; default 2 s.
    pub connect: Duration,
    /// Gap between reads; default 60 s.
    pub read: Duration,
    /// Gap between writes; default 60 s.
    pub write: Duration,
    /// A pooled connection unused for this long is closed; default 60 s.
    pub idle: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: Duration::from_secs(2), read: minute, write: minute, idle: minute }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_a_dns_name_and_never_empty() {
        for bad in ["", " ", "10.0.0.1", "::1", "[::1]", "a b", "a/b", ".", "-", "*.example.com"] {
            assert_eq!(ServerName::parse(bad), None, "{bad:?}");
        }
        assert_eq!(ServerName::parse("API.Internal").unwrap().as_str(), "api.internal");
    }
}
