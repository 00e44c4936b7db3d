//! Which requests may become a tunnel.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method};

/// What an `Upgrade` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// There is none.
    None,
    /// A WebSocket, as RFC 6455 §4.1 opens one: GET without a body.
    WebSocket,
    /// Another protocol. A server may go on as if nothing had been said (RFC 9110 §7.8), and so do we.
    Ignored,
    /// A WebSocket by another method or with a body: what is body and what tunnel would be open to doubt.
    Malformed,
}

impl Upgrade {
    /// Reads the request.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let mut fields = headers.get_all(UPGRADE).into_iter();
        let Some(first) = fields.next() else { return Self::None };
        if fields.next().is_some() || !first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket") {
            return Self::Ignored;
        }
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
        if *method == Method::GET && !has_body { Self::WebSocket } else { Self::Malformed }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_bodiless_get_for_websocket_opens_a_tunnel() {
        for (method, fields, expected) in [
            (Method::GET, &[][..], Upgrade::None),
            (Method::GET, &[("upgrade", "websocket")], Upgrade::WebSocket),
            (Method::GET, &[("upgrade", "WebSocket"), ("content-length", "0")], Upgrade::WebSocket),
            (Method::POST, &[("upgrade", "h2c")], Upgrade::Ignored),
            (Method::GET, &[("upgrade", "h2c")], Upgrade::Ignored),
            (Method::GET, &[("upgrade", "websocket, h2c")], Upgrade::Ignored),
            (Method::GET, &[("upgrade", "websocket"), ("upgrade", "h2c")], Upgrade::Ignored),
            (Method::POST, &[("upgrade", "websocket")], Upgrade::Malformed),
            (Method::GET, &[("upgrade", "websocket"), ("content-length", "3")], Upgrade::Malformed),
            (Method::GET, &[("upgrade", "websocket"), ("transfer-encoding", "chunked")], Upgrade::Malformed),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(Upgrade::of(&method, &headers), expected, "{method} {fields:?}");
        }
    }
}
