//! Who asks, and for which host: by the connection, and by forwarding headers only where the peer is trusted
//! (behaviour H2).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HeaderValue;
use ipnet::IpNet;

use crate::config::settings::ForwardAuth;

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'r> {
    /// The other end.
    pub peer: IpAddr,
    /// The other end passes on a client that it cannot name: nobody is believed about that client.
    pub nameless: bool,
    /// Whether it speaks TLS with us.
    pub tls: bool,
    /// Requests that the browser made over plain HTTP are sent to `https` on this port.
    pub redirect_to_https: Option<u16>,
    /// The name in the TLS handshake, where the client's certificate was asked for: it counts for that name's site alone.
    pub only_for: Option<&'r str>,
    /// Its listener takes questions of proxies in front, told in this manner, and nothing else.
    pub forward_auth: Option<ForwardAuth>,
}

impl Connection<'_> {
    /// Plain TCP from this peer, and no rules.
    #[must_use]
    pub fn plain(peer: IpAddr) -> Self {
        Self { peer, nameless: false, tls: false, redirect_to_https: None, only_for: None, forward_auth: None }
    }
}

/// The scheme that the browser used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The client at the far end of trusted proxies.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// The scheme it used.
    pub scheme: Scheme,
    /// The `X-Forwarded-For` that a trusted peer sent, to be continued.
    pub chain: Option<HeaderValue>,
    /// The host a trusted peer says the client asked for.
    pub host: Option<HeaderValue>,
}

impl Client {
    /// Whether the other end of a connection is believed about the client.
    #[must_use]
    pub fn is_believed(connection: Connection<'_>, trusted: &[IpNet]) -> bool {
        !connection.nameless && !trusted.is_empty() && is_trusted(connection.peer.to_canonical(), trusted)
    }

    /// Reads the connection and, if its other end is in `trusted`, the forwarding headers.
    #[must_use]
    pub fn of(connection: Connection<'_>, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let scheme = if connection.tls { Scheme::Https } else { Scheme::Http };
        let peer = connection.peer.to_canonical();
        let mut client = Self { ip: peer, scheme, chain: None, host: None };
        if !Self::is_believed(connection, trusted) {
            return client;
        }
        if let Some(chain) = joined(headers, "x-forwarded-for") {
            client.ip = farthest_trusted(peer, &chain, trusted);
            client.chain = HeaderValue::from_str(&chain).ok();
        }
        match last(headers, "x-forwarded-proto").as_deref() {
            Some(proto) if proto.eq_ignore_ascii_case("https") => client.scheme = Scheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case("http") => client.scheme = Scheme::Http,
            _ => {}
        }
        client.host = last(headers, "x-forwarded-host").and_then(|host| HeaderValue::from_str(&host).ok());
        client
    }
}

/// Walks the chain from our end while the addresses are trusted; the first stranger is the client.
fn farthest_trusted(peer: IpAddr, chain: &str, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in chain.rsplit(',') {
        let Some(address) = address(hop.trim()) else { break };
        client = address.to_canonical();
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Some balancers add the port (RFC 7239 §6 has the same forms in `Forwarded`).
fn address(hop: &str) -> Option<IpAddr> {
    let bare = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    hop.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip())).or_else(bare)
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let all: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// The last element: the one that the nearest proxy wrote.
fn last(headers: &HeaderMap, name: &str) -> Option<String> {
    joined(headers, name)?.rsplit(',').next().map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, pairs: &[(&'static str, &'static str)], trusted: &[&str]) -> Client {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Client::of(Connection::plain(peer.parse().unwrap()), &headers, &trusted)
    }

    #[test]
    fn h2_a_strangers_headers_change_nothing() {
        let headers = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil")];
        let stranger = client("192.0.2.1", &headers, &["10.0.0.0/8"]);
        assert_eq!(stranger.ip.to_string(), "192.0.2.1");
        assert_eq!(stranger.scheme, Scheme::Http);
        assert!(stranger.chain.is_none() && stranger.host.is_none());
    }

    #[test]
    fn h2_a_trusted_peer_is_believed_up_to_the_first_stranger() {
        let headers = [("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.2"), ("x-forwarded-proto", "https")];
        let known = client("10.0.0.1", &headers, &["10.0.0.0/8"]);
        assert_eq!(known.ip.to_string(), "192.0.2.7");
        assert_eq!(known.scheme, Scheme::Https);
        let mapped = client("::ffff:10.0.0.1", &headers, &["10.0.0.0/8"]);
        assert_eq!(mapped.ip.to_string(), "192.0.2.7");
        for garbage in ["nonsense", "[192.0.2.7]", "2001:db8::7:", "192.0.2.7:x", ""] {
            let garbage = client("10.0.0.1", &[("x-forwarded-for", garbage)], &["10.0.0.0/8"]);
            assert_eq!(garbage.ip.to_string(), "10.0.0.1");
        }
    }

    #[test]
    fn h2_the_port_that_some_balancers_add_is_no_part_of_the_address() {
        let told = |hop| client("10.0.0.1", &[("x-forwarded-for", hop)], &["10.0.0.0/8"]).ip.to_string();
        assert_eq!(told("192.0.2.7:50123, 10.0.0.2:443"), "192.0.2.7");
        assert_eq!(told("[2001:db8::7]:50123"), "2001:db8::7");
        assert_eq!(told("[2001:db8::7]"), "2001:db8::7");
    }
}
