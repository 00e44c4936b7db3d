//! Which sessions an owner has: two sets of keys, found by a hash of the owner's name.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;

use super::super::record::{Owner, Record, SessionKey};
use super::lock;

/// The index. Its locks are taken while one of a session's shard is held, never the other way round.
pub(super) struct Owners {
    /// Two owners with one hash share a set; whoever asks looks at the records.
    hash: RandomState,
    shards: Box<[Mutex<HashMap<u64, Keys>>]>,
}

/// Nearly every owner has one session.
enum Keys {
    One(SessionKey),
    Many(Vec<SessionKey>),
}

impl Owners {
    pub(super) fn new(shards: usize) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(shards).collect();
        Self { hash: RandomState::new(), shards }
    }

    pub(super) fn add(&self, key: &SessionKey, record: &Record) {
        for owner in owners(record) {
            self.with(&owner, |name, keys| match keys.get_mut(&name) {
                None => {
                    keys.insert(name, Keys::One(*key));
                }
                Some(Keys::Many(many)) => many.push(*key),
                Some(one) => {
                    if let Keys::One(first) = *one {
                        *one = Keys::Many(vec![first, *key]);
                    }
                }
            });
        }
    }

    pub(super) fn remove(&self, key: &SessionKey, record: &Record) {
        for owner in owners(record) {
            self.with(&owner, |name, keys| {
                let empty = match keys.get_mut(&name) {
                    Some(Keys::One(one)) => one == key,
                    Some(Keys::Many(many)) => {
                        // One session may be there twice only if two owners share a hash.
                        if let Some(at) = many.iter().position(|known| known == key) {
                            many.swap_remove(at);
                        }
                        many.is_empty()
                    }
                    None => false,
                };
                if empty {
                    keys.remove(&name);
                }
            });
        }
    }

    pub(super) fn of(&self, owner: &Owner<'_>) -> Vec<SessionKey> {
        let found = self.with(owner, |name, keys| match keys.get(&name) {
            Some(Keys::One(key)) => vec![*key],
            Some(Keys::Many(keys)) => keys.clone(),
            None => Vec::new(),
        });
        found.unwrap_or_default()
    }

    fn with<T>(&self, owner: &Owner<'_>, act: impl FnOnce(u64, &mut HashMap<u64, Keys>) -> T) -> Option<T> {
        let name = match *owner {
            Owner::Subject { provider, subject } => self.hash.hash_one((0_u8, provider, subject)),
            Owner::ProviderSession { provider, sid } => self.hash.hash_one((1_u8, provider, sid)),
        };
        let at = usize::try_from(name % self.shards.len() as u64).ok()?;
        let mut keys = lock(self.shards.get(at)?);
        Some(act(name, &mut keys))
    }
}

fn owners(record: &Record) -> impl Iterator<Item = Owner<'_>> {
    let provider = record.provider.as_str();
    let session = record.provider_session.as_deref().map(|sid| Owner::ProviderSession { provider, sid });
    std::iter::once(Owner::Subject { provider, subject: &record.subject }).chain(session)
}
