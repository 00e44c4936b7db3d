//! A record as the fields of a Redis hash.

use std::borrow::Cow;

use bytes::Bytes;
use fred::types::Value;
use serde::{Deserialize, Serialize};

use super::super::StoreError;
use crate::primitives::clock::Timestamp;
use crate::session::model::Record;

/// The fields, in the order of [`write`] and [`read`].
pub(super) const NAMES: [&str; 6] = ["v", "seen", "idle", "end", "meta", "sealed"];

/// The last moment that a Lua number holds exactly.
const LAST_MILLIS: u64 = 1 << 53;

/// What neither a script nor an expiry looks at.
#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    site: Cow<'a, str>,
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
    created: Timestamp,
    #[serde(rename = "gen")]
    generation: u64,
}

/// A time as decimal milliseconds, at most 2⁵³.
pub(super) fn millis(time: Timestamp) -> Value {
    time.as_millis().min(LAST_MILLIS).to_string().into()
}

pub(super) fn write(record: &Record) -> Result<[Value; 6], StoreError> {
    let meta = Meta {
        site: Cow::Borrowed(&record.site),
        provider: Cow::Borrowed(&record.provider),
        sub: Cow::Borrowed(&record.subject),
        sid: record.provider_session.as_deref().map(Cow::Borrowed),
        created: record.created,
        generation: record.generation,
    };
    let meta = serde_json::to_string(&meta).map_err(|error| StoreError::Damaged(error.to_string()))?;
    Ok([
        record.version.to_string().into(),
        millis(record.last_seen),
        millis(record.idle_end),
        millis(record.absolute_end),
        meta.into(),
        Bytes::copy_from_slice(&record.sealed).into(),
    ])
}

/// `None` if no field is there.
pub(super) fn read(values: &[Option<Bytes>]) -> Result<Option<Record>, StoreError> {
    if values.iter().all(Option::is_none) {
        return Ok(None);
    }
    let [Some(version), Some(seen), Some(idle), Some(end), Some(meta), Some(sealed)] = values else {
        return Err(StoreError::Damaged("a field of a session is missing".to_owned()));
    };
    // The parser's own error would quote what it read.
    let meta: Meta<'_> = serde_json::from_slice(meta).map_err(|_| damaged("meta"))?;
    Ok(Some(Record {
        version: number(version, "v")?,
        site: meta.site.into_owned(),
        provider: meta.provider.into_owned(),
        subject: meta.sub.into_owned(),
        provider_session: meta.sid.map(Cow::into_owned),
        created: meta.created,
        last_seen: Timestamp::from_millis(number(seen, "seen")?),
        idle_end: Timestamp::from_millis(number(idle, "idle")?),
        absolute_end: Timestamp::from_millis(number(end, "end")?),
        generation: meta.generation,
        sealed: sealed.to_vec(),
    }))
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

    const META: &str = r#"{"site":"s","provider":"p","sub":"a\"b","created":5,"gen":1}"#;

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
