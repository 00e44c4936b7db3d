//! Access tokens that cannot be judged here: the provider says what they are worth (RFC 7662; behaviour A4, A5).
//!
//! What is wrong with an answer is the provider's fault or ours, never the client's: it says nothing about the token.

use std::fmt::Display;
use std::time::Duration;

use ::http::StatusCode;
use ::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use url::Url;

use super::access_token::{self, AccessToken, AccessTokenError, Expected};
use super::http::{self, Endpoint};
use super::{Breaker, Health, Provider, is_jwt};
use crate::config::settings::Phantom;
use crate::primitives::clock::Clock;
use crate::primitives::secret::SecretText;
use crate::telemetry::Throttle;

const JSON: &str = "application/json";
const JWT: &str = "application/jwt";
/// Longest wait for a turn at the endpoint.
const TURN: Duration = Duration::from_secs(2);
/// Most calls of the endpoint at a time.
const CALLS: usize = 32;
/// Most of those who call or wait for a turn: whoever comes by may bring made-up tokens.
const WAITING: usize = 1024;

/// What keeps the questions about strangers' tokens from everything else.
pub(super) struct Turns {
    /// Its own: they must not keep sessions from their refresh.
    breaker: Breaker,
    calls: Semaphore,
    places: Semaphore,
}

impl Turns {
    pub(super) fn new(clock: &Clock) -> Self {
        let (calls, places) = (Semaphore::new(CALLS), Semaphore::new(WAITING));
        Self { breaker: Breaker::new(clock.clone()), calls, places }
    }
}

/// What an opaque token is worth.
#[derive(Debug)]
pub struct Introspected {
    /// Whose it is and for how long.
    pub token: AccessToken,
    /// The token that goes upstream in its place.
    pub phantom: Option<SecretText>,
    /// How long the answer counts without another look.
    pub life: Duration,
}

impl Provider {
    /// Whether it may be asked about tokens.
    #[must_use]
    pub fn introspects(&self) -> bool {
        self.settings().introspection.is_some()
    }

    /// Whether it may be asked about the JWTs that it has signed.
    #[must_use]
    pub fn introspects_jwts(&self) -> bool {
        self.settings().introspection.as_ref().is_some_and(|asked| asked.jwts)
    }

