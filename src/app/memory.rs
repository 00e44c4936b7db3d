//! The local cache of sessions and the memory there is: how much of it the cache may take, and when it gives it back.
//!
//! Without this the overload guard could refuse work for good: what the cache holds is never given up by itself, and while
//! requests are refused nothing pushes it out.

use std::time::Duration;

use crate::config::settings;
use crate::listener::Overload;
use crate::session::manager::Sessions;

/// The cache may take one part in so many of the memory from which on work is refused.
const PART: u64 = 2;
/// Pause between two looks at the guard.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The bounds of the cache where work is refused from `mark` bytes on; `None` = never.
pub(super) fn fitting(cache: settings::Cache, mark: Option<u64>) -> settings::Cache {
    let most = mark.map_or(u64::MAX, |mark| mark / PART);
    if cache.memory > most {
        tracing::info!(asked = cache.memory, bytes = most, "`session.cache.memory` is lowered to what fits");
    }
    settings::Cache { memory: cache.memory.min(most), ..cache }
}

/// Has the cache emptied for as long as work is refused. No session is lost by it: each is loaded from the store with its
/// next request.
pub(super) async fn give_back(sessions: &Sessions, overload: &Overload) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if overload.refuses_requests() {
            let (entries, bytes) = sessions.cached();
            if entries > 0 {
                tracing::warn!(entries, bytes, "memory runs out: the local cache of sessions is given back");
            }
            sessions.empty_cache();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::settings::{Cache, Refresh, SealingKey, Session};
    use crate::listener::overload::Level;
    use crate::primitives::clock::{Clock, Timestamp};
    use crate::primitives::secret::{Key256, SecretText};
    use crate::session::key_ring::KeyRing;
    use crate::session::manager::NewSession;
    use crate::session::model::Secrets;
    use crate::session::open::Open;
    use crate::session::profile::Profile;
    use crate::session::ticket::TicketSeed;
    use crate::store::memory::MemoryStore;
    use crate::telemetry::Metrics;

    const START: Timestamp = Timestamp::from_secs(1_900_000_000);

    fn sessions() -> Sessions {
        let (clock, metrics) = (Clock::manual(START), Arc::new(Metrics::new().unwrap()));
        let ring = KeyRing::new(&[SealingKey { id: "test".into(), secret: Key256::new([7; 32]) }]).unwrap();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Sessions::new(&Session::default(), &Refresh::default(), store, ring, clock, metrics).0
    }

    async fn begin(sessions: &Sessions, profile: &Arc<Profile>) -> Arc<Open> {
        let secrets = Secrets {
            access_token: SecretText::new("at".into()),
            bound: false,
            access_issued: START,
            access_expires: None,
            forced: None,
            max_age: None,
            refresh_token: None,
            refresh_expires: None,
            offline: false,
            id_token: None,
            claims: serde_json::Map::new(),
            context: serde_json::Map::new(),
            csrf_token: SecretText::new("csrf".into()),
            tickets: TicketSeed::generate().unwrap(),
        };
        let (provider, subject) = ("demo".to_owned(), "alice".to_owned());
        sessions.begin(&NewSession { provider, subject, provider_session: None, secrets }, profile).await.unwrap()
    }

    #[test]
    fn the_cache_fits_into_the_memory_there_is() {
        let cache = |memory| Cache { memory, ..Session::default().cache };
        assert_eq!(fitting(cache(1 << 40), Some(1 << 30)), cache(1 << 29));
        assert_eq!(fitting(cache(1 << 20), Some(1 << 30)), cache(1 << 20));
        assert_eq!(fitting(cache(1 << 40), None), cache(1 << 40));
    }

    #[tokio::test(start_paused = true)]
    async fn while_memory_is_short_the_cache_is_empty_and_no_session_is_lost() {
        let (sessions, overload) = (Arc::new(sessions()), Overload::default());
        let profile = Profile { site: "app".into(), providers: vec!["demo".into()], ..Profile::default() };
        let profile = Arc::new(profile);
        let (kept, watched) = (sessions.clone(), overload.clone());
        let work = tokio::spawn(async move { give_back(&kept, &watched).await });
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(*begin(&sessions, &profile).await.id());
        }
        let held = sessions.lookup(&ids[0], &profile).await.unwrap().expect("it lives");
        tokio::time::sleep(LOOK_EVERY * 10).await;
        assert_eq!(sessions.cached().0, 100, "all is calm");
        for level in [Level::High, Level::Critical] {
            overload.set(level);
            tokio::time::sleep(LOOK_EVERY * 2).await;
            assert_eq!(sessions.cached(), (0, 0));
            // What is still put in goes too.
            sessions.lookup(&ids[1], &profile).await.unwrap().expect("it lives");
            tokio::time::sleep(LOOK_EVERY * 2).await;
            assert_eq!(sessions.cached(), (0, 0));
        }
        overload.set(Level::Calm);
        for id in &ids {
            sessions.lookup(id, &profile).await.unwrap().expect("it lives");
        }
        tokio::time::sleep(LOOK_EVERY * 10).await;
        assert_eq!(sessions.cached().0, 100);
        // A copy that was in a request's hands all the while is a good one.
        assert!(!held.is_over(START));
        work.abort();
    }
}
