//! Sessions in a file of this process alone: they survive its end, `kill -9` included.
//!
//! The file is a redb database: copy-on-write B-trees under one transaction that is on the disk, whole, when it is
//! acknowledged, with a checksum over every page. Rather than fjall (or another log-structured one): its plain
//! `commit` is durable where a journal has to be told to be, an expiry index needs no compaction to shrink, one file and
//! one lock are all there is to look after, and it has no dependencies and no threads of its own. What it costs is that
//! a write copies the pages on its way, some tens of KiB, and waits for the disk twice; writers share both
//! (`engine.rs`). Every method that changes something returns when that is on the disk, touches too: they come in
//! batches.
//!
//! The file grows to what was needed at a time and is reused from then on; it does not shrink.

mod disk;
mod engine;
mod entry;
mod fault;
mod open;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::sync::broadcast;

use self::engine::Engine;
use self::entry::Entry;
use self::fault::Fault;
use super::record::{Owner, Record, SessionKey};
use super::{Announce, CHANGES_WAITING, Change, Claim, LoginKey, MarkKey, SessionStore, StoreError, Swap, Touch};
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};

pub use self::open::FileStoreError;

/// Most sessions that one transaction touches, reschedules or looks at for the list of the due.
const SESSIONS_AT_A_TIME: usize = 500;

/// Sessions that the census looks at in one go.
const CENSUS_PAGE: usize = 2_000;

/// The file store.
pub struct FileStore {
    engine: Engine,
    clock: Clock,
    changes: broadcast::Sender<Change>,
    path: std::path::PathBuf,
    #[cfg(test)]
    disk: disk::Disk,
}

impl FileStore {
    /// Opens the file, makes it if there is none. Reads all of it once, to find damage before it is built upon; that
    /// takes about a second a gigabyte.
    ///
    /// # Errors
    /// [`FileStoreError`] if another process has it, if it is damaged, or if the file system refuses.
    pub fn open(settings: &settings::FileStore, clock: Clock) -> Result<Self, FileStoreError> {
        let path = settings.path.clone();
        let (disk, database) = open::open(&path)?;
        let changes = broadcast::Sender::new(CHANGES_WAITING);
        let engine = Engine::start(path.clone(), disk.clone(), database, changes.clone())
            .map_err(|error| FileStoreError::Io(path.clone(), error))?;
        Ok(Self {
            engine,
            clock,
            changes,
            path,
            #[cfg(test)]
            disk,
        })
    }
}

/// The session, if it lives.
fn living(read: &ReadTransaction, key: &SessionKey, now: Timestamp) -> Result<Option<Record>, Fault> {
    let table = read.open_table(tables::SESSIONS)?;
    let Some(bytes) = table.get(key.as_bytes())? else { return Ok(None) };
    Ok(Some(Entry::from_bytes(bytes.value())?.record).filter(|record| record.end() > now))
}

/// An owner, for a thread that outlives the caller.
enum Whose {
    Subject(String, String),
    ProviderSession(String, String),
}

impl Whose {
    fn of(owner: &Owner<'_>) -> Self {
        match *owner {
            Owner::Subject { provider, subject } => Self::Subject(provider.to_owned(), subject.to_owned()),
            Owner::ProviderSession { provider, sid } => Self::ProviderSession(provider.to_owned(), sid.to_owned()),
        }
    }

    fn owner(&self) -> Owner<'_> {
        match self {
            Self::Subject(provider, subject) => Owner::Subject { provider, subject },
            Self::ProviderSession(provider, sid) => Owner::ProviderSession { provider, sid },
        }
    }
}

