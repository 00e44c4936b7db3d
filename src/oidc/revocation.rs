//! Revocation of refresh tokens (RFC 7009; behaviour O1, R6).

use std::sync::Arc;
use std::time::Duration;

use openidconnect::core::CoreRevocableToken;
use openidconnect::{AccessToken, RefreshToken};

use super::answer::{Failure, Tokens};
use super::http::Endpoint;
use super::{OidcError, Provider};
use crate::primitives::secret::SecretText;

/// Pauses before the attempts to revoke a refresh token.
const REVOCATION_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

impl Provider {
    /// Revokes a refresh token (RFC 7009). Nothing to do if the provider has no endpoint for it; a token that the
    /// provider does not know is as good as revoked.
    ///
    /// # Errors
    /// [`OidcError`]; worth another try if [`OidcError::is_transient`].
    pub async fn revoke(&self, token: &SecretText) -> Result<(), OidcError> {
        self.revoke_one(RefreshToken::new(token.expose().to_owned()).into(), token).await
    }

    /// The same for an access token, once: it ends by itself soon. A provider that cannot (RFC 7009 §2.2.1:
    /// `unsupported_token_type`), and any other failure, is in the log.
    pub async fn revoke_access_token(self: Arc<Self>, token: SecretText) {
        if let Err(error) = self.revoke_one(AccessToken::new(token.expose().to_owned()).into(), &token).await {
            tracing::warn!(provider = %self.name(), %error, "an access token could not be revoked");
        }
    }

    async fn revoke_one(&self, named: CoreRevocableToken, token: &SecretText) -> Result<(), OidcError> {
        let discovered = self.discovered()?;
        let Some((client, url)) = &discovered.revocation else { return Ok(()) };
        let request = client.revoke_token(named).map_err(|_| OidcError::Argument("the revocation endpoint"))?;
        match request
            .request_async(&self.http.endpoint(Endpoint::Revocation).to(url.clone()).proving(self.credentials()))
            .await
        {
            Ok(()) => Ok(()),
            Err(error) => match Failure::read(error, &[token.expose(), self.client_secret()]) {
                // Google names what RFC 7009 §2.2 calls success.
                Failure::Refused(code) if matches!(code.as_str(), "invalid_token" | "invalid_grant") => Ok(()),
                failure => Err(failure.into()),
            },
        }
    }

    /// Tokens came that nobody will hold: the refresh token among them is revoked in a task of its own.
    pub(super) fn disown(self: &Arc<Self>, tokens: Tokens) {
        if let Some(orphan) = tokens.refresh_token {
            tokio::spawn(Arc::clone(self).revoke_patiently(orphan));
        }
    }

    /// [`Provider::revoke`] with a few attempts over half a minute, for a task of its own: nobody need wait for it. What
    /// fails in the end is in the log.
    pub async fn revoke_patiently(self: Arc<Self>, token: SecretText) {
        patiently(self.name(), || self.revoke(&token)).await;
    }
}

/// A few attempts at a revocation, over half a minute.
pub(crate) async fn patiently<F>(provider: &str, mut revoke: impl FnMut() -> F)
where
    F: Future<Output = Result<(), OidcError>>,
{
    let mut last = None;
    for pause in REVOCATION_PAUSES {
        tokio::time::sleep(pause).await;
        match revoke().await {
            Ok(()) => return,
            Err(error) => {
                let again = error.is_transient();
                last = Some(error);
                if !again {
                    break;
                }
            }
        }
    }
    if let Some(error) = last {
        tracing::warn!(provider, %error, "a refresh token could not be revoked");
    }
}
