//! How often requests to one upstream may be sent again.
//!
//! A retry helps a request past one endpoint that fails. When all of them fail, retries only multiply the load that may
//! have brought them down, so they have a budget: a share of the requests of the last ten seconds, and a few beside.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::settings;

/// Length of the window that is looked at, in seconds.
const WINDOW: u64 = 10;
/// Retries in a window that are granted whatever the number of requests: ten a second.
const FLOOR: u64 = 100;

/// The retries of one upstream.
pub struct Retries {
    attempts: AtomicUsize,
    budget: Budget,
}

impl Retries {
    pub(super) fn new(settings: settings::Retries) -> Self {
        Self { attempts: settings.attempts.into(), budget: Budget::new(settings.budget, Instant::now()) }
    }

    /// Other settings from now on; what was counted counts on.
    pub(super) fn set(&self, settings: settings::Retries) {
        self.attempts.store(settings.attempts, Ordering::Relaxed);
        self.budget.percent.store(settings.budget.into(), Ordering::Relaxed);
    }

    /// Most attempts at one request, the first included.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Notes a request, at its first attempt.
    pub fn note_request(&self, now: Instant) {
        if self.attempts() > 1 {
            self.budget.note(now);
        }
    }

    /// Takes one retry out of the budget, if it holds one.
    #[must_use]
    pub fn take(&self, now: Instant) -> bool {
        self.budget.take(now)
    }
}

/// Counts requests and retries by the second. A request costs an addition, and once in a second a lock.
struct Budget {
    percent: AtomicU64,
    start: Instant,
    /// Requests since the start.
    requests: AtomicU64,
    /// The last second that has a mark.
    marked: AtomicU64,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    /// Seconds in which there were requests, and how many there had been before.
    requests: VecDeque<(u64, u64)>,
    /// Seconds in which there were retries, and how many.
    retries: VecDeque<(u64, u64)>,
}

impl Budget {
    fn new(percent: u8, start: Instant) -> Self {
        let (requests, marked) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { percent: AtomicU64::new(percent.into()), start, requests, marked, marks: Mutex::default() }
    }

    /// Counted from one, so that zero is before all of them.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() + 1
    }

    fn note(&self, now: Instant) {
        let second = self.second(now);
        if self.marked.load(Ordering::Relaxed) < second {
            self.mark(second);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    fn mark(&self, second: u64) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.requests.back().is_none_or(|(last, _)| *last < second) {
            marks.requests.push_back((second, self.requests.load(Ordering::Relaxed)));
            forget(&mut marks.requests, second);
            self.marked.store(second, Ordering::Relaxed);
        }
    }

    fn take(&self, now: Instant) -> bool {
        let second = self.second(now);
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut marks.requests, second);
        forget(&mut marks.retries, second);
        let before = marks.requests.front().map(|(_, before)| *before);
        let requests = before.map_or(0, |before| self.requests.load(Ordering::Relaxed).saturating_sub(before));
        let retries: u64 = marks.retries.iter().map(|(_, count)| count).sum();
        if retries >= FLOOR + requests * self.percent.load(Ordering::Relaxed) / 100 {
            return false;
        }
        match marks.retries.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => marks.retries.push_back((second, 1)),
        }
        true
    }
}

/// Drops what lies before the window that ends with `second`.
fn forget(marks: &mut VecDeque<(u64, u64)>, second: u64) {
    while marks.front().is_some_and(|(first, _)| first + WINDOW <= second) {
        marks.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct World {
        budget: Budget,
        now: Instant,
    }

    impl World {
        fn new(percent: u8) -> Self {
            let now = Instant::now();
            Self { budget: Budget::new(percent, now), now }
        }

        fn requests(&self, count: usize) {
            (0..count).for_each(|_| self.budget.note(self.now));
        }

        fn granted(&self) -> usize {
            (0..100_000).take_while(|_| self.budget.take(self.now)).count()
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn retries_are_a_share_of_the_requests_in_the_window_and_a_few_beside() {
        let mut world = World::new(20);
        assert_eq!(world.granted(), 100, "a quiet upstream has the floor");
        world.requests(1_000);
        assert_eq!(world.granted(), 200);
        world.pass(5);
        world.requests(500);
        assert_eq!(world.granted(), 100);
        world.pass(5);
        // The first second, its thousand requests and its retries have left the window.
        assert_eq!(world.granted(), 100, "500 requests and 100 retries are still in it");
        world.pass(3600);
        assert_eq!(world.granted(), 100, "an hour ago counts for nothing");
        world.requests(10);
        assert_eq!(world.granted(), 2);
    }

    #[test]
    fn an_upstream_that_is_down_for_long_is_asked_a_fifth_more() {
        let mut world = World::new(20);
        let (mut requests, mut retries) = (0, 0);
        for _ in 0..100 {
            world.requests(1_000);
            requests += 1_000;
            retries += (0..1_000).filter(|_| world.budget.take(world.now)).count();
            world.pass(1);
        }
        assert!(retries > requests / 6 && retries <= requests / 5 + 100 * 11, "{retries} of {requests}");
    }

    #[test]
    fn many_threads_count_every_request() {
        let world = World::new(100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|n| world.budget.note(world.now + Duration::from_millis(n))));
            }
        });
        assert_eq!(world.granted(), 4_100);
    }
}
