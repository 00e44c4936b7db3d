//! Takes out what has ended, a little at a time. Any replica does, and several in step do not meet.

use std::time::Duration;

use tokio::time::sleep;

use super::link::Shared;
use super::rows::millis;
use super::sql::Query;
use crate::primitives::clock::Timestamp;

/// Pause between two rounds.
const EVERY: Duration = Duration::from_secs(10);

/// Pause between two batches of one round.
const BREATH: Duration = Duration::from_millis(50);

/// Most rows of one batch: a few milliseconds of work.
const BATCH: i64 = 200;

/// What ended so recently stays: the clock of this replica may be ahead of the others'.
const GRACE: Duration = Duration::from_secs(10 * 60);

/// Sweeps now and then; never returns.
pub(super) async fn keep(shared: &Shared) {
    loop {
        sleep(EVERY).await;
        shared.until_up().await;
        for query in [Query::SweepSessions, Query::SweepLogins, Query::SweepMarks] {
            // Until there is less than a batch; a failure waits for the next round.
            while batch(shared, query).await == Some(true) {
                sleep(BREATH).await;
            }
        }
    }
}

/// Whether there may be more; `None` if it failed.
pub(super) async fn batch(shared: &Shared, query: Query) -> Option<bool> {
    let now = shared.clock.now().as_millis();
    let until = Timestamp::from_millis(now.saturating_sub(u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX)));
    let rows = shared.query_soon(query, &[&millis(until), &BATCH]).await.ok()?;
    Some(i64::try_from(rows.len()).is_ok_and(|rows| rows >= BATCH))
}
