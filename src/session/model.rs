//! What a session is, in the browser (an id), in the store (a record) and opened (its secrets).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

use crate::primitives::clock::Timestamp;
use crate::primitives::random::{self, NoEntropy};
use crate::primitives::secret::SecretText;

/// The ticket: 256 random bits that only the browser keeps (behaviour S1). Never printed, never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// A fresh id.
    ///
    /// # Errors
    /// [`NoEntropy`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoEntropy> {
        random::bytes().map(Self)
    }

    /// Reads a cookie value; `None` unless it is exactly 43 characters of canonical base64url.
    #[must_use]
    pub fn parse(cookie_value: &[u8]) -> Option<Self> {
        random::from_base64url(cookie_value).map(Self)
    }

    /// The cookie value. Call it only to build `Set-Cookie`, or to seal it.
    #[must_use]
    pub fn expose(&self) -> String {
        random::base64url(&self.0)
    }

    /// The name of the session in the store.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// SHA-256 of a [`SessionId`]: names a session in the store, opens none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// From its 32 bytes, as a store returns them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As 43 characters of base64url, for stores with text keys.
    #[must_use]
    pub fn to_text(self) -> String {
        random::base64url(&self.0)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// A session as the store keeps it. Times and version lie outside the sealed part, so that "last seen" costs no
/// cryptography.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Moves by one with every compare-and-swap; a new record has 1. "Last seen" does not move it.
    pub version: u64,
    /// Name of the site it belongs to; on any other it is no session (behaviour S11).
    pub site: String,
    /// Name of the provider that made it.
    pub provider: String,
    /// `sub` at that provider.
    pub subject: String,
    /// `sid` at that provider, if it gave one.
    pub provider_session: Option<String>,
    /// When the user logged in.
    pub created: Timestamp,
    /// When a request last used it; written in batches.
    pub last_seen: Timestamp,
    /// Over at this moment unless used before.
    pub idle_end: Timestamp,
    /// Over at this moment in any case.
    pub absolute_end: Timestamp,
    /// Counts the sealings; part of the sealed part's authenticated data.
    pub generation: u64,
    /// [`Secrets`], sealed.
    pub sealed: Vec<u8>,
}

impl Record {
    /// The earlier of the two ends; the store keeps the record no longer.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.idle_end.min(self.absolute_end)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// The sealed part of a session: everything a thief would want.
#[derive(Clone)]
pub struct Secrets {
    /// Sent upstream as `Authorization: Bearer`.
    pub access_token: SecretText,
    /// When it was issued, by our clock.
    pub access_issued: Timestamp,
    /// When it ends; `None` if the provider does not say.
    pub access_expires: Option<Timestamp>,
    /// Gets the next access token.
    pub refresh_token: Option<SecretText>,
    /// When it ends; `None` if the provider does not say.
    pub refresh_expires: Option<Timestamp>,
    /// Whether the provider may have used it up without our hearing of it. It is not shown again then (behaviour R8),
    /// only revoked at logout.
    pub refresh_in_doubt: bool,
    /// The latest ID token; the hint at logout.
    pub id_token: Option<SecretText>,
    /// Claims of the user, from the verified ID token.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// The session's CSRF token: 256 random bits of its own, steady over id rotation.
    pub csrf_token: SecretText,
}

/// What [`Secrets`] look like before sealing.
#[derive(Serialize, Deserialize)]
struct Plain {
    at: String,
    ati: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ate: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rte: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    doubt: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idt: Option<String>,
    claims: serde_json::Map<String, serde_json::Value>,
    csrf: String,
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.at.zeroize();
        self.rt.zeroize();
        self.idt.zeroize();
        self.csrf.zeroize();
    }
}

impl Secrets {
    /// The refresh token, if it may be shown.
    #[must_use]
    pub fn usable_refresh_token(&self) -> Option<&SecretText> {
        self.refresh_token.as_ref().filter(|_| !self.refresh_in_doubt)
    }

    /// The bytes to seal.
    ///
    /// # Errors
    /// Never in practice; the serializer's own error otherwise.
    pub fn to_plaintext(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, serde_json::Error> {
        let text = |s: &SecretText| s.expose().to_owned();
        let plain = Plain {
            at: text(&self.access_token),
            ati: self.access_issued,
            ate: self.access_expires,
            rt: self.refresh_token.as_ref().map(text),
            rte: self.refresh_expires,
            doubt: self.refresh_in_doubt,
            idt: self.id_token.as_ref().map(text),
            claims: self.claims.clone(),
            csrf: text(&self.csrf_token),
        };
        serde_json::to_vec(&plain).map(zeroize::Zeroizing::new)
    }

    /// The inverse of [`Secrets::to_plaintext`].
    ///
    /// # Errors
    /// The parser's error if the bytes are of another format.
    pub fn from_plaintext(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut plain: Plain = serde_json::from_slice(bytes)?;
        let take = |s: &mut String| SecretText::new(std::mem::take(s));
        Ok(Self {
            access_token: take(&mut plain.at),
            access_issued: plain.ati,
            access_expires: plain.ate,
            refresh_token: plain.rt.as_mut().map(take),
            refresh_expires: plain.rte,
            refresh_in_doubt: plain.doubt,
            id_token: plain.idt.as_mut().map(take),
            claims: std::mem::take(&mut plain.claims),
            csrf_token: take(&mut plain.csrf),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_the_cookie_and_prints_nothing() {
        let id = SessionId::generate().unwrap();
        assert_eq!(SessionId::parse(id.expose().as_bytes()), Some(id));
        assert_eq!(SessionId::parse(b"\xff garbage"), None);
        assert_eq!(format!("{id:?} {:?}", id.key()), "SessionId(…) SessionKey(…)");
    }

    #[test]
    fn secrets_survive_the_plaintext() {
        let secrets = Secrets {
            access_token: SecretText::new("at".into()),
            access_issued: Timestamp::from_secs(1),
            access_expires: Some(Timestamp::from_secs(5)),
            refresh_token: None,
            refresh_expires: None,
            refresh_in_doubt: true,
            id_token: Some(SecretText::new("idt".into())),
            claims: serde_json::Map::from_iter([("sub".to_owned(), "alice".into())]),
            csrf_token: SecretText::new("csrf".into()),
        };
        let back = Secrets::from_plaintext(&secrets.to_plaintext().unwrap()).unwrap();
        assert_eq!(back.access_token.expose(), "at");
        assert_eq!(back.access_expires, secrets.access_expires);
        assert!(back.refresh_token.is_none() && back.refresh_in_doubt);
        assert_eq!(back.claims, secrets.claims);
    }
}
