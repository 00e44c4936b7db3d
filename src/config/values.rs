//! Single values as people write them: durations, sizes, addresses, paths, header names, URLs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::HeaderName;
use ipnet::IpNet;
use url::{Host, Url};

use super::decode::Reader;
use super::diagnostic::Code;
use super::rules::is_loopback_http;
use super::settings::{ClaimPath, Endpoint, HostPattern, Origin};
use super::yaml::{Kind, Node};
use crate::primitives::path::{PathPrefix, canonical};

/// One second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// One millisecond.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// One hour.
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// One day.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// `30m`, `12h`, `1h 30m`, within bounds.
pub(super) fn duration(reader: &mut Reader<'_>, node: &Node, least: Duration, most: Duration) -> Option<Duration> {
    if let Kind::Integer(number) = node.kind {
        reader.show(node);
        let help = format!("add the unit, for example `{number}s` or `{number}m`");
        reader.note(Code::BadValue, node, "a duration needs a unit", help);
        return None;
    }
    let text = reader.text(node)?;
    let Ok(value) = humantime::parse_duration(&text) else {
        let help = "write for example `500ms`, `30s`, `15m` or `1h 30m`";
        reader.note(Code::BadValue, node, format!("`{text}` is no duration"), help);
        return None;
    };
    if !(least..=most).contains(&value) {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        let help = format!("choose a duration from {least} to {most}");
        reader.note(Code::OutOfRange, node, format!("`{text}` is out of range"), help);
        return None;
    }
    Some(value)
}

/// `10MiB`, or a plain number of bytes.
pub(super) fn size(reader: &mut Reader<'_>, node: &Node, most: u64) -> Option<u64> {
    let value = match node.kind {
        Kind::Integer(_) => return reader.integer(node, 0, most),
        _ => reader.text(node)?,
    };
    match value.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() <= most => Some(size.as_u64()),
        Ok(_) => {
            let help = format!("choose at most {}", bytesize::ByteSize(most));
            reader.note(Code::OutOfRange, node, format!("`{value}` is out of range"), help);
            None
        }
        Err(_) => {
            let help = "write for example `512KiB`, `10MiB` or a number of bytes";
            reader.note(Code::BadValue, node, format!("`{value}` is no size"), help);
            None
        }
    }
}

/// `20%`.
pub(super) fn percent(reader: &mut Reader<'_>, node: &Node) -> Option<u8> {
    if let Kind::Integer(number) = node.kind {
        reader.show(node);
        reader.note(Code::BadValue, node, "a share needs its sign", format!("write `{number}%`"));
        return None;
    }
    let text = reader.text(node)?;
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<u8>().ok());
    let percent = number.filter(|number| *number <= 100);
    if percent.is_none() {
        reader.note(Code::BadValue, node, format!("`{text}` is no share"), "write a whole number from `0%` to `100%`");
    }
    percent
}

/// `127.0.0.1:9090`, `[::]:8080`.
pub(super) fn socket_address(reader: &mut Reader<'_>, node: &Node) -> Option<SocketAddr> {
    let text = reader.text(node)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            reader.note(Code::OutOfRange, node, "port 0 is no port", "choose a port from 1 to 65535");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let help = if text.starts_with("localhost:") {
                "write `127.0.0.1` for `localhost`"
            } else {
                "write an IP address and a port, for example `0.0.0.0:8080` or `[::]:8080`"
            };
            reader.note(Code::BadValue, node, format!("`{text}` is no address to listen on"), help);
            None
        }
    }
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    let text = reader.text(node)?;
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if net.is_none() {
        let help = "write for example `10.0.0.0/8` or `fd00::/8`";
        reader.note(Code::BadValue, node, format!("`{text}` is no network"), help);
    }
    net.map(|net| net.trunc())
}

/// A name that other settings and metrics refer to.
pub(super) fn name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.word(node)?;
    if text.len() > 64 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        let help = "use 1 to 64 letters, digits, `.`, `_` and `-`";
        reader.note(Code::BadValue, node, format!("`{text}` cannot be a name"), help);
        return None;
    }
    Some(text)
}

