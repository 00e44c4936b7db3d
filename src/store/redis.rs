//! Sessions in Redis (6.2 or newer, or Valkey), shared by all replicas.
//!
//! | key | content |
//! |---|---|
//! | `{prefix}s:{base64url of the session key}` | hash: `v` version, `seen`, `idle` and `end` times, `meta` JSON, `sealed` |
//! | `{prefix}l:{base64url of the hashed binding cookie}` | hash: one field a login, named by its hashed `state` |
//!
//! Times are milliseconds since the epoch. Lua compares them as doubles, exact up to 2⁵³ (the year 287396); later ones
//! are stored as that. Each key expires by Redis' own clock with what it holds; ours is asked too on every use.
//! Whatever reads before it writes is one Lua script on one key, so that it is atomic, in a cluster as well.
//!
//! A Redis user for it needs the keys `{prefix}*` and the commands `eval`, `evalsha`, `hmget`, `hget`, `hgetall`,
//! `hset`, `hdel`, `hlen`, `hincrby`, `del`, `pexpireat` and `ping`; `info` and `client|id` are of use.

mod address;
mod fields;
mod link;
mod script;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::interfaces::{ClientLike as _, HashesInterface as _};
use fred::types::{InfoKind, Value};

use self::fields::millis;
use self::link::Link;
use self::script::Scripts;
use super::record::{Owner, Record, SessionKey};
use super::{Announce, Change, Claim, LOGINS_PER_BROWSER, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random::base64url;

pub use self::address::AddressError;

/// Touches under way at a time: enough to fill the pipeline, too few to fill the command buffer.
const TOUCHES_AT_A_TIME: usize = 128;

/// Major and minor number of the oldest version that is supported.
const OLDEST: (u64, u64) = (6, 2);

/// The Redis store.
pub struct RedisStore {
    link: Link,
    scripts: Scripts,
    prefix: String,
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
        let config = address::parse(settings.url.expose())?;
        let link = Link::new(config, settings.command_timeout.max(Duration::from_millis(1)));
        Ok(Self { link, scripts: Scripts::new(), prefix: settings.prefix.clone(), clock })
    }

    fn session(&self, key: &SessionKey) -> String {
        format!("{}s:{}", self.prefix, key.to_text())
    }

    fn browser(&self, key: &LoginKey) -> String {
        format!("{}l:{}", self.prefix, base64url(&key.browser))
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
        let values = fields::write(record)?.to_vec();
        self.scripts.create.run::<i64>(&self.link, self.session(key), values).await?;
        Ok(())
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let key = self.session(key);
        let values: Vec<Option<Bytes>> =
            self.link.run(|client| async move { client.hmget(key, fields::NAMES.to_vec()).await }).await?;
        let record = fields::read(&values)?;
        Ok(record.filter(|record| record.end() > self.clock.now()))
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        _announce: Announce,
    ) -> Result<Swap, StoreError> {
        let mut values = vec![self.now(), expected.to_string().into()];
        values.extend(fields::write(record)?);
        match self.scripts.replace.run::<i64>(&self.link, self.session(key), values).await? {
            1 => Ok(Swap::Stored),
            0 => Ok(Swap::Conflict),
            _ => Ok(Swap::Gone),
        }
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        for some in touches.chunks(TOUCHES_AT_A_TIME) {
            let calls = some.iter().map(|touch| {
                let values = vec![self.now(), millis(touch.last_seen), millis(touch.idle_end)];
                self.scripts.touch.run::<i64>(&self.link, self.session(&touch.key), values)
            });
            futures::future::try_join_all(calls).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let values: Vec<Option<Bytes>> = self.scripts.delete.run(&self.link, self.session(key), vec![]).await?;
        // It is gone now, readable or not.
        let record = fields::read(&values).unwrap_or_else(|error| {
            tracing::warn!(%error, "a session that ended could not be read");
            None
        });
        Ok(record.filter(|record| record.end() > self.clock.now()))
    }

    async fn find(&self, _owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        Err(StoreError::Unavailable("INTERIM".to_owned()))
    }

    async fn claim_due(&self, _claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        Err(StoreError::Unavailable("INTERIM".to_owned()))
    }

    async fn reschedule(&self, _due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("INTERIM".to_owned()))
    }

    async fn mark(&self, _key: &MarkKey, _at: Timestamp, _expires: Timestamp) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable("INTERIM".to_owned()))
    }

    async fn marked(&self, _key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<Change> {
        tokio::sync::broadcast::Sender::new(1).subscribe()
    }

    async fn census(&self) -> Result<std::collections::BTreeMap<String, u64>, StoreError> {
        Err(StoreError::Unavailable("INTERIM".to_owned()))
    }

    async fn put_login(&self, key: &LoginKey, sealed: &[u8], expires: Timestamp) -> Result<(), StoreError> {
        let values = vec![
            self.now(),
            LOGINS_PER_BROWSER.to_string().into(),
            base64url(&key.state).into(),
            millis(expires),
            Bytes::copy_from_slice(sealed).into(),
        ];
        self.scripts.put_login.run::<i64>(&self.link, self.browser(key), values).await?;
        Ok(())
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        let values = vec![self.now(), base64url(&key.state).into()];
        let sealed: Option<Bytes> = self.scripts.take_login.run(&self.link, self.browser(key), values).await?;
        Ok(sealed.map(|sealed| sealed.to_vec()))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.link.run(|client| async move { client.ping::<()>(None).await }).await
    }

    /// Of the memory policy (behaviour K5) and the version.
    ///
    /// Asks `INFO` rather than `CONFIG`: managed servers forbid that one, and both know the policy.
    async fn warnings(&self) -> Vec<String> {
        let info: Result<(Option<_>, String), _> = self
            .link
            .run(|client| async move { Ok((client.server_version(), client.info(Some(InfoKind::Memory)).await?)) })
            .await;
        let (version, text) = match info {
            Ok(answers) => answers,
            Err(error) => {
                return vec![format!("could not learn whether Redis' maxmemory-policy is noeviction: {error}")];
            }
        };
        let mut warnings = Vec::new();
        if let Some(version) = version.filter(|version| (version.major, version.minor) < OLDEST) {
            warnings.push(format!("Redis {version} is older than 6.2, the oldest that is supported"));
        }
        match text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim) {
            Some("noeviction") => {}
            Some(policy) => warnings.push(format!(
                "Redis may drop sessions when its memory is full: maxmemory-policy is {policy}, not noeviction"
            )),
            None => warnings.push("Redis does not say its maxmemory-policy; it should be noeviction".to_owned()),
        }
        warnings
    }
}
