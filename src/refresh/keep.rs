//! New tokens on their way into the store. Until it has them there is no other copy, and with a provider that rotates
//! strictly no way to get another (behaviour R4).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Outcome;
use super::engine::{Failure, Refresher};
use super::lease::{LONGEST_PAUSE, Lease};
use super::unsettled::Unreadable;
use crate::primitives::clock::Timestamp;
use crate::primitives::failpoint::fail_point;
use crate::primitives::secret::SecretText;
use crate::provider::{Provider, Refreshed};
use crate::session::manager::SessionError;
use crate::session::model::Secrets;
use crate::session::profile::Profile;
use crate::store::Swap;
use crate::store::record::{Record, SessionKey};

/// How long those who wait for a refresh wait for a store that fails as well. They are to hear of an outage within
/// 250 ms (behaviour D1), and the first attempt may have used up most of that.
const WAITED_FOR: Duration = Duration::from_millis(150);
/// Pause between the first two attempts; the next ones are longer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Tokens that the provider has just given.
pub(super) struct Fresh {
    pub(super) engine: Arc<Refresher>,
    pub(super) key: SessionKey,
    /// What the site of a waiting request wants prepared.
    pub(super) profile: Option<Arc<Profile>>,
    pub(super) provider: Arc<Provider>,
    pub(super) lease: Lease,
    pub(super) secrets: Secrets,
    /// The sealed part that the old tokens were read from.
    pub(super) sealed: Vec<u8>,
}

impl Fresh {
    /// Stores the tokens and only then hands them out. If the store fails, nobody is kept waiting: a task of its own holds
    /// them until they are stored or the session is over. Who asks for the session meanwhile is told of the store.
    pub(super) async fn keep(mut self) -> Outcome {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            match self.store().await {
                Ok(outcome) => return outcome,
                Err(error) if begun.elapsed() + pause > WAITED_FOR => {
                    tracing::warn!(%error, "refreshed tokens are held until the store takes them");
                    tokio::spawn(self.hold(begun));
                    return Outcome::Failed(Failure::Store);
                }
                Err(_) => self.lease.hold(tokio::time::sleep(pause)).await,
            }
            pause *= 2;
        }
    }

    async fn hold(mut self, begun: Instant) {
        let end = self.engine.sessions.absolute_end(self.lease.record.created, &self.secrets);
        let (mut pause, mut unreadable) = (FIRST_PAUSE, Unreadable::default());
        loop {
            self.lease.hold(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let Err(error) = self.store().await else {
                tracing::info!(after = ?begun.elapsed(), "held tokens are settled");
                return;
            };
            if self.engine.now() >= end {
                tracing::warn!("the session of held tokens is over; the store never took them");
                self.too_late();
                return;
            }
            if unreadable.is_for_good(&error) {
                // Another's to read, or nobody's: its tokens are not ours to revoke.
                tracing::warn!(%error, "held tokens are dropped: their session cannot be read any more");
                return;
            }
        }
    }

    /// One attempt; an error says nothing of what the store has now.
    async fn store(&mut self) -> Result<Outcome, SessionError> {
        let sessions = &self.engine.sessions;
        // Not the lease's own: that may be renewed only as long as the intent in it is ours.
        let mut record = self.lease.record.clone();
        let generation = record.generation;
        loop {
            if record.sealed != self.sealed
                && record.generation == generation
                && let Some(context) = sessions.context_of(&self.key, &record)
            {
                // What applications have changed meanwhile stays.
                self.secrets.context = context;
            }
            match sessions.write(&self.key, &record, &self.secrets).await? {
                (Swap::Stored, stored) => {
                    fail_point!("refresh::after_store");
                    return Ok(self.engine.renewed(&self.key, self.profile.as_ref(), &stored, &self.secrets));
                }
                (Swap::Gone, _) => return Ok(self.too_late()),
                (Swap::Conflict, _) => match sessions.store().load(&self.key).await? {
                    None => return Ok(self.too_late()),
                    // Ours, if an earlier try was done though the store seemed to fail. Else another replica took over
                    // and stored newer tokens: theirs count. Ours are left to expire: a revocation would end the
                    // provider's session, and theirs with it.
                    Some(now) if now.generation != generation => {
                        return self.engine.result_of(&self.key, self.profile.as_ref()).await;
                    }
                    Some(now) => record = now,
                },
            }
        }
    }

    /// The session ended while its refresh was under way: logout wins. Nobody waits for the revocation.
    fn too_late(&self) -> Outcome {
        if let Some(token) = &self.secrets.refresh_token {
            tokio::spawn(self.provider.clone().revoke_patiently(SecretText::clone(token)));
        }
        Outcome::Ended
    }
}

impl Refresher {
    /// What another replica's refresh has given. A record that only others can read, for its key or its format is newer
    /// than ours, is no session here; it is not ours to end.
    pub(super) async fn result_of(
        &self,
        key: &SessionKey,
        profile: Option<&Arc<Profile>>,
    ) -> Result<Outcome, SessionError> {
        let read = self.sessions.read(key).await?;
        Ok(read.map_or(Outcome::Ended, |(record, secrets)| self.renewed(key, profile, &record, &secrets)))
    }

    /// There are fresh tokens in the store. A logout that came after them found them there and revokes them itself.
    pub(super) fn renewed(
        &self,
        key: &SessionKey,
        profile: Option<&Arc<Profile>>,
        record: &Record,
        secrets: &Secrets,
    ) -> Outcome {
        match profile {
            Some(profile) => match self.sessions.remember(record, secrets, profile) {
                Some(open) => Outcome::Renewed(Some(open)),
                None => Outcome::Ended,
            },
            None => Outcome::Renewed(self.sessions.remember_known(key, record, secrets)),
        }
    }
}

/// The newest of each kind of token; what the provider did not send anew is kept (behaviour R5, R12).
pub(super) fn merge(old: &Secrets, new: Refreshed, now: Timestamp) -> Secrets {
    let Refreshed { tokens, id_token, claims } = new;
    let (refresh_token, refresh_expires) = match tokens.refresh_token {
        Some(token) => (Some(token), tokens.refresh_expires),
        None => (old.refresh_token.clone(), old.refresh_expires),
    };
    Secrets {
        access_token: tokens.access_token,
        bound: tokens.bound,
        access_issued: now,
        access_expires: tokens.access_expires,
        forced: old.forced,
        refresh_token,
        refresh_expires,
        offline: tokens.offline.unwrap_or(old.offline),
        id_token: id_token.or_else(|| old.id_token.clone()),
        max_age: old.max_age,
        claims: claims.unwrap_or_else(|| old.claims.clone()),
        context: old.context.clone(),
        csrf_token: old.csrf_token.clone(),
        tickets: old.tickets.clone(),
    }
}
