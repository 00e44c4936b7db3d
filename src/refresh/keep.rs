//! New tokens on their way into the store. Until it has them there is no other copy, and with a provider that rotates
//! strictly no way to get another (behaviour R4).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Outcome;
use super::engine::{Failure, Refresher};
use super::lease::{LONGEST_PAUSE, Lease};
use super::unsettled::Unreadable;
use crate::oidc::{IdToken, RefreshError, Successor};
use crate::primitives::clock::Timestamp;
use crate::primitives::failpoint::fail_point;
use crate::primitives::secret::SecretText;
use crate::provider::{Provider, Refreshed};
use crate::session::manager::{SessionError, entry_of};
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
    /// The sealed part that `secrets` were read from, or were stored as.
    pub(super) sealed: Vec<u8>,
    /// Whether the claims among `secrets` are those that were in the record, and not the tokens' own.
    pub(super) old_claims: bool,
    /// Of whom there are claims to be asked for.
    pub(super) unasked: Option<Box<IdToken>>,
    /// The tokens are stored, and turned out to be another user's: their session is to end.
    pub(super) stranger: Option<(Box<Record>, RefreshError)>,
}

/// What became of an attempt to store.
enum Put {
    Stored(Box<Record>),
    /// Not ours to store any more.
    Not(Outcome),
}

