//! What callers of this room are told. No text here holds a secret or a stranger's words (behaviour D3).

use std::time::Duration;

use super::answer::{Failure, Successor};
use super::http;
use super::id_token::IdTokenError;
use super::text::ErrorCode;

/// A provider's settings are unusable.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `issuer` is no URL, or neither https nor loopback http.
    #[error("the issuer is neither an https URL nor http on loopback")]
    Issuer,
    /// One of `authorization_params` would replace what the login itself sends.
    #[error("authorization parameter {0:?} is set by the login itself")]
    ReservedParameter(String),
    /// `max_age` is no number of seconds.
    #[error("authorization parameter \"max_age\" is not a number of seconds")]
    MaxAge,
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] http::BuildError),
}

/// A login, a revocation or a check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// Discovery has not succeeded yet.
    #[error("the provider's metadata has not been read yet")]
    NotReady,
    /// The provider cannot be reached, is overloaded, or gave no answer that can be read.
    #[error("the provider is unavailable: {reason}")]
    Unavailable {
        /// For the log.
        reason: String,
        /// How long to wait, if the provider says.
        retry_after: Option<Duration>,
    },
    /// An OAuth error: the code was used before, our credentials are wrong, …
    #[error("the provider refuses: {0}")]
    Refused(ErrorCode),
    /// An answer that the endpoint should never give.
    #[error("the provider's endpoint is not what it should be: {0}")]
    Unexpected(String),
    /// The response's `iss` is another (RFC 9207 §2.4): a mix-up attack, or a proxy before the provider.
    #[error("the response is of another issuer")]
    ResponseIssuer,
    /// The provider announces `iss` in responses, and this one has none.
    #[error("the response does not name its issuer")]
    ResponseIssuerMissing,
    /// The UserInfo answer is of another user than the ID token.
    #[error("the UserInfo answer is of another subject")]
    UserInfoSubject,
    /// The ID token.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// Our own caller gave something that may not be sent.
    #[error("{0} is not fit to be sent")]
    Argument(&'static str),
}

impl OidcError {
    /// Whether the same attempt may succeed later: 503 rather than 4xx or 502.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotReady | Self::Unavailable { .. } | Self::IdToken(IdTokenError::KeysUnavailable))
    }
}

impl OidcError {
    /// Whether the user has authenticated, but not as it was asked for (behaviour T3, L16).
    #[must_use]
    pub fn is_about_strength(&self) -> bool {
        matches!(self, Self::IdToken(IdTokenError::AuthTime | IdTokenError::AuthClass))
    }

    /// A word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotReady | Self::Unavailable { .. } => "provider_unavailable",
            Self::Refused(_) => "code_refused",
            Self::Unexpected(_) => "unexpected_answer",
            Self::ResponseIssuer | Self::ResponseIssuerMissing => "response_issuer",
            Self::UserInfoSubject => "userinfo",
            Self::IdToken(_) => "id_token",
            Self::Argument(_) => "argument",
        }
    }
}

impl From<Failure> for OidcError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(code) => Self::Refused(code),
            Failure::Unavailable { reason, retry_after } => Self::Unavailable { reason, retry_after },
            // A code is used once either way; the user starts over.
            Failure::InDoubt(reason) => Self::Unavailable { reason, retry_after: None },
            Failure::Unexpected(reason) => Self::Unexpected(reason),
            Failure::Unusable(reason) => Self::Unexpected(reason.to_owned()),
        }
    }
}

/// A refresh failed; the kinds of behaviour R10.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The grant is over (`invalid_grant`, or the user must act): the session ends.
    #[error("the refresh token is refused: {0}")]
    Rejected(ErrorCode),
    /// Our registration, credentials or address of the endpoint are wrong: sessions stay, an alarm, long back-off.
    #[error("the refresh is misconfigured: {0}")]
    Misconfigured(String),
    /// Not processed: the session stays, back off.
    #[error("the provider is unavailable: {reason}")]
    Unavailable {
        /// For the log.
        reason: String,
        /// How long to wait, if the provider says.
        retry_after: Option<Duration>,
    },
    /// Perhaps processed (behaviour R8): the refresh token may be used up.
    #[error("it is unknown whether the refresh took place: {0}")]
    InDoubt(String),
    /// Processed, and the access token is of no use: not of the type that was asked for, or not fit for a header. The session
    /// stays, with the refresh token that came, if one did (behaviour R5); an alarm, long back-off.
    #[error("the tokens are of no use: {reason}")]
    Unusable {
        /// For the log.
        reason: &'static str,
        /// What the provider gave in the place of the refresh token; `None`: the old one stays good (RFC 6749 §6).
        successor: Option<Successor>,
    },
    /// The new ID token is not this user's, or not good (behaviour R12): the session ends. A new refresh token that came
    /// with it is being revoked ([`Provider::revoke_patiently`](super::Provider::revoke_patiently)).
    #[error("the refreshed ID token is refused: {0}")]
    IdentityChanged(IdTokenError),
}

impl RefreshError {
    /// A word for the audit log.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unavailable { .. } => "unavailable",
            Self::InDoubt(_) => "in_doubt",
            Self::Unusable { .. } => "unusable",
            Self::IdentityChanged(_) => "identity_changed",
        }
    }
}

impl From<http::Error> for OidcError {
    fn from(error: http::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<http::Error> for RefreshError {
    fn from(error: http::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for RefreshError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(code) => match code.as_str() {
                // The others: Core §3.1.2.6 codes that Entra ID and Auth0 give here as well; only a login helps.
                "invalid_grant"
                | "interaction_required"
                | "login_required"
                | "consent_required"
                | "account_selection_required"
                | "access_denied" => Self::Rejected(code),
                "temporarily_unavailable" | "server_error" | "slow_down" => {
                    Self::Unavailable { reason: code.to_string(), retry_after: None }
                }
                other => Self::Misconfigured(other.to_owned()),
            },
            Failure::Unavailable { reason, retry_after } => Self::Unavailable { reason, retry_after },
            Failure::InDoubt(reason) => Self::InDoubt(reason),
            Failure::Unusable(reason) => Self::Unusable { reason, successor: None },
            Failure::Unexpected(reason) => Self::Misconfigured(reason),
        }
    }
}
