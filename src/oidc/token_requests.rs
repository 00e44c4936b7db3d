//! What the token endpoint is asked for at a login and later: a code, then refresh tokens, become tokens.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use openidconnect::{AuthorizationCode, PkceCodeVerifier, RedirectUrl, RefreshToken};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use url::Url;

use super::Provider;
use super::answer::{Failure, TokenAnswer, Tokens};
use super::authorization::check_pkce_verifier;
use super::breaker::Health;
use super::demands::Demands;
use super::error::{OidcError, RefreshError};
use super::http::Endpoint;
use super::id_token::{IdToken, IdTokenError, Origin, Previous};
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

/// Longest wait for UserInfo after a refresh: requests wait for its result.
const USERINFO: Duration = Duration::from_secs(2);

/// What a redeemed code brings.
#[derive(Clone, Debug)]
pub struct Login {
    /// The tokens.
    pub tokens: Tokens,
    /// Who logged in.
    pub id_token: IdToken,
}

/// What a refresh brings.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The tokens; without a refresh token in them the old one stays (behaviour R5).
    pub tokens: Tokens,
    /// `None`: the old ID token and its claims stay. Where the settings ask for UserInfo, its claims are not all:
    /// [`Provider::claims_after_refresh`] has the rest.
    pub id_token: Option<IdToken>,
}

