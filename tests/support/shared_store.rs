//! A store in memory that several proxies share, and that fails or holds still when a test wants it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom::demo::Gate;
use cloakroom::primitives::clock::{Clock, Timestamp};
use cloakroom::store::memory::MemoryStore;
use cloakroom::store::record::{Owner, Record, SessionKey};
use cloakroom::store::{Announce, Change, Claim, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use tokio::sync::broadcast;

/// What a call of the store is for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Load,
    Find,
    Delete,
    Mark,
    Marked,
    PutLogin,
    Replace,
}

#[derive(Clone)]
pub(crate) struct SharedStore {
    inner: Arc<MemoryStore>,
    faults: Arc<Faults>,
    /// Tells changes in place of the store; there are none.
    silence: Option<broadcast::Sender<Change>>,
}

#[derive(Default)]
struct Faults {
    /// Calls to let through before all of the kind fail.
    failing: Mutex<Option<(Op, usize)>>,
    /// Held after the work is done, until the gate opens.
    held: Mutex<Option<(Op, Gate)>>,
    /// Done, and nobody hears of it.
    lost: Mutex<Option<Op>>,
    calls: AtomicUsize,
}

impl SharedStore {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self::over(MemoryStore::new(clock.clone()))
    }

    /// One with room for so many logins under way.
    pub(crate) fn with_logins(clock: &Clock, logins: usize) -> Self {
        Self::over(MemoryStore::with_limits(clock.clone(), 1_000, logins, 10_000))
    }

    fn over(store: MemoryStore) -> Self {
        Self { inner: Arc::new(store), faults: Arc::default(), silence: None }
    }

    /// The same store for a proxy that hears of no change.
    pub(crate) fn unheard(&self) -> Self {
        Self { silence: Some(broadcast::Sender::new(1)), ..self.clone() }
    }

    /// Calls of this kind fail from now on, after so many good ones.
    pub(crate) fn fail(&self, op: Op, after: usize) {
        *self.faults.failing.lock().unwrap() = Some((op, after));
        self.faults.calls.store(0, Ordering::SeqCst);
    }

    pub(crate) fn heal(&self) {
        *self.faults.failing.lock().unwrap() = None;
    }

    /// The next call of this kind does its work and then waits for the gate.
    pub(crate) fn hold(&self, op: Op) -> Gate {
        let gate = Gate::closed();
        *self.faults.held.lock().unwrap() = Some((op, gate.clone()));
        gate
    }

    /// The next call of this kind does its work, and fails.
    pub(crate) fn lose(&self, op: Op) {
        *self.faults.lost.lock().unwrap() = Some(op);
    }

    /// The next call of this kind waits for the gate after its work; failing ones do no work.
    async fn around<T>(
        &self,
        op: Op,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let failing = *self.faults.failing.lock().unwrap();
        if let Some((_, after)) = failing.filter(|(failing, _)| *failing == op)
            && self.faults.calls.fetch_add(1, Ordering::SeqCst) >= after
        {
            return Err(StoreError::Unavailable("switched off by a test".to_owned()));
        }
        let result = work.await;
        let held = self.faults.held.lock().unwrap().take_if(|(held, _)| *held == op);
        if let Some((_, gate)) = held {
            gate.pass().await;
        }
        if self.faults.lost.lock().unwrap().take_if(|lost| *lost == op).is_some() {
            return Err(StoreError::Unavailable("an answer is lost by a test".to_owned()));
        }
        result
    }
}

#[async_trait]
impl SessionStore for SharedStore {
    fn kind(&self) -> &'static str {
        "shared"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        self.around(Op::Create, self.inner.create(key, record)).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.around(Op::Load, self.inner.load(key)).await
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError> {
        self.around(Op::Replace, self.inner.replace(key, expected, record, announce)).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.inner.touch(touches).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.around(Op::Delete, self.inner.delete(key)).await
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        self.around(Op::Find, self.inner.find(owner)).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        self.inner.claim_due(claim).await
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        self.inner.reschedule(due).await
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.around(Op::PutLogin, self.inner.put_login(key, sealed, expires)).await
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.take_login(key).await
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        self.around(Op::Mark, self.inner.mark(key, at, expires)).await
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        self.around(Op::Marked, self.inner.marked(key)).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.silence.as_ref().map_or_else(|| self.inner.changes(), broadcast::Sender::subscribe)
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.inner.census().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}
