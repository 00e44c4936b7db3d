//! One refresh of one session, exactly once among all replicas.
//!
//! The record is read; an intent is written into it; only then is the refresh token shown to the provider; the new
//! tokens are stored before anyone gets them (behaviour R2, R4). Whoever finds another's intent waits for its result. An
//! intent whose lease is over had an owner that died: its token may have been used up, so it is shown again only within
//! the time for which the provider forgives that (R8). A logout deletes the record, so whatever comes later finds none
//! and is revoked (R6). What an error means for the session is decided in [`refusal`](super::refusal).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Failure, Refresher};
use super::keep::{Fresh, merge, succeed};
use super::lease::{self, LEASE, Lease, MARGIN, MayShow, SIGN_OF_LIFE, Taken};
use super::need::{Need, OTHERS_PATIENCE};
use super::pace::{Entry, Leave};
use super::refusal::{PAUSE_IN_DOUBT, PAUSE_LONGEST, PAUSE_MISCONFIGURED, PAUSE_UNAVAILABLE, tell_unusable};
use crate::oidc::{Previous, RefreshError};
use crate::primitives::clock::Timestamp;
use crate::primitives::failpoint::fail_point;
use crate::primitives::random;
use crate::provider::Provider;
use crate::session::manager::entry_of;
use crate::session::model::Secrets;
use crate::session::open::Open;
use crate::session::profile::Profile;
use crate::store::record::{Intent, Record, SessionKey};
use crate::store::{Announce, Swap};
use crate::telemetry::audit::Event;

/// Pauses between two looks at another's refresh; an announcement ends one early.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LATER_LOOKS: Duration = Duration::from_millis(400);
/// When the list of the due is to name a session again that it should not name at all.
const NEVER_DUE: Duration = Duration::from_secs(3_600);
/// Pause before a token is shown again to a provider that forgives it.
const PAUSE_FORGIVEN: Duration = Duration::from_millis(500);

/// What became of it.
#[derive(Clone)]
pub(super) enum Outcome {
    /// The record has fresh tokens; here is the session, if this process serves it.
    Renewed(Option<Arc<Open>>),
    /// The session is over.
    Ended,
    /// No fresh token for now; the session is kept.
    Failed(Failure),
    /// Not begun, for nobody waits for it, and either it was not due or the provider had no place for it: to be claimed
    /// again at that time. Who waits now begins one.
    PutOff(Timestamp),
}

/// One refresh under way.
pub(super) struct Attempt {
    pub(super) engine: Arc<Refresher>,
    pub(super) key: SessionKey,
    pub(super) need: Need,
    /// What the site of a waiting request wants prepared.
    pub(super) profile: Option<Arc<Profile>>,
    /// The version of a record with another's intent, and since when it has stood there.
    seen: Option<(u64, Instant)>,
    /// Leave to call the provider, once it is there.
    leave: Option<Leave>,
}

/// What to do after a look at the record.
enum Step {
    Done(Outcome),
    Wait,
    Present(Box<Lease>, Box<Secrets>, Arc<Provider>),
    LookAgain,
}

impl Attempt {
    pub(super) fn new(engine: Arc<Refresher>, key: SessionKey, need: Need, profile: Option<Arc<Profile>>) -> Self {
        Self { engine, key, need, profile, seen: None, leave: None }
    }

    pub(super) async fn run(mut self) -> Outcome {
        let deadline = Instant::now() + OTHERS_PATIENCE;
        let mut watch = self.engine.sessions.watch(&self.key);
        let mut pause = FIRST_LOOK;
        loop {
            let step = match self.look().await {
                Step::Present(lease, secrets, provider) => self.present(*lease, *secrets, &provider).await,
                step => step,
            };
            match step {
                Step::Done(outcome) => return outcome,
                Step::LookAgain | Step::Present(..) => {}
                Step::Wait => {
                    // Another is at the provider; the place is for somebody else.
                    self.leave = None;
                    let _ = tokio::time::timeout(pause, watch.next()).await;
                    pause = (pause * 2).min(LATER_LOOKS);
                }
            }
            if Instant::now() > deadline {
                return Outcome::Failed(Failure::Provider(PAUSE_UNAVAILABLE));
            }
        }
    }

