//! Single flight: of many callers with the same key one starts the work, all get its result.
//!
//! The work runs in a task of its own, so a caller that goes away cancels nothing (behaviour R3).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::primitives::failpoint::fail_point;
use crate::telemetry::traces::carried;

/// The work of one key, awaited by many.
type Work<T> = Shared<BoxFuture<'static, Option<T>>>;

/// Work under way, by key.
pub(crate) struct Flights<K, T> {
    under_way: Arc<Mutex<HashMap<K, Work<T>>>>,
}

/// Takes the key out again when the work is done, also if it panicked.
struct Landing<K: Hash + Eq, T> {
    key: K,
    under_way: Arc<Mutex<HashMap<K, Work<T>>>>,
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, T> Flights<K, T>
where
    K: Copy + Hash + Eq + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self { under_way: Arc::default() }
    }

    /// Whether there is work of this key under way.
    pub(super) fn has(&self, key: &K) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// The result of the work of this key: of the one under way, or of `work`, which is started now. `None` only if the
    /// work panicked or its runtime went away.
    pub(crate) async fn join<W>(&self, key: K, work: impl FnOnce() -> W) -> Option<T>
    where
        W: Future<Output = T> + Send + 'static,
    {
        let (result, flight) = oneshot::channel();
        let (flight, is_mine) = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            match under_way.entry(key) {
                Entry::Occupied(other) => (other.get().clone(), false),
                Entry::Vacant(place) => (place.insert(flight.map(Result::ok).boxed().shared()).clone(), true),
            }
        };
        if is_mine {
            // Outside the lock: a runtime that is shutting down drops the task, and its landing with it, right here.
            let landing = Landing { key, under_way: self.under_way.clone() };
            let work = work();
            tokio::spawn(carried(async move {
                let done = work.await;
                // First, so that whoever asks after the others have their answer does not get it too: it may be old.
                drop(landing);
                fail_point!("refresh::before_waiters");
                // Nobody may be waiting any more; the work was done all the same.
                let _ = result.send(done);
            }));
        }
        flight.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn many_callers_one_work_and_a_gone_caller_cancels_nothing() {
        let flights = Arc::new(Flights::<u8, usize>::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let start = |flights: Arc<Flights<u8, usize>>| {
            let (runs, gate) = (runs.clone(), gate.clone());
            tokio::spawn(async move {
                flights
                    .join(1, || async move {
                        let _permit = gate.acquire().await;
                        runs.fetch_add(1, Ordering::SeqCst) + 1
                    })
                    .await
            })
        };
        let first = start(flights.clone());
        let others: Vec<_> = (0..50).map(|_| start(flights.clone())).collect();
        tokio::task::yield_now().await;
        first.abort();
        gate.add_permits(1);
        for other in others {
            assert_eq!(other.await.unwrap(), Some(1));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(flights.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_asks_after_the_end_starts_anew() {
        let flights = Flights::<u8, usize>::new();
        for n in 0..2_000 {
            assert_eq!(flights.join(1, || async move { n }).await, Some(n));
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_work_reaches_nobody_and_clears_the_place() {
        let flights = Flights::<u8, usize>::new();
        let panics = || async { panic!("deliberate") };
        assert_eq!(flights.join(1, panics).await, None);
        assert_eq!(flights.join(1, || async { 7 }).await, Some(7));
    }
}
