//! A circuit breaker before the token endpoint: a provider that does not answer is left alone for a while, then asked by
//! one call, the probe, before all others come (behaviour B2).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{OidcError, RefreshError};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random;

/// Failures in a row that open it: fewer may be the bad luck of single calls.
const FAILURES: u32 = 5;
/// How long it stays open at first, and at most; it doubles each time that a probe fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A probe that has not come back after this time is given up, and another may go.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest pause that a provider may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answered, whatever it said.
    Good,
    /// It did not answer, or said that it cannot.
    Bad,
    /// It wants to be left alone for this long, whoever asks.
    Busy(Duration),
}

impl Health {
    /// What the answer to a login or to a token for an upstream tells. Strangers may cause these, so that one of them which
    /// asks for a pause does not stop everybody's refreshes: it counts as a failure among others.
    pub(super) fn of_login<T>(answer: &Result<T, OidcError>) -> Self {
        match answer {
            Err(OidcError::Unavailable { .. }) => Self::Bad,
            _ => Self::Good,
        }
    }

    /// What a refresh's answer tells.
    pub(crate) fn of_refresh<T>(answer: &Result<T, RefreshError>) -> Self {
        match answer {
            Err(RefreshError::Unavailable { retry_after: Some(asked), .. }) => Self::Busy(*asked),
            Err(RefreshError::Unavailable { retry_after: None, .. } | RefreshError::InDoubt(_)) => Self::Bad,
            _ => Self::Good,
        }
    }
}

/// The breaker of one provider.
pub struct Breaker {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    pause: Duration,
    /// Open until then; afterwards half open.
    until: Option<Timestamp>,
    /// When the probe went out.
    probe: Option<Timestamp>,
}

impl Breaker {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// How long to wait before the next call; `None` = go. Of those that come when it is half open, one goes.
    #[must_use]
    pub fn admit(&self) -> Option<Duration> {
        let now = self.clock.now();
        let mut state = self.state();
        let wait = state.wait(now);
        if wait.is_none() && state.until.is_some() {
            state.probe = Some(now);
        }
        wait
    }

    /// As [`Breaker::admit`], without a call to follow.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.state().wait(self.clock.now())
    }

    /// Whether a probe is under way whose answer decides.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        let now = self.clock.now();
        let state = self.state();
        state.probe.is_some() && state.until.is_some_and(|until| until <= now)
    }

    /// Whether calls are held back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().until.is_some()
    }

    pub(crate) fn note(&self, health: Health) {
        let now = self.clock.now();
        let mut state = self.state();
        state.probe = None;
        match health {
            Health::Good => *state = State::default(),
            Health::Busy(asked) => state.until = Some(now.plus(asked.min(LONGEST_ASKED))),
            Health::Bad => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= FAILURES {
                    // The first to fail after a pause doubles it; those that were still under way do not.
                    if state.until.is_none_or(|until| until <= now) {
                        state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    }
                    state.until = Some(now.plus(random::jittered(state.pause)));
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&self, now: Timestamp) -> Option<Duration> {
        let until = self.until?;
        let probe = self.probe.map(|probe| probe.plus(PROBE_PATIENCE));
        let left = until.max(probe.unwrap_or_default()).since(now);
        // Whoever is behind the probe asks again soon.
        (!left.is_zero()).then(|| if until <= now { FIRST_PAUSE.min(left) } else { left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Clock) {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        (Breaker::new(clock.clone()), clock)
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.note(Health::Bad);
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_single_ones_do_not() {
        let (breaker, _) = breaker();
        fail(&breaker, FAILURES - 1);
        breaker.note(Health::Good);
        fail(&breaker, FAILURES - 1);
        assert_eq!(breaker.admit(), None);
        fail(&breaker, 1);
        assert!(breaker.admit().is_some_and(|wait| wait <= FIRST_PAUSE) && breaker.is_open());
    }

    #[test]
    fn one_probe_goes_and_its_answer_decides() {
        let (breaker, clock) = breaker();
        fail(&breaker, FAILURES);
        clock.advance(FIRST_PAUSE);
        assert_eq!(breaker.wait(), None, "looking is no probe");
        assert_eq!(breaker.admit(), None);
        assert!(breaker.is_probing());
        assert!((0..100).all(|_| breaker.admit().is_some()), "one probe at a time");
        breaker.note(Health::Bad);
        assert!(breaker.admit().is_some_and(|wait| wait > FIRST_PAUSE), "twice as long");
        assert!(!breaker.is_probing());
        clock.advance(FIRST_PAUSE * 2);
        assert_eq!(breaker.admit(), None);
        breaker.note(Health::Good);
        assert!((0..100).all(|_| breaker.admit().is_none()) && !breaker.is_open());
    }

    #[test]
    fn a_probe_that_never_returns_is_given_up() {
        let (breaker, clock) = breaker();
        fail(&breaker, FAILURES);
        clock.advance(FIRST_PAUSE);
        assert_eq!(breaker.admit(), None);
        clock.advance(PROBE_PATIENCE);
        assert_eq!(breaker.admit(), None);
    }

    #[test]
    fn ten_minutes_of_outage_cost_few_calls() {
        let (breaker, clock) = breaker();
        let mut calls = 0;
        for _ in 0..6_000 {
            for _ in 0..50 {
                if breaker.admit().is_none() {
                    calls += 1;
                    breaker.note(Health::Bad);
                }
            }
            clock.advance(Duration::from_millis(100));
        }
        assert!((40..=90).contains(&calls), "{calls}");
        clock.advance(LONGEST_PAUSE);
        assert_eq!(breaker.admit(), None);
    }

    #[test]
    fn a_provider_that_asks_for_a_pause_gets_it() {
        let (breaker, clock) = breaker();
        breaker.note(Health::Busy(Duration::from_secs(7)));
        assert_eq!(breaker.admit(), Some(Duration::from_secs(7)));
        clock.advance(Duration::from_secs(7));
        assert_eq!(breaker.admit(), None);
        breaker.note(Health::Busy(Duration::MAX));
        assert_eq!(breaker.admit(), Some(LONGEST_ASKED));
    }
}
