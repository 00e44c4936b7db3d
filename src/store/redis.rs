//! Sessions in Redis (6.2 or newer, or Valkey), shared by all replicas.
//!
//! | key | content |
//! |---|---|
//! | `{prefix}{NN}:s:{session key}` | hash: `v` version, `t` times, `meta` JSON, `sealed` |
//! | `{prefix}{NN}:due` | sorted set of session keys by the moment that they are due |
//! | `{prefix}{NN}:o:{hash of an owner}` | set of the session keys of an owner |
//! | `{prefix}{NN}:l:{hashed binding cookie}` | hash: one field a login, named by its hashed `state` |
//! | `{prefix}{NN}:m:{hash}` | a remembered moment |
//! | `{prefix}changes` | channel on which the scripts tell what they changed |
//!
//! `NN` is the partition, 00 to 63: the first byte of the hash, modulo 64. Braces stand in the key as they are here: what
//! is between them is all that a cluster looks at, so that a partition lies on one node. Whatever reads before it writes
//! is one Lua script on one partition; it is atomic, indexes and announcement included.
//!
//! Times are milliseconds since the epoch. Lua compares them as doubles, exact up to 2⁵³ (the year 287396); later ones
//! are stored as that. Each key expires by Redis' own clock with what it holds; ours is asked too on every use.

mod address;
mod causes;
mod census;
mod changes;
mod connect;
mod due;
mod fields;
mod health;
mod keys;
mod link;
mod nodes;
mod owners;
mod script;
mod sessions;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::KeysInterface as _;
use fred::types::Value;
use tokio::sync::broadcast;

use self::fields::millis;
use self::keys::{Keys, OwnerName};
use self::nodes::Nodes;
use self::script::Scripts;
use super::record::{Owner, Record, SessionKey};
use super::{Announce, Change, Claim, LOGINS_PER_BROWSER, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random::base64url;

pub use self::address::AddressError;

/// Commands under way at a time for one caller: enough to fill the pipeline, too few to fill the command buffer.
const AT_A_TIME: usize = 128;

/// Attempts to change a session whose owners another caller changes meanwhile, which hardly ever happens once.
const ATTEMPTS: usize = 3;

/// Who is on the list of the due for so long is struck off by a later login: nobody claims, and the list must not grow.
const LONG_OVERDUE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The Redis store.
pub struct RedisStore {
    nodes: Nodes,
    scripts: Scripts,
    keys: Keys,
    clock: Clock,
}

impl RedisStore {
    /// A store that connects when it is first used, on the runtime of that use, and from then on stays connected by
    /// itself. Should that runtime end, the next use connects anew.
    ///
    /// No method waits longer than `settings.command_timeout`, nor at all while Redis is known to be away.
    ///
    /// # Errors
    /// [`AddressError`] if the URL is not one of Redis, or if `rediss://` finds no trusted certificates.
    pub fn new(settings: &settings::RedisStore, clock: Clock) -> Result<Self, AddressError> {
        let address = address::parse(settings.url.expose(), settings.ca.as_deref())?;
        let keys = Keys::new(&settings.prefix);
        let nodes = Nodes::new(address, settings.command_timeout.max(Duration::from_millis(1)), keys.channel());
        Ok(Self { nodes, scripts: Scripts::new(), keys, clock })
    }

    fn now(&self) -> Value {
        millis(self.clock.now())
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        let owners = OwnerName::of(record);
        let mut values = vec![self.now()];
        values.extend(fields::write(record)?);
        let overdue =
            Timestamp::from_millis(0).plus(self.clock.now().since(Timestamp::from_millis(0).plus(LONG_OVERDUE)));
        values.extend([key.to_text().into(), fields::due(record.due), millis(overdue)]);
        let largest =
            self.scripts.create.run(&self.nodes, keys::of_session(key), self.keys.whole(key, &owners), values).await?;
        // The session is stored; that dead ones may be left beside it is no failure.
        if let Err(error) = self.tidy(key, &owners, largest).await {
            tracing::debug!(%error, "the index of an owner was not looked through");
        }
        Ok(())
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let values = self.fetch_one(key, &fields::NAMES).await?;
        let record = fields::read(&values)?;
        Ok(record.filter(|record| record.end() > self.clock.now()))
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError> {
        let message = match announce {
            Announce::Everyone => changes::message(&Change::Replaced(*key, record.version)),
            Announce::Nobody => String::new(),
        };
        let mut values = vec![self.now(), expected.to_string().into()];
        values.extend(fields::write(record)?);
        values.extend([key.to_text().into(), fields::due(record.due), self.nodes.channel().into(), message.into()]);
        let keys = self.keys.whole(key, &OwnerName::of(record));
        match self.scripts.replace.run::<i64>(&self.nodes, keys::of_session(key), keys, values).await? {
            1 => Ok(Swap::Stored),
            0 => Ok(Swap::Conflict),
            _ => Ok(Swap::Gone),
        }
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        self.touch_all(touches).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let values = self.end(key).await?;
        // It is gone now, readable or not.
        let record = fields::read(&values).unwrap_or_else(|error| {
            tracing::warn!(%error, "a session that ended could not be read");
            None
        });
        Ok(record.filter(|record| record.end() > self.clock.now()))
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        Ok(self.look_up(owner).await?.alive)
    }

    /// What cannot be read ends too: nobody would hear of it from anywhere else.
    async fn delete_of(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let named = self.look_up(owner).await?;
        let mut ended = Vec::new();
        for key in named.alive.into_iter().map(|(key, _)| key).chain(named.unreadable) {
            ended.extend(self.delete(&key).await?.map(|record| (key, record)));
        }
        Ok(ended)
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        self.claim(claim).await
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        self.reschedule_these(due).await
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let values = vec![
            self.now(),
            LOGINS_PER_BROWSER.to_string().into(),
            base64url(&key.state).into(),
            millis(expires),
            Bytes::copy_from_slice(sealed).into(),
        ];
        let keys = vec![self.keys.browser(key)];
        let before: Option<Bytes> =
            self.scripts.put_login.run(&self.nodes, keys::of(&key.browser), keys, values).await?;
        Ok(before.map(|sealed| sealed.to_vec()))
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        let values = vec![self.now(), base64url(&key.state).into()];
        let keys = vec![self.keys.browser(key)];
        let sealed: Option<Bytes> =
            self.scripts.take_login.run(&self.nodes, keys::of(&key.browser), keys, values).await?;
        Ok(sealed.map(|sealed| sealed.to_vec()))
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        let values = vec![self.now(), millis(at), millis(expires)];
        Ok(self.scripts.mark.run::<i64>(&self.nodes, keys::of(&key.0), vec![self.keys.mark(key)], values).await? == 1)
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        let name = self.keys.mark(key);
        let get = |client: Client, _| {
            let name = name.clone();
            async move { client.get(name).await }
        };
        let text: Option<String> = self.nodes.run(keys::of(&key.0), get).await?;
        let Some(text) = text else { return Ok(None) };
        let read = || {
            let (at, expires) = text.split_once(' ')?;
            Some((Timestamp::from_millis(at.parse().ok()?), Timestamp::from_millis(expires.parse().ok()?)))
        };
        let (at, expires) = read().ok_or_else(|| StoreError::Damaged("a mark cannot be read".to_owned()))?;
        Ok(Some(at).filter(|_| expires > self.clock.now()))
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.nodes.changes()
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.count_by_key().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.probe().await
    }

    async fn warnings(&self) -> Vec<String> {
        self.memory_warnings().await
    }
}
