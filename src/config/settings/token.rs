//! Which token goes upstream.

use std::sync::Arc;

/// Which token goes upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// None.
    None,
    /// The access token.
    Access,
    /// The ID token.
    Id,
    /// A proxy token, see [`ProxyToken`](super::ProxyToken).
    Proxy,
    /// One that the provider gives for the user's access token (RFC 8693 §2). The target says at least something.
    Exchange(Target),
    /// The user's access token, and for a request of nobody's one of our own as a client (RFC 6749 §4.4).
    ClientCredentials(ClientToken),
}

/// What a token is to be good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// `audience` (RFC 8693 §2.1): a name that the provider knows the service by.
    pub audience: Option<String>,
    /// `resource` (RFC 8707 §2): the service's own address, an absolute URI without fragment.
    pub resource: Option<String>,
    /// `scope`; empty = what the provider gives unasked.
    pub scope: Vec<String>,
}

/// A token of our own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientToken {
    /// Name of the provider that gives it: an OpenID provider of the site that knows us by more than our id.
    pub provider: Arc<str>,
    /// What it is to be good for.
    pub target: Target,
}
