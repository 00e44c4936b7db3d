//! Back-channel logout: the provider says that a user has logged out elsewhere (behaviour O4 to O9).
//!
//! The provider itself calls, so there is neither cookie nor CSRF token; the signature of the logout token is all the
//! proof there is. 200 means that the sessions are gone, on all replicas; 400 that the token is not good; 503 that it
//! may be sent again.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::query::{is_form, single};
use super::{Logins, SiteAuth, Visit};
use crate::answer::{Answer, Code};
use crate::oidc::{self, LogoutTokenError};
use crate::provider::Provider;
use crate::revocation::LogoutFailure;
use crate::telemetry::audit::{Actor, Entry, Event};

/// Seconds after which a provider may try again.
const RETRY_AFTER: u64 = 1;

/// Why a logout was not done.
enum Refused {
    /// The request is not what it should be.
    Request(&'static str),
    /// The token is not good.
    Token(LogoutTokenError),
    /// The token is good.
    Failed(LogoutFailure),
}

impl Logins {
    /// `POST /auth/backchannel-logout`.
    pub(super) async fn backchannel_logout(&self, visit: Visit<'_>, body: &Bytes) -> Answer {
        let text = logout_token(visit.headers, body);
        let Some((provider, oidc)) = sender(visit.site, text.as_deref().ok()) else {
            return Answer::problem(Code::NotFound, None, None);
        };
        let mut entry = Entry { actor: Actor::Idp, ..self.entry_at(&visit, Some(provider)) };
        let audit = self.sessions.audit();
        let token = match text {
            Ok(text) => oidc.logout_token(&text).await.map_err(Refused::Token),
            Err(what) => Err(Refused::Request(what)),
        };
        let token = match token {
            Ok(token) => token,
            Err(refused) => {
                audit.tell(Event::BackchannelLogout, &Entry { failed: true, reason: Some(refused.reason()), ..entry });
                return refused.answer();
            }
        };
        entry.subject = token.whose.subject();
        match self.revoker.log_out(oidc, &token, visit.client_ip).await {
            Ok(sessions) => {
                let reason = if sessions == 0 { "no_session" } else { "ended" };
                audit
                    .tell(Event::BackchannelLogout, &Entry { reason: Some(reason), sessions: Some(sessions), ..entry });
                Answer::empty()
            }
            Err(failure) => {
                if let LogoutFailure::Session(error) = &failure {
                    tracing::error!(provider = %provider.name(), %error, "a logout of the provider could not be done");
                }
                let refused = Refused::Failed(failure);
                audit.tell(Event::BackchannelLogout, &Entry { failed: true, reason: Some(refused.reason()), ..entry });
                refused.answer()
            }
        }
    }
}

/// Whose token it claims to be; the first provider judges what claims to be of none. Two providers of a site have
/// different issuers.
fn sender<'s>(site: &'s SiteAuth, token: Option<&str>) -> Option<(&'s Arc<Provider>, &'s Arc<oidc::Provider>)> {
    let claimed = token.and_then(|token| site.oidc().find(|(_, oidc)| oidc.is_said_to_issue(token)));
    claimed.or_else(|| site.oidc().next())
}

/// The one `logout_token` of a form.
fn logout_token(headers: &HeaderMap, body: &Bytes) -> Result<String, &'static str> {
    if !is_form(headers) {
        return Err("the request is no form");
    }
    match single(Some(body), "logout_token") {
        Ok(Some(token)) if !token.is_empty() => Ok(token.into_owned()),
        Ok(_) => Err("logout_token is missing"),
        Err(_) => Err("logout_token came more than once"),
    }
}

impl Refused {
    /// A word for the audit log.
    fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Token(LogoutTokenError::Jwt(error)) => error.word(),
            Self::Token(LogoutTokenError::KeysUnavailable) => "keys_unavailable",
            Self::Token(LogoutTokenError::Kind) => "token_kind",
            Self::Token(LogoutTokenError::Issuer) => "issuer",
            Self::Token(LogoutTokenError::Audience) => "audience",
            Self::Token(LogoutTokenError::Expired) => "expired",
            Self::Token(LogoutTokenError::NotYetValid) => "not_yet_valid",
            Self::Token(LogoutTokenError::TimeMissing) => "time_missing",
            Self::Token(LogoutTokenError::Id) => "jti",
            Self::Token(LogoutTokenError::Nobody) => "nobody",
            Self::Failed(LogoutFailure::Replayed) => "replayed",
            Self::Failed(LogoutFailure::Session(_)) => "store",
        }
    }

    /// Back-Channel Logout §2.8. The texts name rules, never values.
    fn answer(&self) -> Answer {
        let text = match self {
            Self::Request(what) => (*what).to_owned(),
            Self::Token(LogoutTokenError::KeysUnavailable) => return not_now("the provider's keys cannot be fetched"),
            Self::Token(error) => error.to_string(),
            Self::Failed(LogoutFailure::Session(_)) => return not_now("sessions cannot be ended for the moment"),
            Self::Failed(error) => error.to_string(),
        };
        error(StatusCode::BAD_REQUEST, "invalid_request", &text)
    }
}

fn not_now(text: &str) -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text).retry_after(RETRY_AFTER)
}

fn error(status: StatusCode, code: &str, text: &str) -> Answer {
    Answer::json_with(status, &json!({ "error": code, "error_description": text }))
}
