//! The part of a record that no store looks at, as JSON: written and read alike by every store that keeps text.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::record::{Intent, Record};
use crate::primitives::clock::Timestamp;

/// The format that this version writes. It reads this one alone: a newer one may mean something else.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Format {
    #[serde(rename = "f")]
    format: u32,
}

/// What of a record is neither a version, nor a time that ends it, nor sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Meta<'a> {
    #[serde(rename = "f")]
    format: u32,
    #[serde(borrow)]
    site: Cow<'a, str>,
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
    created: Timestamp,
    #[serde(rename = "rot")]
    rotation: u32,
    rotated: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intent: Option<Intent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<Timestamp>,
    #[serde(rename = "gen")]
    generation: u64,
    #[serde(borrow, rename = "kid")]
    sealing_key: Cow<'a, str>,
}

/// The parts of a record that a store keeps in fields of its own.
pub(super) struct Columns {
    pub(super) version: u64,
    pub(super) last_seen: Timestamp,
    pub(super) idle_end: Timestamp,
    pub(super) absolute_end: Timestamp,
    pub(super) returning_end: Timestamp,
    pub(super) sealed: Vec<u8>,
}

/// The JSON of a record's other parts.
pub(super) fn write(record: &Record) -> Result<String, StoreError> {
    let meta = Meta {
        format: FORMAT,
        site: Cow::Borrowed(&record.site),
        provider: Cow::Borrowed(&record.provider),
        sub: Cow::Borrowed(&record.subject),
        sid: record.provider_session.as_deref().map(Cow::Borrowed),
        created: record.created,
        rotation: record.rotation,
        rotated: record.rotated,
        intent: record.intent,
        doubt: record.refresh_in_doubt,
        retry_at: record.retry_at,
        due: record.due,
        generation: record.generation,
        sealing_key: Cow::Borrowed(&record.sealing_key),
    };
    serde_json::to_string(&meta).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// A record out of its JSON and its other fields.
pub(super) fn read(json: &[u8], columns: Columns) -> Result<Record, StoreError> {
    // The parser's own error would quote what it read.
    let meta: Meta<'_> = serde_json::from_slice(json).map_err(|_| unreadable(json))?;
    if meta.format != FORMAT {
        return Err(unreadable(json));
    }
    let Columns { version, last_seen, idle_end, absolute_end, returning_end, sealed } = columns;
    Ok(Record {
        version,
        site: meta.site.into_owned(),
        provider: meta.provider.into_owned(),
        subject: meta.sub.into_owned(),
        provider_session: meta.sid.map(Cow::into_owned),
        created: meta.created,
        last_seen,
        idle_end,
        absolute_end,
        returning_end,
        rotation: meta.rotation,
        rotated: meta.rotated,
        intent: meta.intent,
        refresh_in_doubt: meta.doubt,
        retry_at: meta.retry_at,
        due: meta.due,
        sealing_key: meta.sealing_key.into_owned(),
        generation: meta.generation,
        sealed,
    })
}

fn unreadable(json: &[u8]) -> StoreError {
    StoreError::Damaged(match serde_json::from_slice(json) {
        Ok(Format { format }) if format != FORMAT => {
            format!("a session has the format {format}, and this version knows {FORMAT}")
        }
        _ => "the description of a session cannot be read".to_owned(),
    })
}
