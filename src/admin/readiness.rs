//! Whether traffic may come: everyone who must finish starting holds a latch, and the process is ready when all are
//! released. A released latch never closes again: an outage after the start must not make all replicas leave at once.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Something that is shown but does not decide: whether it is well, and how it stands.
type Report = Box<dyn Fn() -> (bool, String) + Send + Sync>;

/// What `/readyz` says. Cheap to clone; clones share their state.
#[derive(Clone, Default)]
pub struct Readiness(Arc<State>);

#[derive(Default)]
struct State {
    required: Mutex<Vec<(String, Arc<AtomicBool>)>>,
    reports: Mutex<Vec<(String, Report)>>,
    draining: AtomicBool,
}

/// Held by whoever must finish starting. Dropping it releases nothing: a start that failed is no start.
#[derive(Debug)]
#[must_use = "the process is not ready until the latch is released"]
pub struct Latch(Arc<AtomicBool>);

impl Latch {
    /// It has started. Further calls do nothing.
    pub fn release(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Readiness {
    /// Ready as long as nobody asks for a latch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on not ready until the latch is released.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let released = Arc::new(AtomicBool::new(false));
        let mut required = self.0.required.lock().unwrap_or_else(PoisonError::into_inner);
        required.push((name.into(), Arc::clone(&released)));
        Latch(released)
    }

    /// Shows a line in the verbose answer that decides nothing: an OpenID provider that is down neither stops nor
    /// delays the proxy. `report` says whether it is well and how it stands; it must not wait for anything.
    pub fn inform(&self, name: impl Into<String>, report: impl Fn() -> (bool, String) + Send + Sync + 'static) {
        let mut reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.push((name.into(), Box::new(report)));
    }

    /// The process is about to stop: not ready any more, for good.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether [`Readiness::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether traffic may come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let required = self.0.required.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_draining() && required.iter().all(|(_, released)| released.load(Ordering::Acquire))
    }

    /// One line a check: the required ones, then the others, then the verdict.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (name, released) in self.0.required.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let state = if released.load(Ordering::Acquire) { "ready" } else { "not ready" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}: {state}");
        }
        for (name, report) in self.0.reports.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (well, detail) = report();
            let state = if well { "ready" } else { "not ready" };
            let _ = if detail.is_empty() {
                writeln!(text, "{name}: {state}")
            } else {
                writeln!(text, "{name}: {state} ({detail})")
            };
        }
        if self.is_draining() {
            text.push_str("draining\n");
        }
        text.push_str(if self.is_ready() { "ready\n" } else { "not ready\n" });
        text
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_latch_is_released() {
        let readiness = Readiness::new();
        let (listeners, store) = (readiness.latch("listeners"), readiness.latch("store"));
        assert!(!readiness.is_ready());
        listeners.release();
        assert_eq!(readiness.describe(), "listeners: ready\nstore: not ready\nnot ready\n");
        store.release();
        drop((listeners, store));
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_latch_dropped_unreleased_stays_closed() {
        let readiness = Readiness::new();
        drop(readiness.latch("store"));
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_provider_that_is_down_is_shown_and_does_not_decide() {
        let readiness = Readiness::new();
        readiness.inform("provider keycloak", || (false, "no answer".to_owned()));
        assert!(readiness.is_ready());
        assert_eq!(readiness.describe(), "provider keycloak: not ready (no answer)\nready\n");
    }

    #[test]
    fn draining_is_for_good() {
        let readiness = Readiness::new();
        readiness.drain();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.describe(), "draining\nnot ready\n");
    }
}
