//! Who logs users in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Credentials;
use crate::primitives::secret::SecretText;

/// Who logs users in, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// An OpenID provider.
    Oidc(Provider),
    /// A backend with a login of its own.
    Credentials(Box<Credentials>),
}

impl ProviderKind {
    /// Name that sites refer to.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Oidc(provider) => &provider.name,
            Self::Credentials(backend) => &backend.name,
        }
    }

    /// Its settings if it is an OpenID provider.
    #[must_use]
    pub fn oidc(&self) -> Option<&Provider> {
        match self {
            Self::Oidc(provider) => Some(provider),
            Self::Credentials(_) => None,
        }
    }
}

/// An OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Name that sites refer to.
    pub name: Arc<str>,
    /// What users are told that it is, where they choose; default the name.
    pub title: Arc<str>,
    /// Issuer, compared exactly. `https`, or `http` on a loopback host.
    pub issuer: String,
    /// Our id at the provider.
    pub client_id: String,
    /// How we prove to be that client.
    pub client_auth: ClientAuth,
    /// Scopes asked for; `openid` is always among them.
    pub scopes: Vec<String>,
    /// How long the provider still answers to a refresh token that it has exchanged already; default 0: never, as with
    /// strict rotation. A refresh whose owner died is tried again only within this time (behaviour R8).
    pub refresh_token_grace: Duration,
    /// What its logout tokens must hold and what they end.
    pub backchannel_logout: BackchannelLogout,
    /// Extra parameters of the authorization request (Auth0 `audience`, Google `access_type`).
    pub authorization_params: BTreeMap<String, String>,
}

/// How logout tokens of a provider are read (OpenID Connect Back-Channel Logout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackchannelLogout {
    /// What a token with a `sid` ends; default session.
    pub scope: LogoutScope,
    /// Whether a token must have `exp`; default true. Without one it is good for two minutes.
    pub require_exp: bool,
}

impl Default for BackchannelLogout {
    fn default() -> Self {
        Self { scope: LogoutScope::Session, require_exp: true }
    }
}

/// What a logout token with a `sid` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutScope {
    /// The sessions with this `sid`.
    Session,
    /// All sessions of the user, for providers that tell one `sid` of several.
    User,
}

/// Client authentication at the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic (RFC 6749 §2.3.1).
    Basic(SecretText),
    /// In the form body.
    Post(SecretText),
    /// Public client; PKCE only. `check` warns.
    None,
}