    /// Asks what a token is worth; one that is a JWT only if it is its own. `untyped` is for that, and for the token that may come
    /// in its place.
    ///
    /// # Errors
    /// [`AccessTokenError::ProviderUnavailable`] and [`AccessTokenError::ProviderFailed`] say nothing about the token;
    /// everything else does.
    pub async fn introspect(
        &self,
        token: &str,
        audiences: &[String],
        untyped: bool,
    ) -> Result<Introspected, AccessTokenError> {
        let asked = self.settings().introspection.as_ref().ok_or(AccessTokenError::ProviderFailed)?;
        let discovered = self.discovered().map_err(|_| AccessTokenError::ProviderUnavailable)?;
        let Some(url) = asked.url.as_ref().or(discovered.metadata.introspection_endpoint.as_ref()) else {
            self.warn(&"the metadata names no endpoint for it");
            return Err(AccessTokenError::ProviderFailed);
        };
        // Nobody is shown tokens of others, and made-up ones cost no question.
        let own = if is_jwt(token) { Some(self.own_access_token(token, untyped).await?) } else { None };
        let Ok(_place) = self.introspections().places.try_acquire() else {
            return Err(AccessTokenError::ProviderUnavailable);
        };
        let turn = tokio::time::timeout(TURN, self.introspections().calls.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(AccessTokenError::ProviderUnavailable) };
        if self.introspections().breaker.admit().is_some() {
            return Err(AccessTokenError::ProviderUnavailable);
        }
        // Keycloak puts the token into a claim only if it is asked for this and nothing else.
        let accept = if asked.phantom.is_some() { JWT } else { JSON };
        let answer = self.ask(url, token, accept).await;
        self.introspections().breaker.note(health(&answer));
        let answer = answer.map_err(|error| self.unanswered(&error))?;
        let content = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let said = Said::read(answer.status(), content, answer.body());
        let now = self.clock().now();
        let expected = Expected { issuer: self.issuer(), audiences, untyped, now };
        let (judged, phantom) = match (said, &asked.phantom) {
            (Said::Inactive, _) => return Err(AccessTokenError::Inactive),
            (Said::Json(claims), None) => (Some(judge(claims, &expected, asked.cache)?), None),
            (Said::Jwt(jwt), Some(_)) => (None, Some(jwt)),
            (Said::Json(claims), Some(Phantom::Claim(name))) => {
                let jwt = claims.get(name).and_then(Value::as_str).map(str::to_owned);
                let judged = judge(claims, &expected, asked.cache)?;
                (Some(judged), Some(jwt.ok_or_else(|| self.not_understood("a claim with a token"))?))
            }
            (Said::Json(_) | Said::Jwt(_) | Said::Nonsense, _) => return Err(self.not_understood("an answer")),
        };
        let (token, phantom) = match (judged, phantom) {
            (Some(token), None) => (token, None),
            (judged, Some(jwt)) => {
                let inner = self.phantom(&jwt, audiences, untyped).await?;
                // Two users in one answer are no user.
                if judged.as_ref().is_some_and(|outer| outer.subject != inner.subject) {
                    return Err(self.not_understood("the subject of an answer"));
                }
                let expires = judged.map_or(inner.expires, |outer| outer.expires.min(inner.expires));
                (AccessToken { expires, ..inner }, Some(SecretText::new(jwt)))
            }
            (None, None) => return Err(AccessTokenError::ProviderFailed),
        };
        let expires = match own {
            // An answer about another user is no answer to what was asked.
            Some((Some(subject), _)) if subject != token.subject => {
                return Err(self.not_understood("the subject of an answer"));
            }
            Some((_, end)) => end.min(token.expires),
            None => token.expires,
        };
        Ok(Introspected { token: AccessToken { expires, ..token }, phantom, life: asked.cache })
    }

    async fn ask(
        &self,
        url: &Url,
        token: &str,
        accept: &'static str,
    ) -> Result<openidconnect::HttpResponse, http::Error> {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.http().post_form(Endpoint::Introspection, url, &form, accept, self.credentials()).await
    }

    /// The token of an answer is judged as one that a client brings. What is wrong with it is not the client's doing.
    async fn phantom(&self, jwt: &str, audiences: &[String], untyped: bool) -> Result<AccessToken, AccessTokenError> {
        self.access_token(jwt, audiences, untyped).await.map_err(|error| match error {
            AccessTokenError::KeysUnavailable
            | AccessTokenError::Expired
            | AccessTokenError::Audience
            | AccessTokenError::Bound => error,
            error => {
                self.warn(&format_args!("the token in the answer is refused: {error}"));
                AccessTokenError::ProviderFailed
            }
        })
    }

    fn unanswered(&self, error: &http::Error) -> AccessTokenError {
        self.warn(error);
        match error {
            // 401 and 403 are about us: our registration or our secret is wrong.
            http::Error::Status { status, .. } if is_our_fault(*status) => AccessTokenError::ProviderFailed,
            http::Error::Invalid | http::Error::TooLarge(_) => AccessTokenError::ProviderFailed,
            _ => AccessTokenError::ProviderUnavailable,
        }
    }

    fn not_understood(&self, what: &str) -> AccessTokenError {
        self.warn(&format_args!("{what} is not understood"));
        AccessTokenError::ProviderFailed
    }

    /// One line a second: anybody may send tokens.
    fn warn(&self, error: &dyn Display) {
        static FAILURES: Throttle = Throttle::new();
        if let Some(held_back) = FAILURES.pass() {
            tracing::warn!(provider = %self.name(), %error, held_back, "an introspection failed");
        }
    }
}

