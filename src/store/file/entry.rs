//! A session as bytes: numbers at fixed places, then what the other stores keep as JSON, then the sealed part.

use super::super::meta::{self, Columns};
use super::super::record::Record;
use super::fault::Fault;
use crate::primitives::clock::Timestamp;

/// No moment at all.
const NEVER: u64 = u64::MAX;
const NUMBERS: usize = 7;
const HEAD: usize = NUMBERS * 8;

/// A session with its place on the list of the due, which moves without the record.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) due: Option<Timestamp>,
}

impl Entry {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Fault> {
        let record = &self.record;
        let meta = meta::write(record).map_err(|error| Fault::Damaged(error.to_string()))?;
        let numbers: [u64; NUMBERS] = [
            record.version,
            record.last_seen.as_millis(),
            record.idle_end.as_millis(),
            record.absolute_end.as_millis(),
            record.returning_end.as_millis(),
            self.due.map_or(NEVER, Timestamp::as_millis),
            u64::try_from(meta.len()).unwrap_or(NEVER),
        ];
        let mut bytes = Vec::with_capacity(HEAD + meta.len() + record.sealed.len());
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(meta.as_bytes());
        bytes.extend_from_slice(&record.sealed);
        Ok(bytes)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        let short = || Fault::Damaged("a session is cut short".to_owned());
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(short)?;
        let mut numbers = [0_u64; NUMBERS];
        for (number, bytes) in numbers.iter_mut().zip(head.chunks_exact(8)) {
            *number = u64::from_be_bytes(bytes.try_into().map_err(|_| short())?);
        }
        let [version, seen, idle, absolute, returning, due, length] = numbers;
        let length = usize::try_from(length).map_err(|_| short())?;
        let (json, sealed) = rest.split_at_checked(length).ok_or_else(short)?;
        let columns = Columns {
            version,
            last_seen: Timestamp::from_millis(seen),
            idle_end: Timestamp::from_millis(idle),
            absolute_end: Timestamp::from_millis(absolute),
            returning_end: Timestamp::from_millis(returning),
            sealed: sealed.to_vec(),
        };
        let record = meta::read(json, columns).map_err(|error| Fault::Damaged(error.to_string()))?;
        Ok(Self { record, due: (due != NEVER).then(|| Timestamp::from_millis(due)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::record;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_not() {
        let now = Timestamp::from_secs(1_000);
        let entry = Entry { record: Record { due: Some(now), ..record(now) }, due: None };
        let bytes = entry.to_bytes().unwrap();
        assert!(Entry::from_bytes(&bytes).unwrap() == entry);
        let sealed = entry.record.sealed.len();
        for length in 0..bytes.len() - sealed {
            assert!(matches!(Entry::from_bytes(&bytes[..length]), Err(Fault::Damaged(_))), "{length}");
        }
    }
}
