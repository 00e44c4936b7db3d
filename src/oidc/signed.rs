//! Tokens that a provider has signed: each kind is judged by the provider's keys, and by newer ones if it names another
//! (behaviour T5).

use super::Provider;
use super::access_token::{self, AccessToken, AccessTokenError};
use super::id_token::{self, Expected, IdToken, IdTokenError, Origin};
use super::jwks::KeySet;
use super::jwt::{Jwt, JwtError};
use super::logout_token::{self, LogoutToken, LogoutTokenError};
use crate::primitives::clock::Timestamp;

impl Provider {
    pub(super) async fn verify(
        &self,
        text: &str,
        access_token: &str,
        origin: Origin<'_>,
    ) -> Result<IdToken, IdTokenError> {
        let judge = |keys: &KeySet| {
            let (issuer, client_id, now) = (self.issuer_url(), self.client(), self.now());
            id_token::verify(text, &keys.keys, &Expected { issuer, client_id, access_token, now, origin })
        };
        let is_unknown = |error: &IdTokenError| matches!(error, IdTokenError::UnknownKey);
        self.judged(judge, is_unknown, IdTokenError::KeysUnavailable, Some("an ID token")).await
    }

    /// Whether a token says that this provider has issued it. Nothing is verified by that.
    #[must_use]
    pub fn is_said_to_issue(&self, token: &str) -> bool {
        let claims = Jwt::read(token).ok().map(|jwt| jwt.claims);
        claims.is_some_and(|claims| claims.get("iss").and_then(|iss| iss.as_str()) == Some(self.issuer()))
    }

    /// Verifies a logout token (Back-Channel Logout §2.6). Whether its `jti` is new is for the caller to find out.
    ///
    /// # Errors
    /// [`LogoutTokenError`]; worth another try if it is [`LogoutTokenError::KeysUnavailable`].
    pub async fn logout_token(&self, text: &str) -> Result<LogoutToken, LogoutTokenError> {
        let needs_end = self.settings().backchannel_logout.require_exp;
        let judge = |keys: &KeySet| {
            let (issuer, client_id, now) = (self.issuer(), self.client_id(), self.now());
            let expected = logout_token::Expected { issuer, client_id, now, needs_end };
            logout_token::verify(text, &keys.keys, &expected)
        };
        let is_unknown = |error: &LogoutTokenError| matches!(error, LogoutTokenError::Jwt(JwtError::UnknownKey));
        self.judged(judge, is_unknown, LogoutTokenError::KeysUnavailable, Some("a logout token")).await
    }

    /// Verifies an access token that a client brings (RFC 9068 §4). `untyped`: it may say `JWT` for its type, or nothing.
    ///
    /// # Errors
    /// [`AccessTokenError`]; worth another try if it is [`AccessTokenError::KeysUnavailable`].
    pub async fn access_token(
        &self,
        text: &str,
        audiences: &[String],
        untyped: bool,
    ) -> Result<AccessToken, AccessTokenError> {
        let judge = |keys: &KeySet| {
            let expected = access_token::Expected { issuer: self.issuer(), audiences, untyped, now: self.now() };
            access_token::verify(text, &keys.keys, &expected)
        };
        let is_unknown = |error: &AccessTokenError| matches!(error, AccessTokenError::Jwt(JwtError::UnknownKey));
        // Its caller tells, at its own pace: anybody may invent a key's name.
        self.judged(judge, is_unknown, AccessTokenError::KeysUnavailable, None).await
    }

    /// Verifies that an access token is one of its own, and returns the subject, if it names one, and the end; whom it is for
    /// is left to [`Provider::introspect`].
    pub(super) async fn own_access_token(
        &self,
        text: &str,
        untyped: bool,
    ) -> Result<(Option<String>, Timestamp), AccessTokenError> {
        let judge = |keys: &KeySet| {
            let expected = access_token::Expected { issuer: self.issuer(), audiences: &[], untyped, now: self.now() };
            access_token::verify_origin(text, &keys.keys, &expected)
        };
        let is_unknown = |error: &AccessTokenError| matches!(error, AccessTokenError::Jwt(JwtError::UnknownKey));
        self.judged(judge, is_unknown, AccessTokenError::KeysUnavailable, None).await
    }

    /// `what` is the kind of token, where it is to be told that keys cannot be fetched.
    async fn judged<T, E>(
        &self,
        judge: impl Fn(&KeySet) -> Result<T, E>,
        is_unknown: impl Fn(&E) -> bool,
        unavailable: E,
        what: Option<&str>,
    ) -> Result<T, E> {
        let Some(keys) = self.jwks().current() else { return Err(unavailable) };
        let verdict = judge(&keys);
        if !matches!(&verdict, Err(error) if is_unknown(error)) {
            return verdict;
        }
        match self.jwks().newer_than(keys).await {
            Ok(newer) => judge(&newer),
            Err(error) => {
                if let Some(what) = what {
                    tracing::warn!(provider = %self.name(), %error, "{what} names an unknown key");
                }
                Err(unavailable)
            }
        }
    }
}
