//! One backend, as its client.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Granted, Reading, token_subject};
use super::attempts::{Attempts, TooMany};
use super::form::{Form, FormError};
use crate::config::settings::{self, SendToken};
use crate::oidc::http::{Client, Endpoint, Error};
use crate::oidc::{Breaker, ErrorCode, Health, IdTokenError, OidcError, RefreshError, Tokens, patiently};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::path::PathPrefix;
use crate::primitives::secret::SecretText;

/// A backend. Made without I/O, and ready at once.
pub struct Backend {
    settings: settings::Credentials,
    http: Client,
    clock: Clock,
    breaker: Breaker,
    /// Of logins alone: anybody may cause those to fail, and sessions must not feel it.
    logins: Breaker,
    attempts: Attempts,
}

/// A login failed. No text here comes from an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// 401 or 403: it does not let this user in.
    #[error("the backend refuses the credentials")]
    Refused,
    /// 400 or 422: the form is not what it asks for.
    #[error("the backend does not take the form")]
    Form,
    /// 429: it wants fewer of them.
    #[error("the backend wants fewer logins")]
    Busy(Option<Duration>),
    /// It cannot be reached or does not answer.
    #[error("the backend is unavailable: {reason}")]
    Unavailable {
        /// For the log.
        reason: String,
        /// How long to wait, if it says.
        retry_after: Option<Duration>,
    },
    /// It answers what no login answers.
    #[error("the backend's answer is not understood: {0}")]
    Odd(String),
}

impl LoginError {
    /// A word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Form => "form",
            Self::Busy(_) => "throttled",
            Self::Unavailable { .. } => "provider_unavailable",
            Self::Odd(_) => "unexpected_answer",
        }
    }
}

/// What a failed login tells of the logins of others. A refusal, 429 or 500 may be for this one's sake.
fn health(error: &Error) -> Health {
    match error {
        Error::NotSent(_) | Error::Timeout | Error::Broken(_) => Health::Bad,
        Error::Status { status, retry_after } => match (status.as_u16(), retry_after) {
            (502..=504, Some(asked)) => Health::Busy(*asked),
            (408 | 502..=504, _) => Health::Bad,
            _ => Health::Good,
        },
        Error::TooLarge(_) | Error::NonceWanted | Error::Invalid => Health::Good,
    }
}

impl From<Error> for LoginError {
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        match error {
            // Nothing is lost with a login: the user tries again.
            Error::NotSent(_) | Error::Timeout | Error::Broken(_) => Self::Unavailable { reason, retry_after: None },
            Error::TooLarge(_) | Error::NonceWanted | Error::Invalid => Self::Odd(reason),
            Error::Status { status, retry_after } => match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Self::Form,
                StatusCode::TOO_MANY_REQUESTS => Self::Busy(retry_after),
                StatusCode::REQUEST_TIMEOUT => Self::Unavailable { reason, retry_after },
                status if status.is_server_error() => Self::Unavailable { reason, retry_after },
                _ => Self::Odd(reason),
            },
        }
    }
}

/// What a refresh brings.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The tokens; without a refresh token in them the old one stays (behaviour R5).
    pub tokens: Tokens,
    /// What is known of the user now, as [`claims`] has it; `None` if the answer does not speak of the user.
    pub claims: Option<Map<String, Value>>,
}

impl Backend {
    /// A backend. No I/O.
    #[must_use]
    pub fn new(settings: &settings::Credentials, http: Client, clock: Clock) -> Self {
        let (breaker, logins) = (Breaker::new(clock.clone()), Breaker::new(clock.clone()));
        let attempts = Attempts::new(settings.limits);
        Self { settings: settings.clone(), http, clock, breaker, logins, attempts }
    }