impl Fresh {
    /// Stores the tokens and only then hands them out. If the store fails, nobody is kept waiting: a task of its own holds
    /// them until they are stored or the session is over. Who asks for the session meanwhile is told of the store. The same
    /// holds for the end of a session whose tokens are another user's.
    ///
    /// `retry_at`: there is to be no other refresh before that time.
    pub(super) async fn keep(mut self, retry_at: Option<Timestamp>) -> Outcome {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            match self.store(retry_at).await {
                Ok(outcome) => return outcome,
                Err(error) if begun.elapsed() + pause > WAITED_FOR => {
                    tracing::warn!(%error, "what a refresh has brought is held until the store takes it");
                    tokio::spawn(self.hold(begun, retry_at));
                    return Outcome::Failed(Failure::Store);
                }
                Err(_) => self.lease.hold(tokio::time::sleep(pause)).await,
            }
            pause *= 2;
        }
    }

    async fn hold(mut self, begun: Instant, retry_at: Option<Timestamp>) {
        let end = self.engine.sessions.absolute_end(self.lease.record.created, &self.secrets);
        let (mut pause, mut unreadable) = (FIRST_PAUSE, Unreadable::default());
        loop {
            self.lease.hold(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let Err(error) = self.store(retry_at).await else {
                tracing::info!(after = ?begun.elapsed(), "what was held is settled");
                return;
            };
            if self.engine.now() >= end {
                tracing::warn!("the session of held tokens is over; the store did not come back for them");
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
    async fn store(&mut self, retry_at: Option<Timestamp>) -> Result<Outcome, SessionError> {
        if self.stranger.is_some() {
            return self.end().await;
        }
        // Not the lease's own: that may be renewed only as long as the intent in it is ours.
        match self.put(self.lease.record.clone(), retry_at).await? {
            Put::Stored(stored) => {
                fail_point!("refresh::after_store");
                self.complete(*stored).await
            }
            Put::Not(outcome) => Ok(outcome),
        }
    }

    /// Puts the secrets in the place of those that the record has, whatever else changes in it meanwhile.
    async fn put(&mut self, mut record: Record, retry_at: Option<Timestamp>) -> Result<Put, SessionError> {
        let sessions = &self.engine.sessions;
        let generation = record.generation;
        loop {
            if record.sealed != self.sealed
                && record.generation == generation
                && let Some(there) = sessions.unseal(&self.key, &record)
            {
                // What applications have changed meanwhile stays, and so do claims that came late.
                self.secrets.context = there.context;
                if self.old_claims {
                    self.secrets.claims = there.claims;
                }
            }
            match sessions.write(&self.key, &record, &self.secrets, retry_at).await? {
                (Swap::Stored, stored) => {
                    self.sealed.clone_from(&stored.sealed);
                    return Ok(Put::Stored(Box::new(stored)));
                }
                (Swap::Gone, _) => return Ok(Put::Not(self.too_late())),
                (Swap::Conflict, _) => match sessions.store().load(&self.key).await? {
                    None => return Ok(Put::Not(self.too_late())),
                    Some(now) if now.generation != generation => return self.found().await,
                    Some(now) => record = now,
                },
            }
        }
    }

    /// Other tokens are in the record than we began with. They are ours if an earlier try was done though the store seemed
    /// to fail. Else another replica took over and stored newer ones: theirs count. Ours are left to expire: a revocation
    /// would end the provider's session, and theirs with it.
    async fn found(&mut self) -> Result<Put, SessionError> {
        let Some((record, secrets)) = self.engine.sessions.read(&self.key).await? else {
            return Ok(Put::Not(Outcome::Ended));
        };
        let ours =
            secrets.access_token == self.secrets.access_token && secrets.refresh_token == self.secrets.refresh_token;
        if ours {
            (self.secrets, self.sealed) = (secrets, record.sealed.clone());
            return Ok(Put::Stored(Box::new(record)));
        }
        Ok(Put::Not(self.engine.renewed(&self.key, self.profile.as_ref(), &record, &secrets)))
    }

    /// Asks for claims, if there are any to be asked for, now that nothing can lose the tokens. Whoever dies meanwhile, or does
    /// not get them stored, leaves a session with its old claims.
    async fn complete(&mut self, stored: Record) -> Result<Outcome, SessionError> {
        let turns = self.engine.paces.questions(self.provider.name());
        let (Some(id_token), Some(turns)) = (self.unasked.take(), turns) else { return Ok(self.renewed(&stored)) };
        let claims = match self.provider.claims_after_refresh(&self.secrets.access_token, *id_token, turns).await {
            Ok(Some(claims)) => claims,
            Ok(None) => return Ok(self.renewed(&stored)),
            Err(error) => {
                self.stranger = Some((Box::new(stored), error));
                return self.end().await;
            }
        };
        Ok(match self.engine.sessions.change_claims(&self.key, stored.generation, &claims).await {
            Ok(Some((now, secrets))) => self.engine.renewed(&self.key, self.profile.as_ref(), &now, &secrets),
            // A logout has found our tokens in the store, and revokes them itself.
            Ok(None) => Outcome::Ended,
            Err(error) => {
                tracing::warn!(%error, "claims could not be stored: they stay as they were");
                self.renewed(&stored)
            }
        })
    }

    /// Ends the session of tokens that are another user's. They are revoked only when nobody can find them any more, and
    /// not if another replica has newer ones, which are of the same grant.
    async fn end(&self) -> Result<Outcome, SessionError> {
        let Some((stored, error)) = &self.stranger else { return Ok(Outcome::Ended) };
        let (profile, provider) = (self.profile.as_ref(), &self.provider);
        let outcome = self.engine.rejected(&self.key, profile, stored, provider, error).await?;
        if matches!(outcome, Outcome::Ended) {
            self.revoke();
        }
        Ok(outcome)
    }

    fn renewed(&self, stored: &Record) -> Outcome {
        self.engine.renewed(&self.key, self.profile.as_ref(), stored, &self.secrets)
    }

    /// The session ended while its refresh was under way: logout wins. Nobody waits for the revocation.
    fn too_late(&self) -> Outcome {
        self.revoke();
        Outcome::Ended
    }

    fn revoke(&self) {
        if let Some(token) = &self.secrets.refresh_token {
            tokio::spawn(self.provider.clone().revoke_patiently(SecretText::clone(token)));
        }
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

    /// The provider says the refresh token is worth nothing, or its tokens are another user's. If another replica has newer ones
    /// meanwhile, they count; else the session is over (behaviour R10, R12). After an error it still lives, as far as one can
    /// know.
    pub(super) async fn rejected(
        &self,
        key: &SessionKey,
        profile: Option<&Arc<Profile>>,
        read: &Record,
        provider: &Arc<Provider>,
        error: &RefreshError,
    ) -> Result<Outcome, SessionError> {
        let sessions = &self.sessions;
        if let Some(record) = sessions.store().load(key).await?
            && record.generation != read.generation
        {
            return self.result_of(key, profile).await;
        }
        Ok(match sessions.end_one(key).await? {
            // Somebody else ended it, and has told so.
            None => Outcome::Ended,
            Some((_, ended, secrets)) => {
                tracing::info!(provider = read.provider, %error, "a session has ended: its refresh token was refused");
                sessions.audit().refresh_rejected(&entry_of(key, read, error.word()));
                self.metrics.logouts_total.with_label_values(&[&read.provider, "refresh_rejected"]).inc();
                // Another replica stored newer tokens in the last moment. Nobody has them now.
                if ended.generation != read.generation
                    && let Some(token) = secrets.and_then(|secrets| secrets.refresh_token)
                {
                    tokio::spawn(provider.clone().revoke_patiently(token));
                }
                Outcome::Ended
            }
        })
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

/// The old access token, with the refresh token that came in the place of the old one (behaviour R5).
pub(super) fn succeed(old: Secrets, successor: Successor) -> Secrets {
    Secrets { refresh_token: Some(successor.token), refresh_expires: successor.expires, ..old }
}

/// The newest of each kind of token; what the provider did not send anew is kept (behaviour R5, R12).
pub(super) fn merge(old: &Secrets, new: Refreshed, now: Timestamp) -> Secrets {
    let Refreshed { tokens, id_token, claims, .. } = new;
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
