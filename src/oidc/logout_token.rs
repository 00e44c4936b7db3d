//! The logout token, judged (OpenID Connect Back-Channel Logout §2.4 and §2.6; behaviour O4, T7).
//!
//! The claims come first, so that a token whose key is unknown has passed all else, and rubbish costs the provider no
//! request for its keys. Whether the `jti` is new is not known here.

use std::time::Duration;

use openidconnect::core::CoreJsonWebKeySet;
use serde_json::{Map, Value};

use super::jwt::{Jwt, JwtError, SKEW, is_for, is_subject, time};
use crate::primitives::clock::Timestamp;

/// The member of `events` that makes a token a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A token without `exp` is no older than this.
const LIFE_WITHOUT_END: Duration = Duration::from_secs(120);

/// Longest `jti` and `sid`.
const LONGEST_NAME: usize = 1_024;

/// A verified logout token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// Whose sessions end.
    pub whose: Whose,
    /// `jti`
    pub id: String,
    /// `iat`
    pub issued: Timestamp,
    /// From this moment on the token is refused for its age.
    pub dead: Timestamp,
}

/// Whom a logout token names; never nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// `sub` alone: all sessions of a user.
    Subject(String),
    /// `sid`: a session at the provider, and whose it is if the token says so.
    Session {
        /// `sid`
        sid: String,
        /// `sub`
        subject: Option<String>,
    },
}

impl Whose {
    /// `sub`
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Subject(subject) => Some(subject),
            Self::Session { subject, .. } => subject.as_deref(),
        }
    }

    /// `sid`
    #[must_use]
    pub fn sid(&self) -> Option<&str> {
        match self {
            Self::Subject(_) => None,
            Self::Session { sid, .. } => Some(sid),
        }
    }
}

/// Why a logout token is refused. The text names the rule, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutTokenError {
    /// It is no signed token that we could trust.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The key is not in the set we have, and a fresh set is not to be had just now.
    #[error("the provider's keys cannot be fetched")]
    KeysUnavailable,
    /// `typ`, `events` or `nonce`: a token of another kind.
    #[error("the token is no logout token")]
    Kind,
    /// `iss`
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud`
    #[error("the token is for another client")]
    Audience,
    /// `exp`, or too old without one.
    #[error("the token has expired")]
    Expired,
    /// `iat` or `nbf`
    #[error("the token is from the future")]
    NotYetValid,
    /// `iat` or `exp`
    #[error("the token lacks iat or exp")]
    TimeMissing,
    /// `jti`
    #[error("the token lacks a usable jti")]
    Id,
    /// Neither `sub` nor `sid`, or one that cannot be.
    #[error("the token names neither a user nor a session")]
    Nobody,
}

/// What a logout token is compared with.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) now: Timestamp,
    /// Whether `exp` must be there.
    pub(crate) needs_end: bool,
}

/// Judges `text`.
pub(crate) fn verify(
    text: &str,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<LogoutToken, LogoutTokenError> {
    let jwt = Jwt::read(text)?;
    if !is_kind(jwt.header.get("typ")) {
        return Err(LogoutTokenError::Kind);
    }
    let token = check_claims(&jwt.claims, expected)?;
    jwt.check_signature(keys)?;
    Ok(token)
}

/// RFC 7515 §4.1.9: a media type, `application/` may be left out. Many providers leave out the whole.
fn is_kind(typ: Option<&Value>) -> bool {
    let Some(typ) = typ else { return true };
    let Some(typ) = typ.as_str().map(str::to_ascii_lowercase) else { return false };
    typ.strip_prefix("application/").unwrap_or(&typ) == "logout+jwt"
}

fn check_claims(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<LogoutToken, LogoutTokenError> {
    let event = claims.get("events").and_then(|events| events.as_object()?.get(EVENT));
    if !event.is_some_and(Value::is_object) || claims.contains_key("nonce") {
        return Err(LogoutTokenError::Kind);
    }
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err(LogoutTokenError::Issuer);
    }
    if !is_for(claims, expected.client_id) {
        return Err(LogoutTokenError::Audience);
    }
    let now = expected.now;
    let issued = time(claims, "iat")?.ok_or(LogoutTokenError::TimeMissing)?;
    let dead = match time(claims, "exp")? {
        Some(expires) => expires.plus(SKEW),
        None if expected.needs_end => return Err(LogoutTokenError::TimeMissing),
        None => issued.plus(LIFE_WITHOUT_END),
    };
    if now >= dead {
        return Err(LogoutTokenError::Expired);
    }
    if issued > now.plus(SKEW) || time(claims, "nbf")?.is_some_and(|from| from > now.plus(SKEW)) {
        return Err(LogoutTokenError::NotYetValid);
    }
    let id = name(claims, "jti").map_err(|()| LogoutTokenError::Id)?.ok_or(LogoutTokenError::Id)?;
    let subject = name(claims, "sub").map_err(|()| LogoutTokenError::Nobody)?;
    if subject.as_deref().is_some_and(|subject| !is_subject(subject)) {
        return Err(LogoutTokenError::Nobody);
    }
    let whose = match (name(claims, "sid").map_err(|()| LogoutTokenError::Nobody)?, subject) {
        (Some(sid), subject) => Whose::Session { sid, subject },
        (None, Some(subject)) => Whose::Subject(subject),
        (None, None) => return Err(LogoutTokenError::Nobody),
    };
    Ok(LogoutToken { whose, id, issued, dead })
}

/// A claim that is a text and not empty, or absent. Anything else is an error, `null` too: a `sid` that cannot be read
/// must not turn the end of one session into the end of all of a user.
fn name(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=LONGEST_NAME).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(()),
    }
}