    /// The name in the settings.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// What users are told that it is.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.settings.title
    }

    /// The page of the app with the form, a path of the site.
    #[must_use]
    pub fn login_page(&self) -> Option<&PathPrefix> {
        self.settings.login_page.as_ref()
    }

    /// How long it still answers to a refresh token that it has exchanged already; zero = it never does.
    #[must_use]
    pub fn refresh_token_grace(&self) -> Duration {
        self.settings.refresh_token_grace
    }

    /// Whether there is a way to new tokens.
    #[must_use]
    pub fn refreshes(&self) -> bool {
        self.settings.refresh.is_some()
    }

    /// Whether refreshes are to leave it alone for the moment.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Reads a form.
    ///
    /// # Errors
    /// [`FormError`]
    pub fn form(&self, body: Bytes) -> Result<Form, FormError> {
        Form::read(body, &self.settings.account)
    }

    /// Counts an attempt of this account from this address, if there were not too many.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn admit(&self, form: &Form, address: IpAddr) -> Result<(), TooMany> {
        self.attempts.admit(form.account(), address, self.clock.now())
    }

    /// Shows the credentials to the backend. To be run to its end, for the answer may hold tokens.
    ///
    /// # Errors
    /// [`LoginError`]
    pub async fn login(self: &Arc<Self>, form: &Form) -> Result<Granted, LoginError> {
        if let Some(wait) = self.logins.admit() {
            let reason = "it did not answer of late".to_owned();
            return Err(LoginError::Unavailable { reason, retry_after: Some(wait) });
        }
        let sent = self.clock.now();
        let answer = self.http.post(Endpoint::Login, &self.settings.login_url, None, form.body().to_vec()).await;
        self.logins.note(answer.as_ref().err().map_or(Health::Good, health));
        let granted = self.reading(sent, &[]).read(&answer?).map_err(|what| LoginError::Odd(what.to_owned()))?;
        if granted.tokens.access_expires.is_some_and(|end| end <= sent) {
            self.disown(granted.tokens);
            return Err(LoginError::Odd("its access token has no life at all: see `fields.expires_in`".to_owned()));
        }
        Ok(granted)
    }

    /// Gets new tokens. The refresh token is shown once; nothing here repeats it. `subject` is the session's, and `old` its
    /// access token so far.
    ///
    /// # Errors
    /// [`RefreshError`]
    pub async fn refresh(
        self: &Arc<Self>,
        token: &SecretText,
        subject: &str,
        old: &SecretText,
    ) -> Result<Refreshed, RefreshError> {
        let Some(settings) = &self.settings.refresh else {
            return Err(RefreshError::Misconfigured("there is no `refresh`".to_owned()));
        };
        let sent = self.clock.now();
        let (bearer, body) = shown(&settings.send, token);
        let answer = self.http.post(Endpoint::Refresh, &settings.url, bearer, body).await;
        let answer = answer.map_err(|error| match error {
            Error::Status { status, .. } if settings.refused.contains(&status) => {
                RefreshError::Rejected(ErrorCode::new(&format!("status_{}", status.as_u16())))
            }
            Error::Status { status, .. } if status.is_client_error() => match error.into() {
                RefreshError::Misconfigured(what) => RefreshError::Misconfigured(format!(
                    "{what}; if it means that the refresh token is worth nothing, list it in `refresh.refused`"
                )),
                other => other,
            },
            _ => error.into(),
        });
        self.breaker.note(Health::of_refresh(&answer));
        // Whoever answers 200 has acted: the old refresh token may be used up.
        let granted = self.reading(sent, &[token, old]).read(&answer?);
        let granted = granted.map_err(|what| RefreshError::InDoubt(what.to_owned()))?;
        let other_user = granted.subject.as_ref().is_some_and(|other| other != subject);
        // The user may have one name in the answer and another one in the token, so each is compared with its like.
        let before = token_subject(old);
        let other_token = granted.token_subject.as_ref().is_some_and(|sub| before.is_some_and(|before| before != *sub));
        if other_user || other_token {
            self.disown(granted.tokens);
            return Err(RefreshError::IdentityChanged(IdTokenError::Subject));
        }
        let claims = granted.user.map(|user| claims(user, subject));
        Ok(Refreshed { tokens: granted.tokens, claims })
    }

    /// Tokens came that nobody will hold.
    fn disown(self: &Arc<Self>, tokens: Tokens) {
        if let Some(orphan) = tokens.refresh_token {
            tokio::spawn(Arc::clone(self).revoke_patiently(orphan));
        }
    }

    /// Tells the backend that a refresh token is done with, if it wants to know. One that it does not know is as good as
    /// revoked.
    async fn revoke(&self, token: &SecretText) -> Result<(), OidcError> {
        let (Some(url), Some(refresh)) = (&self.settings.logout_url, &self.settings.refresh) else { return Ok(()) };
        let (bearer, body) = shown(&refresh.send, token);
        match self.http.post(Endpoint::Logout, url, bearer, body).await {
            Ok(_) => Ok(()),
            Err(Error::Status { status, .. }) if refresh.refused.contains(&status) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the backend in a few attempts over half a minute, for a task of its own. What fails in the end is in the log.
    pub async fn revoke_patiently(self: Arc<Self>, token: SecretText) {
        patiently(self.name(), || self.revoke(&token)).await;
    }

    fn reading<'a>(&'a self, sent: Timestamp, shown: &'a [&'a SecretText]) -> Reading<'a> {
        Reading {
            fields: &self.settings.fields,
            default_lifetime: self.settings.default_lifetime,
            sent,
            refreshes: self.refreshes(),
            shown,
        }
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("name", self.name()).finish_non_exhaustive()
    }
}

/// What is known of a user as claims: `sub` is always among them.
#[must_use]
pub fn claims(mut user: Map<String, Value>, subject: &str) -> Map<String, Value> {
    user.insert("sub".to_owned(), subject.into());
    user
}

/// A refresh token on its way: what goes into `Authorization`, and the body.
fn shown<'t>(send: &SendToken, token: &'t SecretText) -> (Option<&'t SecretText>, Vec<u8>) {
    match send {
        SendToken::Header => (Some(token), Vec::new()),
        SendToken::Body(name) => (None, json!({ name: token.expose() }).to_string().into_bytes()),
    }
}
