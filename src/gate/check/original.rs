//! What a proxy in front says of the request that it asks about.
//!
//! Proxies pass on what clients send in header fields that they do not set themselves. So one family of fields is read, the
//! one that the settings name, and each of its fields must be there exactly once.

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Uri};

use super::CheckError;
use crate::config::settings::ForwardAuth;
use crate::gate::{Request, Scheme, Upgrade};
use crate::primitives::path;

/// The request that it is about.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) method: Method,
    /// Path and query.
    pub(super) uri: Uri,
    pub(super) scheme: Scheme,
    /// `None`: the host of the question itself.
    pub(super) host: Option<HeaderValue>,
    pub(super) upgrade: Upgrade,
}

impl Original {
    /// Reads it.
    ///
    /// # Errors
    /// [`CheckError`] for whatever is not there, there twice, unreadable, or would be sent on as another path.
    pub(super) fn of(manner: ForwardAuth, request: &Request<'_>) -> Result<Self, CheckError> {
        let headers = request.headers;
        let (method, proto, host, target) = match manner {
            ForwardAuth::XForwarded => (
                method(one(headers, "x-forwarded-method")?)?,
                one(headers, "x-forwarded-proto")?,
                Some(one(headers, "x-forwarded-host")?),
                one(headers, "x-forwarded-uri")?,
            ),
            ForwardAuth::XOriginal => {
                let (scheme, rest) = one(headers, "x-original-url")?.split_once("://").ok_or(CheckError::Malformed)?;
                let slash = rest.find('/').ok_or(CheckError::Malformed)?;
                let (host, target) = rest.split_at_checked(slash).ok_or(CheckError::Malformed)?;
                (method(one(headers, "x-original-method")?)?, scheme, Some(host), target)
            }
            ForwardAuth::ExtAuthz => {
                let target = request.uri.path_and_query().ok_or(CheckError::Malformed)?;
                (request.method.clone(), one(headers, "x-forwarded-proto")?, None, target.as_str())
            }
        };
        let (scheme, tunnel) = scheme(proto)?;
        let host = match host {
            // Two hosts in one field are no host.
            Some(host) if host.is_empty() || host.contains([',', '/', '?', '#', '\\']) => {
                return Err(CheckError::Malformed);
            }
            Some(host) => Some(HeaderValue::from_str(host).map_err(|_| CheckError::Malformed)?),
            None => None,
        };
        let uri = uri(target)?;
        // A handshake over HTTP/2 or 3 (RFC 8441 §4, RFC 9220) goes on as the GET that RFC 6455 has for it, and is judged as
        // one. Of a real tunnel there is nothing to judge.
        let extended = method == Method::CONNECT;
        let method = if extended { Method::GET } else { method };
        let upgrade = match Upgrade::of(&method, headers) {
            // Proxies keep `Upgrade` to themselves; this one of a handshake they pass on (RFC 6455 §4.1).
            Upgrade::None | Upgrade::Ignored if tunnel || headers.contains_key("sec-websocket-key") => {
                if method == Method::GET { Upgrade::WebSocket } else { Upgrade::Malformed }
            }
            other => other,
        };
        if extended && upgrade != Upgrade::WebSocket {
            return Err(CheckError::Malformed);
        }
        Ok(Self { method, uri, scheme, host, upgrade })
    }
}

/// The only value of the only field of that name.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, CheckError> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next().ok_or(CheckError::Missing)?;
    if fields.next().is_some() {
        return Err(CheckError::Doubled);
    }
    field.to_str().map_err(|_| CheckError::Malformed)
}

fn method(text: &str) -> Result<Method, CheckError> {
    Method::from_bytes(text.as_bytes()).map_err(|_| CheckError::Malformed)
}

/// Traefik says `ws` and `wss` of tunnels.
fn scheme(text: &str) -> Result<(Scheme, bool), CheckError> {
    match text.to_ascii_lowercase().as_str() {
        "http" => Ok((Scheme::Http, false)),
        "https" => Ok((Scheme::Https, false)),
        "ws" => Ok((Scheme::Http, true)),
        "wss" => Ok((Scheme::Https, true)),
        _ => Err(CheckError::Malformed),
    }
}

/// The target, if its path is written as it is judged: it is the proxy in front that sends it on, as it came.
fn uri(target: &str) -> Result<Uri, CheckError> {
    // The URI parser would drop what follows a `#`.
    if !target.starts_with('/') || target.contains('#') {
        return Err(CheckError::Malformed);
    }
    let uri: Uri = target.parse().map_err(|_| CheckError::Malformed)?;
    match path::canonical(uri.path()) {
        Ok(canonical) if canonical == uri.path() => Ok(uri),
        _ => Err(CheckError::Path),
    }
}

#[cfg(test)]
mod tests;
