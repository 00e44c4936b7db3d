//! A memory store that can be switched off, for tests of what an outage does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::memory::MemoryStore;
use super::record::{Owner, Record, SessionKey};
use super::{Announce, Change, Claim, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::primitives::clock::{Clock, Timestamp};

pub(crate) struct FrailStore {
    inner: MemoryStore,
    down: AtomicBool,
}

impl FrailStore {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { inner: MemoryStore::new(clock), down: AtomicBool::new(false) }
    }

    /// From now on nothing works, or everything does again.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn up(&self) -> Result<&MemoryStore, StoreError> {
        let down = self.down.load(Ordering::SeqCst);
        if down { Err(StoreError::Unavailable("switched off".into())) } else { Ok(&self.inner) }
    }
}

#[async_trait]
impl SessionStore for FrailStore {
    fn kind(&self) -> &'static str {
        "frail"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        self.up()?.create(key, record).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.up()?.load(key).await
    }

    async fn replace(&self, key: &SessionKey, was: u64, record: &Record, tell: Announce) -> Result<Swap, StoreError> {
        self.up()?.replace(key, was, record, tell).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.up()?.touch(touches).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.up()?.delete(key).await
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        self.up()?.find(owner).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        self.up()?.claim_due(claim).await
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        self.up()?.reschedule(due).await
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.up()?.put_login(key, sealed, expires).await
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.up()?.take_login(key).await
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        self.up()?.mark(key, at, expires).await
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        self.up()?.marked(key).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes()
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.up()?.census().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.up()?.ping().await
    }
}
