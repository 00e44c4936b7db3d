//! The write-ahead intent of a refresh: written before the refresh token is shown, kept alive while the owner is, and
//! taken back when nothing came of it (behaviour R2, R9).

use std::sync::Arc;
use std::time::Duration;

use crate::primitives::clock::Timestamp;
use crate::primitives::random;
use crate::session::manager::{SessionError, Sessions};
use crate::store::record::{Intent, Record, SessionKey};
use crate::store::{Announce, Swap};

/// How long an intent holds without a sign of life. Short, so that a refresh whose owner died is taken over within a
/// provider's grace of 10 s.
pub(super) const LEASE: Duration = Duration::from_secs(4);
/// How often a living owner renews it.
const RENEW_EVERY: Duration = Duration::from_millis(1_300);
/// How long an owner tries to take its intent back from a store that fails.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);

/// An intent of ours in the record.
pub(super) struct Lease {
    sessions: Arc<Sessions>,
    key: SessionKey,
    intent: Intent,
    /// The record as we wrote it last.
    pub(super) record: Record,
}

/// What became of the wish for a lease.
pub(super) enum Taken {
    /// Ours.
    Ours(Box<Lease>),
    /// The record changed meanwhile: look again.
    Changed,
    /// The session has ended.
    Gone,
    /// The store does not say.
    Unknown(SessionError),
}

impl Lease {
    /// Writes the intent. `begun` is when the token may have been shown for the first time: now, or when the owner that
    /// died wrote its own.
    pub(super) async fn take(sessions: &Arc<Sessions>, key: SessionKey, read: &Record, begun: Timestamp) -> Taken {
        let Ok(owner) = random::bytes() else { return Taken::Changed };
        let intent = Intent { owner: u64::from_ne_bytes(owner), begun, until: sessions.clock().now().plus(LEASE) };
        let lease = |record| Self { sessions: sessions.clone(), key, intent, record };
        match sessions.amend(&key, read, Announce::Nobody, |record| record.intent = Some(intent)).await {
            Ok((Swap::Stored, record)) => Taken::Ours(Box::new(lease(record))),
            Ok((Swap::Conflict, _)) => Taken::Changed,
            Ok((Swap::Gone, _)) => Taken::Gone,
            Err(error) => {
                // It may stand there all the same, and would pass for that of a dead owner.
                tokio::spawn(lease(read.clone()).give_back(None, Duration::ZERO));
                Taken::Unknown(error)
            }
        }
    }

    /// When the token may have been shown for the first time.
    pub(super) fn begun(&self) -> Timestamp {
        self.intent.begun
    }

    /// Waits for `work` and renews the lease as long as it takes. An intent that is lost is not written again: the work
    /// cannot be undone, and its result meets whatever stands in the record then.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut held = true;
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = tokio::time::sleep(RENEW_EVERY), if held => {}
            }
            tokio::select! {
                biased;
                result = &mut work => return result,
                still = self.renew() => held = still,
            }
        }
    }

    /// `false` if the intent is no longer ours.
    async fn renew(&mut self) -> bool {
        let until = self.sessions.clock().now().plus(LEASE);
        let intent = Intent { until, ..self.intent };
        let renewed =
            self.sessions.amend(&self.key, &self.record, Announce::Nobody, |record| record.intent = Some(intent)).await;
        match renewed {
            Ok((Swap::Stored, record)) => self.record = record,
            Ok((Swap::Conflict, _)) => match self.reread().await {
                Ok(ours) => return ours,
                Err(error) => tracing::debug!(%error, "the lease of a refresh could not be renewed"),
            },
            Ok((Swap::Gone, _)) => return false,
            Err(error) => tracing::debug!(%error, "the lease of a refresh could not be renewed"),
        }
        true
    }

    /// Reads the record anew; whether the intent there is ours.
    async fn reread(&mut self) -> Result<bool, SessionError> {
        let Some(record) = self.sessions.store().load(&self.key).await? else { return Ok(false) };
        let ours = record.intent.is_some_and(|intent| intent.owner == self.intent.owner);
        if ours {
            self.record = record;
        }
        Ok(ours)
    }

    /// Takes the intent back: the token was not shown, or the provider did nothing with it. Tries on while the store
    /// fails, or the next to look would take us for dead. `retry_at` tells all replicas when to try again.
    pub(super) async fn give_back(self, retry_at: Option<Timestamp>, first_pause: Duration) {
        let change = |record: &mut Record| {
            record.intent = None;
            record.retry_at = retry_at;
        };
        self.settle(first_pause, change).await;
    }

    /// Marks the refresh token as perhaps used up, in place of the intent.
    pub(super) async fn doubt(self) {
        self.settle(Duration::ZERO, doubt).await;
    }

    async fn settle(mut self, first_pause: Duration, change: impl Fn(&mut Record) + Send + Sync) {
        let started = tokio::time::Instant::now();
        let mut pause = first_pause.max(Duration::from_millis(50));
        loop {
            match self.sessions.amend(&self.key, &self.record, Announce::Everyone, &change).await {
                Ok((Swap::Stored | Swap::Gone, _)) => return,
                Ok((Swap::Conflict, _)) => match self.reread().await {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(_) => {}
                },
                Err(_) => {}
            }
            if started.elapsed() > RETURN_PATIENCE {
                tracing::warn!("the intent of a refresh could not be taken back; its token will count as used");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// What a record says once its refresh token is in doubt. The generation stays: an owner that turns out to be alive puts
/// its tokens in all the same.
pub(super) fn doubt(record: &mut Record) {
    record.intent = None;
    record.refresh_in_doubt = true;
    record.due = None;
}
