//! A brake for log lines that every request of an outage would write.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shortest time between two lines.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one line a second pass and counts the others.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Milliseconds since the first question, plus one; 0: nothing has passed yet.
    last: AtomicU64,
    held_back: AtomicU64,
    first: OnceLock<Instant>,
}

impl Throttle {
    /// Nothing has passed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0), held_back: AtomicU64::new(0), first: OnceLock::new() }
    }

    /// Whether to write the line; if so, how many were held back since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_after(self.first.get_or_init(Instant::now).elapsed())
    }

    fn pass_after(&self, elapsed: Duration) -> Option<u64> {
        let now = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || u128::from(now.saturating_sub(last)) >= EVERY.as_millis();
        if due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_and_says_how_many_did_not() {
        let throttle = Throttle::new();
        let at = |millis| throttle.pass_after(Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(0), at(1), at(999)), (None, None, None));
        assert_eq!(at(1000), Some(3));
        assert_eq!(at(1500), None);
        assert_eq!(at(60_000), Some(1));
    }
}