/// A redirect or a refusal, but for those that pass by themselves.
fn is_our_fault(status: StatusCode) -> bool {
    let passes = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY];
    (status.is_redirection() || status.is_client_error()) && !passes.contains(&status)
}

fn health<T>(answer: &Result<T, http::Error>) -> Health {
    match answer {
        Err(http::Error::Status { retry_after: Some(asked), status }) if !is_our_fault(*status) => Health::Busy(*asked),
        Err(http::Error::Status { status, .. }) if is_our_fault(*status) => Health::Good,
        Ok(_) | Err(http::Error::Invalid | http::Error::TooLarge(_)) => Health::Good,
        Err(_) => Health::Bad,
    }
}

/// What an answer says, as far as its form goes.
#[derive(Debug, PartialEq)]
enum Said {
    /// `active` is false, or the answer has no content (the phantom token approach).
    Inactive,
    /// `active` is true.
    Json(Map<String, Value>),
    /// A token in the place of the answer.
    Jwt(String),
    /// Nothing that RFC 7662 §2.2 knows.
    Nonsense,
}

impl Said {
    fn read(status: StatusCode, content_type: &str, body: &[u8]) -> Self {
        if status == StatusCode::NO_CONTENT {
            return Self::Inactive;
        }
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            JSON => match serde_json::from_slice::<Map<String, Value>>(body) {
                Ok(claims) => match claims.get("active") {
                    Some(Value::Bool(true)) => Self::Json(claims),
                    Some(Value::Bool(false)) => Self::Inactive,
                    _ => Self::Nonsense,
                },
                Err(_) => Self::Nonsense,
            },
            JWT => match std::str::from_utf8(body) {
                Ok(text) if text.trim().bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Self::Jwt(text.trim().to_owned())
                }
                _ => Self::Nonsense,
            },
            _ => Self::Nonsense,
        }
    }
}

/// Judges the claims of an active token (RFC 7662 §2.2, §4). The provider has looked at the signature and knows what is
/// revoked; whom the token is for is for us to look at. Without `exp` it counts as long as the answer does.
fn judge(
    mut claims: Map<String, Value>,
    expected: &Expected<'_>,
    life: Duration,
) -> Result<AccessToken, AccessTokenError> {
    let says = |name: &str, words: &[&str]| match claims.get(name) {
        None | Some(Value::Null) => true,
        Some(value) => value.as_str().is_some_and(|said| words.iter().any(|word| word.eq_ignore_ascii_case(said))),
    };
    // A refresh token is active too. Keycloak and Hydra say which kind it is; so does who gives `token_type` its meaning
    // of RFC 6749 §5.1, where any other than `Bearer` asks for more than showing it.
    if !says("token_type", &["bearer", "access_token"])
        || !says("typ", &["bearer", "at+jwt"])
        || !says("token_use", &["access", "access_token"])
    {
        return Err(AccessTokenError::Kind);
    }
    if claims.get("iss").is_none_or(Value::is_null) {
        // It is the one that was asked who speaks.
        claims.insert("iss".to_owned(), expected.issuer.into());
    }
    let now = expected.now.as_secs();
    for (name, default) in [("iat", now), ("exp", now.saturating_add(life.as_secs()))] {
        if claims.get(name).is_none_or(Value::is_null) {
            claims.insert(name.to_owned(), default.into());
        }
    }
    let (subject, expires) = access_token::check_claims(&claims, expected).map_err(|error| match error {
        // A time out of reason is not the client's.
        AccessTokenError::Jwt(_) => AccessTokenError::ProviderFailed,
        error => error,
    })?;
    let scopes = access_token::scopes(&claims);
    claims.remove("active");
    Ok(AccessToken { subject, expires, scopes, claims })
}

#[cfg(test)]
mod tests;
