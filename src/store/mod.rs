//! Where sessions live: one trait, several stores. A store knows records and keys, nothing of cookies, tokens or HTTP.

#[cfg(test)]
mod conformance;
pub mod memory;
pub mod metered;
pub mod redis;

use async_trait::async_trait;

use crate::primitives::clock::Timestamp;
use crate::session::model::{Record, SessionKey};

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

/// "This session was used": only ever moves the two times forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Which session.
    pub key: SessionKey,
    /// When it was used.
    pub last_seen: Timestamp,
    /// Its new idle end.
    pub idle_end: Timestamp,
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

/// Keeps sessions and logins that are under way. Expired ones are as good as gone: `load` and `take_login` never
/// return them.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Short name for logs and metrics: `memory`, `redis`.
    fn kind(&self) -> &'static str;

    /// Stores a new session until [`Record::end`].
    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError>;

    /// The session, if it lives.
    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError>;

    /// Replaces the session if its version is still `expected`, in one atomic step. The caller has set
    /// `record.version = expected + 1`. The later of the stored and the given `last_seen`/`idle_end` stays.
    async fn replace(&self, key: &SessionKey, expected: u64, record: &Record) -> Result<Swap, StoreError>;

    /// Applies many touches; sessions that are gone stay gone. The version does not move.
    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError>;

    /// Ends the session and returns it as it last was, in one atomic step, so that its newest tokens can be revoked.
    /// `None` if there was none.
    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError>;

    /// Remembers a login until `expires`; beyond [`LOGINS_PER_BROWSER`] the browser's oldest is dropped.
    async fn put_login(&self, key: &LoginKey, sealed: &[u8], expires: Timestamp) -> Result<(), StoreError>;

    /// Takes a login out, in one atomic step: a second call finds nothing (behaviour L3).
    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What an operator should know of the store's own settings, one sentence each; asked once at start.
    async fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
