//! The background refresher: claims sessions whose tokens are about to end, and refreshes them before a request has to
//! wait (behaviour B1 to B4).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::attempt::Outcome;
use super::engine::{Failure, Refresher};
use super::need::Need;
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
const PUT_OFF: Duration = Duration::from_secs(5);
/// How long a session waits whose provider had no place for it.
const UNTIL_ROOM: Duration = Duration::from_secs(1);
/// Longest time in which claims are handed back when the process stops.
const HAND_OVER: Duration = Duration::from_secs(2);

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
            let claimed = tokio::select! {
                biased;
                () = &mut stop => break,
                claimed = self.claim(under_way.len()) => claimed,
            };
            let many = !claimed.is_empty();
            let depth = under_way.len() + claimed.len();
            self.engine.metrics.token_refresh_queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
            for key in claimed {
                let engine = self.engine.clone();
                under_way.spawn(async move { (key, engine.refresh_due(key, Need::Claimed).await) });
            }
            tokio::select! {
                biased;
                () = &mut stop => break,
                // There may be more where these came from, as soon as there is room for them.
                () = self.reap(&mut under_way), if many => {}
                () = tokio::time::sleep(random::jittered(LOOK_EVERY)), if !many => self.reap_done(&mut under_way).await,
            }
        }
        self.drain(under_way).await;
    }

    /// Claims no more than can be refreshed at once: the rest is for the other replicas.
    async fn claim(&self, under_way: usize) -> Vec<SessionKey> {
        let limit = self.engine.paces.free().min(BATCH.saturating_sub(under_way));
        if limit == 0 {
            return Vec::new();
        }
        let now = self.engine.now();
        let idle = u64::try_from(self.active_within.as_millis()).unwrap_or(u64::MAX);
        let active_since = crate::primitives::clock::Timestamp::from_millis(now.as_millis().saturating_sub(idle));
        let claim = Claim { due: now, active_since, lease: now.plus(CLAIM), limit };
        match self.engine.sessions.store().claim_due(&claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                static FAILURES: Throttle = Throttle::new();
                if let Some(held_back) = FAILURES.pass() {
                    tracing::warn!(%error, held_back, "due refreshes could not be claimed");
                }
                Vec::new()
            }
        }
    }

    /// Waits until half of what is under way is done, but no longer than between two looks: not all providers are as slow
    /// as the slowest.
    async fn reap(&self, under_way: &mut JoinSet<(SessionKey, Outcome)>) {
        let (enough, until) = (under_way.len() / 2, Instant::now() + LOOK_EVERY);
        while under_way.len() > enough {
            match timeout_at(until, under_way.join_next()).await {
                Ok(Some(Ok((key, outcome)))) => self.settle(key, &outcome).await,
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn reap_done(&self, under_way: &mut JoinSet<(SessionKey, Outcome)>) {
        while let Some(done) = under_way.try_join_next() {
            if let Ok((key, outcome)) = done {
                self.settle(key, &outcome).await;
            }
        }
    }

    /// A refresh that was done has put its session back on the list itself.
    async fn settle(&self, key: SessionKey, outcome: &Outcome) {
        let pause = match outcome {
            Outcome::PutOff => UNTIL_ROOM,
            Outcome::Failed(Failure::Provider(pause)) => (*pause).max(Duration::from_millis(500)),
            Outcome::Failed(Failure::Store) => PUT_OFF,
            // There is no way to a token; the list has let go of it.
            Outcome::Failed(Failure::NoRefreshToken | Failure::InDoubt) => return,
            Outcome::Renewed(_) | Outcome::Ended => return,
        };
        // Spread, or all that a pause held back would come at its end.
        self.reschedule(key, pause + random::jittered(pause)).await;
    }

    async fn reschedule(&self, key: SessionKey, pause: Duration) {
        let due = self.engine.now().plus(pause);
        if let Err(error) = self.engine.sessions.store().reschedule(&[(key, due)]).await {
            tracing::debug!(%error, "a due refresh could not be put off; its claim will run out");
        }
    }

    /// Each refresh runs in a task of its own, which the end of this one does not cancel; only waiting for it stops. So
    /// what has begun goes on, and what waits for a place gives up soon: that is due at once, for another replica. The
    /// claim of one that cannot be finished runs out.
    async fn drain(&self, mut under_way: JoinSet<(SessionKey, Outcome)>) {
        let hand_over = async {
            while let Some(done) = under_way.join_next().await {
                match done {
                    Ok((key, Outcome::PutOff)) => self.reschedule(key, Duration::ZERO).await,
                    Ok((key, outcome)) => self.settle(key, &outcome).await,
                    Err(_) => {}
                }
            }
        };
        let _ = tokio::time::timeout(HAND_OVER, hand_over).await;
        under_way.detach_all();
    }
}
