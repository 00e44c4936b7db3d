//! A store that counts and times what the store below it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::record::{Owner, Record, SessionKey};
use super::{Announce, Change, Claim, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::primitives::clock::Timestamp;
use crate::telemetry::Metrics;
use crate::telemetry::traces::{self, Value};

/// Wraps any store.
pub struct Metered<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S: SessionStore> Metered<S> {
    /// Counts in `metrics` what `inner` does.
    pub fn new(inner: S, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn count<T>(
        &self,
        op: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = call.await;
        let word = match &result {
            Ok(_) => "ok",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Damaged(_)) => "damaged",
        };
        self.metrics.store_operations_total.with_label_values(&[op, word]).inc();
        let took = started.elapsed();
        self.metrics.store_operation_duration_seconds.with_label_values(&[op]).observe(took.as_secs_f64());
        traces::child(op, (started, took), |span| {
            // As the semantic conventions call it.
            let system = if self.inner.kind() == "postgres" { "postgresql" } else { self.inner.kind() };
            span.set("db.system.name", Value::Word(system));
            span.set("db.operation.name", Value::Word(op));
            if result.is_err() {
                span.fail(word);
            }
        });
        result
    }
}

#[async_trait]
impl<S: SessionStore> SessionStore for Metered<S> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        self.count("create", self.inner.create(key, record)).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.count("load", self.inner.load(key)).await
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError> {
        self.count("replace", self.inner.replace(key, expected, record, announce)).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.count("touch", self.inner.touch(touches)).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.count("delete", self.inner.delete(key)).await
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        self.count("find", self.inner.find(owner)).await
    }

    async fn delete_of(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        self.count("delete_of", self.inner.delete_of(owner)).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        self.count("claim_due", self.inner.claim_due(claim)).await
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        self.count("reschedule", self.inner.reschedule(due)).await
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.count("put_login", self.inner.put_login(key, sealed, expires)).await
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.count("take_login", self.inner.take_login(key)).await
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        self.count("mark", self.inner.mark(key, at, expires)).await
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        self.count("marked", self.inner.marked(key)).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes()
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.count("census", self.inner.census()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.count("ping", self.inner.ping()).await
    }

    async fn warnings(&self) -> Vec<String> {
        self.inner.warnings().await
    }
}
