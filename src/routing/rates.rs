//! How often a route may be asked by one client or in one session.
//!
//! Requests that pass are counted in a count-min sketch: a fixed table of counters in which each client has two, whose
//! lesser one counts. So memory does not grow with the number of clients, and no client is ever counted too low; clients
//! that share counters are counted too high, by about one for each 16,000 requests that pass on the route within `per`.
//!
//! Time is cut into eighths of `per`, each with a sketch of its own, and what counts is the present one and the eight
//! before it in full. So in no time of the length `per` more than the limit pass, wherever it begins (but for threads that
//! look at the same moment), and a request is forgotten after an eighth more at the latest. An average over two windows,
//! as [`pingora_limits::rate`] has it, is closer for a client who asks evenly, but lets nearly twice as many pass after a
//! pause; and that one ends in a panic where threads that meet at the end of a window are held up in between.

use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pingora_limits::estimator::Estimator;

use crate::config::settings::{RateBy, RateLimit};
use crate::primitives::clock::Timestamp;

/// Into how many parts `per` is cut.
const PARTS: u64 = 8;
/// The parts that count: the present one, which has only begun, and all of `per` before it.
const WINDOWS: usize = PARTS as usize + 1;
/// Counters of one client in a sketch.
const ROWS: usize = 2;
/// Clients are spread over so many counters in each row. All in all 2.25 MiB for a limit.
const COLUMNS: usize = 16 * 1024;
/// What no window has for its number: its counters are just being set to zero.
const CLEARING: u64 = u64::MAX;

/// Names of clients are hashed under a secret of this process: nobody can choose addresses that share the counters of
/// another client.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The limits of one route.
#[derive(Debug)]
pub struct Rates(Box<[Rate]>);

#[derive(Debug)]
struct Rate {
    limit: RateLimit,
    counts: Arc<Counts>,
}

impl Rates {
    /// `None` where nothing is limited. What `before` has counted by the same thing and for the same time is still counted,
    /// whatever the number of requests is now.
    #[must_use]
    pub fn new(limits: &[RateLimit], before: Option<&Self>) -> Option<Box<Self>> {
        let counts = |limit: &RateLimit| {
            let alike = |other: &&Rate| other.limit.by == limit.by && other.limit.per == limit.per;
            let known = before.and_then(|before| before.0.iter().find(alike));
            known.map_or_else(|| Arc::new(Counts::new(limit.per)), |known| Arc::clone(&known.counts))
        };
        let rates: Box<[Rate]> = limits.iter().map(|limit| Rate { limit: *limit, counts: counts(limit) }).collect();
        (!rates.is_empty()).then(|| Box::new(Self(rates)))
    }

    /// Whether there is a limit by that.
    #[must_use]
    pub fn has(&self, by: RateBy) -> bool {
        self.0.iter().any(|rate| rate.limit.by == by)
    }

    /// Counts a request of `key`, which names who asks. No I/O, no lock, no allocation.
    ///
    /// # Errors
    /// There were too many: how long until the next one would pass. The request is not counted then.
    pub fn take(&self, by: RateBy, key: &impl Hash, now: Timestamp) -> Result<(), Duration> {
        let (key, rates) = (SECRET.hash_one(key), || self.0.iter().filter(|rate| rate.limit.by == by));
        // A look first: a flood that is refused writes nothing, so that it slows down nobody on another core.
        if let Some(wait) = rates().filter_map(|rate| rate.wait(key, now)).max() {
            return Err(wait);
        }
        rates().for_each(|rate| rate.counts.add(key, now));
        Ok(())
    }
}

impl Rate {
    /// How long until so many requests are forgotten that one more passes; `None` = it passes now.
    fn wait(&self, key: u64, now: Timestamp) -> Option<Duration> {
        let (most, number) = (isize::try_from(self.limit.requests).unwrap_or(isize::MAX), self.counts.number(now));
        let count = |back: u64| number.checked_sub(back).map_or(0, |number| self.counts.count(key, number));
        let mut left: isize = (0..=PARTS).map(count).sum();
        if left < most {
            return None;
        }
        // A part is forgotten when as many have begun after it.
        let oldest_first = (0..=PARTS).rev().find(|back| {
            left -= count(*back);
            left < most
        });
        let parts = WINDOWS as u64 - oldest_first.unwrap_or(0);
        let end = number.saturating_add(parts).saturating_mul(self.counts.part);
        Some(Timestamp::from_millis(end).since(now))
    }
}

/// Who asked how often of late.
struct Counts {
    /// Length of a part, in milliseconds.
    part: u64,
    /// The part with the number `n` has the place `n % WINDOWS`.
    windows: [Window; WINDOWS],
}

struct Window {
    /// Number of the part that is counted here, from the epoch on.
    number: AtomicU64,
    sketch: Estimator,
}

impl Counts {
    fn new(per: Duration) -> Self {
        let part = u64::try_from(per.as_micros()).unwrap_or(u64::MAX).div_ceil(1000 * PARTS).max(1);
        let window = |_| Window { number: AtomicU64::new(0), sketch: Estimator::new(ROWS, COLUMNS) };
        Self { part, windows: std::array::from_fn(window) }
    }

    /// Number of the part that a moment lies in.
    fn number(&self, now: Timestamp) -> u64 {
        now.as_millis() / self.part
    }

    fn add(&self, key: u64, now: Timestamp) {
        // For the moment that it takes to clear a window nobody is counted, nor made to wait.
        if let Some(sketch) = self.present(self.number(now)) {
            sketch.incr(key, 1);
        }
    }

    /// Requests of `key` in the part with that number.
    fn count(&self, key: u64, number: u64) -> isize {
        let counted = self.window(number).filter(|window| window.number.load(Ordering::Acquire) == number);
        counted.map_or(0, |window| window.sketch.get(key))
    }

    fn window(&self, number: u64) -> Option<&Window> {
        self.windows.get(usize::try_from(number % WINDOWS as u64).ok()?)
    }

    /// The sketch of the present part; emptied by the first who needs it. `None` while another one does that.
    fn present(&self, number: u64) -> Option<&Estimator> {
        let window = self.window(number)?;
        let found = window.number.load(Ordering::Acquire);
        if found == number {
            return Some(&window.sketch);
        }
        // What is found here is older, or the clock has been set back.
        let mine = found != CLEARING
            && window.number.compare_exchange(found, CLEARING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !mine {
            return None;
        }
        window.sketch.reset();
        window.number.store(number, Ordering::Release);
        Some(&window.sketch)
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").field("part", &self.part).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
