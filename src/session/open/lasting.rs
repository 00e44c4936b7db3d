//! How long an opened session lasts: uses move its idle end, the store is asked from time to time, and it may be ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Open;
use crate::primitives::clock::Timestamp;
use crate::store::Touch;
use crate::store::record::Record;

/// How long a session lasts after a use.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) struct Lasting {
    pub(in crate::session) idle: Duration,
    /// Zero = nobody is recognised afterwards.
    pub(in crate::session) returning: Duration,
}

impl Lasting {
    /// Idle and returning end of a session used at that moment.
    pub(in crate::session) fn from(self, used: Timestamp) -> (Timestamp, Timestamp) {
        let returning = if self.returning.is_zero() { Timestamp::default() } else { used.plus(self.returning) };
        (used.plus(self.idle), returning)
    }
}

impl Open {
    /// When it is over unless used before.
    #[must_use]
    pub fn idle_end(&self) -> Timestamp {
        Timestamp::from_millis(self.idle_end.load(Ordering::Relaxed))
    }

    /// When it is over in any case.
    #[must_use]
    pub fn absolute_end(&self) -> Timestamp {
        self.absolute_end
    }

    /// Whether its user is still recognised, logged on or not.
    #[must_use]
    pub fn is_known(&self, now: Timestamp) -> bool {
        let returning = Timestamp::from_millis(self.returning_end.load(Ordering::Relaxed));
        !self.is_over(now) || now < returning && !self.ended.load(Ordering::Relaxed)
    }

    /// Whether the absolute end is that of the refresh token, which a refresh may move.
    #[must_use]
    pub fn ends_with_provider(&self) -> bool {
        self.ends_with_provider
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.absolute_end || now >= self.idle_end() || self.ended.load(Ordering::Relaxed)
    }

    /// Whether it was ended before its time.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the store was asked within `ttl`.
    pub(in crate::session) fn is_current(&self, now: Timestamp, ttl: Duration) -> bool {
        now.since(self.checked()) < ttl
    }

    /// When the store was asked last.
    pub(in crate::session) fn checked(&self) -> Timestamp {
        Timestamp::from_millis(self.checked.load(Ordering::Relaxed))
    }

    /// The store is to be asked before the next use.
    pub(in crate::session) fn doubt(&self) {
        self.checked.store(0, Ordering::Relaxed);
    }

    /// It was ended: no use is valid any more, whoever holds this copy.
    pub(in crate::session) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Takes over what a re-read record says about times.
    pub(in crate::session) fn confirm(&self, record: &Record, now: Timestamp) {
        self.last_seen.fetch_max(record.last_seen.as_millis(), Ordering::Relaxed);
        self.idle_end.fetch_max(record.idle_end.as_millis(), Ordering::Relaxed);
        self.returning_end.fetch_max(record.returning_end.as_millis(), Ordering::Relaxed);
        self.checked.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Notes a use; gives the one caller in each `step` what to tell the store.
    pub(in crate::session) fn note_use(&self, now: Timestamp, lasting: Lasting, step: Duration) -> Option<Touch> {
        let seen = self.last_seen.load(Ordering::Relaxed);
        if now.since(Timestamp::from_millis(seen)) < step {
            return None;
        }
        if self.last_seen.compare_exchange(seen, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        let (idle_end, returning_end) = lasting.from(now);
        self.idle_end.fetch_max(idle_end.as_millis(), Ordering::Relaxed);
        self.returning_end.fetch_max(returning_end.as_millis(), Ordering::Relaxed);
        Some(Touch { key: self.key, last_seen: now, idle_end, returning_end })
    }
}
