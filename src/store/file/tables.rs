//! The tables, and what keeps them in step with each other: all of it within the caller's transaction.

use redb::{Database, ReadableTable, ReadableTableMetadata as _, Table, TableDefinition, WriteTransaction};
use sha2::{Digest as _, Sha256};

use super::super::record::{Owner, Record, SessionKey};
use super::super::{Change, LOGINS_PER_BROWSER, LoginKey};
use super::entry::Entry;
use super::fault::Fault;
use crate::primitives::clock::Timestamp;

/// The format that this version writes.
pub(super) const FORMAT: u64 = 1;

/// Most expired entries of a kind that one write removes on the side: more than it adds, so that they cannot pile up.
const SWEEP: usize = 8;

/// Most logins under way. Strangers begin them, so the bound must hold the file small: some 64 MiB.
const MAX_LOGINS: u64 = 65_536;

/// A moment, then a key: in the order of time.
type Moment = [u8; 40];

pub(super) const ABOUT: TableDefinition<'static, &str, u64> = TableDefinition::new("about");
pub(super) const SESSIONS: TableDefinition<'static, [u8; 32], &[u8]> = TableDefinition::new("sessions");
const ENDS: TableDefinition<'static, Moment, ()> = TableDefinition::new("ends");
const DUES: TableDefinition<'static, Moment, ()> = TableDefinition::new("dues");
/// The owner's name hashed, then the session.
pub(super) const OWNERS: TableDefinition<'static, [u8; 64], ()> = TableDefinition::new("owners");
/// Browser and `state`; the number says which came first, then the end and what is sealed.
const LOGINS: TableDefinition<'static, [u8; 64], (u64, u64, &[u8])> = TableDefinition::new("logins");
const LOGIN_ENDS: TableDefinition<'static, [u8; 72], ()> = TableDefinition::new("login_ends");
/// When, and until when.
pub(super) const MARKS: TableDefinition<'static, [u8; 32], (u64, u64)> = TableDefinition::new("marks");
const MARK_ENDS: TableDefinition<'static, Moment, ()> = TableDefinition::new("mark_ends");

