//! A record as the fields of a Redis hash.

use bytes::Bytes;
use fred::types::Value;

use super::super::StoreError;
use super::super::meta::{self, Columns};
use super::super::record::Record;
use super::keys::OwnerName;
use crate::primitives::clock::Timestamp;

/// The fields, in the order of [`read`]: version, times, what no script looks at, and the secrets.
pub(super) const NAMES: [&str; 4] = ["v", "t", "meta", "sealed"];

/// The last moment that a Lua number holds exactly.
const LAST_MILLIS: u64 = 1 << 53;

/// A time as decimal milliseconds, at most 2⁵³.
pub(super) fn millis(time: Timestamp) -> Value {
    time.as_millis().min(LAST_MILLIS).to_string().into()
}

/// When a session is due; empty = never.
pub(super) fn due(due: Option<Timestamp>) -> Value {
    due.map_or_else(|| "".into(), millis)
}

/// Version, times, meta and sealed part, as the scripts take them.
pub(super) fn write(record: &Record) -> Result<[Value; 7], StoreError> {
    Ok([
        record.version.to_string().into(),
        millis(record.last_seen),
        millis(record.idle_end),
        millis(record.absolute_end),
        millis(record.returning_end),
        meta::write(record)?.into(),
        Bytes::copy_from_slice(&record.sealed).into(),
    ])
}

/// `None` if no field is there.
pub(super) fn read(values: &[Option<Bytes>]) -> Result<Option<Record>, StoreError> {
    if values.iter().all(Option::is_none) {
        return Ok(None);
    }
    let [Some(version), Some(times), Some(json), Some(sealed)] = values else {
        return Err(StoreError::Damaged("a field of a session is missing".to_owned()));
    };
    read_parts(version, times, json, sealed.to_vec()).map(Some)
}

/// All but the secrets, which are empty: version, times and meta. `None` if a field is missing.
pub(super) fn read_open(values: &[Option<Bytes>]) -> Result<Option<Record>, StoreError> {
    let [Some(version), Some(times), Some(json)] = values else { return Ok(None) };
    read_parts(version, times, json, Vec::new()).map(Some)
}

/// The owners that a meta names; none if it cannot be read.
pub(super) fn owners(json: &[u8]) -> Vec<OwnerName> {
    let record = read_parts(b"0", b"0 0 0 0 0", json, Vec::new());
    record.map(|record| OwnerName::of(&record)).unwrap_or_default()
}

fn read_parts(version: &[u8], times: &[u8], json: &[u8], sealed: Vec<u8>) -> Result<Record, StoreError> {
    let mut times = times.split(|byte| *byte == b' ').map(|text| number(text, "t").map(Timestamp::from_millis));
    let mut time = || times.next().unwrap_or_else(|| Err(damaged("t")));
    let columns = Columns {
        version: number(version, "v")?,
        last_seen: time()?,
        idle_end: time()?,
        absolute_end: time()?,
        returning_end: time()?,
        sealed,
    };
    // The last one is the scripts' own.
    time()?;
    meta::read(json, columns)
}

fn number(text: &[u8], name: &str) -> Result<u64, StoreError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| damaged(name))
}

fn damaged(name: &str) -> StoreError {
    StoreError::Damaged(format!("field `{name}` of a session cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(fields: [&'static str; 4]) -> Vec<Option<Bytes>> {
        fields.map(|field| Some(Bytes::from_static(field.as_bytes()))).to_vec()
    }

    const META: &str =
        r#"{"f":1,"site":"s","provider":"p","sub":"a\"b","created":5,"rot":0,"rotated":5,"gen":1,"kid":"k"}"#;

    #[test]
    fn whole_records_are_read_and_others_are_damage() {
        let record = read(&values(["1", "2 3 4 5 6", META, "x"])).unwrap().unwrap();
        assert_eq!((record.version, record.subject.as_str(), record.created), (1, "a\"b", Timestamp::from_millis(5)));
        assert_eq!([record.last_seen, record.idle_end], [2, 3].map(Timestamp::from_millis));
        assert_eq!([record.absolute_end, record.returning_end], [4, 5].map(Timestamp::from_millis));
        assert!(read(&[const { None }; 4]).unwrap().is_none());

        for odd in [
            ["-1", "2 3 4 5 6", META, "x"],
            ["1", "2e3 3 4 5 6", META, "x"],
            ["1", "2 3 4 5", META, "x"],
            ["1", "2  4 5 6", META, "x"],
            ["1", "", META, "x"],
            ["1", "2 3 99999999999999999999 5 6", META, "x"],
            ["1", "2 3 4 5 6", "{\"sub\":\"secret\"}", "x"],
        ] {
            let error = read(&values(odd)).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(_)));
            assert!(!error.to_string().contains("secret"));
        }
        let mut partial = values(["1", "2 3 4 5 6", META, "x"]);
        partial[3] = None;
        assert!(matches!(read(&partial), Err(StoreError::Damaged(_))));
        assert!(matches!(read(&partial[..2]), Err(StoreError::Damaged(_))));
        assert!(read_open(&partial[..3]).unwrap().is_some_and(|record| record.sealed.is_empty()));
    }

    #[test]
    fn the_end_of_time_is_a_number_that_lua_holds() {
        assert_eq!(millis(Timestamp::from_millis(u64::MAX)), Value::from("9007199254740992"));
    }
}
