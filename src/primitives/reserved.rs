//! Names of header fields that are Cloakroom's alone to send to an upstream, in every spelling (behaviour H1, H2, C4).
//!
//! Some servers take `X_User_Id` for `X-User-Id`, and CGI gateways make `_` of every sign that is neither letter nor
//! digit, so `X.User.Id` means the same there. A name therefore counts whichever signs it is written with.

use http::header::HeaderName;

/// Names refused whatever the settings.
pub const RESERVED: [&str; 17] = [
    "authorization",
    "client-cert",
    "client-cert-chain",
    "cloakroom-error",
    "dpop",
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
pub const RESERVED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-original-"];

/// Whether a name is refused whatever the settings.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    is_reserved_plain(&dashed(name.as_str()))
}

/// The same for a name that has no other sign than letters, digits and `-`.
#[must_use]
pub fn is_reserved_plain(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A sign of a header name that stands for `-` somewhere.
#[must_use]
pub fn is_other_sign(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}

/// A name with `-` for all such signs.
#[must_use]
pub fn dashed(name: &str) -> String {
    name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect()
}
