//! Logouts that overtake a login (behaviour O7).
//!
//! A callback may be between the provider's answer and the store while the logout of the very session that it brings
//! comes in and finds nothing. Therefore a logout leaves a tombstone *before* it ends sessions, and a callback looks for
//! one *after* it has stored its session: whichever order they come in, one of them sees the other.
//!
//! A tombstone of a `sid` holds for every login with that `sid`: the provider's session is over. One of a user holds
//! only for ID tokens that are not newer than the logout, by the provider's own clock: a login begun afterwards works.
//! A mark cannot be changed once it stands, so the second of the logout is part of its name; a coarser mark beside it
//! says whether it is worth looking at the seconds one by one.

use std::time::Duration;

use futures::future::try_join_all;

use super::mark_key;
use crate::primitives::clock::Timestamp;
use crate::store::{MarkKey, SessionStore, StoreError};

/// A login may take ten minutes, and its last step a little more.
pub const LIFE: Duration = Duration::from_secs(660);

/// Seconds under one coarse mark.
const COARSE: u64 = 64;
/// How far the clock of a provider may be ahead; logout tokens from further ahead are refused.
const AHEAD: u64 = 60;
/// An ID token older than this does not come fresh from a login.
const OLDEST: u64 = 1_200;

/// The provider's session is over.
pub(super) async fn set_session(
    store: &dyn SessionStore,
    provider: &str,
    sid: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    store.mark(&session(provider, sid), now, now.plus(LIFE)).await.map(drop)
}

/// All sessions of a user are over whose login is not newer than `issued`, by the provider's clock.
pub(super) async fn set_subject(
    store: &dyn SessionStore,
    provider: &str,
    subject: &str,
    issued: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let second = issued.as_secs();
    // In this order: whoever sees the coarse one must find the fine one.
    store.mark(&fine(provider, subject, second), now, now.plus(LIFE)).await?;
    store.mark(&coarse(provider, subject, second / COARSE), now, now.plus(LIFE)).await?;
    Ok(())
}

/// Whether a logout has overtaken the login that brought an ID token of this user and session, issued at `issued`.
pub(super) async fn covers(
    store: &dyn SessionStore,
    provider: &str,
    subject: &str,
    sid: Option<&str>,
    issued: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if let Some(sid) = sid
        && store.marked(&session(provider, sid)).await?.is_some()
    {
        return Ok(true);
    }
    let last = now.as_secs() + AHEAD;
    let first = issued.as_secs().max(now.as_secs().saturating_sub(OLDEST));
    let spans = first / COARSE..=last / COARSE;
    let marked = spans.map(|span| async move {
        let mark = store.marked(&coarse(provider, subject, span)).await?;
        Ok::<_, StoreError>(mark.map(|_| span))
    });
    for span in try_join_all(marked).await?.into_iter().flatten() {
        let seconds = (span * COARSE).max(first)..(span + 1) * COARSE;
        let marks = seconds.map(|second| async move { store.marked(&fine(provider, subject, second)).await });
        if try_join_all(marks).await?.iter().any(Option::is_some) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn session(provider: &str, sid: &str) -> MarkKey {
    mark_key(&[b"tombstone of a session", provider.as_bytes(), sid.as_bytes()])
}

fn fine(provider: &str, subject: &str, second: u64) -> MarkKey {
    mark_key(&[b"tombstone of a user", provider.as_bytes(), subject.as_bytes(), &second.to_be_bytes()])
}

fn coarse(provider: &str, subject: &str, span: u64) -> MarkKey {
    mark_key(&[b"tombstones of a user", provider.as_bytes(), subject.as_bytes(), &span.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::clock::Clock;
    use crate::store::memory::MemoryStore;

    const NOW: u64 = 1_800_000_000;

    #[tokio::test]
    async fn o7_a_tombstone_of_a_user_holds_for_older_logins_only() {
        let now = Timestamp::from_secs(NOW);
        for logout in (NOW - 70..NOW + 60).step_by(7) {
            let store = MemoryStore::new(Clock::manual(now));
            set_subject(&store, "p", "alice", Timestamp::from_secs(logout), now).await.unwrap();
            for issued in NOW - 100..NOW + 60 {
                let issued_at = Timestamp::from_secs(issued);
                let covered = covers(&store, "p", "alice", None, issued_at, now).await.unwrap();
                assert_eq!(covered, issued <= logout, "{issued} {logout}");
            }
            for (provider, subject) in [("p", "bob"), ("q", "alice")] {
                let issued = Timestamp::from_secs(NOW - 100);
                assert!(!covers(&store, provider, subject, Some("s"), issued, now).await.unwrap());
            }
        }
    }

    #[tokio::test]
    async fn o7_a_second_logout_counts_beside_the_first() {
        let now = Timestamp::from_secs(NOW);
        let store = MemoryStore::new(Clock::manual(now));
        let at = |n| Timestamp::from_secs(NOW + n);
        for logout in [0, 1, 20] {
            set_subject(&store, "p", "alice", at(logout), now).await.unwrap();
        }
        assert!(covers(&store, "p", "alice", None, at(20), now).await.unwrap());
        assert!(!covers(&store, "p", "alice", None, at(21), now).await.unwrap());
    }

    #[tokio::test]
    async fn o7_a_tombstone_of_a_session_holds_for_it_alone_and_for_a_while() {
        let clock = Clock::manual(Timestamp::from_secs(NOW));
        let store = MemoryStore::new(clock.clone());
        set_session(&store, "p", "s", clock.now()).await.unwrap();
        let late = Timestamp::from_secs(NOW + 3_600);
        for (provider, sid, expected) in [("p", Some("s"), true), ("p", Some("t"), false), ("q", Some("s"), false)] {
            assert_eq!(covers(&store, provider, "alice", sid, late, clock.now()).await.unwrap(), expected);
        }
        assert!(!covers(&store, "p", "alice", None, late, clock.now()).await.unwrap());
        clock.advance(LIFE);
        assert!(!covers(&store, "p", "alice", Some("s"), late, clock.now()).await.unwrap());
    }
}
