//! Who is told of requests, and in which words.

use std::time::Duration;

/// Which of the provider's endpoints was called; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `.well-known/openid-configuration`
    Discovery,
    /// The key set.
    Jwks,
    /// The token endpoint.
    Token,
    /// The revocation endpoint.
    Revocation,
    /// The pushed authorization request endpoint.
    Pushed,
    /// The UserInfo endpoint.
    UserInfo,
    /// The introspection endpoint.
    Introspection,
    /// Where a backend takes credentials.
    Login,
    /// Where a backend exchanges refresh tokens.
    Refresh,
    /// Where a backend is told of a logout.
    Logout,
}

impl Endpoint {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
            Self::Token => "token",
            Self::Revocation => "revocation",
            Self::Pushed => "pushed_authorization",
            Self::UserInfo => "userinfo",
            Self::Introspection => "introspection",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
        }
    }
}

/// How a request ended; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A good answer.
    Ok,
    /// 3xx or 4xx.
    Refused,
    /// 429.
    Throttled,
    /// 5xx, or an answer that breaks off or is too large.
    Error,
    /// No complete answer in time.
    Timeout,
    /// No connection.
    Unreachable,
}

impl Outcome {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Is told of every request, for metrics. One per provider, so it knows the provider's name.
pub trait Observer: Send + Sync + 'static {
    /// A request has ended.
    fn request(&self, endpoint: Endpoint, outcome: Outcome, took: Duration);

    /// A key set was fetched; `good` only if it held a usable key.
    fn key_set(&self, good: bool) {
        let _ = good;
    }
}

/// Nobody watches.
impl Observer for () {
    fn request(&self, _: Endpoint, _: Outcome, _: Duration) {}
}
