//! Sessions in PostgreSQL (13 or newer), shared by all replicas.
//!
//! The tables stand in `postgres/migrations`, the statements in `postgres/sql.rs`: one statement a method, which is
//! one round trip and one transaction. Changes are told by `pg_notify` within that same transaction.
//!
//! tokio-postgres rather than sqlx: it sends a prepared statement and its parameters in one write and needs neither a
//! macro that asks a database at build time nor a second description of the types; it leaves TLS to us (rustls with
//! ring, where sqlx brings a stack of its own), it shows notifications and the end of a connection as they happen, and
//! it is a tenth of the crates. Its pools are not used either: what matters here is when to stop trying (`link.rs`), and
//! lending connections is the small part (`pool.rs`).

mod address;
mod dial;
mod fault;
mod link;
mod listen;
mod migrate;
mod pool;
mod rows;
mod sql;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::broadcast;

use self::dial::Dialer;
use self::link::Link;
use self::rows::millis;
use self::sql::Query;
use super::record::{Owner, Record, SessionKey};
use super::{Announce, Change, Claim, LOGINS_PER_BROWSER, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};

pub use self::address::PostgresAddressError;

/// Most rows that one statement touches or reschedules.
const ROWS_AT_A_TIME: usize = 500;

/// Rows of one page of the census.
const CENSUS_PAGE: i64 = 5_000;

/// The oldest version that is supported, as `server_version_num` says it.
const OLDEST: u32 = 130_000;

/// The PostgreSQL store.
pub struct PostgresStore {
    link: Link,
    clock: Clock,
}

impl PostgresStore {
    /// A store that connects when it is first used, on the runtime of that use, and from then on stays connected by
    /// itself. Should that runtime end, the next use connects anew.
    ///
    /// No method waits longer than `settings.command_timeout` for one statement, nor at all while PostgreSQL is known to
    /// be away.
    ///
    /// # Errors
    /// [`PostgresAddressError`] if URL or schema are unusable, or the certificates that TLS needs are.
    pub fn new(settings: &settings::PostgresStore, clock: Clock) -> Result<Self, PostgresAddressError> {
        let address = address::parse(settings.url.expose(), &settings.schema)?;
        let timeout = settings.command_timeout.max(Duration::from_millis(1));
        let dialer = Dialer::new(address, settings.schema.clone(), timeout);
        Ok(Self { link: Link::new(dialer, settings.connections, timeout, clock.clone()), clock })
    }