/// Makes what is missing, and tells the format of what is there.
pub(super) fn prepare(database: &Database) -> Result<u64, Fault> {
    let read = database.begin_read()?;
    let known = match read.open_table(ABOUT) {
        Ok(about) => about.get("format")?.map(|format| format.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(format) = known {
        return Ok(format);
    }
    let mut write = database.begin_write()?;
    write.set_two_phase_commit(true);
    {
        let mut tables = Tables::open(&write)?;
        if !tables.sessions.is_empty()? {
            return Err(Fault::Damaged("it does not say its format".to_owned()));
        }
        tables.about.insert("format", FORMAT)?;
    }
    write.commit()?;
    Ok(FORMAT)
}

/// All tables of one transaction.
pub(super) struct Tables<'t> {
    pub(super) about: Table<'t, &'static str, u64>,
    sessions: Table<'t, [u8; 32], &'static [u8]>,
    ends: Table<'t, Moment, ()>,
    dues: Table<'t, Moment, ()>,
    owners: Table<'t, [u8; 64], ()>,
    logins: Table<'t, [u8; 64], (u64, u64, &'static [u8])>,
    login_ends: Table<'t, [u8; 72], ()>,
    marks: Table<'t, [u8; 32], (u64, u64)>,
    mark_ends: Table<'t, Moment, ()>,
    /// To be told once the transaction is on the disk.
    pub(super) changes: Vec<Change>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            about: write.open_table(ABOUT)?,
            sessions: write.open_table(SESSIONS)?,
            ends: write.open_table(ENDS)?,
            dues: write.open_table(DUES)?,
            owners: write.open_table(OWNERS)?,
            logins: write.open_table(LOGINS)?,
            login_ends: write.open_table(LOGIN_ENDS)?,
            marks: write.open_table(MARKS)?,
            mark_ends: write.open_table(MARK_ENDS)?,
            changes: Vec::new(),
        })
    }

    /// The session, if it lives.
    pub(super) fn living(&self, key: &SessionKey, now: Timestamp) -> Result<Option<Entry>, Fault> {
        Ok(self.entry(key)?.filter(|entry| entry.record.end() > now))
    }

    /// For whoever is about to write, a session that cannot be read is none: it must keep no other from being written,
    /// and is taken out when its time has come. [`super::living`] tells of it.
    fn entry(&self, key: &SessionKey) -> Result<Option<Entry>, Fault> {
        let note = |fault: &Fault| tracing::warn!(reason = fault.text(), "a session cannot be read");
        Ok(self.sessions.get(key.as_bytes())?.and_then(|bytes| Entry::from_bytes(bytes.value()).inspect_err(note).ok()))
    }

    /// Stores a session in place of the one that was there.
    pub(super) fn put(&mut self, key: &SessionKey, entry: &Entry) -> Result<(), Fault> {
        self.remove(key)?;
        self.sessions.insert(key.as_bytes(), &entry.to_bytes()?[..])?;
        self.ends.insert(moment(entry.record.end(), key.as_bytes()), ())?;
        if let Some(due) = entry.due {
            self.dues.insert(moment(due, key.as_bytes()), ())?;
        }
        for owner in owners(&entry.record) {
            self.owners.insert(join(&owner, key.as_bytes()), ())?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &SessionKey) -> Result<Option<Entry>, Fault> {
        let entry = self.entry(key)?;
        self.sessions.remove(key.as_bytes())?;
        let Some(entry) = entry else { return Ok(None) };
        self.ends.remove(moment(entry.record.end(), key.as_bytes()))?;
        if let Some(due) = entry.due {
            self.dues.remove(moment(due, key.as_bytes()))?;
        }
        for owner in owners(&entry.record) {
            self.owners.remove(join(&owner, key.as_bytes()))?;
        }
        Ok(Some(entry))
    }

    /// Stores a session whose owners have not changed.
    pub(super) fn update(&mut self, key: &SessionKey, old: &Entry, new: &Entry) -> Result<(), Fault> {
        self.sessions.insert(key.as_bytes(), &new.to_bytes()?[..])?;
        if old.record.end() != new.record.end() {
            self.ends.remove(moment(old.record.end(), key.as_bytes()))?;
            self.ends.insert(moment(new.record.end(), key.as_bytes()), ())?;
        }
        if old.due != new.due {
            if let Some(due) = old.due {
                self.dues.remove(moment(due, key.as_bytes()))?;
            }
            if let Some(due) = new.due {
                self.dues.insert(moment(due, key.as_bytes()), ())?;
            }
        }
        Ok(())
    }

    /// Moves a session on the list of the due, or takes it off.
    pub(super) fn set_due(&mut self, key: &SessionKey, due: Option<Timestamp>) -> Result<(), Fault> {
        let Some(old) = self.entry(key)? else { return Ok(()) };
        self.update(key, &old, &Entry { due, ..old.clone() })
    }

    /// Takes the earliest off the list of the due, up to this moment; [`Tables::set_due`] says what becomes of each.
    pub(super) fn take_due(&mut self, until: Timestamp, most: usize) -> Result<Vec<SessionKey>, Fault> {
        let range = self.dues.range(..=moment(until, &[0xff; 32]))?;
        let places: Vec<Moment> = range.take(most).map(|place| Ok(place?.0.value())).collect::<Result<_, Fault>>()?;
        for place in &places {
            self.dues.remove(place)?;
        }
        Ok(places.iter().map(|place| SessionKey::from_bytes(key_of(place))).collect())
    }

    /// All sessions of an owner, dead ones too.
    pub(super) fn of(&self, owner: &Owner<'_>) -> Result<Vec<SessionKey>, Fault> {
        sessions_of(&self.owners, owner)
    }

    /// Stores a login and returns the one that lived in its place.
    pub(super) fn put_login(
        &mut self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let before = self.take_login(key, now)?;
        while self.logins.len()? >= MAX_LOGINS && self.drop_first_login(Timestamp::from_millis(u64::MAX))? {}
        let mut others = Vec::new();
        for login in self.logins.range(join(&key.browser, &[0; 32])..=join(&key.browser, &[0xff; 32]))? {
            let (place, login) = login?;
            let (_, state) = split(&place.value());
            let (began, expires, _) = login.value();
            others.push((began, expires <= now.as_millis(), state));
        }
        let newest = others.iter().map(|(began, ..)| *began).max().unwrap_or_default();
        let living = others.iter().filter(|(_, expired, _)| !expired).count();
        others.sort_unstable();
        let mut too_many = (living + 1).saturating_sub(LOGINS_PER_BROWSER);
        for (_, expired, state) in others {
            if expired || too_many > 0 {
                too_many -= usize::from(!expired && too_many > 0);
                self.remove_login(&LoginKey { browser: key.browser, state })?;
            }
        }
        let place = join(&key.browser, &key.state);
        self.logins.insert(place, (newest + 1, expires.as_millis(), sealed))?;
        self.login_ends.insert(login_moment(expires, &place), ())?;
        Ok(before)
    }

    pub(super) fn take_login(&mut self, key: &LoginKey, now: Timestamp) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.remove_login(key)?.filter(|(expires, _)| *expires > now).map(|(_, sealed)| sealed))
    }

    fn remove_login(&mut self, key: &LoginKey) -> Result<Option<(Timestamp, Vec<u8>)>, Fault> {
        let place = join(&key.browser, &key.state);
        let removed = self.logins.remove(place)?.map(|login| {
            let (_, expires, sealed) = login.value();
            (Timestamp::from_millis(expires), sealed.to_vec())
        });
        if let Some((expires, _)) = &removed {
            self.login_ends.remove(login_moment(*expires, &place))?;
        }
        Ok(removed)
    }

    fn drop_first_login(&mut self, ended: Timestamp) -> Result<bool, Fault> {
        let first = self.login_ends.first()?.map(|(place, _)| place.value());
        let Some((end, place)) = first.and_then(|place| {
            place
                .split_first_chunk::<8>()
                .map(|(end, rest)| (u64::from_be_bytes(*end), rest.try_into().unwrap_or([0; 64])))
        }) else {
            return Ok(false);
        };
        if end > ended.as_millis() {
            return Ok(false);
        }
        let (browser, state) = split(&place);
        Ok(self.remove_login(&LoginKey { browser, state })?.is_some())
    }

    pub(super) fn mark(
        &mut self,
        key: &[u8; 32],
        at: Timestamp,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        let old = self.marks.get(key)?.map(|mark| mark.value().1);
        if let Some(old) = old {
            if old > now.as_millis() {
                return Ok(false);
            }
            self.mark_ends.remove(moment(Timestamp::from_millis(old), key))?;
        }
        self.marks.insert(key, (at.as_millis(), expires.as_millis()))?;
        self.mark_ends.insert(moment(expires, key), ())?;
        Ok(true)
    }

    /// Takes out a few of those that have ended.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<(), Fault> {
        for place in first_ended(&self.ends, now)? {
            self.remove(&SessionKey::from_bytes(key_of(&place)))?;
            self.ends.remove(place)?;
        }
        for _ in 0..SWEEP {
            if !self.drop_first_login(now)? {
                break;
            }
        }
        for place in first_ended(&self.mark_ends, now)? {
            self.mark_ends.remove(place)?;
            self.marks.remove(key_of(&place))?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self, key: &SessionKey) -> Result<(), Fault> {
        self.sessions.insert(key.as_bytes(), &b"what is this"[..])?;
        Ok(())
    }

    /// Sessions, ends, dues, owners, logins, login ends, marks, mark ends.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [u64; 8] {
        [
            self.sessions.len().unwrap(),
            self.ends.len().unwrap(),
            self.dues.len().unwrap(),
            self.owners.len().unwrap(),
            self.logins.len().unwrap(),
            self.login_ends.len().unwrap(),
            self.marks.len().unwrap(),
            self.mark_ends.len().unwrap(),
        ]
    }
}

