//! Header fields that a client may not send, in every spelling (behaviour H1, H2, C4): see
//! [`crate::primitives::reserved`]. HTTP names are compared in lower case, which is how a [`HeaderMap`] keeps them.
//!
//! [`HeaderMap`]: http::HeaderMap

use http::header::HeaderName;

use crate::primitives::reserved::{RESERVED, RESERVED_PREFIXES, dashed, is_other_sign, is_reserved_plain};

/// Among the reserved names, those by which some applications take one method for another.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// Knows which header fields are ours alone.
#[derive(Clone, Debug)]
pub struct Hygiene {
    identity: Vec<String>,
    /// The lengths that a reserved name may have, a bit each, by its first sign: most fields are none at a glance.
    lengths: [u64; 128],
}

impl Hygiene {
    /// Reserves the identity headers of every route, on every route.
    #[must_use]
    pub fn new(identity_headers: &[HeaderName]) -> Self {
        let identity: Vec<_> = identity_headers.iter().map(|name| dashed(name.as_str())).collect();
        let mut lengths = [0; 128];
        let names = RESERVED.into_iter().chain(identity.iter().map(String::as_str)).map(|name| (name, length(name)));
        // A family has every length from its prefix's.
        let families = RESERVED_PREFIXES.into_iter().map(|prefix| (prefix, !(length(prefix) - 1)));
        for (name, bits) in names.chain(families) {
            if let Some(lengths) = lengths.get_mut(initial(name)) {
                *lengths |= bits;
            }
        }
        Self { identity, lengths }
    }

    /// Whether a field of this name must go.
    #[must_use]
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        if self.lengths.get(initial(name)).is_none_or(|lengths| lengths & length(name) == 0) {
            return false;
        }
        if name.bytes().any(is_other_sign) {
            self.is_reserved_plain(&dashed(name))
        } else {
            self.is_reserved_plain(name)
        }
    }

    /// Whether a field of this name could be taken for another one: a reserved name in another spelling, or one that asks an
    /// application to act by another method.
    #[must_use]
    pub fn is_disguised(&self, name: &HeaderName) -> bool {
        let (spelt, plain) = (name.as_str().bytes().any(is_other_sign), dashed(name.as_str()));
        self.is_reserved(name) && (spelt || METHOD_OVERRIDES.contains(&plain.as_str()))
    }

    fn is_reserved_plain(&self, name: &str) -> bool {
        is_reserved_plain(name) || self.identity.iter().any(|identity| identity == name)
    }
}

/// A name's first letter; one place for all other signs. A header name is ASCII.
fn initial(name: &str) -> usize {
    let first = name.bytes().next().unwrap_or_default();
    usize::from(if is_other_sign(first) { b'-' } else { first & 0x7f })
}

/// The bit of a name's length, the last one for all that are longer.
fn length(name: &str) -> u64 {
    1 << name.len().min(63)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn unwanted(names: &[&'static str]) -> Vec<String> {
        let hygiene = Hygiene::new(&[HeaderName::from_static("x-user-id"), HeaderName::from_static("remote_user")]);
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("1"));
        }
        headers.keys().filter(|name| hygiene.is_reserved(name)).map(ToString::to_string).collect()
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
            "client-cert",
            "client_cert_chain",
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
