//! The access token that a client brings itself, judged (RFC 9068 §4; behaviour A2, A3, T7).
//!
//! The claims come first, as with logout tokens: rubbish costs neither cryptography nor a request for keys.

use openidconnect::core::CoreJsonWebKeySet;
use serde_json::{Map, Value};

use super::jwt::{Jwt, JwtError, SKEW, is_subject, time};
use crate::primitives::clock::Timestamp;

/// Claims that ID tokens and logout tokens have, and no access token (Core §2, §3.3.2.11; Back-Channel Logout §2.4).
const OF_OTHERS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// Claims that access tokens have, and no ID token: RFC 9068 §2.2 and §2.2.3, and what Entra ID and Okta have for them.
const OF_ACCESS_TOKENS: [&str; 5] = ["client_id", "scope", "scp", "appid", "azpacr"];

/// A verified access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// `sub`
    pub subject: String,
    /// `exp`
    pub expires: Timestamp,
    /// What `scope` or `scp` names.
    pub scopes: Vec<String>,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// Why an access token is refused. The text names the rule, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// It is no signed token that we could trust.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The key is not in the set we have, and a fresh set is not to be had just now.
    #[error("the provider's keys cannot be fetched")]
    KeysUnavailable,
    /// `typ`, or claims of another kind of token.
    #[error("the token is no access token")]
    Kind,
    /// `iss`
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud`
    #[error("the token is for another audience")]
    Audience,
    /// `exp`
    #[error("the token has expired")]
    Expired,
    /// `iat` or `nbf`
    #[error("the token is from the future")]
    NotYetValid,
    /// `iat` or `exp`
    #[error("the token lacks iat or exp")]
    TimeMissing,
    /// `sub`
    #[error("the token lacks a usable sub")]
    Subject,
    /// The provider says that it counts no more, or never did.
    #[error("the token is not active")]
    Inactive,
    /// The provider cannot be asked about it just now.
    #[error("the provider cannot be asked about the token")]
    ProviderUnavailable,
    /// The provider's answer is none, or it does not take us for whom we are.
    #[error("the provider's answer about the token is not understood")]
    ProviderFailed,
    /// `cnf`: whoever shows it has to prove that it is theirs, and nobody checks that here.
    #[error("the token is bound to a key")]
    Bound,
}

impl AccessTokenError {
    /// Whether it says nothing about the token itself.
    #[must_use]
    pub fn is_of_provider(self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::ProviderUnavailable | Self::ProviderFailed)
    }

    /// A word for metrics and the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Jwt(error) => error.word(),
            Self::KeysUnavailable => "keys_unavailable",
            Self::Kind => "token_kind",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::TimeMissing => "time_missing",
            Self::Subject => "subject",
            Self::Bound => "bound",
            Self::Inactive => "inactive",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderFailed => "provider_failed",
        }
    }
}

/// What an access token is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    /// One of them must be among the token's.
    pub(crate) audiences: &'a [String],
    /// Whether `typ` may be `JWT` or absent.
    pub(crate) untyped: bool,
    pub(crate) now: Timestamp,
}

/// Judges `text`.
pub(crate) fn verify(
    text: &str,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<AccessToken, AccessTokenError> {
    let jwt = Jwt::read(text)?;
    check_kind(&jwt, expected.untyped)?;
    let (subject, expires) = check_claims(&jwt.claims, expected)?;
    jwt.check_signature(keys)?;
    let scopes = scopes(&jwt.claims);
    Ok(AccessToken { subject, expires, scopes, claims: jwt.claims })
}

/// Judges what a token says of itself before its provider is asked about it: everything but whose it is and for whom, which
/// tokens that are kept light do not say. Returns its subject, if it names one, and its end.
pub(crate) fn verify_origin(
    text: &str,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<(Option<String>, Timestamp), AccessTokenError> {
    let jwt = Jwt::read(text)?;
    check_kind(&jwt, expected.untyped)?;
    check_issuer(&jwt.claims, expected.issuer)?;
    let expires = check_use(&jwt.claims, expected.now)?;
    jwt.check_signature(keys)?;
    let subject = match jwt.claims.get("sub") {
        None => None,
        Some(subject) => Some(subject.as_str().ok_or(AccessTokenError::Subject)?.to_owned()),
    };
    Ok((subject, expires))
}

/// RFC 9068 §4: `at+jwt`, `application/` may be left out (RFC 7515 §4.1.9). Where `JWT` counts as well, the claims must
/// speak for an access token and none against it; Keycloak says `Bearer`, `ID`, `Refresh` or `Logout` in a claim.
fn check_kind(jwt: &Jwt<'_>, untyped: bool) -> Result<(), AccessTokenError> {
    let typ = match jwt.header.get("typ") {
        None => None,
        Some(Value::String(typ)) => Some(typ.to_ascii_lowercase()),
        Some(_) => return Err(AccessTokenError::Kind),
    };
    let named = match typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ)) {
        Some("at+jwt") => true,
        Some("jwt") | None if untyped => false,
        _ => return Err(AccessTokenError::Kind),
    };
    let claims = &jwt.claims;
    let kind = claims.get("typ").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("dpop")) {
        // Keycloak says so beside `cnf`.
        return Err(AccessTokenError::Bound);
    }
    let other = OF_OTHERS.iter().any(|name| claims.contains_key(*name))
        || claims.get("typ").is_some_and(|kind| !kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")));
    let speaks = named || OF_ACCESS_TOKENS.iter().any(|name| claims.contains_key(*name));
    if other || !speaks { Err(AccessTokenError::Kind) } else { Ok(()) }
}

/// Who, for whom, and until when.
pub(super) fn check_claims(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
) -> Result<(String, Timestamp), AccessTokenError> {
    check_issuer(claims, expected.issuer)?;
    let ours = |value: &Value| value.as_str().is_some_and(|name| expected.audiences.iter().any(|one| one == name));
    let meant = match claims.get("aud") {
        // Other audiences beside ours are others' APIs, which the same token may open.
        Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(ours),
        Some(value) => ours(value),
        None => false,
    };
    if !meant {
        return Err(AccessTokenError::Audience);
    }
    let expires = check_use(claims, expected.now)?;
    let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| is_subject(subject));
    Ok((subject.ok_or(AccessTokenError::Subject)?.to_owned(), expires))
}

fn check_issuer(claims: &Map<String, Value>, issuer: &str) -> Result<(), AccessTokenError> {
    let is_theirs = claims.get("iss").and_then(Value::as_str) == Some(issuer);
    if is_theirs { Ok(()) } else { Err(AccessTokenError::Issuer) }
}

/// Whether showing it is enough, and now is the time. Returns its end.
fn check_use(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, AccessTokenError> {
    // RFC 7800, RFC 8705, RFC 9449; `null` too, for then nobody knows what was meant.
    if claims.contains_key("cnf") {
        return Err(AccessTokenError::Bound);
    }
    let issued = time(claims, "iat")?.ok_or(AccessTokenError::TimeMissing)?;
    let expires = time(claims, "exp")?.ok_or(AccessTokenError::TimeMissing)?;
    if now >= expires.plus(SKEW) {
        return Err(AccessTokenError::Expired);
    }
    if issued > now.plus(SKEW) || time(claims, "nbf")?.is_some_and(|from| from > now.plus(SKEW)) {
        return Err(AccessTokenError::NotYetValid);
    }
    Ok(expires)
}

/// A text with blanks between (RFC 8693 §4.2), or a list, as Okta has it; `scp` where there is no `scope`.
pub(super) fn scopes(claims: &Map<String, Value>) -> Vec<String> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(text)) => text.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