    /// Whether the server takes user and password from here, or why not. Makes no tables, as a store does that is used.
    ///
    /// # Errors
    /// In words that may be shown.
    pub async fn reach(settings: &settings::PostgresStore) -> Result<(), String> {
        let address = address::parse(settings.url.expose(), &settings.schema).map_err(|error| error.to_string())?;
        let dialer = Dialer::new(address, settings.schema.clone(), settings.command_timeout);
        let (client, mut messages) = dialer.connect().await.map_err(|fault| fault.text)?;
        let answer = async {
            tokio::select! {
                answer = client.simple_query("") => answer.map(drop).map_err(|error| error.to_string()),
                () = async { while let Some(Ok(_)) = messages.next().await {} } => Err("it hangs up".to_owned()),
            }
        };
        tokio::time::timeout(dial::CONNECT_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    fn now(&self) -> i64 {
        millis(self.clock.now())
    }
}

#[async_trait]
impl SessionStore for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        let row = rows::write(record)?;
        let provider = record.provider.as_str();
        let subject = rows::owner(&Owner::Subject { provider, subject: &record.subject });
        let session =
            record.provider_session.as_deref().map(|sid| rows::owner(&Owner::ProviderSession { provider, sid }));
        self.link
            .query(
                Query::Create,
                &[
                    &&key.as_bytes()[..],
                    &row.version,
                    &row.last_seen,
                    &row.idle_end,
                    &row.absolute_end,
                    &row.returning_end,
                    &row.due,
                    &record.sealing_key,
                    &row.meta,
                    &record.sealed,
                    &&subject[..],
                    &session.as_ref().map(|session| &session[..]),
                ],
            )
            .await?;
        Ok(())
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let rows = self.link.query(Query::Load, &[&&key.as_bytes()[..], &self.now()]).await?;
        rows.first().map(|row| Ok(rows::read(row)?.1)).transpose()
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError> {
        let row = rows::write(record)?;
        let wanted = rows::version(expected)?;
        loop {
            let rows = self
                .link
                .query(
                    Query::Replace,
                    &[
                        &&key.as_bytes()[..],
                        &row.version,
                        &row.last_seen,
                        &row.idle_end,
                        &row.absolute_end,
                        &row.returning_end,
                        &row.due,
                        &record.sealing_key,
                        &row.meta,
                        &record.sealed,
                        &wanted,
                        &self.now(),
                        &(announce == Announce::Everyone),
                    ],
                )
                .await?;
            let Some(answer) = rows.first() else { return Ok(Swap::Gone) };
            if rows::get::<i64>(answer, 0)? == 1 {
                return Ok(Swap::Stored);
            }
            match rows::get::<Option<i64>>(answer, 2)? {
                None => return Ok(Swap::Gone),
                // It was the right version when the statement began, and another statement came first: look again.
                Some(found) if found == wanted => {}
                Some(_) => return Ok(Swap::Conflict),
            }
        }
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        for some in touches.chunks(ROWS_AT_A_TIME) {
            let keys: Vec<&[u8]> = some.iter().map(|touch| &touch.key.as_bytes()[..]).collect();
            let times =
                |time: fn(&Touch) -> Timestamp| some.iter().map(|touch| millis(time(touch))).collect::<Vec<_>>();
            let (seen, idle) = (times(|touch| touch.last_seen), times(|touch| touch.idle_end));
            let back = times(|touch| touch.returning_end);
            self.link.query(Query::Touch, &[&keys, &seen, &idle, &back, &self.now()]).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let ended = self.link.query(Query::Delete, &[&&key.as_bytes()[..], &self.now()]).await?;
        // It is gone now, readable or not.
        Ok(rows::readable(&ended).pop().map(|(_, record)| record))
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let query = match owner {
            Owner::Subject { .. } => Query::FindSubject,
            Owner::ProviderSession { .. } => Query::FindProviderSession,
        };
        let found = self.link.query(query, &[&&rows::owner(owner)[..], &self.now()]).await?;
        Ok(rows::readable(&found))
    }

    async fn delete_of(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let query = match owner {
            Owner::Subject { .. } => Query::DeleteOfSubject,
            Owner::ProviderSession { .. } => Query::DeleteOfProviderSession,
        };
        let ended = self.link.query(query, &[&&rows::owner(owner)[..], &self.now()]).await?;
        Ok(rows::readable(&ended))
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        let mut claimed = Vec::new();
        while claimed.len() < claim.limit {
            let room = i64::try_from(claim.limit - claimed.len()).unwrap_or(i64::MAX).min(1_000);
            let times = [claim.due, claim.active_since, self.clock.now(), claim.lease].map(millis);
            let [due, active, now, lease] = &times;
            let rows = match self.link.query(Query::ClaimDue, &[due, active, now, lease, &room]).await {
                Ok(rows) => rows,
                // Those claimed already are the caller's now.
                Err(_) if !claimed.is_empty() => break,
                Err(error) => return Err(error),
            };
            for row in &rows {
                if rows::get(row, 1)? {
                    claimed.push(rows::key(row, 0)?);
                }
            }
            if i64::try_from(rows.len()).is_ok_and(|rows| rows < room) {
                break;
            }
        }
        Ok(claimed)
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        for some in due.chunks(ROWS_AT_A_TIME) {
            let keys: Vec<&[u8]> = some.iter().map(|(key, _)| &key.as_bytes()[..]).collect();
            let times: Vec<i64> = some.iter().map(|(_, due)| millis(*due)).collect();
            self.link.query(Query::Reschedule, &[&keys, &times]).await?;
        }
        Ok(())
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let most = i64::try_from(LOGINS_PER_BROWSER).unwrap_or(i64::MAX);
        let (browser, state) = (&key.browser[..], &key.state[..]);
        let values = [millis(expires), self.now(), most];
        let [expires, now, most] = &values;
        loop {
            let rows = self.link.query(Query::PutLogin, &[&browser, &state, &sealed, expires, now, most]).await?;
            match rows.first() {
                Some(row) if rows::get::<i64>(row, 0)? == 1 => return rows::get(row, 1),
                // There was none when the statement began, and another statement put one there meanwhile: look again.
                _ => {}
            }
        }
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        let (browser, state) = (&key.browser[..], &key.state[..]);
        let rows = self.link.query(Query::TakeLogin, &[&browser, &state, &self.now()]).await?;
        rows.first().map(|row| rows::get(row, 0)).transpose()
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        let values = [millis(at), millis(expires), self.now()];
        let [at, expires, now] = &values;
        Ok(!self.link.query(Query::Mark, &[&&key.0[..], at, expires, now]).await?.is_empty())
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.link.query(Query::Marked, &[&&key.0[..], &self.now()]).await?;
        rows.first().map(|row| Ok(Timestamp::from_millis(rows::number(row, 0)?))).transpose()
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.link.changes()
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        let mut after: Vec<u8> = Vec::new();
        loop {
            let page = self.link.query(Query::Census, &[&after, &self.now(), &CENSUS_PAGE]).await?;
            for row in &page {
                let living = rows::number(row, 1)?;
                if living > 0 {
                    *counts.entry(rows::get(row, 0)?).or_default() += living;
                }
            }
            let Some(row) = page.first() else { return Ok(counts) };
            after = rows::get(row, 2)?;
        }
    }

    /// Writes, for that is what a PostgreSQL that is read-only or full cannot do.
    async fn ping(&self) -> Result<(), StoreError> {
        self.link.query(Query::Ping, &[&self.now()]).await?;
        Ok(())
    }

    /// Of settings that let a crash lose what was acknowledged, and of the version.
    async fn warnings(&self) -> Vec<String> {
        let rows = match self.link.query(Query::Warnings, &[]).await {
            Ok(rows) => rows,
            Err(error) => return vec![format!("could not learn the settings of PostgreSQL: {error}")],
        };
        let settings = rows.iter().filter_map(|row| Some((rows::get(row, 0).ok()?, rows::get(row, 1).ok()?)));
        settings.filter_map(|(name, setting)| warning(name, setting)).collect()
    }
}

fn warning(name: &str, setting: &str) -> Option<String> {
    match name {
        "server_version_num" => setting
            .parse()
            .is_ok_and(|version: u32| version < OLDEST)
            .then(|| "this PostgreSQL is older than 13, the oldest that is supported".to_owned()),
        _ => (setting == "off").then(|| format!("PostgreSQL may lose sessions when it crashes: {name} is off")),
    }
}
