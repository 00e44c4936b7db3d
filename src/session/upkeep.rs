//! What is looked after once in a while: how many sessions each key has sealed, and whether all replicas mean the same
//! key by the same id (behaviour K4).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::manager::Sessions;
use crate::primitives::clock::Timestamp;
use crate::store::{MarkKey, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::audit::{Entry, Event};

/// Pause between two counts: each walks over all sessions.
const COUNT_EVERY: Duration = Duration::from_secs(300);
/// Pause between two comparisons of keys.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// How long a fingerprint stands in the store, and so how long a key that was set right still looks wrong.
const FINGERPRINT_LIFE: Duration = Duration::from_secs(600);
/// Pause after a store that did not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// The ids of keys that mean other keys elsewhere. Clones share it.
#[derive(Clone, Default)]
pub struct Conflicts(Arc<Mutex<Vec<String>>>);

impl Conflicts {
    /// For `readyz?verbose`: whether all is well, and what is not.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = || format!("another replica has another secret under the id {}", ids.join(", "));
        (ids.is_empty(), if ids.is_empty() { String::new() } else { why() })
    }

    fn set(&self, ids: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ids;
    }
}

impl Sessions {
    /// Keeps the gauge of sessions by key up to date, for ever.
    pub async fn keep_count(&self, metrics: &Metrics) {
        loop {
            match self.count_by_key().await {
                Ok(counts) => {
                    // A key that sealed nothing any more has no series any more, unless it is on the ring.
                    metrics.sessions_by_key.reset();
                    for (key, count) in counts {
                        let count = i64::try_from(count).unwrap_or(i64::MAX);
                        metrics.sessions_by_key.with_label_values(&[&key]).set(count);
                    }
                    tokio::time::sleep(COUNT_EVERY).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "sessions could not be counted");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Compares the keys of the ring with those of all replicas, for ever.
    pub async fn compare_keys(&self, conflicts: &Conflicts) {
        let mut known = Vec::new();
        loop {
            let pause = match self.conflicting_keys().await {
                Ok(ids) => {
                    for id in ids.iter().filter(|id| !known.contains(*id)) {
                        tracing::error!(
                            key = id,
                            "another replica has another secret under the same key id; sessions that one of them seals \
                             are none for the other. Give all replicas the same keys, and every new key a new id"
                        );
                        self.audit().tell(Event::KeyChanged, &Entry { reason: Some("conflict"), ..Entry::default() });
                    }
                    known.clone_from(&ids);
                    conflicts.set(ids);
                    COMPARE_EVERY
                }
                Err(error) => {
                    tracing::debug!(%error, "keys could not be compared");
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Ids of our keys that somebody else has written another fingerprint for. Whoever comes first writes it; as a mark
    /// holds a moment, the fingerprint is written as one.
    async fn conflicting_keys(&self) -> Result<Vec<String>, StoreError> {
        let mut conflicts = Vec::new();
        for (id, fingerprint) in self.ring().fingerprints() {
            let key =
                MarkKey(Sha256::new_with_prefix(b"cloakroom key fingerprint\0").chain_update(id).finalize().into());
            let ours = Timestamp::from_millis(fingerprint);
            let expires = self.clock().now().plus(FINGERPRINT_LIFE);
            if !self.store().mark(&key, ours, expires).await?
                && self.store().marked(&key).await?.is_some_and(|theirs| theirs != ours)
            {
                conflicts.push(id.to_owned());
            }
        }
        Ok(conflicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Refresh, SealingKey, Session};
    use crate::primitives::clock::Clock;
    use crate::primitives::secret::Key256;
    use crate::session::key_ring::KeyRing;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn k4_replicas_with_another_key_under_the_same_id_find_each_other() {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let replica = |keys: &[(&str, u8)]| {
            let keys = keys.iter().map(|(id, byte)| SealingKey { id: (*id).into(), secret: Key256::new([*byte; 32]) });
            let ring = KeyRing::new(&keys.collect::<Vec<_>>()).unwrap();
            Sessions::new(&Session::default(), &Refresh::default(), store.clone(), ring, clock.clone(), metrics.clone())
                .0
        };
        let one = replica(&[("new", 1), ("old", 2)]);
        let same = replica(&[("old", 2), ("new", 1)]);
        let other = replica(&[("new", 3), ("old", 2), ("third", 1)]);
        let none: Vec<String> = Vec::new();
        for _ in 0..2 {
            assert_eq!(one.conflicting_keys().await.unwrap(), none);
            assert_eq!(same.conflicting_keys().await.unwrap(), none);
            assert_eq!(other.conflicting_keys().await.unwrap(), ["new"]);
        }
        // Its own fingerprint comes first once the others' has ended; then they notice.
        clock.advance(FINGERPRINT_LIFE);
        assert_eq!(other.conflicting_keys().await.unwrap(), none);
        assert_eq!(one.conflicting_keys().await.unwrap(), ["new"]);
    }

    #[test]
    fn a_fingerprint_is_a_moment_that_every_store_can_keep_and_no_part_of_the_key() {
        for byte in 0..=255 {
            let key = SealingKey { id: "k".into(), secret: Key256::new([byte; 32]) };
            let ring = KeyRing::new(&[key]).unwrap();
            let (id, fingerprint) = ring.fingerprints().next().unwrap();
            assert_eq!(id, "k");
            assert!(fingerprint < 1 << 42);
        }
    }
}
