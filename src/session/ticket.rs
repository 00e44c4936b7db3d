//! The ticket that the browser holds: a handle, which names the session, and a secret, which changes with each timed
//! rotation.
//!
//! The handle stays as long as the session lives, so that rotation moves nothing in the store: no key, no index, no seal.
//! The secrets follow from a seed that is sealed with the session, so any replica can tell the present ticket and the one
//! before it, and hand the present one out again should its first `Set-Cookie` have been lost (behaviour S8).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroize;

use crate::primitives::random::{self, NoEntropy};
use crate::store::record::SessionKey;

const HANDLE: usize = 16;
const SECRET: usize = 32;

/// Names a session within this process; never printed, never stored but sealed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle([u8; HANDLE]);

impl Handle {
    /// The name of the session in the store: SHA-256, so that the store's content opens no session (behaviour S1).
    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey::from_bytes(Sha256::digest(self.0).into())
    }
}

/// A ticket: 128 bits of handle, 256 bits of secret; 64 characters in the cookie. Never printed, never stored.
#[derive(Clone, Copy)]
pub struct SessionId {
    handle: Handle,
    secret: [u8; SECRET],
}

impl SessionId {
    /// Reads a cookie value; `None` unless it is exactly 64 characters of canonical base64url.
    #[must_use]
    pub fn parse(cookie_value: &[u8]) -> Option<Self> {
        let bytes: [u8; HANDLE + SECRET] = random::from_base64url(cookie_value)?;
        let (handle, secret) = bytes.split_first_chunk()?;
        Some(Self { handle: Handle(*handle), secret: secret.try_into().ok()? })
    }

    /// The cookie value. Call it only to build `Set-Cookie`, or to seal it.
    #[must_use]
    pub fn expose(&self) -> String {
        random::base64url(&[self.handle.0.as_slice(), &self.secret].concat())
    }

    /// Which session it is for.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The name of the session in the store.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        self.handle.key()
    }

    /// Whether both are the same ticket, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        // Word by word: byte by byte it is as much work as finding the session.
        self.words().zip(other.words()).fold(Choice::from(1), |same, (a, b)| same & a.ct_eq(&b)).into()
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        let (handle, secret) = (self.handle.0.as_chunks().0, self.secret.as_chunks().0);
        handle.iter().chain(secret).map(|word| u64::from_ne_bytes(*word))
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for SessionId {}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// What all tickets of a session follow from. Kept sealed.
#[derive(Clone)]
pub struct TicketSeed {
    handle: Handle,
    seed: [u8; SECRET],
}

impl TicketSeed {
    /// The seed of a new session.
    ///
    /// # Errors
    /// [`NoEntropy`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoEntropy> {
        Ok(Self { handle: Handle(random::bytes()?), seed: random::bytes()? })
    }

    /// The ticket after so many rotations: HMAC-SHA-256 of the number under the seed.
    #[must_use]
    pub fn ticket(&self, rotation: u32) -> SessionId {
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.seed) {
            Ok(mac) => mac,
            // HMAC takes a key of any length.
            Err(_) => return SessionId { handle: self.handle, secret: self.seed },
        };
        mac.update(b"cloakroom ticket");
        mac.update(&rotation.to_be_bytes());
        SessionId { handle: self.handle, secret: mac.finalize().into_bytes().into() }
    }

    /// Which session it is for.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// As text, to be sealed.
    pub(super) fn expose(&self) -> String {
        random::base64url(&[self.handle.0.as_slice(), &self.seed].concat())
    }

    /// The inverse of [`TicketSeed::expose`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        let SessionId { handle, secret } = SessionId::parse(text.as_bytes())?;
        Some(Self { handle, seed: secret })
    }
}

impl Drop for TicketSeed {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_the_cookie_and_prints_nothing() {
        let seed = TicketSeed::generate().unwrap();
        let ticket = seed.ticket(0);
        assert_eq!(ticket.expose().len(), 64);
        assert_eq!(SessionId::parse(ticket.expose().as_bytes()), Some(ticket));
        assert_eq!(SessionId::parse(b"\xff garbage"), None);
        assert_eq!(SessionId::parse(&[b'A'; 43]), None);
        assert_eq!(format!("{ticket:?} {:?}", ticket.key()), "SessionId(…) SessionKey(…)");
    }

    #[test]
    fn each_rotation_makes_another_ticket_of_the_same_session() {
        let seed = TicketSeed::generate().unwrap();
        let tickets: Vec<_> = (0..20).map(|rotation| seed.ticket(rotation)).collect();
        for (n, ticket) in tickets.iter().enumerate() {
            assert_eq!(ticket.key(), seed.handle().key());
            assert!(tickets.iter().skip(n + 1).all(|other| !ticket.is(other)));
            // Nothing of the seed is in it.
            assert_ne!(ticket.secret, seed.seed);
        }
        let restored = TicketSeed::parse(&seed.expose()).unwrap();
        assert!(restored.ticket(7).is(&seed.ticket(7)));
        assert!(!TicketSeed::generate().unwrap().ticket(7).is(&seed.ticket(7)));
    }
}
