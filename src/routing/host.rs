//! The host that a request is for: one normal form, one value, or the request is refused (behaviour H6).
//!
//! Normal form: lower case, no port, no final dot; an IPv6 literal keeps its brackets and is written as RFC 5952 says.
//! Names are of letters, digits, `-`, `_` and dots; what RFC 3986 allows beyond that (percent-encoding, `!$&'()*+,;=`)
//! names no real host and is refused.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, Uri};

/// Longest name of a host (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 255;

/// Why a request's host was refused. The text may be shown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Neither `Host` nor `:authority` nor an absolute request target.
    #[error("the request names no host")]
    Missing,
    /// Not a host, or a port that is none.
    #[error("the host is malformed")]
    Malformed,
    /// `Host` says another thing than `:authority` or the request target, or there are two of them.
    #[error("the request names two hosts")]
    Conflict,
}

/// A normalised host and the port that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'r> {
    /// In normal form.
    pub host: Cow<'r, str>,
    /// As the client wrote it; `None` if it wrote none.
    pub port: Option<u16>,
}

impl<'r> Authority<'r> {
    /// Parses the value of `Host`, `:authority` or a URI's authority.
    ///
    /// # Errors
    /// [`HostError::Malformed`], also for user information (`user@host`).
    pub fn parse(raw: &'r str) -> Result<Self, HostError> {
        let (host, port) = if raw.starts_with('[') {
            let end = raw.find(']').ok_or(HostError::Malformed)?;
            raw.split_at_checked(end + 1).ok_or(HostError::Malformed)?
        } else {
            let colon = raw.bytes().position(|byte| byte == b':');
            colon.and_then(|colon| raw.split_at_checked(colon)).unwrap_or((raw, ""))
        };
        Ok(Self { host: normal_host(host)?, port: parse_port(port)? })
    }

    /// Whether both stand for the same place. 80 and 443 count as no port: one side may have left out a default.
    fn agrees_with(&self, other: &Self) -> bool {
        let explicit = |port: Option<u16>| port.filter(|port| !matches!(port, 80 | 443));
        self.host == other.host && explicit(self.port) == explicit(other.port)
    }
}

/// The one host that a request is for: its `:authority` or absolute target if it has one, else its `Host`.
///
/// # Errors
/// [`HostError`] if there is none, if it is malformed, or if two are given that do not agree.
pub fn of_request<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Result<Authority<'r>, HostError> {
    let mut hosts = headers.get_all(HOST).iter();
    let header = match hosts.next() {
        Some(value) => Some(Authority::parse(value.to_str().map_err(|_| HostError::Malformed)?)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(HostError::Conflict);
    }
    let target = uri.authority().map(|authority| Authority::parse(authority.as_str())).transpose()?;
    match (target, header) {
        (Some(target), Some(header)) if !target.agrees_with(&header) => Err(HostError::Conflict),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(HostError::Missing),
    }
}

fn normal_host(host: &str) -> Result<Cow<'_, str>, HostError> {
    if let Some(literal) = host.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(HostError::Malformed)?;
        let address: Ipv6Addr = literal.parse().map_err(|_| HostError::Malformed)?;
        let normal = format!("[{address}]");
        return Ok(if normal == host { Cow::Borrowed(host) } else { Cow::Owned(normal) });
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(HostError::Malformed);
    }
    let mut upper = false;
    let mut previous = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if previous == b'.' => return Err(HostError::Malformed),
            b'A'..=b'Z' => upper = true,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {}
            _ => return Err(HostError::Malformed),
        }
        previous = byte;
    }
    if previous == b'.' {
        return Err(HostError::Malformed);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// Parses what follows the host: nothing, `:` or `:` and a number. An empty port is one left out (RFC 3986 §3.2.3).
fn parse_port(text: &str) -> Result<Option<u16>, HostError> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Ok(None),
        Some("") => Ok(None),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| HostError::Malformed)
        }
        _ => Err(HostError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Result<String, HostError> {
        let uri: Uri = target.parse().unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        of_request(&uri, &headers).map(|authority| authority.host.into_owned())
    }

    #[test]
    fn hosts_have_one_normal_form() {
        for (raw, host, port) in [
            ("app.example.com", "app.example.com", None),
            ("App.Example.COM:8443", "app.example.com", Some(8443)),
            ("app.example.com.", "app.example.com", None),
            ("app.example.com.:80", "app.example.com", Some(80)),
            ("localhost:", "localhost", None),
            ("127.0.0.1:3000", "127.0.0.1", Some(3000)),
            ("[::1]:443", "[::1]", Some(443)),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
            ("a_b-c.d", "a_b-c.d", None),
        ] {
            assert_eq!(Authority::parse(raw), Ok(Authority { host: host.into(), port }), "{raw}");
        }
    }

    #[test]
    fn a_normal_host_is_borrowed() {
        for raw in ["app.example.com", "app.example.com:8080", "[::1]"] {
            assert!(matches!(Authority::parse(raw).unwrap().host, Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let long = "a".repeat(256);
        for raw in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a\tb",
            "user@host",
            "a/b",
            "a?b",
            "a%20b",
            "é.de",
            "host:80a",
            "host:+80",
            "host:65536",
            "host:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[::g]",
            "[]",
            "*",
            "a,b",
            "a..",
            &long,
        ] {
            assert_eq!(Authority::parse(raw), Err(HostError::Malformed), "{raw:?}");
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert_eq!(request("/x", &["A.b"]).as_deref(), Ok("a.b"));
        assert_eq!(request("http://a.b/x", &[]).as_deref(), Ok("a.b"));
        assert_eq!(request("http://a.b/x", &["A.B."]).as_deref(), Ok("a.b"));
        assert_eq!(request("https://a.b:443/x", &["a.b"]).as_deref(), Ok("a.b"));
        assert_eq!(request("http://a.b/x", &["c.d"]), Err(HostError::Conflict));
        assert_eq!(request("http://a.b:8080/x", &["a.b:9090"]), Err(HostError::Conflict));
        assert_eq!(request("/x", &["a.b", "a.b"]), Err(HostError::Conflict));
        assert_eq!(request("/x", &[]), Err(HostError::Missing));
        assert_eq!(request("/x", &[""]), Err(HostError::Malformed));
        assert_eq!(request("http://u@a.b/x", &["a.b"]), Err(HostError::Malformed));
    }

    proptest! {
        #[test]
        fn never_panics_and_normal_hosts_stay(raw in "\\PC{0,40}|[A-Za-z0-9.:_\\[\\]-]{0,40}") {
            if let Ok(authority) = Authority::parse(&raw) {
                prop_assert_eq!(
                    Authority::parse(&authority.host),
                    Ok(Authority { host: authority.host.clone(), port: None })
                );
                prop_assert!(!authority.host.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace()));
            }
        }
    }
}
