//! Names for sessions in logs, from which nobody finds the session (behaviour D3).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::primitives::random;

/// Names sessions by a keyed hash: neither the cookie nor the key in the store, so that a log opens and ends no session.
pub struct Pseudonyms(Option<Hmac<Sha256>>);

impl Pseudonyms {
    /// Replicas with the same key give the same names.
    #[must_use]
    pub fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        // HMAC takes a key of any length; without one there would be no name, never a plain one.
        Self(Hmac::new_from_slice(key.as_slice()).ok())
    }

    /// 128 bits of HMAC-SHA-256: enough to follow a session through the log.
    #[must_use]
    pub fn of(&self, session: &[u8; 32]) -> String {
        let Some(mut mac) = self.0.clone() else { return String::new() };
        mac.update(session);
        let hash = mac.finalize().into_bytes();
        random::base64url(hash.get(..16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_a_session_is_named_by_a_keyed_hash() {
        let with = |byte| Pseudonyms::new(&Zeroizing::new([byte; 32]));
        let session = [7; 32];
        assert_eq!(with(1).of(&session).len(), 22);
        assert_eq!(with(1).of(&session), with(1).of(&session));
        assert_ne!(with(1).of(&session), with(2).of(&session));
        assert!(!random::base64url(&session).contains(&with(1).of(&session)));
    }
}
