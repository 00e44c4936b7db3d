//! A record as the fields of a Redis hash.

use bytes::Bytes;
use fred::types::Value;

use super::super::StoreError;
use super::super::meta::{self, Columns};
use super::super::record::Record;
use crate::primitives::clock::Timestamp;

/// The fields, in the order of [`write`] and [`read`].
pub(super) const NAMES: [&str; 6] = ["v", "seen", "idle", "end", "meta", "sealed"];

/// The last moment that a Lua number holds exactly.
const LAST_MILLIS: u64 = 1 << 53;

/// A time as decimal milliseconds, at most 2⁵³.
pub(super) fn millis(time: Timestamp) -> Value {
    time.as_millis().min(LAST_MILLIS).to_string().into()
}

pub(super) fn write(record: &Record) -> Result<[Value; 6], StoreError> {
    Ok([
        record.version.to_string().into(),
        millis(record.last_seen),
        millis(record.idle_end),
        millis(record.absolute_end),
        meta::write(record)?.into(),
        Bytes::copy_from_slice(&record.sealed).into(),
    ])
}

/// `None` if no field is there.
pub(super) fn read(values: &[Option<Bytes>]) -> Result<Option<Record>, StoreError> {
    if values.iter().all(Option::is_none) {
        return Ok(None);
    }
    let [Some(version), Some(seen), Some(idle), Some(end), Some(json), Some(sealed)] = values else {
        return Err(StoreError::Damaged("a field of a session is missing".to_owned()));
    };
    let columns = Columns {
        version: number(version, "v")?,
        last_seen: Timestamp::from_millis(number(seen, "seen")?),
        idle_end: Timestamp::from_millis(number(idle, "idle")?),
        absolute_end: Timestamp::from_millis(number(end, "end")?),
        returning_end: Timestamp::default(),
        sealed: sealed.to_vec(),
    };
    meta::read(json, columns).map(Some)
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

    fn values(fields: [&'static str; 6]) -> Vec<Option<Bytes>> {
        fields.map(|field| Some(Bytes::from_static(field.as_bytes()))).to_vec()
    }

    const META: &str =
        r#"{"f":1,"site":"s","provider":"p","sub":"a\"b","created":5,"rot":0,"rotated":5,"gen":1,"kid":"k"}"#;

    #[test]
    fn whole_records_are_read_and_others_are_damage() {
        let record = read(&values(["1", "2", "3", "4", META, "x"])).unwrap().unwrap();
        assert_eq!((record.version, record.subject.as_str(), record.created), (1, "a\"b", Timestamp::from_millis(5)));
        assert!(read(&[const { None }; 6]).unwrap().is_none());

        for odd in [
            ["-1", "2", "3", "4", META, "x"],
            ["1", "2e3", "3", "4", META, "x"],
            ["1", "2", "", "4", META, "x"],
            ["1", "2", "3", "99999999999999999999", META, "x"],
            ["1", "2", "3", "4", "{\"sub\":\"secret\"}", "x"],
        ] {
            let error = read(&values(odd)).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(_)));
            assert!(!error.to_string().contains("secret"));
        }
        let mut partial = values(["1", "2", "3", "4", META, "x"]);
        partial[3] = None;
        assert!(matches!(read(&partial), Err(StoreError::Damaged(_))));
        assert!(matches!(read(&partial[..2]), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn the_end_of_time_is_a_number_that_lua_holds() {
        assert_eq!(millis(Timestamp::from_millis(u64::MAX)), Value::from("9007199254740992"));
    }
}