#[async_trait]
impl SessionStore for FileStore {
    fn kind(&self) -> &'static str {
        "file"
    }

    async fn create(&self, key: &SessionKey, record: &Record) -> Result<(), StoreError> {
        let (key, entry, now) = (*key, Entry { record: record.clone(), due: record.due }, self.clock.now());
        self.engine
            .write(move |tables| {
                tables.sweep(now)?;
                tables.put(&key, &entry)
            })
            .await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let (key, now) = (*key, self.clock.now());
        self.engine.read(move |read| living(read, &key, now)).await
    }

    async fn replace(
        &self,
        key: &SessionKey,
        expected: u64,
        record: &Record,
        announce: Announce,
    ) -> Result<Swap, StoreError> {
        let (key, mut record, now) = (*key, record.clone(), self.clock.now());
        self.engine
            .write(move |tables| {
                tables.sweep(now)?;
                let Some(old) = tables.living(&key, now)? else { return Ok(Swap::Gone) };
                if old.record.version != expected {
                    return Ok(Swap::Conflict);
                }
                record.last_seen = record.last_seen.max(old.record.last_seen);
                record.idle_end = record.idle_end.max(old.record.idle_end);
                record.returning_end = record.returning_end.max(old.record.returning_end);
                let (version, due) = (record.version, record.due);
                tables.update(&key, &old, &Entry { record, due })?;
                if announce == Announce::Everyone {
                    tables.changes.push(Change::Replaced(key, version));
                }
                Ok(Swap::Stored)
            })
            .await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
        for some in touches.chunks(SESSIONS_AT_A_TIME) {
            let (some, now) = (some.to_vec(), self.clock.now());
            let touch_all = move |tables: &mut tables::Tables<'_>| {
                for touch in &some {
                    let Some(old) = tables.living(&touch.key, now)? else { continue };
                    let mut new = old.clone();
                    new.record.last_seen = old.record.last_seen.max(touch.last_seen);
                    new.record.idle_end = old.record.idle_end.max(touch.idle_end);
                    new.record.returning_end = old.record.returning_end.max(touch.returning_end);
                    if new != old {
                        tables.update(&touch.key, &old, &new)?;
                    }
                }
                Ok(())
            };
            self.engine.write(touch_all).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        let (key, now) = (*key, self.clock.now());
        self.engine.write(move |tables| end(tables, &key, now)).await
    }

    async fn find(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let (whose, now) = (Whose::of(owner), self.clock.now());
        self.engine
            .read(move |read| {
                let mut found = Vec::new();
                for key in tables::sessions_of(&read.open_table(tables::OWNERS)?, &whose.owner())? {
                    match living(read, &key, now) {
                        Ok(record) => found.extend(record.map(|record| (key, record))),
                        // One of them must not hide the others.
                        Err(Fault::Damaged(reason)) => tracing::warn!(reason, "a session is left out"),
                        Err(fault) => return Err(fault),
                    }
                }
                Ok(found)
            })
            .await
    }

    async fn delete_of(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let (whose, now) = (Whose::of(owner), self.clock.now());
        self.engine
            .write(move |tables| {
                let mut ended = Vec::new();
                for key in tables.of(&whose.owner())? {
                    ended.extend(end(tables, &key, now)?.map(|record| (key, record)));
                }
                Ok(ended)
            })
            .await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        let (claim, now) = (*claim, self.clock.now());
        // Nearly always nobody is due, and then the disk need not be asked to write.
        let last = claim.due;
        let due = self.engine.read(move |read| tables::is_due(read, last)).await?;
        if !due || claim.limit == 0 {
            return Ok(Vec::new());
        }
        self.engine
            .write(move |tables| {
                let mut claimed = Vec::new();
                loop {
                    let due = tables.take_due(claim.due, (claim.limit - claimed.len()).min(SESSIONS_AT_A_TIME))?;
                    if due.is_empty() {
                        return Ok(claimed);
                    }
                    for key in due {
                        let living = tables.living(&key, now)?;
                        let active = living.is_some_and(|entry| entry.record.last_seen >= claim.active_since);
                        // A lease that is over already would let the same session be claimed twice here.
                        let lease = claim.lease.max(claim.due.plus(std::time::Duration::from_millis(1)));
                        tables.set_due(&key, active.then_some(lease))?;
                        if active {
                            claimed.push(key);
                        }
                    }
                }
            })
            .await
    }

    async fn reschedule(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        for some in due.chunks(SESSIONS_AT_A_TIME) {
            let some = some.to_vec();
            self.engine
                .write(move |tables| some.iter().try_for_each(|(key, due)| tables.set_due(key, Some(*due))))
                .await?;
        }
        Ok(())
    }

    async fn put_login(
        &self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (key, sealed, now) = (*key, sealed.to_vec(), self.clock.now());
        self.engine
            .write(move |tables| {
                tables.sweep(now)?;
                tables.put_login(&key, &sealed, expires, now)
            })
            .await
    }

    async fn take_login(&self, key: &LoginKey) -> Result<Option<Vec<u8>>, StoreError> {
        let (key, now) = (*key, self.clock.now());
        self.engine.write(move |tables| tables.take_login(&key, now)).await
    }

    async fn mark(&self, key: &MarkKey, at: Timestamp, expires: Timestamp) -> Result<bool, StoreError> {
        let (key, now) = (*key, self.clock.now());
        self.engine
            .write(move |tables| {
                tables.sweep(now)?;
                tables.mark(&key.0, at, expires, now)
            })
            .await
    }

    async fn marked(&self, key: &MarkKey) -> Result<Option<Timestamp>, StoreError> {
        let (key, now) = (*key, self.clock.now());
        self.engine
            .read(move |read| {
                let mark = read.open_table(tables::MARKS)?.get(key.0)?.map(|mark| mark.value());
                Ok(mark.filter(|(_, end)| *end > now.as_millis()).map(|(at, _)| Timestamp::from_millis(at)))
            })
            .await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    async fn census(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        let mut from = Some([0; 32]);
        while let Some(start) = from {
            let now = self.clock.now();
            let page = self.engine.read(move |read| {
                let table = read.open_table(tables::SESSIONS)?;
                let (mut keys, mut next) = (Vec::new(), None);
                for (n, session) in table.range(start..)?.enumerate() {
                    let (key, bytes) = session?;
                    if n == CENSUS_PAGE {
                        next = Some(key.value());
                        break;
                    }
                    let record = Entry::from_bytes(bytes.value())?.record;
                    keys.extend((record.end() > now).then_some(record.sealing_key));
                }
                Ok((keys, next))
            });
            let (keys, next) = page.await?;
            for key in keys {
                *counts.entry(key).or_default() += 1;
            }
            from = next;
        }
        Ok(counts)
    }

    /// Writes, for that is what a full disk cannot do.
    async fn ping(&self) -> Result<(), StoreError> {
        let now = self.clock.now().as_millis();
        let write = move |tables: &mut tables::Tables<'_>| Ok(tables.about.insert("probed", now).map(drop)?);
        self.engine.write(write).await
    }

    /// Of a file that others may read.
    async fn warnings(&self) -> Vec<String> {
        let mode = std::fs::metadata(&self.path).map(|about| about.permissions().mode() & 0o777);
        match mode {
            Ok(mode) if mode & 0o077 != 0 => {
                vec![format!("others may read {}: its mode is {mode:o}, not 600", self.path.display())]
            }
            _ => Vec::new(),
        }
    }
}

/// Ends a session and tells of it; one that was over already is only taken out.
fn end(tables: &mut tables::Tables<'_>, key: &SessionKey, now: Timestamp) -> Result<Option<Record>, Fault> {
    let ended = tables.remove(key)?.map(|entry| entry.record).filter(|record| record.end() > now);
    if ended.is_some() {
        tables.changes.push(Change::Ended(*key));
    }
    Ok(ended)
}
