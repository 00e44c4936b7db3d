//! What a session keeps sealed: its secrets.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::ticket::TicketSeed;
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

/// The sealed part of a session: everything a thief would want.
#[derive(Clone)]
pub struct Secrets {
    /// Sent upstream in `Authorization`.
    pub access_token: SecretText,
    /// Whether it is bound to our key, and goes upstream with a proof (RFC 9449).
    pub bound: bool,
    /// When it was issued, by our clock.
    pub access_issued: Timestamp,
    /// When it ends; `None` if the provider does not say.
    pub access_expires: Option<Timestamp>,
    /// When it was last replaced before its time, because an upstream refused it.
    pub forced: Option<Timestamp>,
    /// Gets the next access token.
    pub refresh_token: Option<SecretText>,
    /// When it ends; `None` if the provider does not say.
    pub refresh_expires: Option<Timestamp>,
    /// Whether the refresh token outlives the user's logout at the provider, and so ours (Core §11).
    pub offline: bool,
    /// The latest ID token; the hint at logout.
    pub id_token: Option<SecretText>,
    /// How long ago the user might have authenticated when logging in, in seconds, if that login was begun with such a
    /// demand; its ID token has shown it.
    pub max_age: Option<u32>,
    /// Claims of the user, from the verified ID token.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// What applications keep of the user, see [`super::context`].
    pub context: serde_json::Map<String, serde_json::Value>,
    /// The session's CSRF token: 256 random bits of its own, steady over id rotation.
    pub csrf_token: SecretText,
    /// What the session's tickets follow from.
    pub tickets: TicketSeed,
}

/// What [`Secrets`] look like before sealing.
#[derive(Serialize, Deserialize)]
struct Plain {
    at: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dpop: bool,
    ati: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ate: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frc: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rte: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    off: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age: Option<u32>,
    claims: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    ctx: serde_json::Map<String, serde_json::Value>,
    csrf: String,
    tickets: String,
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.at.zeroize();
        self.rt.zeroize();
        self.idt.zeroize();
        self.csrf.zeroize();
        self.tickets.zeroize();
    }
}

impl Secrets {
    /// The bytes to seal.
    ///
    /// # Errors
    /// Never in practice; the serializer's own error otherwise.
    pub fn to_plaintext(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, serde_json::Error> {
        let text = |s: &SecretText| s.expose().to_owned();
        let plain = Plain {
            at: text(&self.access_token),
            dpop: self.bound,
            ati: self.access_issued,
            ate: self.access_expires,
            frc: self.forced,
            rt: self.refresh_token.as_ref().map(text),
            rte: self.refresh_expires,
            off: self.offline,
            idt: self.id_token.as_ref().map(text),
            age: self.max_age,
            claims: self.claims.clone(),
            ctx: self.context.clone(),
            csrf: text(&self.csrf_token),
            tickets: self.tickets.expose(),
        };
        serde_json::to_vec(&plain).map(zeroize::Zeroizing::new)
    }

    /// Whether there is an access or a refresh token.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.access_token.expose().is_empty() || self.refresh_token.is_some()
    }

    /// The same without access and refresh token. The ID token stays: it is the hint at logout.
    #[must_use]
    pub fn without_tokens(&self) -> Self {
        Self {
            access_token: SecretText::new(String::new()),
            access_expires: None,
            refresh_token: None,
            refresh_expires: None,
            ..self.clone()
        }
    }

    /// The inverse of [`Secrets::to_plaintext`].
    ///
    /// # Errors
    /// The parser's error if the bytes are of another format.
    pub fn from_plaintext(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut plain: Plain = serde_json::from_slice(bytes)?;
        let tickets = TicketSeed::parse(&plain.tickets);
        let tickets = tickets.ok_or_else(|| serde::de::Error::custom("the seed of the tickets is malformed"))?;
        let take = |s: &mut String| SecretText::new(std::mem::take(s));
        Ok(Self {
            access_token: take(&mut plain.at),
            bound: plain.dpop,
            access_issued: plain.ati,
            access_expires: plain.ate,
            forced: plain.frc,
            refresh_token: plain.rt.as_mut().map(take),
            refresh_expires: plain.rte,
            offline: plain.off,
            id_token: plain.idt.as_mut().map(take),
            max_age: plain.age,
            claims: std::mem::take(&mut plain.claims),
            context: std::mem::take(&mut plain.ctx),
            csrf_token: take(&mut plain.csrf),
            tickets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_the_plaintext() {
        let secrets = Secrets {
            access_token: SecretText::new("at".into()),
            bound: true,
            access_issued: Timestamp::from_secs(1),
            access_expires: Some(Timestamp::from_secs(5)),
            forced: Some(Timestamp::from_secs(3)),
            refresh_token: None,
            refresh_expires: None,
            offline: true,
            id_token: Some(SecretText::new("idt".into())),
            max_age: Some(300),
            claims: serde_json::Map::from_iter([("sub".to_owned(), "alice".into())]),
            context: serde_json::Map::new(),
            csrf_token: SecretText::new("csrf".into()),
            tickets: TicketSeed::generate().unwrap(),
        };
        let back = Secrets::from_plaintext(&secrets.to_plaintext().unwrap()).unwrap();
        assert_eq!(back.access_token.expose(), "at");
        assert!(back.bound);
        assert_eq!(back.access_expires, secrets.access_expires);
        assert_eq!(back.forced, secrets.forced);
        assert!(back.refresh_token.is_none());
        assert!(back.offline);
        assert_eq!(back.max_age, secrets.max_age);
        assert_eq!(back.claims, secrets.claims);
        assert_eq!(back.tickets.ticket(3), secrets.tickets.ticket(3));
    }
}