/// The first few places up to now.
fn first_ended(ends: &impl ReadableTable<Moment, ()>, now: Timestamp) -> Result<Vec<Moment>, Fault> {
    let range = ends.range(..=moment(now, &[0xff; 32]))?;
    range.take(SWEEP).map(|place| Ok(place?.0.value())).collect()
}

/// All sessions of an owner in a table of [`OWNERS`].
pub(super) fn sessions_of(
    owners: &impl ReadableTable<[u8; 64], ()>,
    owner: &Owner<'_>,
) -> Result<Vec<SessionKey>, Fault> {
    let name = name(owner);
    let range = owners.range(join(&name, &[0; 32])..=join(&name, &[0xff; 32]))?;
    range.map(|place| Ok(SessionKey::from_bytes(split(&place?.0.value()).1))).collect()
}

/// Whether anybody is due up to this moment.
pub(super) fn is_due(read: &redb::ReadTransaction, until: Timestamp) -> Result<bool, Fault> {
    Ok(read.open_table(DUES)?.range(..=moment(until, &[0xff; 32]))?.next().transpose()?.is_some())
}

fn owners(record: &Record) -> impl Iterator<Item = [u8; 32]> {
    let provider = record.provider.as_str();
    let session = record.provider_session.as_deref().map(|sid| name(&Owner::ProviderSession { provider, sid }));
    std::iter::once(name(&Owner::Subject { provider, subject: &record.subject })).chain(session)
}

fn name(owner: &Owner<'_>) -> [u8; 32] {
    let (kind, provider, name) = match *owner {
        Owner::Subject { provider, subject } => ([0], provider, subject),
        Owner::ProviderSession { provider, sid } => ([1], provider, sid),
    };
    let length = u64::try_from(provider.len()).unwrap_or(u64::MAX).to_be_bytes();
    Sha256::new().chain_update(kind).chain_update(length).chain_update(provider).chain_update(name).finalize().into()
}

fn moment(time: Timestamp, key: &[u8; 32]) -> Moment {
    concatenated(&time.as_millis().to_be_bytes(), key)
}

fn login_moment(time: Timestamp, place: &[u8; 64]) -> [u8; 72] {
    concatenated(&time.as_millis().to_be_bytes(), place)
}

fn join(first: &[u8; 32], second: &[u8; 32]) -> [u8; 64] {
    concatenated(first, second)
}

fn concatenated<const N: usize>(first: &[u8], second: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(first.iter().chain(second)) {
        *to = *from;
    }
    bytes
}

fn key_of(moment: &Moment) -> [u8; 32] {
    moment.last_chunk().copied().unwrap_or_default()
}

fn split(place: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    (place.first_chunk().copied().unwrap_or_default(), place.last_chunk().copied().unwrap_or_default())
}
