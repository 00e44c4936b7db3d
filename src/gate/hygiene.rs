//! Header fields that a client may not send, in every spelling (behaviour H1, H2, C4).
//!
//! Some servers take `X_User_Id` for `X-User-Id`, and CGI gateways make `_` of every sign that is neither letter nor
//! digit, so `X.User.Id` means the same there. A name therefore counts whichever signs it is written with. HTTP names
//! are compared in lower case, which is how a [`HeaderMap`] keeps them.

use http::HeaderMap;
use http::header::HeaderName;

/// Names refused whatever the settings.
const RESERVED: [&str; 14] = [
    "authorization",
    "cloakroom-error",
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-rewrite-url",
    "x-user-context",
    "x-user-context-update",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-client-ip",
    "x-envoy-external-address",
    "true-client-ip",
];

/// Whole families refused whatever the settings.
const RESERVED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-original-"];

/// Knows which header fields are ours alone.
#[derive(Clone, Debug)]
pub struct Hygiene {
    identity: Vec<String>,
    /// First letters of the identity headers, a bit each, so that most fields are looked at once.
    initials: u128,
}

impl Hygiene {
    /// Reserves the identity headers of every route, on every route.
    #[must_use]
    pub fn new(identity_headers: &[HeaderName]) -> Self {
        let identity: Vec<_> = identity_headers.iter().map(|name| dashed(name.as_str())).collect();
        let initials = identity.iter().fold(0, |bits, name| bits | initial(name));
        Self { identity, initials }
    }

    /// The fields of this request that must go.
    #[must_use]
    pub fn unwanted(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        headers.keys().filter(|name| self.is_reserved(name.as_str())).cloned().collect()
    }

    fn is_reserved(&self, name: &str) -> bool {
        if name.bytes().any(is_other_sign) {
            self.is_reserved_plain(&dashed(name))
        } else {
            self.is_reserved_plain(name)
        }
    }

    fn is_reserved_plain(&self, name: &str) -> bool {
        // The common fields (accept, host, user-agent …) leave at the first letter.
        let suspicious = matches!(name.as_bytes().first(), Some(b'a' | b'c' | b'f' | b't' | b'x'));
        (suspicious && (RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))))
            || (self.initials & initial(name) != 0 && self.identity.iter().any(|identity| identity == name))
    }
}

/// The bit of a name's first letter. A header name is ASCII.
fn initial(name: &str) -> u128 {
    name.bytes().next().map_or(0, |byte| 1 << (byte & 0x7f))
}

/// A sign of a header name that stands for `-` somewhere.
fn is_other_sign(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}

fn dashed(name: &str) -> String {
    name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn unwanted(names: &[&'static str]) -> Vec<String> {
        let hygiene = Hygiene::new(&[HeaderName::from_static("x-user-id"), HeaderName::from_static("remote_user")]);
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("1"));
        }
        hygiene.unwanted(&headers).into_iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn h1_identity_and_forwarding_headers_go_in_every_spelling() {
        let bad = [
            "authorization",
            "x-user-id",
            "x_user_id",
            "x-user_id",
            "x_user-id",
            "x.user.id",
            "x!user~id",
            "remote-user",
            "remote_user",
            "forwarded",
            "x-forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded-anything",
            "x-original-url",
            "x_original_host",
            "x-real-ip",
            "x_real_ip",
            "x-rewrite-url",
            "x-http-method-override",
            "x-user-context",
        ];
        assert_eq!(unwanted(&bad).len(), bad.len());
    }

    #[test]
    fn other_headers_stay() {
        let good =
            ["accept", "host", "user-agent", "x-request-id", "x-xsrf-token", "x-user-idx", "content-type", "cookie"];
        assert!(unwanted(&good).is_empty());
    }
}
