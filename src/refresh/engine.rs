//! Who wants a fresh token, and what they get.
//!
//! Within a process each session has at most one refresh under way; among replicas a lease in the record sees to that
//! (see [`attempt`](super::attempt)). A refresh runs in a task of its own: whoever stops waiting cancels nothing.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use super::attempt::{Attempt, Outcome};
use super::flight::Flights;
use super::need::Need;
use super::pace::{Entry, Paces};
use super::unsettled::Unsettled;
use crate::config::settings;
use crate::primitives::clock::Timestamp;
use crate::primitives::random;
use crate::provider::Providers;
use crate::session::manager::Sessions;
use crate::session::open::Open;
use crate::store::record::SessionKey;
use crate::telemetry::Metrics;

/// How long a request waits for a refresh if its own token outlives that.
const WAIT_ALIVE: Duration = Duration::from_secs(2);
/// How long a request waits for a refresh when its token is dead, or will be by then.
const WAIT_DEAD: Duration = Duration::from_secs(8);
/// What a request that waited too long is told to wait before it asks again.
const PAUSE_SLOW: Duration = Duration::from_secs(1);
/// How long nothing newer is looked for in the store when there was nothing newer than a token that was refused.
const NOTHING_NEWER: Duration = Duration::from_secs(30);
/// When a claimed session whose refresh is under way already is looked at again.
const OTHERS_PAUSE: Duration = Duration::from_secs(5);
/// Sessions whose pause is remembered.
const PAUSES: usize = 50_000;

/// What became of the wish for a fresh token.
#[derive(Clone)]
pub enum Refreshed {
    /// The session with a fresh token.
    Renewed(Arc<Open>),
    /// The session is over: the provider refused the refresh token, or a logout came first.
    Ended,
    /// No fresh token for now; the session is kept.
    Failed(Failure),
}

/// Why there is no fresh token although the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The provider gave none; there is nothing to refresh with.
    NoRefreshToken,
    /// The provider is not reached, busy, or refuses us as a client; ask again after this time.
    Provider(Duration),
    /// Nobody knows whether the provider used up the refresh token.
    InDoubt,
    /// The session store is not there.
    Store,
}

#[derive(Clone, Copy)]
struct Pause {
    generation: u64,
    until: Timestamp,
    failure: Failure,
}

/// Refreshes tokens of sessions.
pub struct Refresher {
    pub(super) sessions: Arc<Sessions>,
    pub(super) providers: Providers,
    pub(super) minimum_lifetime: Duration,
    pub(super) paces: Paces,
    flights: Flights<SessionKey, Outcome>,
    pauses: Cache<SessionKey, Pause>,
    /// Generations of tokens that upstreams refuse and that there is nothing newer than, and until when that is believed.
    refused: Cache<SessionKey, (u64, Timestamp)>,
    pub(super) unsettled: Unsettled,
    pub(super) metrics: Arc<Metrics>,
}

