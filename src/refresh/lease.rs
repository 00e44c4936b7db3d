//! The write-ahead intent of a refresh: written before the refresh token is shown, kept alive while the owner is, and
//! taken back when nothing came of it (behaviour R2, R9).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::unsettled::{Place, Unreadable};
use crate::primitives::clock::Timestamp;
use crate::primitives::random;
use crate::session::manager::{SessionError, Sessions};
use crate::store::record::{Intent, Record, SessionKey};
use crate::store::{Announce, Swap};

/// How long an intent holds without a sign of life. Short, so that a refresh whose owner died is taken over within a
/// provider's grace of 10 s.
pub(super) const LEASE: Duration = Duration::from_secs(4);
/// How often a living owner renews it.
const RENEW_EVERY: Duration = Duration::from_millis(1_300);
/// An intent that has not moved for this long, and whose lease is over, has no living owner. Counted by the clock of
/// whoever looks, so that a wall clock that is wrong takes nobody for dead.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// What must be left of a lease, and of a provider's grace, when the token is shown.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// How long those who wait for a refresh wait for its intent to be taken back. If the store fails they are to hear of it
/// within 250 ms (behaviour D1); the intent is taken back all the same, or its token would count as used up.
const RETURN_WAIT: Duration = Duration::from_millis(200);
/// Longest pause before a store that fails is asked again. Well below [`SIGN_OF_LIFE`]: an owner that lives must say so
/// before it is taken for dead. While the store is known to be away the attempt costs next to nothing.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// An intent of ours in the record.
pub(super) struct Lease {
    sessions: Arc<Sessions>,
    key: SessionKey,
    intent: Intent,
    /// When the store was last asked to write it: it holds for [`LEASE`] from then on at least.
    asked: Instant,
    /// Whether the token may have been shown under this intent already, by us or by the owner that died.
    shown: bool,
    /// When the session was due. While the intent stands it is due when the lease ends: nobody need look before that,
    /// and nobody else will if we die.
    planned: Option<Timestamp>,
    /// Room for what is left to do if the store fails.
    _place: Place,
    /// The record as we wrote it last.
    pub(super) record: Record,
}

/// Whether the token may be shown now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayShow {
    /// Yes.
    Yes,
    /// The lease may be another's by now.
    LeaseOver,
    /// It was shown before, and the provider does not forgive that any more.
    GraceOver,
}

/// What became of the wish for a lease.
pub(super) enum Taken {
    /// Ours.
    Ours(Box<Lease>),
    /// The record changed meanwhile: look again.
    Changed,
    /// The session has ended.
    Gone,
    /// The store does not say.
    Unknown(SessionError),
}

impl Lease {
    /// Writes the intent. `begun` is when an owner that died wrote its own, if there was one.
    pub(super) async fn take(
        sessions: &Arc<Sessions>,
        key: SessionKey,
        read: &Record,
        begun: Option<Timestamp>,
        place: Place,
    ) -> Taken {
        let owner = match random::bytes() {
            Ok(owner) => u64::from_ne_bytes(owner),
            Err(error) => return Taken::Unknown(error.into()),
        };
        let (now, asked) = (sessions.clock().now(), Instant::now());
        let intent = Intent { owner, begun: begun.unwrap_or(now), until: now.plus(LEASE) };
        let (sessions_too, shown, planned) = (sessions.clone(), begun.is_some(), read.due);
        let lease =
            move |record| Self { sessions: sessions_too, key, intent, asked, shown, planned, _place: place, record };
        match sessions.amend(&key, read, Announce::Nobody, |record| enter(record, intent)).await {
            Ok((Swap::Stored, record)) => Taken::Ours(Box::new(lease(record))),
            Ok((Swap::Conflict, _)) => Taken::Changed,
            Ok((Swap::Gone, _)) => Taken::Gone,
            Err(error) => {
                // It may stand there all the same, and would pass for that of a dead owner.
                tokio::spawn(lease(read.clone()).give_back(None, begun.is_some()));
                Taken::Unknown(error)
            }
        }
    }

