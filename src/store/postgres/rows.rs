//! A record as columns, and a row as a record.

use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::super::StoreError;
use super::super::meta::{self, Columns};
use super::super::record::{Owner, Record, SessionKey};
use crate::primitives::clock::Timestamp;

/// A time as PostgreSQL keeps it; the end of time is a little earlier there.
pub(super) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A version as PostgreSQL keeps it.
pub(super) fn version(version: u64) -> Result<i64, StoreError> {
    i64::try_from(version).map_err(|_| StoreError::Damaged("a version is beyond what PostgreSQL can hold".to_owned()))
}

/// The name of an owner in its index: any text, of any length, that the database's encoding need not know.
pub(super) fn owner(owner: &Owner<'_>) -> [u8; 32] {
    let (provider, name) = match *owner {
        Owner::Subject { provider, subject } => (provider, subject),
        Owner::ProviderSession { provider, sid } => (provider, sid),
    };
    let length = u64::try_from(provider.len()).unwrap_or(u64::MAX).to_be_bytes();
    Sha256::new().chain_update(length).chain_update(provider).chain_update(name).finalize().into()
}

/// What a record is besides its own fields.
pub(super) struct Written {
    pub(super) version: i64,
    pub(super) last_seen: i64,
    pub(super) idle_end: i64,
    pub(super) absolute_end: i64,
    pub(super) returning_end: i64,
    pub(super) due: Option<i64>,
    pub(super) meta: Vec<u8>,
}

pub(super) fn write(record: &Record) -> Result<Written, StoreError> {
    Ok(Written {
        version: version(record.version)?,
        last_seen: millis(record.last_seen),
        idle_end: millis(record.idle_end),
        absolute_end: millis(record.absolute_end),
        returning_end: millis(record.returning_end),
        due: record.due.map(millis),
        meta: meta::write(record)?.into_bytes(),
    })
}

/// A row of `columns!` in `sql`.
pub(super) fn read(row: &Row) -> Result<(SessionKey, Record), StoreError> {
    let columns = Columns {
        version: number(row, 1)?,
        last_seen: Timestamp::from_millis(number(row, 2)?),
        idle_end: Timestamp::from_millis(number(row, 3)?),
        absolute_end: Timestamp::from_millis(number(row, 4)?),
        returning_end: Timestamp::from_millis(number(row, 5)?),
        sealed: get::<&[u8]>(row, 7)?.to_vec(),
    };
    Ok((key(row, 0)?, meta::read(get(row, 6)?, columns)?))
}

/// Those of the rows that can be read. The others are told of and left out, for one damaged record must not keep an
/// owner's other sessions from ending.
pub(super) fn readable(rows: &[Row]) -> Vec<(SessionKey, Record)> {
    let note = |error: &StoreError| tracing::warn!(%error, "a session is left out");
    rows.iter().filter_map(|row| read(row).inspect_err(note).ok()).collect()
}

pub(super) fn key(row: &Row, column: usize) -> Result<SessionKey, StoreError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map(SessionKey::from_bytes).map_err(|_| StoreError::Damaged("a key has an odd length".to_owned()))
}

pub(super) fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| StoreError::Damaged("a number is below zero".to_owned()))
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    // The client's own error might quote what it read.
    row.try_get(column).map_err(|_| StoreError::Damaged(format!("column {column} cannot be read")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_kept_apart() {
        let name = |provider, subject| owner(&Owner::Subject { provider, subject });
        assert_ne!(name("ab", "c"), name("a", "bc"));
        assert_ne!(name("a", ""), name("", "a"));
        assert_eq!(name("a", "b"), name("a", "b"));
    }

    #[test]
    fn the_end_of_time_fits() {
        assert_eq!(millis(Timestamp::from_millis(u64::MAX)), i64::MAX);
        assert!(version(1 << 63).is_err());
    }
}
