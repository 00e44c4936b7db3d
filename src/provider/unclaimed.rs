//! Tokens that no session holds yet.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Provider;
use crate::oidc::Tokens;
use crate::primitives::secret::SecretText;

/// A refresh token on its way into a session. Dropped on the way, because the client went away or the store failed, it is
/// revoked: nobody else knows of it.
pub struct Unclaimed {
    provider: Arc<Provider>,
    refresh_token: Option<SecretText>,
}

impl Unclaimed {
    /// Watches over the refresh token among these, if there is one.
    #[must_use]
    pub fn new(provider: Arc<Provider>, tokens: &Tokens) -> Self {
        Self { provider, refresh_token: tokens.refresh_token.clone() }
    }

    /// Revokes nothing: the browser had a session when the login began, and to many providers its refresh token is of the same
    /// grant as this one, which would end with it.
    #[must_use]
    pub fn left_alone(mut self) -> Self {
        self.refresh_token = None;
        self
    }

    /// A session holds it now.
    pub fn claim(mut self) {
        self.refresh_token = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // Without a runtime the process is stopping, and the token ends by its own time.
        if let (Some(token), Ok(runtime)) = (self.refresh_token.take(), Handle::try_current()) {
            runtime.spawn(self.provider.clone().revoke_patiently(token));
        }
    }
}
