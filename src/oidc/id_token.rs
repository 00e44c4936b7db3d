//! The ID token, judged (OpenID Connect Core §3.1.3.7 and §12.2; behaviour T1 to T5, T7, R12).
//!
//! Two judges: [`IdTokenVerifier`] for signature, algorithm, choice of key, `typ`, `crit`, `iss`, `aud`, `exp`,
//! `nonce`; and our own code for what it leaves open (`azp`, doubled audiences, number forms, `nbf`, `at_hash`,
//! `max_age`, the refreshed token). Ours comes first, so a token whose key is unknown has passed all else.

use std::time::{Duration, UNIX_EPOCH};

use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, IdTokenVerifier, IssuerUrl, Nonce,
    SignatureVerificationError,
};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::demands::Demands;
use super::jwt::{ALGORITHMS, Jwt, JwtError, SKEW, is_for, is_subject, time};
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

/// Claims about the token, not about the user: of no use once it is verified.
const PROTOCOL_CLAIMS: [&str; 11] =
    ["aud", "azp", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "s_hash", "typ"];

/// A verified ID token.
#[derive(Clone)]
pub struct IdToken {
    /// As it came; the hint at logout.
    pub text: SecretText,
    /// `sub`
    pub subject: String,
    /// `sid`, the provider's own session.
    pub provider_session: Option<String>,
    /// `iat`
    pub issued: Timestamp,
    /// `auth_time`
    pub auth_time: Option<Timestamp>,
    /// All claims but those that speak of the token itself (`aud`, `exp`, `nonce`, hashes …).
    pub claims: Map<String, Value>,
}

impl std::fmt::Debug for IdToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdToken(…)")
    }
}

/// Why an ID token is refused. The text names the rule, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// There is none, though a login must have one.
    #[error("no ID token")]
    Missing,
    /// No signed JWT, or a claim of an impossible type.
    #[error("the ID token cannot be read")]
    Malformed,
    /// `none`, HMAC, encryption, or unknown.
    #[error("the ID token is signed with an algorithm that is not allowed")]
    Algorithm,
    /// An unknown critical header, a wrong `typ`, a nested token.
    #[error("the ID token has a header that is not allowed")]
    Header,
    /// The signature does not fit the key.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// The key is not in the provider's set, not even in a fresh one.
    #[error("the ID token is signed with an unknown key")]
    UnknownKey,
    /// The key is not in the set we have, and a fresh set is not to be had just now.
    #[error("the provider's keys cannot be fetched")]
    KeysUnavailable,
    /// No key id, and several keys fit.
    #[error("more than one key fits the ID token")]
    AmbiguousKey,
    /// A token of another kind.
    #[error("the token is no ID token")]
    Kind,
    /// `iss`
    #[error("the ID token is of another issuer")]
    Issuer,
    /// `aud` or `azp`
    #[error("the ID token is for another client")]
    Audience,
    /// `nonce`
    #[error("the ID token is of another login")]
    Nonce,
    /// `exp`
    #[error("the ID token has expired")]
    Expired,
    /// `iat` or `nbf`
    #[error("the ID token is from the future")]
    NotYetValid,
    /// `exp`, `iat`, `nbf` or `auth_time` missing or no sane number.
    #[error("the ID token has a time that is missing or absurd")]
    Time,
    /// `auth_time` against `max_age`.
    #[error("the user's authentication is too old")]
    AuthTime,
    /// `acr`, where it was asked for as essential.
    #[error("the user's authentication is not of the class that was asked for")]
    AuthClass,
    /// `at_hash`
    #[error("the ID token belongs to another access token")]
    AccessTokenHash,
    /// `sub` missing, too long or not the one it was.
    #[error("the ID token is of another subject")]
    Subject,
}

impl From<JwtError> for IdTokenError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::Malformed => Self::Malformed,
            JwtError::Algorithm => Self::Algorithm,
            JwtError::Header => Self::Header,
            JwtError::Signature => Self::Signature,
            JwtError::UnknownKey => Self::UnknownKey,
            JwtError::AmbiguousKey => Self::AmbiguousKey,
            JwtError::Time => Self::Time,
        }
    }
}

/// What an ID token is compared with.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a IssuerUrl,
    pub(crate) client_id: &'a ClientId,
    pub(crate) access_token: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) origin: Origin<'a>,
}

/// Where a token comes from decides what it must say.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// The code exchange.
    Login {
        /// Sent with the authorization request.
        nonce: &'a str,
        /// What was asked for and must be there.
        demands: &'a Demands,
    },
    /// A refresh.
    Refresh(Previous<'a>),
}

/// What was known before a refresh (Core §12.2).
#[derive(Clone, Copy)]
pub struct Previous<'a> {
    /// `sub` of the session.
    pub subject: &'a str,
    /// `auth_time` of the session's ID token.
    pub auth_time: Option<Timestamp>,
    /// The login's nonce, if it is still known: a refreshed token need not carry one, but never another.
    pub nonce: Option<&'a str>,
}

/// Judges `text`.
pub(crate) fn verify(text: &str, keys: &CoreJsonWebKeySet, expected: &Expected<'_>) -> Result<IdToken, IdTokenError> {
    let Jwt { claims, .. } = Jwt::read(text)?;
    let subject = check_claims(&claims, expected)?;
    let auth_time = time(&claims, "auth_time")?;
    let issued = time(&claims, "iat")?.ok_or(IdTokenError::Time)?;
    check_signature(text, keys, &claims, expected)?;
    let provider_session = claims.get("sid").and_then(Value::as_str).map(str::to_owned);
    let mut claims = claims;
    claims.retain(|name, _| !PROTOCOL_CLAIMS.contains(&name.as_str()));
    Ok(IdToken { text: SecretText::new(text.to_owned()), subject, provider_session, issued, auth_time, claims })
}

