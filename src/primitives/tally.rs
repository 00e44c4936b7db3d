//! How often something happened of late to each of any number of keys.
//!
//! It is counted in a count-min sketch: a fixed table of counters in which each key has two, whose lesser one counts. So
//! memory does not grow with the number of keys, and none is ever counted too low; keys that share counters are counted
//! too high.
//!
//! Time is cut into eighths of `per`, each with a sketch of its own, and what counts is the present one and the eight
//! before it in full. So nothing is forgotten before `per` has passed, wherever that begins, and everything an eighth
//! later at the latest. An average over two windows, as [`pingora_limits::rate`] has it, is closer for what happens
//! evenly, but misses nearly half of it after a pause; and that one ends in a panic where threads that meet at the end of a
//! window are held up in between.

use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora_limits::estimator::Estimator;

use super::clock::Timestamp;

/// Into how many parts `per` is cut.
const PARTS: u64 = 8;
/// The parts that count: the present one, which has only begun, and all of `per` before it.
const WINDOWS: usize = PARTS as usize + 1;
/// Counters of one key in a sketch.
const ROWS: usize = 2;
/// What no window has for its number: its counters are just being set to zero.
const CLEARING: u64 = u64::MAX;

/// Keys are hashed under a secret of this process: nobody can choose one that shares the counters of another.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What happened of late. Neither counting nor asking makes I/O, takes a lock or allocates.
pub struct Tally {
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

/// What something is counted for.
#[derive(Clone, Copy, Debug)]
pub struct Key(u64);

impl Key {
    /// Who or what is named by a value.
    #[must_use]
    pub fn of(name: &impl Hash) -> Self {
        Self(SECRET.hash_one(name))
    }
}

impl Tally {
    /// Of what happens within `per`, with so many counters in a row: 144 bytes for each, and a key is counted too high by one
    /// for about as many events.
    #[must_use]
    pub fn new(per: Duration, columns: usize) -> Self {
        let part = u64::try_from(per.as_micros()).unwrap_or(u64::MAX).div_ceil(1000 * PARTS).max(1);
        let window = |_| Window { number: AtomicU64::new(0), sketch: Estimator::new(ROWS, columns) };
        Self { part, windows: std::array::from_fn(window) }
    }

    /// Number of the part that a moment lies in.
    fn number(&self, now: Timestamp) -> u64 {
        now.as_millis() / self.part
    }

    /// It has happened.
    pub fn add(&self, key: Key, now: Timestamp) {
        // For the moment that it takes to clear a window nobody is counted, nor made to wait.
        if let Some(sketch) = self.present(self.number(now)) {
            sketch.incr(key.0, 1);
        }
    }

    /// How long until so much is forgotten that it will have happened less than `most` times; `None` = it is so now.
    #[must_use]
    pub fn wait(&self, key: Key, most: u32, now: Timestamp) -> Option<Duration> {
        let (most, number) = (isize::try_from(most).unwrap_or(isize::MAX), self.number(now));
        let count = |back: u64| number.checked_sub(back).map_or(0, |number| self.count(key, number));
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
        let end = number.saturating_add(parts).saturating_mul(self.part);
        Some(Timestamp::from_millis(end).since(now))
    }

    /// How often in the part with that number.
    fn count(&self, key: Key, number: u64) -> isize {
        let counted = self.window(number).filter(|window| window.number.load(Ordering::Acquire) == number);
        counted.map_or(0, |window| window.sketch.get(key.0))
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

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("part", &self.part).finish_non_exhaustive()
    }
}
