//! Sessions in this process: fast, alone, and gone at exit.

mod logins;
mod marks;
mod owners;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use self::logins::Logins;
use self::marks::Marks;
use self::owners::Owners;
use self::sessions::Sessions;
use super::record::{Owner, Record, SessionKey};
use super::{Announce, CHANGES_WAITING, Change, Claim, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::primitives::clock::{Clock, Timestamp};

/// Keys are hashes, so any byte of one spreads them evenly.
const SHARDS: usize = 64;

/// Most expired entries that one write removes on the side: more than it adds, so that they cannot pile up, and few
/// enough that no request pays for another's litter.
const SWEEP: usize = 8;

/// Default for the most sessions; with 4 KiB each they fill 4 GiB.
const MAX_SESSIONS: usize = 1_000_000;

/// Most logins under way. Strangers begin them, so the bound must hold memory: some 64 MiB.
const MAX_LOGINS: usize = 65_536;

/// Most marks, some 128 MiB. They come of what providers sign and administrators do, and live for minutes; what strangers
/// can cause has a limit of its own, far below (`login/frontchannel.rs`).
const MAX_MARKS: usize = 1_048_576;

/// The memory store.
pub struct MemoryStore {
    clock: Clock,
    shards: Box<[Mutex<Shard>]>,
    owners: Owners,
    changes: broadcast::Sender<Change>,
    sessions_per_shard: usize,
    logins_per_shard: usize,
    marks_per_shard: usize,
}

/// One part of the store.
#[derive(Default)]
struct Shard {
    sessions: Sessions,
    logins: Logins,
    marks: Marks,
}

impl MemoryStore {
    /// An empty store of at most 1,000,000 sessions, 65,536 logins under way and 1,048,576 marks.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::with_limits(clock, MAX_SESSIONS, MAX_LOGINS, MAX_MARKS)
    }

    /// An empty store of at most about so many sessions, logins under way and marks (each shard has its part of them). A
    /// full store refuses new sessions, and drops the login that would end first: logins cost a stranger nothing. It refuses
    /// new marks, too, for one that is forgotten before its time would let a login pass that a logout has overtaken, or a
    /// logout token twice.
    #[must_use]
    pub fn with_limits(clock: Clock, sessions: usize, logins: usize, marks: usize) -> Self {
        Self {
            clock,
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            owners: Owners::new(SHARDS),
            changes: broadcast::Sender::new(CHANGES_WAITING),
            sessions_per_shard: sessions.div_ceil(SHARDS),
            logins_per_shard: logins.div_ceil(SHARDS),
            marks_per_shard: marks.div_ceil(SHARDS),
        }
    }

    fn shard(&self, key: &[u8; 32]) -> Result<MutexGuard<'_, Shard>, StoreError> {
        let [first, ..] = key;
        let shard = self.shards.get(usize::from(*first) % SHARDS);
        let shard = shard.ok_or_else(|| StoreError::Unavailable("no such shard".to_owned()))?;
        Ok(lock(shard))
    }

    fn sweep(&self, shard: &mut Shard, now: Timestamp) {
        for _ in 0..SWEEP {
            let Some((key, record)) = shard.sessions.remove_first_ended(now) else { break };
            self.owners.remove(&key, &record);
        }
        for _ in 0..SWEEP {
            if !shard.logins.drop_first_ended(now) {
                break;
            }
        }
        for _ in 0..SWEEP {
            if !shard.marks.drop_first_ended(now) {
                break;
            }
        }
    }

    /// Nobody listening is no error.
    fn announce(&self, change: Change) {
        let _ = self.changes.send(change);
    }
}

/// Nothing panics while it holds a lock; were it to, each change is whole in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl SessionStore for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        let mut shard = self.shard(key.as_bytes())?;
        self.sweep(&mut shard, self.clock.now());
        if shard.sessions.len() >= self.sessions_per_shard && !shard.sessions.contains(key) {
            return Err(StoreError::Unavailable("the memory store is full".to_owned()));
        }
        if let Some(old) = shard.sessions.put(*key, record.clone()) {
            self.owners.remove(key, &old);
        }
        self.owners.add(key, record);
        Ok(())
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        Ok(self.shard(key.as_bytes())?.sessions.living(key, self.clock.now()).cloned())
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError> {
        let mut shard = self.shard(key.as_bytes())?;
        let now = self.clock.now();
        self.sweep(&mut shard, now);
        let Some(old) = shard.sessions.living(key, now) else { return Ok(Swap::Gone) };
        if old.version != expected {
            return Ok(Swap::Conflict);
        }
        let mut record = record.clone();
        record.last_seen = record.last_seen.max(old.last_seen);
        record.idle_end = record.idle_end.max(old.idle_end);
        record.returning_end = record.returning_end.max(old.returning_end);
        let version = record.version;
        shard.sessions.put(*key, record);
        drop(shard);
        if announce == Announce::Everyone {
            self.announce(Change::Replaced(*key, version));
        }
        Ok(Swap::Stored)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let now = self.clock.now();
        for touch in touches {
            self.shard(touch.key.as_bytes())?.sessions.touch(touch, now);
        }
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let mut shard = self.shard(key.as_bytes())?;
        let Some(record) = shard.sessions.remove(key) else { return Ok(None) };
        self.owners.remove(key, &record);
        drop(shard);
        if record.end() <= self.clock.now() {
            return Ok(None);
        }
        self.announce(Change::Ended(*key));
        Ok(Some(record))
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let now = self.clock.now();
        let mut found = Vec::new();
        for key in self.owners.of(owner) {
            let shard = self.shard(key.as_bytes())?;
            // The index names owners by hash: the record has the last word.
            let record = shard.sessions.living(&key, now).filter(|record| owner.owns(record));
            found.extend(record.map(|record| (key, record.clone())));
        }
        Ok(found)
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        let now = self.clock.now();
        let mut claimed = Vec::new();
        for shard in &self.shards {
            let room = claim.limit - claimed.len();
            claimed.extend(lock(shard).sessions.claim_due(claim, room, now));
        }
        Ok(claimed)
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        for (key, due) in due {
            self.shard(key.as_bytes())?.sessions.reschedule(key, Some(*due));
        }
        Ok(())
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut shard = self.shard(&key.browser)?;
        let now = self.clock.now();
        self.sweep(&mut shard, now);
        Ok(shard.logins.put(key, sealed, expires, self.logins_per_shard, now))
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.shard(&key.browser)?.logins.take(key, self.clock.now()))
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        let mut shard = self.shard(&key.0)?;
        let now = self.clock.now();
        self.sweep(&mut shard, now);
        if shard.marks.len() >= self.marks_per_shard && shard.marks.get(key, now).is_none() {
            while shard.marks.drop_first_ended(now) {}
            if shard.marks.len() >= self.marks_per_shard {
                return Err(StoreError::Unavailable("the memory store has no room for marks".to_owned()));
            }
        }
        Ok(shard.marks.put(key, at, expires, now))
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.shard(&key.0)?.marks.get(key, self.clock.now()))
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let now = self.clock.now();
        let mut counts = BTreeMap::new();
        for shard in &self.shards {
            lock(shard).sessions.count_by_key(&mut counts, now);
        }
        Ok(counts)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
