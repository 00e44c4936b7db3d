//! What refreshes have left to settle with a store that fails: new tokens to be stored, an intent to be taken back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::session::manager::SessionError;
use crate::store::StoreError;
use crate::store::record::SessionKey;
use crate::telemetry::Throttle;

/// Most sessions at a time. What a refresh holds for one takes a few KiB, about what the session itself does.
const MOST: usize = 4_096;

/// A record that was unreadable for so long, for example because a newer version has written it, is given up.
const FOR_GOOD: Duration = Duration::from_secs(30);

/// The sessions for which something is held, or may have to be: one place each.
#[derive(Clone, Default)]
pub struct Unsettled(Arc<Mutex<HashSet<SessionKey>>>);

/// The place of one session; free again when it is dropped.
pub(super) struct Place {
    key: SessionKey,
    among: Unsettled,
}

/// Tells a record that cannot be read, now and from now on, from a store that answers something odd for a moment.
#[derive(Default)]
pub(super) struct Unreadable(Option<Instant>);

impl Unreadable {
    /// Whether nothing but a record that cannot be read was met for [`FOR_GOOD`].
    pub(super) fn is_for_good(&mut self, error: &SessionError) -> bool {
        if !matches!(error, SessionError::Store(StoreError::Damaged(_))) {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() >= FOR_GOOD
    }
}

impl Unsettled {
    /// Whether there is nothing: no intent that waits to be taken back, no tokens that wait to be stored.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether an earlier refresh of the session has still something to settle. Until it has, the intent in the record may
    /// be our own, and is not to be taken for that of a dead owner.
    pub(super) fn has(&self, key: &SessionKey) -> bool {
        self.lock().contains(key)
    }

    /// Room for what a refresh may have to hold. There must be some before a token is shown, or what the provider gives for
    /// it would have to be dropped. `None` if the session has its place already, or the store fails so much that there is no
    /// more.
    pub(super) fn place(&self, key: SessionKey) -> Option<Place> {
        let mut places = self.lock();
        if places.len() < MOST {
            return places.insert(key).then(|| Place { key, among: self.clone() });
        }
        drop(places);
        static FULL: Throttle = Throttle::new();
        if let Some(held_back) = FULL.pass() {
            tracing::error!(held_back, held = MOST, "no refresh begins until the store takes what others hold for it");
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SessionKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.among.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::fresh_key;

    #[tokio::test(start_paused = true)]
    async fn a_record_is_given_up_only_when_it_stays_unreadable() {
        let damaged = SessionError::from(StoreError::Damaged("newer".to_owned()));
        let away = SessionError::from(StoreError::Unavailable("away".to_owned()));
        let mut unreadable = Unreadable::default();
        assert!(!unreadable.is_for_good(&damaged));
        tokio::time::advance(FOR_GOOD / 2).await;
        assert!(!unreadable.is_for_good(&away), "anything else begins it anew");
        assert!(!unreadable.is_for_good(&damaged));
        tokio::time::advance(FOR_GOOD / 2).await;
        assert!(!unreadable.is_for_good(&damaged));
        tokio::time::advance(FOR_GOOD / 2).await;
        assert!(unreadable.is_for_good(&damaged));
    }

    #[test]
    fn a_session_has_one_place_and_there_are_only_so_many() {
        let unsettled = Unsettled::default();
        let key = fresh_key();
        let place = unsettled.place(key).unwrap();
        assert!(unsettled.has(&key) && !unsettled.is_nothing() && unsettled.place(key).is_none());
        let others: Vec<_> = (1..MOST).map(|_| unsettled.place(fresh_key()).unwrap()).collect();
        assert!(unsettled.place(fresh_key()).is_none(), "full");
        drop(place);
        assert!(!unsettled.has(&key) && unsettled.place(key).is_some());
        drop(others);
        assert!(unsettled.is_nothing());
    }
}