impl Refresher {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        providers: Providers,
        settings: &settings::Refresh,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let paces = Paces::new(&providers, settings);
        let (flights, pauses, refused) = (Flights::new(), Cache::new(PAUSES), Cache::new(PAUSES));
        let (minimum_lifetime, unsettled) = (settings.minimum_lifetime, Unsettled::default());
        Arc::new(Self { sessions, providers, minimum_lifetime, paces, flights, pauses, refused, unsettled, metrics })
    }

    /// Whether the session's access token may go upstream as it is at this moment.
    #[must_use]
    pub fn is_fresh(&self, open: &Open, now: Timestamp) -> bool {
        open.is_fresh(now, self.minimum_lifetime)
    }

    /// The session with an access token that has `minimum_lifetime` left. Where there is none to be had, a token that
    /// still lives is used to its end.
    pub async fn freshen(self: &Arc<Self>, open: Arc<Open>) -> Refreshed {
        if self.is_fresh(&open, self.now()) {
            return Refreshed::Renewed(open);
        }
        // Who would hold a dead token at the end of the short wait waits as if it were dead already.
        let patience = if open.is_alive(self.now().plus(WAIT_ALIVE)) { WAIT_ALIVE } else { WAIT_DEAD };
        let result = match self.hopeless(&open) {
            Some(failure) => Refreshed::Failed(failure),
            None => match self.wait(&open, Need::Minimum, patience).await {
                // A flight that was about to land had looked before the token grew old, and found nothing to do.
                Refreshed::Renewed(same)
                    if same.generation() == open.generation() && !self.is_fresh(&same, self.now()) =>
                {
                    self.wait(&open, Need::Minimum, patience).await
                }
                result => result,
            },
        };
        match result {
            Refreshed::Failed(_) if open.is_alive(self.now()) => Refreshed::Renewed(open),
            other => other,
        }
    }

    /// The session with a newer access token than the one of `open`, which an upstream has refused although its time is
    /// not over: the one in the store if that is newer, else one from the provider, for each session once in five minutes
    /// among all replicas (behaviour B5). Of the same generation again if there is nothing newer to be had.
    pub async fn replace(self: &Arc<Self>, open: &Arc<Open>) -> Refreshed {
        let generation = open.generation();
        if let Some(failure) = self.hopeless(open) {
            return Refreshed::Failed(failure);
        }
        if self.refused.get(open.key()).is_some_and(|(same, until)| same == generation && self.now() < until) {
            return Refreshed::Renewed(open.clone());
        }
        let need = Need::Refused(generation);
        let is_same = |result: &Refreshed| matches!(result, Refreshed::Renewed(got) if got.generation() == generation);
        let mut result = self.wait(open, need, WAIT_DEAD).await;
        if is_same(&result) {
            // It may have been that of a flight that began for another reason, and found none for itself.
            result = self.wait(open, need, WAIT_DEAD).await;
        }
        if is_same(&result) {
            self.refused.insert(*open.key(), (generation, self.now().plus(NOTHING_NEWER)));
        }
        result
    }

    /// Why a refresh need not even be tried, if that is known.
    fn hopeless(&self, open: &Open) -> Option<Failure> {
        match self.pauses.get(open.key()) {
            Some(pause) if pause.generation == open.generation() && self.now() < pause.until => Some(pause.failure),
            _ => (!open.has_refresh_token()).then_some(Failure::NoRefreshToken),
        }
    }

    async fn wait(self: &Arc<Self>, open: &Arc<Open>, need: Need, patience: Duration) -> Refreshed {
        let waiters = self.metrics.token_refresh_waiters.with_label_values(&[open.provider()]);
        waiters.inc();
        let flight = async {
            loop {
                let flight = self.flights.join(*open.key(), || {
                    Attempt::new(self.clone(), *open.key(), need, Some(open.profile().clone())).run()
                });
                match flight.await {
                    Some(Outcome::PutOff(_)) => {}
                    result => return result,
                }
            }
        };
        let result = tokio::time::timeout(patience, flight).await;
        waiters.dec();
        match result.ok().flatten() {
            Some(Outcome::Renewed(Some(renewed))) => Refreshed::Renewed(renewed),
            // Done by somebody who did not know that this process serves the session.
            Some(Outcome::Renewed(None)) => match self.sessions.renew(open).await {
                Ok(Some(renewed)) => Refreshed::Renewed(renewed),
                Ok(None) => Refreshed::Ended,
                Err(_) => Refreshed::Failed(Failure::Store),
            },
            Some(Outcome::Ended) => Refreshed::Ended,
            Some(Outcome::Failed(failure)) => Refreshed::Failed(failure),
            // A waiter that gives up ends nothing: the refresh goes on without it (behaviour R9).
            Some(Outcome::PutOff(_)) | None => Refreshed::Failed(Failure::Provider(PAUSE_SLOW)),
        }
    }

    /// Refreshes a session that the background refresher has claimed. One that others here wait for already is not its
    /// to wait for as well.
    pub(super) async fn refresh_claimed(self: &Arc<Self>, key: SessionKey) -> Outcome {
        if self.flights.has(&key) {
            return Outcome::PutOff(self.now().plus(random::jittered(OTHERS_PAUSE)));
        }
        let flight = self.flights.join(key, || Attempt::new(self.clone(), key, Need::Claimed, None).run());
        flight.await.unwrap_or(Outcome::Failed(Failure::Store))
    }

    /// Begins to refresh a session that is due and that the background refresher has not come to: it may have been idle
    /// when it was its turn. Nobody waits for it.
    pub fn hurry(self: &Arc<Self>, open: &Open) {
        if open.claim_hurry() {
            let (engine, key) = (self.clone(), *open.key());
            tokio::spawn(async move {
                engine.flights.join(key, || Attempt::new(engine.clone(), key, Need::Due, None).run()).await
            });
        }
    }

    /// Lets requests of a session know at once that there is nothing to be had for a while.
    pub(super) fn pause(&self, key: &SessionKey, generation: u64, length: Duration, failure: Failure) {
        self.pauses.insert(*key, Pause { generation, until: self.now().plus(length), failure });
    }

    /// Tells, also when the refresher itself is gone, whether refreshes still have something to settle.
    #[must_use]
    pub fn unsettled(&self) -> Unsettled {
        self.unsettled.clone()
    }

    /// Leave for a call of the provider's token endpoint that is no refresh: it keeps the same pace. The place is free again
    /// when it is dropped. An error says how long to wait. `unhurried`: nobody waits for it, and it waits for no place.
    pub(crate) async fn leave(&self, provider: &str, unhurried: bool) -> Result<impl Send + use<>, Duration> {
        let need = if unhurried { Need::Claimed } else { Need::Minimum };
        match self.paces.enter(provider, need).await {
            Entry::Now(leave) | Entry::AfterWait(leave) => Ok(leave),
            Entry::NotFor(pause) | Entry::Full(pause) => Err(pause),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.sessions.clock().now()
    }
}