impl Provider {
    /// Exchanges a code for tokens (RFC 6749 §4.1.3) and verifies the ID token. If that is refused, the refresh token that
    /// came with it is revoked, for nobody holds it; unless the right user has merely not authenticated as was asked.
    ///
    /// `has_former`: the browser had a session when the login began. To many providers its refresh token is of the same
    /// grant as this one and would end with it (RFC 7009 §2.1), so where nothing speaks against the user, only the login
    /// could not be finished, nothing is revoked.
    ///
    /// # Errors
    /// [`OidcError`]
    pub async fn redeem(
        self: &Arc<Self>,
        code: &str,
        pkce_verifier: &str,
        redirect_uri: &Url,
        nonce: &str,
        demands: &Demands,
        has_former: bool,
    ) -> Result<Login, OidcError> {
        let discovered = self.discovered()?;
        check_pkce_verifier(pkce_verifier)?;
        let sent = self.now();
        let answer = discovered
            .client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(pkce_verifier.to_owned()))
            .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(redirect_uri.clone())))
            .request_async(&self.http().endpoint(Endpoint::Token).proving(self.credentials()))
            .await
            .map_err(|error| Failure::read(error, &[code, pkce_verifier, self.client_secret()]).into());
        self.breaker().note(Health::of_login(&answer));
        let answer = answer?;
        let (tokens, id_token) = self.take(answer, sent, has_former)?;
        let origin = Origin::Login { nonce, demands };
        let verified = match &id_token {
            Some(id_token) => self.verify(id_token, tokens.access_token.expose(), origin).await,
            None => Err(IdTokenError::Missing),
        };
        let complete = match verified {
            Ok(mut id_token) => {
                let added = self.add_userinfo(&discovered, &tokens.access_token, &mut id_token).await;
                added.map(|()| id_token)
            }
            Err(error) => Err(error.into()),
        };
        match complete {
            Ok(id_token) => Ok(Login { tokens, id_token }),
            // The provider's session is the one that the user had, and so may a former session's refresh token be: both go on
            // (behaviour L16).
            Err(error) if error.is_about_strength() => Err(error),
            Err(error) if has_former && error.is_transient() => Err(error),
            Err(error) => {
                self.disown(tokens);
                Err(error)
            }
        }
    }

    /// Gets new tokens (RFC 6749 §6). The refresh token is shown to the provider once; nothing here repeats it.
    ///
    /// # Errors
    /// [`RefreshError`]
    pub async fn refresh(
        self: &Arc<Self>,
        token: &SecretText,
        previous: Previous<'_>,
    ) -> Result<Refreshed, RefreshError> {
        let discovered = self
            .discovered()
            .map_err(|error| RefreshError::Unavailable { reason: error.to_string(), retry_after: None })?;
        let sent = self.now();
        let answer = discovered
            .client
            .exchange_refresh_token(&RefreshToken::new(token.expose().to_owned()))
            .request_async(&self.http().endpoint(Endpoint::Token).for_refresh().proving(self.credentials()))
            .await
            .map_err(|error| Failure::read(error, &[token.expose(), self.client_secret()]).into());
        self.breaker().note(Health::of_refresh(&answer));
        let answer = answer?;
        let successor = answer.successor(sent);
        let (tokens, id_token) = match answer.into_parts(sent, self.prover().is_some()) {
            Ok(parts) => parts,
            Err(Failure::Unusable(reason)) => return Err(RefreshError::Unusable { reason, successor }),
            Err(failure) => return Err(failure.into()),
        };
        let Some(text) = id_token else { return Ok(Refreshed { tokens, id_token: None }) };
        match self.verify(&text, tokens.access_token.expose(), Origin::Refresh(previous)).await {
            Ok(id_token) => Ok(Refreshed { tokens, id_token: Some(id_token) }),
            // Its claims are the same user's, and it came straight from the provider over TLS (Core §3.1.3.7, 6.).
            // A key set that cannot be fetched for a moment must not end every session that is refreshed just then;
            // but no claim is taken from it either.
            Err(IdTokenError::KeysUnavailable) => {
                tracing::warn!(provider = %self.name(), "a refreshed ID token is left aside: no key set to verify it");
                Ok(Refreshed { tokens, id_token: None })
            }
            Err(error) => {
                self.disown(tokens);
                Err(RefreshError::IdentityChanged(error))
            }
        }
    }

    /// Adds to the ID token of a refresh what the UserInfo endpoint says, if the settings ask for that. Its tokens are to be
    /// in the store by then: without them there is no session, without these claims there is one with claims that are old.
    /// `None`: they stay as they were. `turns`: how many may be asked for at a time; the wait for a turn is a part of the time
    /// that it all may take.
    ///
    /// # Errors
    /// [`RefreshError::IdentityChanged`]; nothing is revoked.
    pub async fn claims_after_refresh(
        &self,
        access_token: &SecretText,
        mut id_token: IdToken,
        turns: &Semaphore,
    ) -> Result<Option<Map<String, Value>>, RefreshError> {
        let added = match self.discovered() {
            Ok(discovered) => {
                let asked = async {
                    // Never closed.
                    let _turn = turns.acquire().await;
                    self.add_userinfo(&discovered, access_token, &mut id_token).await
                };
                tokio::time::timeout(USERINFO, asked).await.unwrap_or_else(|_| {
                    Err(OidcError::Unavailable { reason: "it takes too long".to_owned(), retry_after: None })
                })
            }
            Err(error) => Err(error),
        };
        match added {
            Ok(()) => Ok(Some(id_token.claims)),
            Err(OidcError::UserInfoSubject) => Err(RefreshError::IdentityChanged(IdTokenError::Subject)),
            // Half of the new ones would take some away.
            Err(error) => {
                tracing::warn!(provider = %self.name(), %error, "a user's claims stay as they were");
                Ok(None)
            }
        }
    }

    /// Takes the answer to a login apart. If its tokens are not of the type that was asked for, the refresh token among them
    /// is revoked, for nobody holds it.
    fn take(
        self: &Arc<Self>,
        answer: TokenAnswer,
        sent: Timestamp,
        has_former: bool,
    ) -> Result<(Tokens, Option<String>), Failure> {
        let successor = answer.successor(sent).filter(|_| !has_former);
        let taken = answer.into_parts(sent, self.prover().is_some());
        if let (Err(Failure::Unusable(_)), Some(orphan)) = (&taken, successor) {
            tokio::spawn(Arc::clone(self).revoke_patiently(orphan.token));
        }
        taken
    }
}
