//! The background refresher: claims sessions whose tokens are about to end, and refreshes them before a request has to
//! wait (behaviour B1 to B4).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::attempt::Outcome;
use super::engine::{Failure, Refresher};
use crate::primitives::clock::Timestamp;
use crate::primitives::random;
use crate::store::Claim;
use crate::store::record::SessionKey;
use crate::telemetry::Throttle;

/// Pause between two looks at the list of the due.
const LOOK_EVERY: Duration = Duration::from_millis(800);
/// How long a claimed session is ours. Longer than a refresh takes with a provider that answers at all; a replica that
/// dies loses its claims within this time.
const CLAIM: Duration = Duration::from_secs(15);
/// Most sessions claimed at a time.
const BATCH: usize = 256;
/// How long a session waits that could not be refreshed because its store failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// Longest time in which claims are handed back when the process stops.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Refreshes of claimed sessions, and what became of each.
type UnderWay = JoinSet<(SessionKey, Option<Outcome>)>;

/// The refresher of one replica.
pub struct Background {
    engine: Arc<Refresher>,
    active_within: Duration,
}

impl Background {
    /// Refreshes sessions that were used within `active_within`.
    #[must_use]
    pub fn new(engine: Arc<Refresher>, active_within: Duration) -> Self {
        Self { engine, active_within }
    }

    /// Runs until `stop` is done. What is at its provider by then is refreshed to the end; what waits for that is handed
    /// to the other replicas.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut under_way = JoinSet::new();
        loop {
            // Not cut short by the stop: what has been claimed would be nobody's until the claim runs out.
            let (claimed, had_room) = self.claim(under_way.len()).await;
            let depth = under_way.len() + claimed.len();
            self.engine.metrics.token_refresh_queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
            // There may be more where these came from, as soon as half of them are done.
            let (enough, anew) = (depth - claimed.len().div_ceil(2), claimed.len());
            for key in claimed {
                let engine = self.engine.clone();
                // The claim is over by then; the refresh is not.
                let refreshed = async move { timeout(CLAIM, engine.refresh_claimed(key)).await };
                under_way.spawn(async move { (key, refreshed.await.ok()) });
            }
            let until = Instant::now() + random::jittered(LOOK_EVERY);
            loop {
                tokio::select! {
                    biased;
                    () = &mut stop => return self.hand_over(under_way).await,
                    Some(done) = under_way.join_next() => self.settle(&mut under_way, done).await,
                    // Not all providers are as slow as the slowest.
                    () = sleep_until(until) => break,
                }
                if anew > 0 && under_way.len() <= enough || !had_room {
                    break;
                }
            }
        }
    }

    /// Claims no more than can be refreshed at once: the rest is for the other replicas.
    /// Whether there was room for any is told as well.
    async fn claim(&self, under_way: usize) -> (Vec<SessionKey>, bool) {
        let limit = self.engine.paces.free().min(BATCH.saturating_sub(under_way));
        if limit == 0 {
            return (Vec::new(), false);
        }
        let now = self.engine.now();
        let idle = u64::try_from(self.active_within.as_millis()).unwrap_or(u64::MAX);
        let active_since = Timestamp::from_millis(now.as_millis().saturating_sub(idle));
        let claim = Claim { due: now, active_since, lease: now.plus(CLAIM), limit };
        match self.engine.sessions.store().claim_due(&claim).await {
            Ok(claimed) => (claimed, true),
            Err(error) => {
                static FAILURES: Throttle = Throttle::new();
                if let Some(held_back) = FAILURES.pass() {
                    tracing::warn!(%error, held_back, "due refreshes could not be claimed");
                }
                (Vec::new(), true)
            }
        }
    }

    /// Notes what is done, this one and those that are done by now too.
    async fn settle(&self, under_way: &mut UnderWay, done: Result<(SessionKey, Option<Outcome>), JoinError>) {
        let (mut done, mut put_off) = (Some(done), Vec::new());
        while let Some(one) = done {
            if let Ok((key, Some(outcome))) = one {
                put_off.extend(self.due_again(&outcome).map(|due| (key, due)));
            }
            done = under_way.try_join_next();
        }
        self.reschedule(&put_off).await;
    }

    /// When a session is to be claimed again. A refresh that was done has put it back on the list itself.
    fn due_again(&self, outcome: &Outcome) -> Option<Timestamp> {
        let pause = match outcome {
            Outcome::PutOff(until) => return Some(*until),
            Outcome::Failed(Failure::Provider(pause)) => (*pause).max(Duration::from_millis(500)),
            Outcome::Failed(Failure::Store) => STORE_PAUSE,
            // There is no way to a token; the list has let go of it.
            Outcome::Failed(Failure::NoRefreshToken | Failure::InDoubt) => return None,
            Outcome::Renewed(_) | Outcome::Ended => return None,
        };
        // Spread, or all that a pause held back would come at its end.
        Some(self.engine.now().plus(random::jittered(pause * 4 / 3)))
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) {
        if !due.is_empty()
            && let Err(error) = self.engine.sessions.store().reschedule(due).await
        {
            tracing::debug!(%error, "due refreshes could not be put off; their claims will run out");
        }
    }

    /// Each refresh runs in a task of its own, which the end of this one does not cancel; only waiting for it stops. So
    /// what has begun goes on, and what waits for a place gives up soon: that is due at once, for another replica. The
    /// claim of one that cannot be finished runs out.
    async fn hand_over(&self, mut under_way: UnderWay) {
        let mut due = Vec::new();
        let gather = async {
            while let Some(done) = under_way.join_next().await {
                if let Ok((key, Some(outcome))) = done {
                    due.extend(self.due_again(&outcome).map(|again| (key, again.min(self.engine.now()))));
                }
            }
        };
        let _ = timeout(HAND_OVER, gather).await;
        self.reschedule(&due).await;
        under_way.detach_all();
    }
}