/// A canonical path.
pub(super) fn path(reader: &mut Reader<'_>, node: &Node) -> Option<PathPrefix> {
    let text = reader.text(node)?;
    match PathPrefix::parse(&text) {
        Ok(path) => Some(path),
        Err(error) => {
            let help = match canonical(&text) {
                Ok(better) => format!("write `{better}`"),
                Err(_) if text.contains('*') && !text.starts_with('/') => {
                    "paths match all below them: write `/`".to_owned()
                }
                Err(_) if !text.starts_with('/') => format!("write `/{text}`"),
                Err(error) => error.to_string(),
            };
            reader.note(Code::BadPath, node, format!("`{text}` cannot be used as a path: {error}"), help);
            None
        }
    }
}

/// The name of a header that Cloakroom may set on a request to an upstream.
pub(super) fn free_header(text: &str) -> Result<HeaderName, &'static str> {
    /// Hop by hop (RFC 9110 §7.6.1), framing, addressing, and what carries credentials.
    const TAKEN: &[&str] = &[
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "origin",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
    ];
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| "this is no valid header name")?;
    let lower = name.as_str();
    let prefixes = ["x-forwarded-", "cloakroom-", "sec-"];
    if TAKEN.contains(&lower) || prefixes.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err("this header has a meaning of its own");
    }
    Ok(name)
}

/// A header name as a value.
pub(super) fn header_name(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderName> {
    let text = reader.text(node)?;
    free_header(&text)
        .map_err(|why| reader.note(Code::BadHeader, node, format!("`{text}`: {why}"), "choose another name"))
        .ok()
}

/// `realm_access.roles`; `\.` for a dot within a claim name.
pub(super) fn claim_path(reader: &mut Reader<'_>, node: &Node) -> Option<ClaimPath> {
    let text = reader.word(node)?;
    let mut parts = vec![String::new()];
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, parts.last_mut()) {
            ('.', _) => parts.push(String::new()),
            ('\\', Some(part)) => part.extend(rest.next()),
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    if parts.iter().any(String::is_empty) {
        let help = "write for example `sub` or `realm_access.roles`; `\\.` is a dot within a claim name";
        reader.note(Code::BadValue, node, format!("`{text}` is no claim path: a part is empty"), help);
        return None;
    }
    Some(ClaimPath(parts))
}

/// An OpenID issuer, as the exact string it is.
pub(super) fn issuer(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.word(node)?;
    let well_known = "/.well-known/openid-configuration";
    let trouble = match Url::parse(&text) {
        Err(_) => Some((
            "this is no URL",
            "write the issuer as the provider states it, for example `https://id.example.com/realms/main`",
        )),
        Ok(_) if text.contains(['{', '}', ' ', '<', '>']) => {
            Some(("this is a template", "put your own value in the place of the braces"))
        }
        Ok(_) if text.ends_with(well_known) => {
            Some(("this is the discovery document, not the issuer", "leave `/.well-known/openid-configuration` out"))
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Some(("an issuer has no query and no fragment", "remove `?` or `#` and what follows"))
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some(("an issuer has no user and password", "remove what stands in front of `@`"))
        }
        Ok(url) if url.scheme() == "http" && !is_loopback_http(&url) => Some((
            "an issuer over plain HTTP could be anyone",
            "use `https://`; plain HTTP is for `localhost` and loopback addresses only",
        )),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => {
            Some(("this is no web address", "write an `https://` URL"))
        }
        Ok(_) => None,
    };
    let Some((message, help)) = trouble else { return Some(text) };
    reader.note(Code::BadUrl, node, message, help);
    None
}

/// Scheme and authority of a site.
pub(super) fn origin(reader: &mut Reader<'_>, node: &Node) -> Option<Origin> {
    let text = reader.word(node)?;
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.contains('@')
    });
    let Some(url) = url else {
        let help = "write scheme, host and, if it is not the default, port: `https://app.example.com`";
        reader.note(Code::BadUrl, node, "this is no origin", help);
        return None;
    };
    // Browsers, unlike resolvers, know that names below `localhost` are this machine.
    let below_localhost = url.domain().is_some_and(|name| name.ends_with(".localhost"));
    if url.scheme() == "http" && !below_localhost && !is_loopback_http(&url) {
        let help = "a browser keeps no `Secure` cookie from there; use `https://`";
        reader.note(Code::PlainOrigin, node, "this origin is plain HTTP", help);
    }
    Some(Origin(url))
}

