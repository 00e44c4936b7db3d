//! The addresses of an upstream at one moment, and the choice among them. Choosing allocates nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};

use super::target::{Standing, Target};
use crate::config::settings::Balance;

/// All addresses of an upstream, in order, each once.
pub(super) struct Targets {
    list: Vec<Arc<Target>>,
    /// Places in `list`, each as often as its weight says and well mixed; empty if all weigh the same.
    turns: Box<[usize]>,
    ring: Option<Ring>,
    /// So many addresses are out of service that none is spared any more: those that are left would get too much.
    all_count: AtomicBool,
}

/// The ring of consistent hashing, as nginx and memcached clients make it.
struct Ring {
    continuum: Continuum,
    points: usize,
}

/// How many addresses stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) in_service: usize,
    pub(super) unhealthy: usize,
    pub(super) ejected: usize,
}

impl Tally {
    pub(super) fn all(self) -> usize {
        self.in_service + self.unhealthy + self.ejected
    }
}

impl Targets {
    pub(super) fn new(mut list: Vec<Arc<Target>>, balance: &Balance) -> Self {
        list.sort_by_key(|target| target.address());
        list.dedup_by_key(|target| target.address());
        let ring = matches!(balance, Balance::ConsistentHash(_)).then(|| Ring::new(&list));
        let targets = Self { turns: turns(&list), list, ring, all_count: AtomicBool::new(false) };
        targets.recount();
        targets
    }

    pub(super) fn list(&self) -> &[Arc<Target>] {
        &self.list
    }

    /// Counts anew; to be called whenever an address goes or comes. Above one half out of service all of them count.
    pub(super) fn recount(&self) -> Tally {
        let mut tally = Tally::default();
        for target in &self.list {
            match target.standing() {
                Standing::InService => tally.in_service += 1,
                Standing::Unhealthy => tally.unhealthy += 1,
                Standing::Ejected => tally.ejected += 1,
            }
        }
        let out = tally.unhealthy + tally.ejected;
        self.all_count.store(out * 2 > self.list.len(), Ordering::Relaxed);
        tally
    }

    /// Whether addresses out of service are used as well.
    pub(super) fn all_count(&self) -> bool {
        self.all_count.load(Ordering::Relaxed)
    }

    /// An address that is none of `failed`. Those out of service, and at last the failed ones, are taken when there is
    /// nothing better: a request that may succeed is better than one that cannot. `None` only while no address is known.
    pub(super) fn pick(
        &self,
        balance: &Balance,
        next: &AtomicUsize,
        key: &[u8],
        failed: &[SocketAddr],
    ) -> Option<&Arc<Target>> {
        if let [only] = self.list.as_slice() {
            // Neither how it stands nor what just happened would change anything.
            return Some(only);
        }
        match (balance, &self.ring) {
            (Balance::ConsistentHash(_), Some(ring)) => {
                let around = ring.continuum.node_iter(key).take(ring.points);
                self.first_good(around.filter_map(|address| self.at(address)), failed)
            }
            (Balance::LeastRequests, _) => {
                let (one, other) = (self.from(fastrand::usize(..)).next()?, self.from(fastrand::usize(..)).next()?);
                let (better, worse) = if other.load() < one.load() { (other, one) } else { (one, other) };
                let rest = self.from(next.fetch_add(1, Ordering::Relaxed));
                self.first_good([better, worse].into_iter().chain(rest), failed)
            }
            (Balance::Random, _) => self.first_good(self.from(fastrand::usize(..)), failed),
            _ => self.first_good(self.from(next.fetch_add(1, Ordering::Relaxed)), failed),
        }
    }

