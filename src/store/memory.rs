//! Sessions in this process: fast, alone, and gone at exit.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{LOGINS_PER_BROWSER, LoginKey, SessionStore, StoreError, Swap, Touch};
use crate::primitives::clock::{Clock, Timestamp};
use crate::session::model::{Record, SessionKey};

/// Keys are hashes, so any byte of one spreads them evenly.
const SHARDS: usize = 64;

/// Most expired entries that one write removes on the side: more than it adds, so that they cannot pile up, and few
/// enough that no request pays for another's litter.
const SWEEP: usize = 8;

/// Default for the most sessions; with 4 KiB each they fill 4 GiB.
const MAX_SESSIONS: usize = 1_000_000;

/// Most logins under way. Strangers begin them, so the bound must hold memory: some 64 MiB.
const MAX_LOGINS: usize = 65_536;

/// The memory store.
pub struct MemoryStore {
    clock: Clock,
    shards: Box<[Mutex<Shard>]>,
    sessions_per_shard: usize,
    logins_per_shard: usize,
}

impl MemoryStore {
    /// An empty store of at most 1,000,000 sessions and 65,536 logins under way.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::with_limits(clock, MAX_SESSIONS, MAX_LOGINS)
    }

    /// An empty store of at most about so many sessions and logins under way (each shard has its part of them). A
    /// full store refuses new sessions, and drops the login that would end first: logins cost a stranger nothing.
    #[must_use]
    pub fn with_limits(clock: Clock, sessions: usize, logins: usize) -> Self {
        Self {
            clock,
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            sessions_per_shard: sessions.div_ceil(SHARDS),
            logins_per_shard: logins.div_ceil(SHARDS),
        }
    }

    fn shard(&self, key: &[u8; 32]) -> Result<MutexGuard<'_, Shard>, StoreError> {
        let [first, ..] = key;
        let shard = self.shards.get(usize::from(*first) % SHARDS);
        let shard = shard.ok_or_else(|| StoreError::Unavailable("no such shard".to_owned()))?;
        // Nothing panics while it holds the lock; were it to, each change is whole in itself.
        Ok(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        let mut shard = self.shard(key.as_bytes())?;
        shard.sweep(self.clock.now());
        if shard.sessions.len() >= self.sessions_per_shard && !shard.sessions.contains_key(key) {
            return Err(StoreError::Unavailable("the memory store is full".to_owned()));
        }
        shard.put(*key, record.clone());
        Ok(())
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        Ok(self.shard(key.as_bytes())?.living(key, self.clock.now()).cloned())
    }

    async fn replace(&self, key: &SessionKey, expected: u64, record: &Record) -> Result<Swap, StoreError> {
        let mut shard = self.shard(key.as_bytes())?;
        let now = self.clock.now();
        shard.sweep(now);
        let Some(old) = shard.living(key, now) else { return Ok(Swap::Gone) };
        if old.version != expected {
            return Ok(Swap::Conflict);
        }
        let mut record = record.clone();
        record.last_seen = record.last_seen.max(old.last_seen);
        record.idle_end = record.idle_end.max(old.idle_end);
        shard.put(*key, record);
        Ok(Swap::Stored)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let now = self.clock.now();
        for touch in touches {
            self.shard(touch.key.as_bytes())?.touch(touch, now);
        }
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let mut shard = self.shard(key.as_bytes())?;
        let ended = shard.living(key, self.clock.now()).cloned();
        shard.remove(key);
        Ok(ended)
    }

    async fn put_login(&self, key: &LoginKey, sealed: &[u8], expires: Timestamp) -> Result<(), StoreError> {
        let mut shard = self.shard(&key.browser)?;
        let now = self.clock.now();
        shard.sweep(now);
        shard.remove_login(key);
        while shard.login_ends.len() >= self.logins_per_shard && shard.drop_first_ending_login() {}
        shard.make_room_for_login(key.browser, now);
        let login = Login { state: key.state, sealed: sealed.to_vec(), expires };
        shard.logins.entry(key.browser).or_default().push(login);
        shard.login_ends.insert((expires, key.browser, key.state));
        Ok(())
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        let login = self.shard(&key.browser)?.remove_login(key);
        let now = self.clock.now();
        Ok(login.filter(|login| login.expires > now).map(|login| login.sealed))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One part of the store. Each `…_ends` holds exactly the entries of the map beside it, by the time they end.
#[derive(Default)]
struct Shard {
    sessions: HashMap<SessionKey, Record>,
    session_ends: BTreeSet<(Timestamp, [u8; 32])>,
    /// By browser, oldest first.
    logins: HashMap<[u8; 32], Vec<Login>>,
    /// When, which browser, which state.
    login_ends: BTreeSet<(Timestamp, [u8; 32], [u8; 32])>,
}

struct Login {
    state: [u8; 32],
    sealed: Vec<u8>,
    expires: Timestamp,
}

impl Shard {
    fn living(&self, key: &SessionKey, now: Timestamp) -> Option<&Record> {
        self.sessions.get(key).filter(|record| record.end() > now)
    }

    fn put(&mut self, key: SessionKey, record: Record) {
        self.session_ends.insert((record.end(), *key.as_bytes()));
        let end = record.end();
        if let Some(old) = self.sessions.insert(key, record).filter(|old| old.end() != end) {
            self.session_ends.remove(&(old.end(), *key.as_bytes()));
        }
    }

    fn remove(&mut self, key: &SessionKey) {
        if let Some(old) = self.sessions.remove(key) {
            self.session_ends.remove(&(old.end(), *key.as_bytes()));
        }
    }

    fn touch(&mut self, touch: &Touch, now: Timestamp) {
        let Some(record) = self.sessions.get_mut(&touch.key).filter(|record| record.end() > now) else { return };
        let old_end = record.end();
        record.last_seen = record.last_seen.max(touch.last_seen);
        record.idle_end = record.idle_end.max(touch.idle_end);
        let end = record.end();
        if end != old_end {
            self.session_ends.remove(&(old_end, *touch.key.as_bytes()));
            self.session_ends.insert((end, *touch.key.as_bytes()));
        }
    }

    fn remove_login(&mut self, key: &LoginKey) -> Option<Login> {
        let logins = self.logins.get_mut(&key.browser)?;
        let at = logins.iter().position(|login| login.state == key.state)?;
        let login = logins.remove(at);
        if logins.is_empty() {
            self.logins.remove(&key.browser);
        }
        self.login_ends.remove(&(login.expires, key.browser, key.state));
        Some(login)
    }

    /// Drops the browser's expired logins and, if that is not enough, its oldest one.
    fn make_room_for_login(&mut self, browser: [u8; 32], now: Timestamp) {
        let Some(logins) = self.logins.get(&browser).filter(|logins| logins.len() >= LOGINS_PER_BROWSER) else {
            return;
        };
        let expired: Vec<_> = logins.iter().filter(|login| login.expires <= now).map(|login| login.state).collect();
        let oldest = logins.first().map(|login| login.state).filter(|_| expired.is_empty());
        for state in expired.into_iter().chain(oldest) {
            self.remove_login(&LoginKey { browser, state });
        }
    }

    /// `false` if there is none.
    fn drop_first_ending_login(&mut self) -> bool {
        let Some(&(_, browser, state)) = self.login_ends.first() else { return false };
        self.remove_login(&LoginKey { browser, state }).is_some()
    }

    /// Removes at most [`SWEEP`] expired sessions and as many expired logins.
    fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            let Some((_, key)) = self.session_ends.first().filter(|(end, _)| *end <= now) else { break };
            let key = SessionKey::from_bytes(*key);
            self.remove(&key);
        }
        for _ in 0..SWEEP {
            if self.login_ends.first().is_none_or(|(end, ..)| *end > now) || !self.drop_first_ending_login() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::conformance::{self, record};

    const START: Timestamp = Timestamp::from_secs(1_000_000);

    conformance::suite!(async {
        let clock = Clock::manual(START);
        let store = MemoryStore::new(clock.clone());
        (store, clock, ())
    });

    /// Keys of one shard, so that its limits show.
    fn key(n: u8) -> SessionKey {
        let mut bytes = [0; 32];
        bytes[31] = n;
        SessionKey::from_bytes(bytes)
    }

    fn counts(store: &MemoryStore) -> [usize; 4] {
        let shard = store.shard(&[0; 32]).unwrap();
        let logins = shard.logins.values().map(Vec::len).sum();
        [shard.sessions.len(), shard.session_ends.len(), logins, shard.login_ends.len()]
    }

    #[tokio::test]
    async fn expired_sessions_are_swept_by_later_writes() {
        let clock = Clock::manual(START);
        let store = MemoryStore::new(clock.clone());
        for n in 0..20 {
            store.create(&key(n), &record(clock.now())).await.unwrap();
            store.put_login(&LoginKey { browser: [0; 32], state: [n; 32] }, b"x", START).await.unwrap();
        }
        clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(counts(&store)[..2], [20, 20], "reading the clock alone removes nothing");
        for n in 100..103 {
            store.create(&key(n), &record(clock.now())).await.unwrap();
        }
        assert_eq!(counts(&store), [3, 3, 0, 0]);
    }

    #[tokio::test]
    async fn every_change_keeps_map_and_order_alike() {
        let clock = Clock::manual(START);
        let store = MemoryStore::new(clock.clone());
        let first = record(clock.now());
        store.create(&key(1), &first).await.unwrap();
        store
            .create(&key(1), &Record { idle_end: first.idle_end.plus(Duration::from_secs(1)), ..first.clone() })
            .await
            .unwrap();
        assert_eq!(counts(&store)[..2], [1, 1]);
        let idle_end = first.idle_end.plus(Duration::from_secs(9));
        store.touch(&[Touch { key: key(1), last_seen: clock.now(), idle_end }]).await.unwrap();
        assert_eq!(counts(&store)[..2], [1, 1]);
        store.replace(&key(1), 1, &Record { version: 2, ..first }).await.unwrap();
        assert_eq!(counts(&store)[..2], [1, 1]);
        store.delete(&key(1)).await.unwrap();
        assert_eq!(counts(&store)[..2], [0, 0]);
    }

    #[tokio::test]
    async fn a_full_store_refuses_sessions_and_drops_logins() {
        let store = MemoryStore::with_limits(Clock::manual(START), 2 * SHARDS, 2 * SHARDS);
        let end = |n: u8| START.plus(Duration::from_secs(u64::from(n)));
        for n in 1..=2 {
            store.create(&key(n), &record(START)).await.unwrap();
        }
        assert!(matches!(store.create(&key(3), &record(START)).await, Err(StoreError::Unavailable(_))));
        store.create(&key(2), &record(START)).await.expect("there already, so it takes no more room");

        let login = |n: u8| {
            let mut browser = [0; 32];
            browser[31] = n;
            LoginKey { browser, state: [n; 32] }
        };
        for n in 1..=3 {
            store.put_login(&login(n), b"x", end(n)).await.unwrap();
        }
        assert_eq!(counts(&store), [2, 2, 2, 2]);
        assert!(store.take_login(&login(1)).await.unwrap().is_none(), "the first to end makes room");
        assert!(store.take_login(&login(3)).await.unwrap().is_some());
    }
}
