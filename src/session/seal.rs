//! Sealing: what the store holds of a session's secrets is of no use without a key of the ring, and only in its place.
//!
//! An envelope is
//!
//! | bytes | content |
//! |---|---|
//! | 1 | format, now 1 |
//! | 1 + n | key id behind its length |
//! | 32 | random salt of the record's key |
//! | 12 | random nonce |
//! | … + 16 | AES-256-GCM ciphertext and tag |
//!
//! The authenticated data are the format and the [`Context`], each field behind its length (behaviour K3): an envelope
//! that is moved to another record, or whose record is changed around it, does not open.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use zeroize::Zeroizing;

use super::key_ring::{KeyRing, RingKey};
use crate::primitives::random::{self, NoEntropy};

const FORMAT: u8 = 1;
const SALT: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// What a sealed record is for; none opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The secrets of a session.
    Session,
    /// A login under way.
    Login,
}

impl Purpose {
    const fn code(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Login => 2,
        }
    }
}

/// Where a sealed record belongs. Opens only under the context it was sealed for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// The name it is stored under.
    pub key: &'a [u8; 32],
    /// The provider of the session or login.
    pub provider: &'a str,
    /// Whose it is: site and subject of a session; the browser of a login.
    pub owner: [&'a [u8]; 2],
    /// Counts the sealings of a session; 0 for a login.
    pub generation: u64,
}

impl Context<'_> {
    fn authenticated_data(&self, format: u8) -> Vec<u8> {
        let generation = self.generation.to_be_bytes();
        let (purpose, provider) = ([self.purpose.code()], self.provider.as_bytes());
        let [owner, part] = self.owner;
        let fields: [&[u8]; 7] = [&[format], &purpose, self.key, provider, owner, part, &generation];
        let mut data = Vec::with_capacity(fields.iter().map(|field| 8 + field.len()).sum());
        for field in fields {
            data.extend_from_slice(&(field.len() as u64).to_be_bytes());
            data.extend_from_slice(field);
        }
        data
    }
}

/// Sealing or opening failed. Says nothing of what was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Changed, cut, moved from another record, or no envelope at all: one answer for all (behaviour K2).
    #[error("the sealed record is damaged")]
    Damaged,
    /// Sealed by a key that is not on the ring (or the key id is damaged): only that key's sessions are over
    /// (behaviour K4).
    #[error("the sealed record names a key that is not on the ring")]
    UnknownKey,
    /// More than AES-GCM takes (64 GiB).
    #[error("the record is too long to be sealed")]
    TooLong,
    /// Nothing is sealed without fresh randomness.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

impl KeyRing {
    /// Seals with the newest key. The result is 62 bytes and the key id longer than `plaintext`.
    ///
    /// # Errors
    /// [`SealError::NoEntropy`] if the operating system gives no random bytes; [`SealError::TooLong`] beyond 64 GiB.
    pub fn seal(&self, context: &Context<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.newest();
        let (id_length, id) = key.id();
        let salt = random::bytes::<SALT>()?;
        let nonce = random::bytes::<NONCE>()?;

        // The exact size at once: were it to grow, the plaintext would stay behind in the memory it leaves.
        let mut envelope = Vec::with_capacity(2 + id.len() + SALT + NONCE + plaintext.len() + TAG);
        envelope.extend_from_slice(&[FORMAT, id_length]);
        envelope.extend_from_slice(id);
        envelope.extend_from_slice(&salt);
        envelope.extend_from_slice(&nonce);
        let start = envelope.len();
        envelope.extend_from_slice(plaintext);
        let text = envelope.get_mut(start..).unwrap_or_default();
        let tag = cipher(key, FORMAT, &salt)
            .ok_or(SealError::TooLong)?
            .encrypt_inout_detached(&Nonce::from(nonce), &context.authenticated_data(FORMAT), text.into())
            .map_err(|_| SealError::TooLong)?;
        envelope.extend_from_slice(&tag);
        Ok(envelope)
    }

    /// Opens an envelope with the key that it names.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`] if that key is not on the ring; [`SealError::Damaged`] for everything else.
    pub fn open(&self, context: &Context<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let envelope = Envelope::parse(envelope).ok_or(SealError::Damaged)?;
        let key = self.find(envelope.key_id).ok_or(SealError::UnknownKey)?;
        let mut text = Zeroizing::new(envelope.ciphertext.to_vec());
        cipher(key, FORMAT, envelope.salt)
            .ok_or(SealError::Damaged)?
            .decrypt_inout_detached(
                &Nonce::from(*envelope.nonce),
                &context.authenticated_data(FORMAT),
                text.as_mut_slice().into(),
                &Tag::from(*envelope.tag),
            )
            .map_err(|_| SealError::Damaged)?;
        Ok(text)
    }

    /// Whether the newest key sealed this envelope. If not, the next write of its record should seal it anew
    /// (behaviour K4).
    #[must_use]
    pub fn is_newest(&self, envelope: &[u8]) -> bool {
        Envelope::parse(envelope).is_some_and(|envelope| envelope.key_id == self.newest().id().1)
    }
}

fn cipher(key: &RingKey, format: u8, salt: &[u8; SALT]) -> Option<Aes256Gcm> {
    let derived = key.derive(format, salt)?;
    Aes256Gcm::new_from_slice(derived.as_slice()).ok()
}

