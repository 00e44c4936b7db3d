//! The key ring: which keys there are, which of them seals, and the per-record keys they yield.

use std::sync::Arc;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::settings::SealingKey;
use crate::primitives::secret::Key256;

/// Keeps keys derived here apart from any other use of the same ring.
const PURPOSE: &[u8] = b"cloakroom sealed record";
const AUDIT: &[u8] = b"cloakroom audit";
const FINGERPRINT: &[u8] = b"cloakroom key fingerprint";

/// A ring that cannot be used. Names keys by id only.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Without a key nothing can be sealed.
    #[error("the key ring is empty")]
    Empty,
    /// An id decides which key opens a record, so it must name one.
    #[error("the key id `{0}` is used twice")]
    DuplicateId(Arc<str>),
    /// The id is written into each record behind a length of one byte.
    #[error("the key id `{0}` is not 1 to 255 bytes long")]
    IdLength(Arc<str>),
}

/// The sealing keys: the first seals, all open (behaviour K4).
#[derive(Clone, Debug)]
pub struct KeyRing {
    newest: RingKey,
    older: Arc<[RingKey]>,
}

impl KeyRing {
    /// A ring of the configured keys, in their order.
    ///
    /// # Errors
    /// [`KeyRingError`] if there is no key, or if an id is empty, too long or there twice.
    pub fn new(keys: &[SealingKey]) -> Result<Self, KeyRingError> {
        let mut ring: Vec<RingKey> = Vec::with_capacity(keys.len());
        for SealingKey { id, secret } in keys {
            let id_length = u8::try_from(id.len()).ok().filter(|length| *length > 0);
            let Some(id_length) = id_length else { return Err(KeyRingError::IdLength(Arc::clone(id))) };
            if ring.iter().any(|known| known.id == *id) {
                return Err(KeyRingError::DuplicateId(Arc::clone(id)));
            }
            ring.push(RingKey { id: Arc::clone(id), id_length, secret: secret.clone() });
        }
        let mut ring = ring.into_iter();
        let newest = ring.next().ok_or(KeyRingError::Empty)?;
        Ok(Self { newest, older: ring.collect() })
    }

    /// A key for names that all replicas should make alike; it moves with the newest key and opens nothing.
    #[must_use]
    pub fn pseudonym_key(&self) -> Zeroizing<[u8; 32]> {
        self.newest.expand(AUDIT)
    }

    /// Id and fingerprint of each key: 42 bits that follow from the key and tell nothing of it.
    pub fn fingerprints(&self) -> impl Iterator<Item = (&str, u64)> {
        std::iter::once(&self.newest).chain(self.older.iter()).map(|key| {
            let [a, b, c, d, e, f, ..] = *key.expand(FINGERPRINT);
            (&*key.id, u64::from_be_bytes([0, 0, a & 0x03, b, c, d, e, f]))
        })
    }

    /// Id of the key that seals.
    #[must_use]
    pub fn newest_id(&self) -> &str {
        &self.newest.id
    }

    /// Ids of all keys, the newest first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.newest).chain(self.older.iter()).map(|key| &*key.id)
    }

    /// The key that seals.
    pub(super) fn newest(&self) -> &RingKey {
        &self.newest
    }

    /// The key of that id, if it is still on the ring. Ids are no secret: they are compared as plain bytes.
    pub(super) fn find(&self, id: &[u8]) -> Option<&RingKey> {
        std::iter::once(&self.newest).chain(self.older.iter()).find(|key| key.id.as_bytes() == id)
    }
}

/// One key of the ring.
#[derive(Clone, Debug)]
pub(super) struct RingKey {
    id: Arc<str>,
    /// The same as `id.len()`, known to fit.
    id_length: u8,
    secret: Key256,
}

impl RingKey {
    /// Its id and the length of that, as an envelope holds them.
    pub(super) fn id(&self) -> (u8, &[u8]) {
        (self.id_length, self.id.as_bytes())
    }

    /// Another key that follows from this one, by HKDF-SHA-256 without salt.
    fn expand(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0_u8; 32]);
        let info = [purpose, &[0, self.id_length], self.id.as_bytes()];
        // HKDF refuses only outputs of more than 8160 bytes.
        let _ = Hkdf::<Sha256>::new(None, self.secret.expose()).expand_multi_info(&info, key.as_mut_slice());
        key
    }

    /// The key of one record: HKDF-SHA-256 (RFC 5869) with the record's salt; `info` is our purpose, the format and
    /// the key id. A key for each record makes the 2³² limit of random nonces count per record, not per ring key.
    ///
    /// `None` only if HKDF refuses 32 bytes of output, which it never does.
    pub(super) fn derive(&self, format: u8, salt: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let mut key = Zeroizing::new([0_u8; 32]);
        let info = [PURPOSE, &[format, self.id_length], self.id.as_bytes()];
        Hkdf::<Sha256>::new(Some(salt), self.secret.expose()).expand_multi_info(&info, key.as_mut_slice()).ok()?;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, byte: u8) -> SealingKey {
        SealingKey { id: id.into(), secret: Key256::new([byte; 32]) }
    }

    #[test]
    fn odd_rings_are_refused() {
        assert_eq!(KeyRing::new(&[]).err(), Some(KeyRingError::Empty));
        assert_eq!(KeyRing::new(&[key("", 1)]).err(), Some(KeyRingError::IdLength("".into())));
        assert!(matches!(KeyRing::new(&[key(&"x".repeat(256), 1)]), Err(KeyRingError::IdLength(_))));
        let twice = [key("a", 1), key("b", 2), key("a", 3)];
        assert_eq!(KeyRing::new(&twice).err(), Some(KeyRingError::DuplicateId("a".into())));
        assert!(KeyRing::new(&[key(&"x".repeat(255), 1)]).is_ok());
    }

    #[test]
    fn the_first_key_seals_and_all_are_found() {
        let ring = KeyRing::new(&[key("new", 1), key("old", 2)]).unwrap();
        assert_eq!(ring.newest().id(), (3, b"new".as_slice()));
        assert!(ring.find(b"old").is_some());
        assert!(ring.find(b"gone").is_none());
        assert!(!format!("{ring:?}").contains("1, 1"), "a ring must not print its keys");
    }

    #[test]
    fn derived_keys_differ_by_salt_format_id_and_secret() {
        let derive = |id: &str, byte, format, salt: u8| {
            *KeyRing::new(&[key(id, byte)]).unwrap().newest().derive(format, &[salt; 32]).unwrap()
        };
        let base = derive("a", 1, 1, 1);
        assert_eq!(base, derive("a", 1, 1, 1));
        for other in [derive("b", 1, 1, 1), derive("a", 2, 1, 1), derive("a", 1, 2, 1), derive("a", 1, 1, 2)] {
            assert_ne!(base, other);
        }
    }
}
