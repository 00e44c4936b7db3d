//! Where sessions live: one trait, several stores. A store knows records and keys, nothing of cookies, tokens or HTTP.

#[cfg(test)]
pub(crate) mod conformance;
pub mod file;
#[cfg(test)]
pub(crate) mod frail;
pub mod memory;
mod meta;
pub mod metered;
pub mod postgres;
pub mod record;
pub mod redis;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::broadcast;

use self::record::{Owner, Record, SessionKey};
use crate::primitives::clock::Timestamp;

/// Most logins that one browser may have open at a time; the oldest is dropped (behaviour L13).
pub const LOGINS_PER_BROWSER: usize = 16;

/// A store could not do what was asked. Never means "no such session" (behaviour D1).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reached, no answer in time, or too much waiting already: try again later.
    #[error("the session store is unavailable: {0}")]
    Unavailable(String),
    /// It answered something this version cannot read.
    #[error("the session store holds a record that cannot be read: {0}")]
    Damaged(String),
}

/// Names one login in the store: the browser that began it and its `state`, both hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoginKey {
    /// SHA-256 of the browser's binding cookie.
    pub browser: [u8; 32],
    /// SHA-256 of `state`.
    pub state: [u8; 32],
}

/// "This session was used": only ever moves the times forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Which session.
    pub key: SessionKey,
    /// When it was used.
    pub last_seen: Timestamp,
    /// Its new idle end.
    pub idle_end: Timestamp,
    /// Its new [`Record::returning_end`].
    pub returning_end: Timestamp,
}

/// What a compare-and-swap did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Stored.
    Stored,
    /// Another version is there now; nothing was written.
    Conflict,
    /// There is no such session any more; nothing was written.
    Gone,
}

/// Whether the other replicas should hear of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Tickets or tokens changed: cached copies are out of date.
    Everyone,
    /// Only a lease moved.
    Nobody,
}

/// What a store tells all replicas, the writer's own included, of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record now has this version.
    Replaced(SessionKey, u64),
    /// The session was ended before its time.
    Ended(SessionKey),
    /// Changes may have gone unheard, for the channel was interrupted: whatever is cached is in doubt.
    Missed,
}

/// Changes that may wait for a slow listener; it hears [`broadcast::error::RecvError::Lagged`] beyond that, which means
/// the same as [`Change::Missed`].
pub const CHANGES_WAITING: usize = 8_192;

/// Which due sessions to claim.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Sessions due at this moment or before.
    pub due: Timestamp,
    /// Those not used since this moment are struck off the list of the due instead (behaviour B1).
    pub active_since: Timestamp,
    /// Nobody else claims them before this moment, unless they are rescheduled.
    pub lease: Timestamp,
    /// Most sessions.
    pub limit: usize,
}

/// A remembered fact: the `jti` of a logout token, a logout that overtook its login. SHA-256 of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MarkKey(pub [u8; 32]);

/// Keeps sessions and logins that are under way. Expired ones are as good as gone: no method returns them.
///
/// Every method that changes a session does so in one atomic step together with the indexes by owner and the list of
/// the due (behaviour K6).
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Short name for logs and metrics: `memory`, `file`, `redis`, `postgres`.
    fn kind(&self) -> &'static str;

    /// Stores a new session until [`Record::end`], findable by its owners, and due at [`Record::due`].
    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError>;

    /// The session, if it lives.
    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError>;

    /// Replaces the session if its version is still `expected`, in one atomic step. The caller has set
    /// `record.version = expected + 1` and has left site, provider, `sub` and `sid` as they were. The later of the stored
    /// and the given `last_seen`, `idle_end`, `returning_end` stays, each for itself.
    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError>;

    /// Applies many touches; sessions that are gone stay gone. The version does not move.
    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError>;

    /// Ends the session, announces it, and returns it as it last was, in one atomic step, so that its newest tokens can
    /// be revoked. `None` if there was none; then nothing is announced.
    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError>;

    /// All living sessions of an owner, in no order. A session that was created before the call is among them.
    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError>;

    /// Ends all sessions of an owner as [`SessionStore::delete`] does and returns them. A store that fails midway has
    /// ended some; a second call ends the rest.
    async fn delete_of(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let mut ended = Vec::new();
        for (key, _) in self.find(owner).await? {
            ended.extend(self.delete(&key).await?.map(|record| (key, record)));
        }
        Ok(ended)
    }

    /// Takes sessions off the list of the due until `claim.lease`: each is given to one caller only (behaviour B3). The
    /// earliest come first, as far as the store can tell.
    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError>;

    /// Moves sessions on the list of the due, or puts them back on it; the records do not change. Sessions that are gone
    /// stay gone.
    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError>;

    /// Remembers a login until `expires`; beyond [`LOGINS_PER_BROWSER`] the browser's oldest is dropped. What lived under
    /// the same name goes, and is returned: all in one atomic step, so of two who put there at once one gets the other's.
    async fn put_login(&self, key: &LoginKey, sealed: &[u8], expires: Timestamp)
    -> Result<Option<Vec<u8>>, StoreError>;

    /// Takes a login out, in one atomic step: a second call finds nothing (behaviour L3).
    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Remembers a moment under a name until `expires`, in one atomic step; `false` if one was remembered already, which
    /// then stays as it was.
    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError>;

    /// The moment remembered under a name.
    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError>;

    /// What changes from now on, by whichever replica: as soon as the store can tell, and before a second has passed. A
    /// store that was out of reach says [`Change::Missed`] once it is back.
    fn changes(&self) -> broadcast::Receiver<Change>;

    /// How many living sessions each key has sealed, by [`Record::sealing_key`]. Walks over all sessions without standing
    /// in anybody's way; may be some out of date.
    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError>;

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What an operator should know of the store's own settings, one sentence each; asked once at start.
    async fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