/// The parts of an envelope of the one format there is.
struct Envelope<'a> {
    key_id: &'a [u8],
    salt: &'a [u8; SALT],
    nonce: &'a [u8; NONCE],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Envelope<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[FORMAT, id_length], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (key_id, rest) = rest.split_at_checked(usize::from(id_length))?;
        let (salt, rest) = rest.split_first_chunk::<SALT>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
        Some(Self { key_id, salt, nonce, ciphertext, tag })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::settings::SealingKey;
    use crate::primitives::secret::Key256;

    fn ring(ids: &[&str]) -> KeyRing {
        let keys: Vec<_> =
            ids.iter().map(|id| SealingKey { id: (*id).into(), secret: Key256::new([id.as_bytes()[0]; 32]) }).collect();
        KeyRing::new(&keys).unwrap()
    }

    const HOME: Context<'static> = Context {
        purpose: Purpose::Session,
        key: &[7; 32],
        provider: "keycloak",
        owner: [b"app", b"alice"],
        generation: 3,
    };

    #[test]
    fn one_plaintext_never_seals_twice_alike() {
        let ring = ring(&["a"]);
        let one = ring.seal(&HOME, b"secret").unwrap();
        let two = ring.seal(&HOME, b"secret").unwrap();
        assert_ne!(one, two);
        assert_eq!(one.len(), 62 + 1 + 6, "the documented overhead");
        assert_eq!(one.capacity(), one.len(), "the envelope was moved while it held the plaintext");
    }

    #[test]
    fn k4_an_old_key_opens_and_the_newest_seals() {
        let old = ring(&["old"]);
        let both = ring(&["new", "old"]);
        let sealed = old.seal(&HOME, b"secret").unwrap();
        assert_eq!(both.open(&HOME, &sealed).unwrap().as_slice(), b"secret");
        assert!(old.is_newest(&sealed));
        assert!(!both.is_newest(&sealed));
        let again = both.seal(&HOME, b"secret").unwrap();
        assert!(both.is_newest(&again));
        assert!(!both.is_newest(b""));
    }

    #[test]
    fn k4_a_removed_key_ends_only_its_own_records() {
        let before = ring(&["old"]).seal(&HOME, b"secret").unwrap();
        let after = ring(&["new", "old"]).seal(&HOME, b"secret").unwrap();
        let ring = ring(&["new"]);
        assert!(matches!(ring.open(&HOME, &before), Err(SealError::UnknownKey)));
        assert!(ring.open(&HOME, &after).is_ok());
    }

    #[test]
    fn another_key_of_the_same_id_is_damage() {
        let sealed = ring(&["a"]).seal(&HOME, b"secret").unwrap();
        let impostor = KeyRing::new(&[SealingKey { id: "a".into(), secret: Key256::new([0; 32]) }]).unwrap();
        assert!(matches!(impostor.open(&HOME, &sealed), Err(SealError::Damaged)));
    }

    #[test]
    fn k3_another_context_is_damage() {
        let ring = ring(&["a"]);
        let sealed = ring.seal(&HOME, b"secret").unwrap();
        let strangers = [
            Context { purpose: Purpose::Login, ..HOME },
            Context { key: &[8; 32], ..HOME },
            Context { provider: "keycloa", ..HOME },
            Context { provider: "", ..HOME },
            Context { owner: [b"other", b"alice"], ..HOME },
            Context { owner: [b"app", b"bob"], ..HOME },
            Context { owner: [b"appa", b"lice"], ..HOME },
            Context { generation: 4, ..HOME },
        ];
        for context in strangers {
            assert!(matches!(ring.open(&context, &sealed), Err(SealError::Damaged)));
        }
    }

    #[test]
    fn k2_every_flipped_bit_and_every_cut_is_an_error() {
        let ring = ring(&["a", "b"]);
        let sealed = ring.seal(&HOME, b"a secret").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open(&HOME, &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(ring.open(&HOME, &sealed[..length]).is_err(), "length {length}");
        }
        assert!(ring.open(&HOME, &[sealed.as_slice(), b"\0"].concat()).is_err());
    }

    #[test]
    fn errors_say_nothing_of_the_content() {
        let ring = ring(&["a"]);
        let mut sealed = ring.seal(&HOME, b"secret").unwrap();
        sealed.pop();
        let error = ring.open(&HOME, &sealed).unwrap_err();
        assert_eq!(error.to_string(), "the sealed record is damaged");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(
            text in proptest::collection::vec(any::<u8>(), 0..=16 * 1024),
            key in any::<[u8; 32]>(),
            provider in ".{0,40}",
            generation in any::<u64>(),
            login in any::<bool>(),
        ) {
            let ring = ring(&["2026-11", "1999"]);
            let purpose = if login { Purpose::Login } else { Purpose::Session };
            let context = Context { purpose, key: &key, provider: &provider, owner: [b"", b""], generation };
            let sealed = ring.seal(&context, &text).unwrap();
            let opened = ring.open(&context, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), text.as_slice());
        }

        #[test]
        fn any_change_is_an_error(
            text in proptest::collection::vec(any::<u8>(), 0..=4096),
            at in any::<prop::sample::Index>(),
            mask in 1_u8..,
        ) {
            let ring = ring(&["a", "b"]);
            let mut sealed = ring.seal(&HOME, &text).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= mask;
            prop_assert!(ring.open(&HOME, &sealed).is_err());
        }

        #[test]
        fn strangers_bytes_are_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..=512),
            well_formed in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if well_formed {
                bytes.splice(..0, [FORMAT, 1, b'a']);
            }
            prop_assert!(ring(&["a"]).open(&HOME, &bytes).is_err());
        }

        #[test]
        fn no_two_contexts_share_their_authenticated_data(
            one in (any::<[u8; 32]>(), ".{0,8}", any::<u64>()),
            two in (any::<[u8; 32]>(), ".{0,8}", any::<u64>()),
        ) {
            let data = |(key, provider, generation): &([u8; 32], String, u64)| {
                Context { purpose: Purpose::Session, key, provider, owner: [b"", b""], generation: *generation }
                    .authenticated_data(FORMAT)
            };
            prop_assert_eq!(one == two, data(&one) == data(&two));
        }
    }
}