/// `app.example.com`, `*.example.com`, `*`, or an IP address.
pub(super) fn host_pattern(reader: &mut Reader<'_>, node: &Node) -> Option<HostPattern> {
    let text = reader.word(node)?;
    if text == "*" {
        return Some(HostPattern::Any);
    }
    let help = if text.contains("://") || text.contains('/') {
        "write the host alone, without scheme and path"
    } else if text.parse::<SocketAddr>().is_ok() || (text.matches(':').count() == 1 && !text.starts_with('[')) {
        "write the host without the port: requests on any port match"
    } else if text.contains('*') {
        "a wildcard stands for exactly one label in front: `*.example.com`, or `*` for every host"
    } else {
        "write for example `app.example.com`, `*.example.com`, `192.0.2.1`, `[2001:db8::1]` or `*`"
    };
    let pattern = match text.strip_prefix("*.") {
        Some(domain) => match host(domain) {
            Some(Host::Domain(domain)) => Some(HostPattern::Wildcard(domain)),
            _ => None,
        },
        None => host(&text).map(|host| HostPattern::Exact(host.to_string())),
    };
    if pattern.is_none() {
        reader.note(Code::BadHost, node, format!("`{text}` cannot be used as a host"), help);
    }
    pattern
}

/// A DNS name (lower case, in its ASCII form) or an IP address, with or without brackets.
fn host(text: &str) -> Option<Host> {
    if let Ok(ip) = text.parse() {
        return Some(Host::Ipv6(ip));
    }
    let host = Host::parse(text).ok()?;
    let valid_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    match &host {
        Host::Domain(name) => (name.len() <= 253 && name.split('.').all(valid_label)).then_some(host),
        // `Host::parse` takes `1` for `0.0.0.1`; nobody means that.
        Host::Ipv4(ip) => (ip.to_string() == text).then_some(host),
        Host::Ipv6(_) => Some(host),
    }
}

/// `host:port` of an upstream, or the same as a URL without path; whether TLS is asked for by `https://`, or ruled out by
/// `http://`.
pub(super) fn endpoint(reader: &mut Reader<'_>, node: &Node) -> Option<(Endpoint, Option<bool>)> {
    let text = reader.text(node)?;
    let (rest, scheme) = match text.split_once("://") {
        Some(("http", rest)) => (rest.strip_suffix('/').unwrap_or(rest), Some((false, 80))),
        Some(("https", rest)) => (rest.strip_suffix('/').unwrap_or(rest), Some((true, 443))),
        _ => (text.as_str(), None),
    };
    let parsed = host_and_port(rest).or_else(|| {
        let (_, port) = scheme?;
        let host = host(rest).filter(|host| !matches!(host, Host::Ipv6(_)) || rest.starts_with('['))?;
        Some(Endpoint::new(bare(host), port))
    });
    if parsed.is_none() {
        let help = if scheme.is_some() && rest.contains(['/', '?']) {
            "leave the path out: `strip_prefix` of a route changes paths"
        } else {
            "write `host:port`, for example `api.internal:3000`, `10.0.0.5:80`, `[fd00::5]:80` or `https://api.internal:8443`"
        };
        reader.note(Code::BadHost, node, format!("`{text}` is no endpoint"), help);
    }
    Some((parsed?, scheme.map(|(tls, _)| tls)))
}

fn host_and_port(text: &str) -> Option<Endpoint> {
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0 && !text.ends_with(&format!(":0{port}")))?;
    // An IPv6 address needs brackets here, or its last group would be taken for the port.
    let host = host(name).filter(|host| !matches!(host, Host::Ipv6(_)) || name.starts_with('['))?;
    Some(Endpoint::new(bare(host), port))
}

/// Without brackets.
fn bare(host: Host) -> String {
    match host {
        Host::Domain(name) => name,
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    }
}
