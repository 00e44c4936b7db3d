//! What all signed tokens of a provider have in common: how they are taken apart, which algorithms count, which key
//! fits, and what a time within reason is (behaviour T1, T3, T5).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKey, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKey as _, JsonWebKeyAlgorithm, JsonWebKeyUse as _, JwsSigningAlgorithm as _};
use serde_json::{Map, Value};

use crate::primitives::clock::Timestamp;

/// Clocks may differ by this, both ways.
pub(crate) const SKEW: Duration = Duration::from_secs(60);

/// The last second of the year 9999; no honest token speaks of later.
const LATEST_TIME: f64 = 253_402_300_799.0;

/// Core §2: `sub` has at most 255 characters.
const LONGEST_SUBJECT: usize = 255;

/// Public-key algorithms only: HMAC with a public key or a guessable secret is how tokens are forged (RFC 8725 §2.1).
pub(super) const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Why a token is no token to us, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// No signed JWT, or a claim of an impossible type.
    #[error("the token cannot be read")]
    Malformed,
    /// `none`, HMAC, encryption, or unknown.
    #[error("the token is signed with an algorithm that is not allowed")]
    Algorithm,
    /// An unknown critical header, a nested token.
    #[error("the token has a header that is not allowed")]
    Header,
    /// The signature does not fit the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// The key is not in the provider's set.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// No key id, and several keys fit.
    #[error("more than one key fits the token")]
    AmbiguousKey,
    /// A time that is no sane number.
    #[error("the token has a time that is absurd")]
    Time,
}

impl JwtError {
    /// A word for metrics and the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Header => "header",
            Self::Signature => "signature",
            Self::UnknownKey => "unknown_key",
            Self::AmbiguousKey => "ambiguous_key",
            Self::Time => "time",
        }
    }
}

/// Whether a text has the form of a signed JWT, good or bad.
#[must_use]
pub fn is_jwt(text: &str) -> bool {
    !matches!(Jwt::read(text), Err(JwtError::Malformed))
}

/// A token taken apart, its signature not looked at yet.
pub(super) struct Jwt<'t> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    algorithm: CoreJwsSigningAlgorithm,
    /// Header and payload, as they were signed.
    signed: &'t str,
    signature: &'t str,
}

impl<'t> Jwt<'t> {
    pub(super) fn read(text: &'t str) -> Result<Self, JwtError> {
        let (signed, signature) = text.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let object = |part: &str| -> Option<Map<String, Value>> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let header = object(header).ok_or(JwtError::Malformed)?;
        // RFC 7515 §4.1.11: we understand no extension. `zip` belongs to encryption, `b64` changes what is signed.
        if ["crit", "zip", "b64", "cty"].iter().any(|name| header.contains_key(*name)) {
            return Err(JwtError::Header);
        }
        let algorithm = header.get("alg").and_then(|alg| serde_json::from_value(alg.clone()).ok());
        let algorithm = algorithm.filter(|alg| ALGORITHMS.contains(alg)).ok_or(JwtError::Algorithm)?;
        let claims = object(payload).ok_or(JwtError::Malformed)?;
        Ok(Self { header, claims, algorithm, signed, signature })
    }

    /// Checks the signature with the one key of the set that fits: by its id, or, without an id, as the only one of its
    /// kind.
    pub(super) fn check_signature(&self, keys: &CoreJsonWebKeySet) -> Result<(), JwtError> {
        let id = match self.header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(JwtError::Malformed),
        };
        let named = |key: &&CoreJsonWebKey| id.is_none() || key.key_id().map(|known| known.as_str()) == id;
        let mut fitting = keys.keys().iter().filter(named).filter(|key| self.may_verify(key));
        let key = match (fitting.next(), fitting.next()) {
            (Some(key), None) => key,
            (Some(_), Some(_)) => return Err(JwtError::AmbiguousKey),
            (None, _) => return Err(JwtError::UnknownKey),
        };
        let signature = URL_SAFE_NO_PAD.decode(self.signature).map_err(|_| JwtError::Malformed)?;
        key.verify_signature(&self.algorithm, self.signed.as_bytes(), &signature).map_err(|_| JwtError::Signature)
    }

    fn may_verify(&self, key: &CoreJsonWebKey) -> bool {
        key.key_use().is_none_or(|purpose| purpose.allows_signature())
            && self.algorithm.key_type().as_ref() == Some(key.key_type())
            && match key.signing_alg() {
                JsonWebKeyAlgorithm::Unspecified => true,
                JsonWebKeyAlgorithm::Algorithm(only) => *only == self.algorithm,
                JsonWebKeyAlgorithm::Unsupported => false,
            }
    }
}

/// Whether the audience is ours alone. We trust no other, so a list may hold our id only.
pub(super) fn is_for(claims: &Map<String, Value>, client_id: &str) -> bool {
    let ours = |value: &Value| value.as_str() == Some(client_id);
    match claims.get("aud") {
        Some(Value::Array(list)) => !list.is_empty() && list.iter().all(ours),
        Some(value) => ours(value),
        None => false,
    }
}

/// Whether a text can be a `sub`.
pub(super) fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= LONGEST_SUBJECT && !text.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519 §2) within reason; fractions are cut off.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
pub(super) fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, JwtError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..=LATEST_TIME).contains(&seconds) => Ok(Some(Timestamp::from_secs(seconds as u64))),
            _ => Err(JwtError::Time),
        },
    }
}