    fn first_good<'t>(
        &self,
        candidates: impl Iterator<Item = &'t Arc<Target>>,
        failed: &[SocketAddr],
    ) -> Option<&'t Arc<Target>> {
        let all_count = self.all_count();
        let (mut second_best, mut last_resort) = (None, None);
        for target in candidates {
            if failed.contains(&target.address()) {
                last_resort = last_resort.or(Some(target));
            } else if all_count || target.is_in_service() {
                return Some(target);
            } else {
                second_best = second_best.or(Some(target));
            }
        }
        second_best.or(last_resort)
    }

    /// Every address in turn, beginning at a turn.
    fn from(&self, turn: usize) -> impl Iterator<Item = &Arc<Target>> {
        let weighed = !self.turns.is_empty();
        let count = if weighed { self.turns.len() } else { self.list.len() };
        let start = turn % count.max(1);
        (start..count).chain(0..start).filter_map(move |turn| {
            let place = if weighed { *self.turns.get(turn)? } else { turn };
            self.list.get(place)
        })
    }

    fn at(&self, address: &SocketAddr) -> Option<&Arc<Target>> {
        let place = self.list.binary_search_by_key(address, |target| target.address()).ok()?;
        self.list.get(place)
    }
}

impl Ring {
    fn new(list: &[Arc<Target>]) -> Self {
        let buckets: Vec<_> = list.iter().map(|target| Bucket::new(target.address(), target.weight().max(1))).collect();
        let points =
            list.iter().map(|target| target.weight().max(1)).sum::<u32>().saturating_mul(DEFAULT_POINT_MULTIPLE);
        Self { continuum: Continuum::new(&buckets), points: usize::try_from(points).unwrap_or(usize::MAX) }
    }
}