fn check_claims(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<String, IdTokenError> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer.as_str()) {
        return Err(IdTokenError::Issuer);
    }
    // Behaviour T7: without `typ`, a logout token differs in this alone, and a refreshed ID token needs no nonce.
    if claims.contains_key("events") {
        return Err(IdTokenError::Kind);
    }
    let ours = |value: &Value| value.as_str() == Some(expected.client_id.as_str());
    if !is_for(claims, expected.client_id) || !claims.get("azp").is_none_or(ours) {
        return Err(IdTokenError::Audience);
    }
    let now = expected.now;
    let expires = time(claims, "exp")?.ok_or(IdTokenError::Time)?;
    let issued = time(claims, "iat")?.ok_or(IdTokenError::Time)?;
    if now >= expires.plus(SKEW) {
        return Err(IdTokenError::Expired);
    }
    if issued > now.plus(SKEW) || time(claims, "nbf")?.is_some_and(|from| from > now.plus(SKEW)) {
        return Err(IdTokenError::NotYetValid);
    }
    let auth_time = time(claims, "auth_time")?;
    let nonce = claims.get("nonce");
    let subject = claims.get("sub").and_then(Value::as_str).ok_or(IdTokenError::Subject)?;
    if !is_subject(subject) {
        return Err(IdTokenError::Subject);
    }
    match expected.origin {
        Origin::Login { nonce: sent, demands } => {
            if sent.is_empty() || !nonce.is_some_and(|n| same(n, sent)) {
                return Err(IdTokenError::Nonce);
            }
            if !demands.accept_class(claims.get("acr").and_then(Value::as_str)) {
                return Err(IdTokenError::AuthClass);
            }
            if demands
                .max_age()
                .is_some_and(|most| auth_time.is_none_or(|at| now.since(at) > most.saturating_add(SKEW)))
            {
                return Err(IdTokenError::AuthTime);
            }
        }
        Origin::Refresh(previous) => {
            if subject != previous.subject {
                return Err(IdTokenError::Subject);
            }
            if auth_time.zip(previous.auth_time).is_some_and(|(new, old)| new != old) {
                return Err(IdTokenError::AuthTime);
            }
            if nonce.zip(previous.nonce).is_some_and(|(new, old)| !same(new, old)) {
                return Err(IdTokenError::Nonce);
            }
        }
    }
    Ok(subject.to_owned())
}

fn same(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|value| value.as_bytes().ct_eq(text.as_bytes()).into())
}

fn check_signature(
    text: &str,
    keys: &CoreJsonWebKeySet,
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
) -> Result<(), IdTokenError> {
    let token: CoreIdToken = text.parse().map_err(|_| IdTokenError::Malformed)?;
    let late = UNIX_EPOCH + Duration::from_millis(expected.now.as_millis()).saturating_sub(SKEW);
    // As of a public client, even with a secret: such a verifier refuses HMAC whatever the list says.
    let verifier: CoreIdTokenVerifier<'_> =
        IdTokenVerifier::new_public_client(expected.client_id.clone(), expected.issuer.clone(), keys.clone())
            .set_allowed_algs(ALGORITHMS)
            .set_time_fn(move || late.into());
    let nonce = |found: Option<&Nonce>| match expected.origin {
        Origin::Login { nonce, .. } if found.is_none_or(|n| n.secret() != nonce) => Err(String::new()),
        _ => Ok(()),
    };
    token.claims(&verifier, nonce).map_err(|error| translate(&error))?;
    let Some(hash) = claims.get("at_hash") else { return Ok(()) };
    let algorithm = token.signing_alg().map_err(|_| IdTokenError::Algorithm)?;
    let key = token.signing_key(&verifier).map_err(|_| IdTokenError::UnknownKey)?;
    let computed = AccessTokenHash::from_token(&AccessToken::new(expected.access_token.to_owned()), algorithm, key)
        .map_err(|_| IdTokenError::AccessTokenHash)?;
    if same(hash, &computed) { Ok(()) } else { Err(IdTokenError::AccessTokenHash) }
}

fn translate(error: &ClaimsVerificationError) -> IdTokenError {
    use SignatureVerificationError as S;
    match error {
        ClaimsVerificationError::Expired(_) => IdTokenError::Expired,
        ClaimsVerificationError::InvalidAudience(_) => IdTokenError::Audience,
        ClaimsVerificationError::InvalidAuthTime(_) => IdTokenError::AuthTime,
        ClaimsVerificationError::InvalidIssuer(_) => IdTokenError::Issuer,
        ClaimsVerificationError::InvalidNonce(_) => IdTokenError::Nonce,
        ClaimsVerificationError::InvalidSubject(_) => IdTokenError::Subject,
        ClaimsVerificationError::Unsupported(_) => IdTokenError::Header,
        ClaimsVerificationError::SignatureVerification(error) => match error {
            S::NoMatchingKey => IdTokenError::UnknownKey,
            S::AmbiguousKeyId(_) => IdTokenError::AmbiguousKey,
            S::DisallowedAlg(_) | S::UnsupportedAlg(_) | S::NoSignature => IdTokenError::Algorithm,
            _ => IdTokenError::Signature,
        },
        _ => IdTokenError::Malformed,
    }
}
