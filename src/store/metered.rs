//! A store that counts and times what the store below it does.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::{LoginKey, SessionStore, StoreError, Swap, Touch};
use crate::primitives::clock::Timestamp;
use crate::session::model::{Record, SessionKey};
use crate::telemetry::Metrics;

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
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.store_operation_duration_seconds.with_label_values(&[op]).observe(seconds);
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

    async fn replace(&self, key: &SessionKey, expected: u64, record: &Record) -> Result<Swap, StoreError> {
        self.count("replace", self.inner.replace(key, expected, record)).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.count("touch", self.inner.touch(touches)).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        self.count("delete", self.inner.delete(key)).await
    }

    async fn put_login(&self, key: &LoginKey, sealed: &[u8], expires: Timestamp) -> Result<(), StoreError> {
        self.count("put_login", self.inner.put_login(key, sealed, expires)).await
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.count("take_login", self.inner.take_login(key)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.count("ping", self.inner.ping()).await
    }

    async fn warnings(&self) -> Vec<String> {
        self.inner.warnings().await
    }
}