/// Smooth weighted turns: whoever has waited longest for its share is next, so that no address gets its share in one go.
fn turns(list: &[Arc<Target>]) -> Box<[usize]> {
    let weights: Vec<i64> = list.iter().map(|target| i64::from(target.weight().max(1))).collect();
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    if weights.iter().all(|weight| *weight == divisor) {
        return Box::default();
    }
    let weights: Vec<i64> = weights.iter().map(|weight| weight / divisor).collect();
    let total: i64 = weights.iter().sum();
    let mut waiting = vec![0; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        waiting.iter_mut().zip(&weights).for_each(|(waiting, weight)| *waiting += weight);
        let longest = waiting.iter_mut().enumerate().rev().max_by_key(|(_, waiting)| **waiting);
        if let Some((place, waiting)) = longest {
            *waiting -= total;
            turns.push(place);
        }
    }
    turns.into()
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::target::UnderWay;
    use super::*;
    use crate::config::settings::{Ejection, HashOn};

    fn targets(weights: &[u32], balance: &Balance) -> Targets {
        let target = |(index, weight): (usize, &u32)| {
            let address = SocketAddr::from(([10, 0, 0, 1], u16::try_from(index).unwrap() + 1));
            Target::new(address, address.to_string().into(), None, *weight)
        };
        Targets::new(weights.iter().enumerate().map(target).collect(), balance)
    }

    fn picks(targets: &Targets, balance: &Balance, count: usize) -> Vec<u16> {
        let next = AtomicUsize::new(0);
        (0..count).map(|_| targets.pick(balance, &next, b"key", &[]).unwrap().address().port()).collect()
    }

    fn counted(picks: Vec<u16>) -> BTreeMap<u16, usize> {
        picks.into_iter().fold(BTreeMap::new(), |mut counts, port| {
            *counts.entry(port).or_default() += 1;
            counts
        })
    }

    fn eject(target: &Target) {
        let minute = Duration::from_secs(60);
        let ejection = Ejection { after: 1, on_5xx: false, pause: minute, longest_pause: minute };
        assert!(target.failed(&ejection).is_some());
    }

    #[test]
    fn weights_share_the_turns_smoothly() {
        let turns = targets(&[5, 1, 1], &Balance::RoundRobin);
        assert_eq!(picks(&turns, &Balance::RoundRobin, 7), [1, 1, 2, 1, 3, 1, 1]);
        let same = targets(&[7, 7, 7], &Balance::RoundRobin);
        assert_eq!(picks(&same, &Balance::RoundRobin, 6), [1, 2, 3, 1, 2, 3]);
        let halves = targets(&[100, 50], &Balance::RoundRobin);
        assert_eq!(halves.turns.len(), 3);
    }

    #[test]
    fn random_and_least_requests_respect_weights() {
        for balance in [Balance::Random, Balance::LeastRequests] {
            let targets = targets(&[3, 1], &balance);
            let counts = counted(picks(&targets, &balance, 4000));
            assert!((2600..3950).contains(&counts[&1]), "{balance:?}: {counts:?}");
            assert!(counts[&2] > 40, "{balance:?}: {counts:?}");
        }
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let targets = targets(&[1, 1], &Balance::LeastRequests);
        let _busy: Vec<_> = (0..50).map(|_| UnderWay::new(Some(Arc::clone(&targets.list()[0])), None)).collect();
        let counts = counted(picks(&targets, &Balance::LeastRequests, 400));
        assert!(counts[&2] > 240 && counts[&2] > counts[&1], "{counts:?}");
    }

    #[test]
    fn the_same_key_goes_to_the_same_place_and_only_a_lost_places_keys_move() {
        let balance = Balance::ConsistentHash(HashOn::Session);
        let (four, next) = (targets(&[1, 1, 1, 1], &balance), AtomicUsize::new(0));
        let place = |targets: &Targets, key: u32| {
            targets.pick(&balance, &next, &key.to_be_bytes(), &[]).unwrap().address().port()
        };
        let before: Vec<_> = (0..1000).map(|key| place(&four, key)).collect();
        assert_eq!(before, (0..1000).map(|key| place(&four, key)).collect::<Vec<_>>());
        assert!(counted(before.clone()).values().all(|count| *count > 100), "{:?}", counted(before));
        eject(&four.list()[2]);
        four.recount();
        for (key, before) in (0..1000).zip(&before) {
            let now = place(&four, key);
            assert!(now != 3 && (*before == 3 || now == *before), "{key}: {before} {now}");
        }
    }

    #[test]
    fn above_one_half_out_of_service_all_are_used() {
        let targets = targets(&[1, 1, 1, 1], &Balance::RoundRobin);
        for (out, expected) in [(1, 3), (2, 2), (3, 4), (4, 4)] {
            eject(&targets.list()[out - 1]);
            let tally = targets.recount();
            assert_eq!((tally.in_service, tally.ejected), (4 - out, out));
            assert_eq!(counted(picks(&targets, &Balance::RoundRobin, 8)).len(), expected, "{out} out");
        }
    }

    proptest! {
        #[test]
        fn whoever_is_in_service_is_found_whatever_the_balance(
            weights in prop::collection::vec(1..20_u32, 2..8),
            out in prop::collection::vec(any::<bool>(), 8),
            kind in 0..4_usize,
            failed in prop::collection::vec(1..10_u16, 0..4),
            key in any::<[u8; 4]>(),
        ) {
            let balance = [
                Balance::RoundRobin,
                Balance::Random,
                Balance::LeastRequests,
                Balance::ConsistentHash(HashOn::Address),
            ][kind].clone();
            let targets = targets(&weights, &balance);
            for (target, _) in targets.list().iter().zip(&out).filter(|(_, out)| **out) {
                target.set_healthy(false);
            }
            targets.recount();
            let failed: Vec<_> = failed.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect();
            let picked = targets.pick(&balance, &AtomicUsize::new(7), &key, &failed).unwrap();
            let untried = |target: &Arc<Target>| !failed.contains(&target.address());
            let good = |target: &Arc<Target>| target.is_in_service() && untried(target);
            if targets.list().iter().any(good) && !targets.all_count() {
                prop_assert!(good(picked));
            } else {
                prop_assert!(untried(picked) || !targets.list().iter().any(untried));
            }
        }
    }
}
