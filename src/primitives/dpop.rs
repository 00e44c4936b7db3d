//! Proofs of possession (DPoP, RFC 9449): whoever shows a token that is bound to a key signs method and address of the one
//! request with that key. A token that was copied out of a log is of no use without it.

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http_auth::ChallengeParser;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::clock::Clock;
use super::random::{self, base64url};
use super::secret::SecretText;
use super::signing::{Algorithm, SigningKey, thumbprint};

/// Carries the proof (§4.1).
pub const PROOF: HeaderName = HeaderName::from_static("dpop");
/// Carries what the server wants in the next proof (§8.1).
pub const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The error that asks for it (§8, §9).
pub const USE_NONCE: &str = "use_dpop_nonce";
/// The authentication scheme (§7.1), and `token_type` (§5).
pub const SCHEME: &str = "DPoP";

/// Longest nonce that is sent back.
const LONGEST_NONCE: usize = 512;

/// Makes the proofs of one key.
#[derive(Debug)]
pub struct Prover {
    key: SigningKey,
    /// The same for all proofs.
    header: String,
    thumbprint: String,
    clock: Clock,
}

/// What a proof is good for.
#[derive(Clone, Copy, Debug)]
pub struct Proven<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// Where it goes, see [`address()`].
    pub address: &'a str,
    /// [`token_hash`] of the token beside it; `None` = there is none.
    pub token_hash: Option<&'a str>,
    /// What the server gave last; `None` = nothing.
    pub nonce: Option<&'a str>,
}

impl Prover {
    /// For this key; `clock` says when a proof was made.
    #[must_use]
    pub fn new(key: SigningKey, clock: Clock) -> Self {
        let jwk = key.bare_jwk();
        let header = json!({ "typ": "dpop+jwt", "alg": key.algorithm().as_str(), "jwk": jwk });
        Self { header: base64url(header.to_string().as_bytes()), thumbprint: thumbprint(&jwk), key, clock }
    }

    /// What tokens are bound to (`jkt`, §6.1).
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// A proof for one attempt at one request (§4.2): no two are alike. `None` if the operating system gives no random
    /// bytes.
    #[must_use]
    pub fn proof(&self, of: &Proven<'_>) -> Option<HeaderValue> {
        let mut claims = json!({
            "jti": random::token().ok()?,
            "htm": of.method,
            "htu": of.address,
            "iat": self.clock.now().as_secs(),
        });
        for (name, value) in [("ath", of.token_hash), ("nonce", of.nonce)] {
            if let (Some(claims), Some(value)) = (claims.as_object_mut(), value) {
                claims.insert(name.to_owned(), Value::from(value));
            }
        }
        let mut value = HeaderValue::try_from(self.key.sign_below(&self.header, &claims).ok()?).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// `ath` of an access token (§4.2).
#[must_use]
pub fn token_hash(token: impl AsRef<[u8]>) -> String {
    base64url(&Sha256::digest(token))
}

/// `Authorization` with a token: `DPoP …` if it is bound to a key (§7.1), else `Bearer …` (RFC 6750 §2.1). `None` if it has
/// bytes that no header may carry.
#[must_use]
pub fn authorization(bound: bool, token: &SecretText) -> Option<HeaderValue> {
    let scheme = if bound { SCHEME } else { "Bearer" };
    let mut value = HeaderValue::try_from(format!("{scheme} {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token in such a value if it is bound to a key.
#[must_use]
pub fn bound_token(authorization: &HeaderValue) -> Option<&[u8]> {
    authorization.as_bytes().strip_prefix(b"DPoP ")
}

/// `htu` (§4.2): without query and fragment, the host in lower case and no port that goes without saying, so that a server
/// that compares as text is right as well as one that normalises (§4.3).
#[must_use]
pub fn address(https: bool, authority: &str, path: &str) -> String {
    let (scheme, port) = if https { ("https", ":443") } else { ("http", ":80") };
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{authority}{}", if path.is_empty() { "/" } else { path })
}

/// Whether a 401 asks for a nonce in the proof (§9).
#[must_use]
pub fn asks_for_nonce(answer: &HeaderMap) -> bool {
    let fields = answer.get_all(WWW_AUTHENTICATE).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(ChallengeParser::new).filter_map(Result::ok).any(|challenge| {
        let mut params = challenge.params.iter();
        challenge.scheme.eq_ignore_ascii_case(SCHEME)
            && params.any(|(name, value)| name.eq_ignore_ascii_case("error") && value.to_unescaped() == USE_NONCE)
    })
}

/// What a server wants in the next proof: it gives a nonce with any answer, and the newest counts (§8.2).
#[derive(Debug, Default)]
pub struct Nonce(ArcSwapOption<String>);

impl Nonce {
    /// The newest.
    #[must_use]
    pub fn current(&self) -> Option<std::sync::Arc<String>> {
        self.0.load_full()
    }

    /// Takes what an answer brings, and says whether it brings one that can be sent back (§8.1).
    pub fn hear(&self, answer: &HeaderMap) -> bool {
        let mut fields = answer.get_all(&NONCE).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let good = |nonce: &&str| {
            (1..=LONGEST_NONCE).contains(&nonce.len())
                && nonce.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        };
        let Some(nonce) = field.to_str().ok().filter(good) else { return false };
        if self.0.load().as_ref().is_none_or(|known| **known != nonce) {
            self.0.store(Some(nonce.to_owned().into()));
        }
        true
    }
}

#[cfg(test)]
mod tests;