    /// Reads the record and takes the lease if it is ours to take.
    async fn look(&mut self) -> Step {
        let (record, secrets) = match self.engine.sessions.read(&self.key).await {
            Ok(Some(read)) => read,
            Ok(None) => return Step::Done(Outcome::Ended),
            Err(error) => {
                tracing::warn!(%error, "a session could not be read for its refresh");
                return Step::Done(Outcome::Failed(Failure::Store));
            }
        };
        let now = self.engine.now();
        if record.is_over(now) && self.need.is_due() {
            // Its record is kept for a user who may return; nobody is logged on by it (behaviour B1).
            return Step::Done(Outcome::Ended);
        }
        if !self.need.holds(&record, &secrets, now, self.engine.minimum_lifetime) {
            if self.need == Need::Claimed {
                // The list is behind the record, and would name it again and again.
                let due = record.due.unwrap_or_else(|| now.plus(NEVER_DUE));
                return Step::Done(Outcome::PutOff(due));
            }
            // Somebody was faster; the result is in the record.
            return Step::Done(self.renewed(&record, &secrets));
        }
        let failed = |failure| Step::Done(Outcome::Failed(failure));
        if record.refresh_in_doubt.is_some() {
            return failed(Failure::InDoubt);
        }
        let Some(provider) = self.engine.providers.get(record.provider.as_str()).cloned() else {
            tracing::error!(provider = record.provider, "a session's provider is no longer in the settings");
            return failed(Failure::NoRefreshToken);
        };
        if secrets.refresh_token.is_none() {
            return failed(Failure::NoRefreshToken);
        }
        if !provider.refreshes() {
            // The settings had a way when the session began. Its access token is used to its end, as one without a refresh
            // token is; nobody need look at the record again for that.
            self.engine.pause(&self.key, record.generation, PAUSE_IN_DOUBT, Failure::NoRefreshToken);
            return failed(Failure::NoRefreshToken);
        }
        // A pause longer than any was written by a clock that is wrong.
        let pause = record.retry_at.map(|at| at.since(now)).filter(|pause| *pause <= PAUSE_LONGEST + MARGIN);
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            return failed(Failure::Provider(pause));
        }
        if self.engine.unsettled.has(&self.key) {
            return failed(Failure::Store);
        }
        let begun = match record.intent {
            None => None,
            Some(intent) if self.may_live(intent, record.version, now) => return Step::Wait,
            Some(intent) if lease::age(intent, now) < provider.refresh_token_grace() => {
                tracing::warn!(provider = %provider.name(), "a refresh is taken over: its owner died");
                Some(intent.begun)
            }
            Some(intent) => return self.give_up_token(&record, intent.owner).await,
        };
        if self.leave.is_none() {
            match self.engine.paces.enter(provider.name(), self.need).await {
                Entry::Now(leave) => self.leave = Some(leave),
                Entry::AfterWait(leave) => {
                    self.leave = Some(leave);
                    return Step::LookAgain;
                }
                Entry::NotFor(pause) => return failed(Failure::Provider(pause)),
                Entry::Full(pause) if self.need == Need::Claimed => {
                    return Step::Done(Outcome::PutOff(self.engine.now().plus(random::jittered(pause * 4 / 3))));
                }
                Entry::Full(_) => return failed(Failure::Provider(PAUSE_UNAVAILABLE)),
            }
        }
        let Some(place) = self.engine.unsettled.place(self.key) else { return failed(Failure::Store) };
        fail_point!("refresh::before_intent");
        match Lease::take(&self.engine.sessions, self.key, &record, begun, place).await {
            Taken::Ours(lease) => {
                fail_point!("refresh::after_intent");
                Step::Present(lease, Box::new(secrets), provider)
            }
            Taken::Changed => Step::LookAgain,
            Taken::Gone => Step::Done(Outcome::Ended),
            Taken::Unknown(error) => {
                tracing::warn!(%error, "the intent of a refresh could not be stored");
                failed(Failure::Store)
            }
        }
    }

    /// Whether an intent may have a living owner: its lease runs, or it has not been seen to stand still for a while. A
    /// lease that ends later than any was written by a clock that is wrong: then standing still alone decides, for as
    /// long as a lease, so that one renewal that got lost is no death.
    fn may_live(&mut self, intent: Intent, version: u64, now: Timestamp) -> bool {
        let left = intent.until.since(now);
        let patience = match left {
            Duration::ZERO => SIGN_OF_LIFE,
            left if left <= LEASE + MARGIN => return true,
            _ => LEASE,
        };
        match self.seen {
            Some((seen, since)) if seen == version => since.elapsed() < patience,
            _ => {
                self.seen = Some((version, Instant::now()));
                true
            }
        }
    }

    /// The owner of the last refresh died, and nobody knows whether the provider has used up the token.
    async fn give_up_token(&self, record: &Record, owner: u64) -> Step {
        tracing::warn!(provider = record.provider, "the owner of a refresh died; its refresh token is not shown again");
        match self
            .engine
            .sessions
            .amend(&self.key, record, Announce::Everyone, |record| lease::doubt(record, owner))
            .await
        {
            Ok((Swap::Stored, _)) => {
                self.tell_doubt(record, "owner_died");
                Step::LookAgain
            }
            Ok((Swap::Conflict, _)) => Step::LookAgain,
            Ok((Swap::Gone, _)) => Step::Done(Outcome::Ended),
            Err(_) => Step::Done(Outcome::Failed(Failure::Store)),
        }
    }

    /// Its session will not outlive the access token; who looks for the reason is to find it.
    pub(super) fn tell_doubt(&self, record: &Record, reason: &str) {
        self.engine.metrics.token_refresh_in_doubt_total.with_label_values(&[&record.provider]).inc();
        self.engine.sessions.audit().tell(Event::RefreshInDoubt, &entry_of(&self.key, record, reason));
    }

    /// Shows the refresh token to the provider. The lease is ours.
    async fn present(&mut self, mut lease: Lease, secrets: Secrets, provider: &Arc<Provider>) -> Step {
        let Some(token) = secrets.refresh_token.clone() else {
            return Step::Done(Outcome::Failed(Failure::NoRefreshToken));
        };
        let grace = provider.refresh_token_grace();
        let (subject, sealed) = (lease.record.subject.clone(), lease.record.sealed.clone());
        loop {
            let shown_before = lease.was_shown();
            match lease.show(grace) {
                MayShow::Yes => {}
                MayShow::LeaseOver => {
                    lease.give_back(None, shown_before).await;
                    return Step::LookAgain;
                }
                MayShow::GraceOver => {
                    self.tell_doubt(&lease.record, "grace_over");
                    lease.doubt().await;
                    return Step::LookAgain;
                }
            }
            let durations = self.engine.metrics.token_refresh_duration_seconds.with_label_values(&[provider.name()]);
            let timer = durations.start_timer();
            let previous = Previous { subject: &subject, auth_time: auth_time(&secrets), nonce: None };
            self.note_lag(lease.planned(), provider);
            fail_point!("refresh::before_show");
            let answer = lease.hold(provider.refresh(&token, &secrets.access_token, previous)).await;
            fail_point!("refresh::after_answer");
            timer.observe_duration();
            self.count(provider, &answer);
            let again = matches!(answer, Err(RefreshError::InDoubt(_))) && lease.is_forgiven(grace);
            if again {
                tracing::warn!(provider = %provider.name(), "a refresh is tried again within the grace");
                let mut pause = PAUSE_FORGIVEN;
                while !pause.is_zero() {
                    lease.hold(tokio::time::sleep(pause)).await;
                    pause = provider.breaker().admit().unwrap_or_default();
                }
                continue;
            }
            // The store may take its time; the provider has done its part.
            self.leave = None;
            let error = match answer {
                Ok(mut tokens) => {
                    let (unasked, old_claims) = (tokens.unasked.take(), tokens.claims.is_none());
                    let secrets = merge(&secrets, tokens, self.engine.now());
                    let fresh = Fresh { old_claims, unasked, ..self.fresh(provider, lease, secrets, sealed) };
                    return Step::Done(fresh.keep(None).await);
                }
                // The provider has answered, so there is no doubt, and it has used up what it gave a successor of.
                Err(RefreshError::Unusable { reason, successor: Some(successor) }) => {
                    tell_unusable(provider, reason);
                    let secrets = succeed(secrets, successor);
                    return Step::Done(self.put_off(self.fresh(provider, lease, secrets, sealed)).await);
                }
                Err(error) => error,
            };
            return Step::Done(self.refused(lease, provider, error, shown_before).await);
        }
    }

    /// With the claims that were in the record, and none to be asked for.
    fn fresh(&self, provider: &Arc<Provider>, lease: Lease, mut secrets: Secrets, sealed: Vec<u8>) -> Fresh {
        if let Need::Refused(_) = self.need {
            secrets.forced = Some(self.engine.now());
        }
        let (engine, profile, provider) = (self.engine.clone(), self.profile.clone(), provider.clone());
        let (key, old_claims, unasked, stranger) = (self.key, true, None, None);
        Fresh { engine, key, profile, provider, lease, secrets, sealed, old_claims, unasked, stranger }
    }

    /// Stores a new refresh token beside the old access token, which is all that came of the refresh. It is shown when whoever
    /// looks after the provider has had some time.
    async fn put_off(&self, fresh: Fresh) -> Outcome {
        let failure = Failure::Provider(PAUSE_MISCONFIGURED);
        let (generation, expires) = (fresh.lease.record.generation + 1, fresh.secrets.access_expires);
        match fresh.keep(Some(self.engine.now().plus(PAUSE_MISCONFIGURED))).await {
            // Another replica took over meanwhile, and had more luck.
            Outcome::Renewed(Some(open)) if open.access_expires() != expires => Outcome::Renewed(Some(open)),
            Outcome::Renewed(_) => {
                self.engine.pause(&self.key, generation, PAUSE_MISCONFIGURED, failure);
                Outcome::Failed(failure)
            }
            other => other,
        }
    }

    fn renewed(&self, record: &Record, secrets: &Secrets) -> Outcome {
        self.engine.renewed(&self.key, self.profile.as_ref(), record, secrets)
    }

    /// How far behind its plan a refresh in the background begins.
    fn note_lag(&self, planned: Option<Timestamp>, provider: &Provider) {
        if let (true, Some(due)) = (self.need.is_due(), planned) {
            let lag = self.engine.now().since(due).as_secs_f64();
            self.engine.metrics.token_refresh_lag_seconds.with_label_values(&[&**provider.name()]).observe(lag);
        }
    }
}

/// `auth_time` of the session's ID token (Core §2).
fn auth_time(secrets: &Secrets) -> Option<Timestamp> {
    secrets.claims.get("auth_time")?.as_u64().map(Timestamp::from_secs)
}
