//! Logouts that overtake a login (behaviour O7).
//!
//! A callback may be between the provider's answer and the store while the logout of the very session that it brings
//! comes in and finds nothing. Therefore a logout leaves a tombstone *before* it ends sessions, and a callback looks for
//! one *after* it has stored its session: whichever order they come in, one of them sees the other.
//!
//! A login begun after the logout must work all the same. The tombstone of a provider's session holds for logins that
//! began, by our clock, before the logout came: some providers go on with the same `sid`. That of a user holds for ID
//! tokens that are not newer than the logout token, by the provider's clock: who was at the provider's login page when
//! the user logged out elsewhere may go on.
//!
//! A mark cannot be changed once it stands, so the second that counts is part of its name; a coarser mark beside it says
//! whether it is worth looking at the seconds one by one.

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
/// An ID token older than this does not come fresh from a login, and no login takes so long.
const OLDEST: u64 = 1_200;
/// How far apart, in seconds, the clocks of replicas may be.
const REPLICAS: u64 = 1;

/// Whose sessions are over.
#[derive(Clone, Copy)]
pub(super) enum Grave<'a> {
    /// Those with this `sid`.
    Session(&'a str),
    /// Those of this `sub`.
    Subject(&'a str),
}

/// A login, as far as a logout could have overtaken it.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Name of the provider.
    pub provider: &'a str,
    /// `sub`
    pub subject: &'a str,
    /// `sid`
    pub sid: Option<&'a str>,
    /// When it began, by our clock.
    pub started: Timestamp,
    /// `iat` of the ID token.
    pub issued: Timestamp,
}

/// Remembers a logout: `at` is by our clock for a session, by the provider's for a user.
pub(super) async fn set(
    store: &dyn SessionStore,
    provider: &str,
    grave: Grave<'_>,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let second = at.as_secs();
    // In this order: whoever sees the coarse one must find the fine one.
    store.mark(&grave.mark(FINE, provider, second), now, now.plus(LIFE)).await?;
    store.mark(&grave.mark(SPAN, provider, second / COARSE), now, now.plus(LIFE)).await?;
    Ok(())
}

/// Whether a logout has overtaken the login.
pub(super) async fn covers(store: &dyn SessionStore, login: &Login<'_>, now: Timestamp) -> Result<bool, StoreError> {
    if let Some(sid) = login.sid {
        let started = login.started.as_secs().saturating_sub(REPLICAS);
        if is_set(store, login.provider, Grave::Session(sid), started, now).await? {
            return Ok(true);
        }
    }
    is_set(store, login.provider, Grave::Subject(login.subject), login.issued.as_secs(), now).await
}

/// Whether there is a tombstone of the second `first` or later.
async fn is_set(
    store: &dyn SessionStore,
    provider: &str,
    grave: Grave<'_>,
    first: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let last = now.as_secs() + AHEAD;
    let first = first.max(now.as_secs().saturating_sub(OLDEST));
    let marked = (first / COARSE..=last / COARSE).map(|span| async move {
        let mark = store.marked(&grave.mark(SPAN, provider, span)).await?;
        Ok::<_, StoreError>(mark.map(|_| span))
    });
    for span in try_join_all(marked).await?.into_iter().flatten() {
        let seconds = (span * COARSE).max(first)..(span + 1) * COARSE;
        let marks = seconds.map(|second| async move { store.marked(&grave.mark(FINE, provider, second)).await });
        if try_join_all(marks).await?.iter().any(Option::is_some) {
            return Ok(true);
        }
    }
    Ok(false)
}

const FINE: &[u8] = b"tombstone";
const SPAN: &[u8] = b"tombstones";

impl Grave<'_> {
    fn mark(self, what: &[u8], provider: &str, number: u64) -> MarkKey {
        let (kind, name): (&[u8], _) = match self {
            Self::Session(sid) => (b"sid", sid),
            Self::Subject(subject) => (b"sub", subject),
        };
        mark_key(&[what, kind, provider.as_bytes(), name.as_bytes(), &number.to_be_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::clock::Clock;
    use crate::store::memory::MemoryStore;

    const NOW: u64 = 1_800_000_000;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    fn login(started: u64, issued: u64) -> Login<'static> {
        Login { provider: "p", subject: "alice", sid: Some("s"), started: at(started), issued: at(issued) }
    }

    #[tokio::test]
    async fn o7_a_tombstone_of_a_user_holds_for_older_id_tokens_only() {
        for logout in (NOW - 70..NOW + 60).step_by(7) {
            let store = MemoryStore::new(Clock::manual(at(NOW)));
            set(&store, "p", Grave::Subject("alice"), at(logout), at(NOW)).await.unwrap();
            for issued in NOW - 100..NOW + 60 {
                let covered = covers(&store, &login(NOW - 300, issued), at(NOW)).await.unwrap();
                assert_eq!(covered, issued <= logout, "{issued} {logout}");
            }
            let old = login(NOW - 300, NOW - 100);
            for other in [Login { subject: "bob", ..old }, Login { provider: "q", ..old }] {
                assert!(!covers(&store, &other, at(NOW)).await.unwrap());
            }
        }
    }

    #[tokio::test]
    async fn o7_a_tombstone_of_a_session_holds_for_logins_begun_before() {
        for age in [0, 1, 63, 64, 65, 599] {
            let store = MemoryStore::new(Clock::manual(at(NOW)));
            set(&store, "p", Grave::Session("s"), at(NOW - age), at(NOW - age)).await.unwrap();
            for started in NOW - 600..=NOW {
                let covered = covers(&store, &login(started, NOW), at(NOW)).await.unwrap();
                assert_eq!(covered, started <= NOW - age + REPLICAS, "{started} {age}");
            }
            let old = login(NOW - 600, NOW);
            let others = [Login { sid: Some("t"), ..old }, Login { sid: None, ..old }, Login { provider: "q", ..old }];
            for other in others {
                assert!(!covers(&store, &other, at(NOW)).await.unwrap());
            }
        }
    }

    #[tokio::test]
    async fn o7_a_second_logout_counts_beside_the_first_and_both_are_forgotten() {
        let clock = Clock::manual(at(NOW));
        let store = MemoryStore::new(clock.clone());
        for logout in [0, 1, 20] {
            set(&store, "p", Grave::Subject("alice"), at(NOW + logout), at(NOW)).await.unwrap();
        }
        assert!(covers(&store, &login(NOW, NOW + 20), at(NOW)).await.unwrap());
        assert!(!covers(&store, &login(NOW, NOW + 21), at(NOW)).await.unwrap());
        clock.advance(LIFE);
        assert!(!covers(&store, &login(NOW, NOW), clock.now()).await.unwrap());
    }
}