    /// Looks once more, just before the token is shown: the answer that told of the lease may have been long in coming.
    /// From here on the token counts as shown.
    pub(super) fn show(&mut self, grace: Duration) -> MayShow {
        if self.asked.elapsed() + MARGIN > LEASE {
            return MayShow::LeaseOver;
        }
        if self.shown && !self.is_forgiven(grace) {
            return MayShow::GraceOver;
        }
        self.shown = true;
        MayShow::Yes
    }

    /// Whether the provider still answers to a token that was shown when this intent began.
    pub(super) fn is_forgiven(&self, grace: Duration) -> bool {
        age(self.intent, self.sessions.clock().now()) + MARGIN < grace
    }

    /// Waits for `work` and renews the lease as long as it takes. An intent that is lost is not written again: the work
    /// cannot be undone, and its result meets whatever stands in the record then.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut held = true;
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = tokio::time::sleep(RENEW_EVERY), if held => {}
            }
            tokio::select! {
                biased;
                result = &mut work => return result,
                still = self.renew() => held = still,
            }
        }
    }

    /// `false` if the intent is no longer ours.
    async fn renew(&mut self) -> bool {
        let (until, asked) = (self.sessions.clock().now().plus(LEASE), Instant::now());
        let intent = Intent { until, ..self.intent };
        let renewed =
            self.sessions.amend(&self.key, &self.record, Announce::Nobody, |record| enter(record, intent)).await;
        match renewed {
            Ok((Swap::Stored, record)) => (self.record, self.asked) = (record, asked),
            Ok((Swap::Conflict, _)) => match self.reread().await {
                Ok(ours) => return ours,
                Err(error) => tracing::debug!(%error, "the lease of a refresh could not be renewed"),
            },
            Ok((Swap::Gone, _)) => return false,
            Err(error) => tracing::debug!(%error, "the lease of a refresh could not be renewed"),
        }
        true
    }

    /// Reads the record anew; whether the intent there is ours, or a doubt that blames it.
    async fn reread(&mut self) -> Result<bool, SessionError> {
        let Some(record) = self.sessions.store().load(&self.key).await? else { return Ok(false) };
        let owner = Some(self.intent.owner);
        let ours = record.intent.map(|intent| intent.owner) == owner || record.refresh_in_doubt == owner;
        if ours {
            self.record = record;
        }
        Ok(ours)
    }

    /// Takes the intent back: the token was not shown, or the provider did nothing with it this time. Tries on while the
    /// store fails, or the next to look would take us for dead. `retry_at` tells all replicas when to try again.
    ///
    /// A token that an owner before us may have shown stays shown: then the intent is left, with its beginning, for the
    /// next to take over.
    pub(super) async fn give_back(self, retry_at: Option<Timestamp>, shown_before: bool) {
        let over = self.sessions.clock().now();
        let due = self.planned.map(|planned| retry_at.map_or(planned, |at| at.max(planned)));
        let change = move |record: &mut Record| {
            if shown_before {
                record.intent = record.intent.map(|intent| Intent { until: over.min(intent.until), ..intent });
            } else {
                record.intent = None;
                record.refresh_in_doubt = None;
            }
            record.retry_at = retry_at;
            // A doubt that stays has no way to a token.
            record.due = due.filter(|_| record.refresh_in_doubt.is_none());
        };
        self.settle_soon(change).await;
    }

    /// Whether the token may have been shown before: by an owner that died, or by us.
    pub(super) fn was_shown(&self) -> bool {
        self.shown
    }

    /// When the session was due before the intent was written.
    pub(super) fn planned(&self) -> Option<Timestamp> {
        self.planned
    }

    /// Marks the refresh token as perhaps used up, in place of the intent.
    pub(super) async fn doubt(self) {
        let owner = self.intent.owner;
        self.settle_soon(move |record| doubt(record, owner)).await;
    }

    /// In a task of its own, that goes on when nobody waits for it any more.
    async fn settle_soon(self, change: impl Fn(&mut Record) + Send + Sync + 'static) {
        let _ = tokio::time::timeout(RETURN_WAIT, tokio::spawn(self.settle(change))).await;
    }

    async fn settle(mut self, change: impl Fn(&mut Record) + Send + Sync) {
        let (mut pause, mut unreadable) = (Duration::from_millis(50), Unreadable::default());
        loop {
            let error = match self.sessions.amend(&self.key, &self.record, Announce::Everyone, &change).await {
                Ok((Swap::Stored | Swap::Gone, _)) => return,
                Ok((Swap::Conflict, _)) => match self.reread().await {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if unreadable.is_for_good(&error) || self.sessions.clock().now() >= self.record.absolute_end {
                tracing::warn!(%error, "an intent is not taken back: its session is over, or cannot be read any more");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// How long ago an intent was begun. If that lies ahead, one of two clocks is wrong, and nobody knows the age; it is then
/// counted as if it lay behind by as much, so that no short grace is believed to last.
pub(super) fn age(intent: Intent, now: Timestamp) -> Duration {
    now.since(intent.begun) + intent.begun.since(now)
}

/// What a record says under an intent. A session that is never due does not become so.
fn enter(record: &mut Record, intent: Intent) {
    record.intent = Some(intent);
    record.due = record.due.map(|_| intent.until);
}

/// What a record says once its refresh token is in doubt. The generation stays: an owner that turns out to be alive puts
/// its tokens in all the same.
pub(super) fn doubt(record: &mut Record, blamed: u64) {
    record.intent = None;
    record.refresh_in_doubt = Some(blamed);
    record.due = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Refresh, SealingKey, Session};
    use crate::primitives::clock::Clock;
    use crate::primitives::secret::Key256;
    use crate::refresh::Unsettled;
    use crate::session::key_ring::KeyRing;
    use crate::store::SessionStore as _;
    use crate::store::conformance::{fresh_key, record};
    use crate::store::frail::FrailStore;
    use crate::telemetry::Metrics;

    const START: Timestamp = Timestamp::from_secs(1_900_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        store: Arc<FrailStore>,
        sessions: Arc<Sessions>,
        key: SessionKey,
        unsettled: Unsettled,
    }

    impl World {
        /// With a session that is due now.
        async fn new(due: Option<Timestamp>) -> Self {
            let clock = Clock::manual(START);
            let store = Arc::new(FrailStore::new(clock.clone()));
            let ring = KeyRing::new(&[SealingKey { id: "test".into(), secret: Key256::new([7; 32]) }]).unwrap();
            let metrics = Arc::new(Metrics::new().unwrap());
            let (sessions, _) =
                Sessions::new(&Session::default(), &Refresh::default(), store.clone(), ring, clock, metrics);
            let key = fresh_key();
            store.create(&key, &Record { due, ..record(START) }).await.unwrap();
            Self { store, sessions: Arc::new(sessions), key, unsettled: Unsettled::default() }
        }

        async fn record(&self) -> Record {
            self.store.load(&self.key).await.unwrap().unwrap()
        }

        async fn take(&self) -> Box<Lease> {
            let place = self.unsettled.place(self.key).unwrap();
            match Lease::take(&self.sessions, self.key, &self.record().await, None, place).await {
                Taken::Ours(lease) => lease,
                _ => panic!("nobody else is there"),
            }
        }
    }

    #[tokio::test]
    async fn b3_an_intent_is_due_when_its_lease_ends_and_its_plan_comes_back() {
        for planned in [None, Some(START)] {
            let world = World::new(planned).await;
            let lease = world.take().await;
            assert_eq!(world.record().await.due, planned.map(|_| START.plus(LEASE)));
            lease.give_back(None, false).await;
            assert_eq!(world.record().await.due, planned);
            let later = START.plus(SECOND);
            world.take().await.give_back(Some(later), true).await;
            assert_eq!(world.record().await.due, planned.map(|_| later));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_intent_back_holds_its_place_until_the_store_has_heard() {
        let world = World::new(None).await;
        let lease = world.take().await;
        world.store.set_down(true);
        lease.give_back(None, false).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(world.unsettled.has(&world.key), "a process that stops must wait for it");
        world.store.set_down(false);
        tokio::time::sleep(SECOND).await;
        assert!(world.unsettled.is_nothing());
        assert_eq!(world.record().await.intent, None);
    }

    #[test]
    fn an_intent_from_the_future_is_as_old_as_it_is_far_ahead() {
        let intent = |begun| Intent { owner: 1, begun, until: begun };
        assert_eq!(age(intent(START), START.plus(SECOND)), SECOND);
        assert_eq!(age(intent(START.plus(SECOND)), START), SECOND);
    }
}
