//! One address of an upstream, and how it stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::settings::{Ejection, ServerName};

/// The health check found it bad.
const UNHEALTHY: u8 = 1;
/// Requests found it bad; it is left alone for a while.
const EJECTED: u8 = 2;

/// So many answers in a row, and former pauses are forgotten.
const FORGOTTEN_AFTER: u32 = 10;

/// One address that may be picked.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    /// The endpoint's host and port, for the `Host` of checks.
    authority: Arc<str>,
    /// The name that it must prove; `None` = no TLS.
    server_name: Option<ServerName>,
    weight: u32,
    /// Why it is out of service; 0 = it is not.
    out: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    /// Pauses that are not forgotten yet.
    pauses: AtomicU32,
    /// Answers in a row since the last pause.
    answers: AtomicU32,
    /// Requests under way, if the upstream counts them.
    under_way: AtomicUsize,
}

/// How an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    InService,
    Unhealthy,
    Ejected,
}

impl Target {
    pub(in crate::routing) fn new(
        address: SocketAddr,
        authority: Arc<str>,
        server_name: Option<ServerName>,
        weight: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            authority,
            server_name,
            weight,
            out: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            pauses: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            under_way: AtomicUsize::new(0),
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is the same address, reached in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.address, &self.authority, &self.server_name, self.weight)
            == (other.address, &other.authority, &other.server_name, other.weight)
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn server_name(&self) -> Option<&ServerName> {
        self.server_name.as_ref()
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    pub(super) fn is_in_service(&self) -> bool {
        self.out.load(Ordering::Relaxed) == 0
    }

    pub(super) fn standing(&self) -> Standing {
        match self.out.load(Ordering::Relaxed) {
            0 => Standing::InService,
            out if out & UNHEALTHY != 0 => Standing::Unhealthy,
            _ => Standing::Ejected,
        }
    }

    /// What the health check says.
    pub(super) fn set_healthy(&self, healthy: bool) {
        if healthy {
            self.out.fetch_and(!UNHEALTHY, Ordering::Relaxed);
        } else {
            self.out.fetch_or(UNHEALTHY, Ordering::Relaxed);
        }
    }

    /// A request has failed. `Some` for the one failure that is one too many: how long it is to be left alone.
    pub(super) fn failed(&self, ejection: &Ejection) -> Option<Duration> {
        self.answers.store(0, Ordering::Relaxed);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < ejection.after || self.out.fetch_or(EJECTED, Ordering::Relaxed) & EJECTED != 0 {
            return None;
        }
        let before = self.pauses.fetch_add(1, Ordering::Relaxed).min(31);
        Some(ejection.pause.saturating_mul(1 << before).min(ejection.longest_pause))
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.pauses.load(Ordering::Relaxed) != 0
            && self.answers.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= FORGOTTEN_AFTER
        {
            self.pauses.store(0, Ordering::Relaxed);
        }
    }

    /// The pause is over. It is on trial: one more failure, and the next one begins.
    pub(super) fn readmit(&self, ejection: &Ejection) {
        self.failures.store(ejection.after.saturating_sub(1), Ordering::Relaxed);
        self.answers.store(0, Ordering::Relaxed);
        self.out.fetch_and(!EJECTED, Ordering::Relaxed);
    }

    /// Requests under way in proportion to the weight, comparable with others.
    pub(super) fn load(&self) -> u64 {
        let under_way = u64::try_from(self.under_way.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        under_way.saturating_mul(1000) / u64::from(self.weight.max(1))
    }
}

/// A request under way, as long as this lives; counted at its target and at its upstream, or nowhere.
#[derive(Debug)]
pub struct UnderWay {
    there: Option<Arc<Target>>,
    all: Option<Arc<AtomicUsize>>,
}

impl UnderWay {
    /// `all` counts it already.
    pub(super) fn new(there: Option<Arc<Target>>, all: Option<Arc<AtomicUsize>>) -> Self {
        if let Some(target) = &there {
            target.under_way.fetch_add(1, Ordering::Relaxed);
        }
        Self { there, all }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for count in self.there.as_ref().map(|target| &target.under_way).into_iter().chain(self.all.as_deref()) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Arc<Target> {
        Target::new("127.0.0.1:1".parse().unwrap(), "127.0.0.1:1".into(), None, 1)
    }

    fn ejection() -> Ejection {
        let second = Duration::from_secs(1);
        Ejection { after: 3, on_5xx: false, pause: second, longest_pause: second * 5 }
    }

    #[test]
    fn only_failures_in_a_row_count_and_one_of_them_ejects() {
        let (target, ejection) = (target(), ejection());
        assert_eq!((target.failed(&ejection), target.failed(&ejection)), (None, None));
        target.answered();
        assert_eq!((target.failed(&ejection), target.failed(&ejection)), (None, None));
        assert!(target.is_in_service());
        assert_eq!(target.failed(&ejection), Some(Duration::from_secs(1)));
        assert_eq!(target.standing(), Standing::Ejected);
        assert_eq!(target.failed(&ejection), None, "what was under way then changes nothing");
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_forgotten_by_answers() {
        let (target, ejection) = (target(), ejection());
        let pauses: Vec<_> = (0..5)
            .map(|_| {
                let pause = (0..3).find_map(|_| target.failed(&ejection)).unwrap().as_secs();
                target.readmit(&ejection);
                pause
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        (0..FORGOTTEN_AFTER - 1).for_each(|_| target.answered());
        assert_eq!((0..3).find_map(|_| target.failed(&ejection)).unwrap().as_secs(), 5);
        target.readmit(&ejection);
        (0..FORGOTTEN_AFTER).for_each(|_| target.answered());
        assert_eq!((0..3).find_map(|_| target.failed(&ejection)).unwrap().as_secs(), 1);
    }

    #[test]
    fn after_a_pause_one_failure_is_enough() {
        let (target, ejection) = (target(), ejection());
        while target.failed(&ejection).is_none() {}
        target.readmit(&ejection);
        assert!(target.is_in_service());
        assert_eq!(target.failed(&ejection), Some(Duration::from_secs(2)));
    }

    #[test]
    fn health_and_ejection_do_not_undo_each_other() {
        let (target, ejection) = (target(), ejection());
        target.set_healthy(false);
        while target.failed(&ejection).is_none() {}
        target.readmit(&ejection);
        assert_eq!(target.standing(), Standing::Unhealthy);
        target.set_healthy(true);
        assert_eq!(target.standing(), Standing::InService);
    }
}
