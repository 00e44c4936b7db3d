//! How often a route may be asked by one client or in one session.
//!
//! In no time of the length `per` more than the limit pass, wherever it begins (but for threads that look at the same
//! moment); see [`crate::primitives::tally`] for how they are counted. Clients that share counters are counted too high, by
//! about one for each 16,000 requests (130,000 where `per` is 8 min or longer) that pass on the route within `per`.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::{RateBy, RateLimit};
use crate::primitives::clock::Timestamp;
use crate::primitives::tally::{Key, Tally};

/// Clients are spread over so many counters for each minute of `per`: 2.25 MiB for a limit.
const COLUMNS: usize = 16 * 1024;
/// More than for so many minutes are not made.
const MOST_MINUTES: u64 = 8;

/// The limits of one route.
#[derive(Debug)]
pub struct Rates(Box<[Rate]>);

#[derive(Debug)]
struct Rate {
    limit: RateLimit,
    counts: Arc<Tally>,
}

/// A longer time has more clients in it.
fn columns(per: Duration) -> usize {
    COLUMNS * usize::try_from(per.as_secs().div_ceil(60).clamp(1, MOST_MINUTES)).unwrap_or(1)
}

impl Rates {
    /// `None` where nothing is limited. What `before` has counted by the same thing and for the same time is still counted,
    /// whatever the number of requests is now.
    #[must_use]
    pub fn new(limits: &[RateLimit], before: Option<&Self>) -> Option<Box<Self>> {
        let counts = |limit: &RateLimit| {
            let alike = |other: &&Rate| other.limit.by == limit.by && other.limit.per == limit.per;
            let known = before.and_then(|before| before.0.iter().find(alike));
            known.map_or_else(|| Arc::new(Tally::new(limit.per, columns(limit.per))), |known| Arc::clone(&known.counts))
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
        let (key, rates) = (Key::of(key), || self.0.iter().filter(|rate| rate.limit.by == by));
        // A look first: a flood that is refused writes nothing, so that it slows down nobody on another core.
        if let Some(wait) = rates().filter_map(|rate| rate.counts.wait(key, rate.limit.requests, now)).max() {
            return Err(wait);
        }
        rates().for_each(|rate| rate.counts.add(key, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
