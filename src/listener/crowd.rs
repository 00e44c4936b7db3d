//! How many connections are open, in all and of one address.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::primitives::neighbour::Neighbour;

/// Neighbours that share a lock.
const SHARDS: usize = 64;

/// All open connections of the public listeners.
#[derive(Debug)]
pub(super) struct Crowd {
    most: Option<u64>,
    most_of_one: Option<NonZeroU32>,
    open: AtomicU64,
    shards: [Mutex<HashMap<Neighbour, u32>>; SHARDS],
    hasher: RandomState,
}

impl Crowd {
    /// `None` = no limit.
    pub(super) fn new(most: Option<u64>, most_of_one: Option<NonZeroU32>) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            open: AtomicU64::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        })
    }

    /// A place for one more connection, if there is one. It is free again when the seat is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Seat> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { crowd: Arc::clone(self), of: None };
        self.most.is_none_or(|most| before < most).then_some(seat)
    }

    /// Runs `change` on the count of one neighbour, which is forgotten at zero.
    fn count<T>(&self, of: Neighbour, change: impl FnOnce(&mut u32) -> T) -> Option<T> {
        let shard = usize::try_from(self.hasher.hash_one(of) % SHARDS as u64).ok()?;
        let mut shard = self.shards.get(shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.entry(of).or_insert(0);
        let changed = change(count);
        if *count == 0 {
            shard.remove(&of);
        }
        Some(changed)
    }
}

/// The place of one open connection.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    /// Whom it is counted for, beside the sum.
    of: Option<Neighbour>,
}

impl Seat {
    /// Counts it for this address too; `false` if that one has as many as it may.
    pub(super) fn claim(&mut self, address: IpAddr) -> bool {
        let Some(most) = self.crowd.most_of_one else { return true };
        let of = Neighbour::from(address);
        let claimed = self.crowd.count(of, |count| {
            let free = *count < most.get();
            *count += u32::from(free);
            free
        });
        if claimed == Some(true) {
            self.of = Some(of);
        }
        claimed == Some(true)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(of) = self.of {
            self.crowd.count(of, |count| *count = count.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(crowd: &Crowd) -> usize {
        crowd.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    fn claim(crowd: &Arc<Crowd>, address: &str) -> Option<Seat> {
        let mut seat = crowd.enter()?;
        seat.claim(address.parse().unwrap()).then_some(seat)
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let crowd = Crowd::new(Some(2), None);
        let (one, two) = (crowd.enter(), crowd.enter());
        assert!(one.is_some() && two.is_some() && crowd.enter().is_none() && crowd.enter().is_none());
        drop(one);
        assert!(crowd.enter().is_some());
        drop(two);
        assert_eq!(crowd.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_address_cannot_take_all_places_and_nobody_is_remembered() {
        let crowd = Crowd::new(None, NonZeroU32::new(2));
        let one: Vec<_> = (0..5).filter_map(|_| claim(&crowd, "192.0.2.1")).collect();
        assert_eq!(one.len(), 2);
        assert!(claim(&crowd, "::ffff:192.0.2.1").is_none(), "the same address, mapped");
        assert!(claim(&crowd, "192.0.2.2").is_some());
        drop(one);
        assert!(claim(&crowd, "192.0.2.1").is_some());
        assert_eq!((known(&crowd), crowd.open.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one() {
        let crowd = Crowd::new(None, NonZeroU32::new(2));
        let _held: Vec<_> =
            ["2001:db8:0:1::1", "2001:db8:0:1:ffff::"].iter().map(|address| claim(&crowd, address).unwrap()).collect();
        assert!(claim(&crowd, "2001:db8:0:1::2").is_none());
        assert!(claim(&crowd, "2001:db8:0:2::1").is_some());
    }
}
