//! The provider's client: discovery, keys, code exchange, refresh, revocation, logout URL.
//!
//! Knows nothing of sessions, cookies or Pingora. `openidconnect` speaks the protocol; this room gives it its HTTP
//! ([`http`]), its time and its judgement of what went wrong.
//!
//! - [`Provider`]: one provider, as its client; the way in;
//! - [`http`]: outgoing HTTP;
//! - [`IdToken`], [`Tokens`]: what a login or a refresh brings;
//! - [`LogoutToken`]: what a provider sends when a user has logged out elsewhere;
//! - [`OidcError`], [`RefreshError`]: why it does not.

mod access_token;
mod answer;
mod authorization;
mod breaker;
mod client;
mod credentials;
mod demands;
mod dpop;
mod error;
mod exchange;
pub mod http;
mod id_token;
mod introspection;
mod jwks;
mod jwt;
mod logout_token;
mod maintain;
mod metadata;
mod provider;
mod pushed;
mod revocation;
mod signed;
pub mod step_up;
mod text;
pub(crate) mod tls;
mod token_requests;
mod userinfo;

#[cfg(test)]
mod tests;

pub use access_token::{AccessToken, AccessTokenError};
pub use answer::{Successor, Tokens};
pub use authorization::AuthorizationRequest;
pub use breaker::Breaker;
pub(crate) use breaker::Health;
pub use demands::Demands;
pub use error::{OidcError, RefreshError, SetupError};
pub use exchange::ServiceToken;
pub use id_token::{IdToken, IdTokenError, Previous};
pub use introspection::Introspected;
pub(crate) use jwt::SKEW;
pub use jwt::{JwtError, is_jwt};
pub use logout_token::{LogoutToken, LogoutTokenError, Whose};
pub use provider::Provider;
pub(crate) use revocation::patiently;
#[cfg(test)]
pub(crate) use tests::RSA_PKCS8;
pub use text::ErrorCode;
pub use tls::Tls;
pub use token_requests::{Login, Refreshed};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    id_token::{Expected as ExpectedIdToken, Origin, verify as verify_id_token},
    logout_token::{Expected as ExpectedLogoutToken, verify as verify_logout_token},
};

/// A key set as it is published, for the fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse_keys(body: &[u8]) -> Option<openidconnect::core::CoreJsonWebKeySet> {
    jwks::parse(body).ok()
}
