//! The session store. One function a kind; what another kind needs is a mistake, not a comment.

mod file;
mod postgres;
mod redis;

use std::time::Duration;

use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::STORE;
use crate::config::settings::Store;
use crate::config::values::{self, MILLISECOND, SECOND};
use crate::config::yaml::Node;
use crate::config::{rules, secrets};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    File,
    Redis,
    Postgres,
}

const KINDS: [(&str, Kind); 4] =
    [("memory", Kind::Memory), ("file", Kind::File), ("redis", Kind::Redis), ("postgres", Kind::Postgres)];

/// Which kinds a setting is for.
const BELONGS: [(&str, &[Kind]); 7] = [
    ("url", &[Kind::Redis, Kind::Postgres]),
    ("prefix", &[Kind::Redis]),
    ("schema", &[Kind::Postgres]),
    ("command_timeout", &[Kind::Redis, Kind::Postgres]),
    ("ca", &[Kind::Redis]),
    ("connections", &[Kind::Postgres]),
    ("path", &[Kind::File]),
];

/// The session store.
pub(super) fn store(reader: &mut Reader<'_>, node: &Node) -> Option<Store> {
    let fields = reader.fields(node, &STORE)?;
    let Some(kind) = fields.required(reader, "kind", "memory", |r, n| r.choice(n, &KINDS)) else {
        // The mistake in `kind` hides none in the URL.
        fields.maybe(reader, "url", anybodys_url);
        return None;
    };
    for (key, kinds) in BELONGS {
        let Some(node) = fields.get(key).filter(|_| !kinds.contains(&kind)) else { continue };
        let homes: Vec<_> = names(kinds).map(|name| format!("`kind: {name}`")).collect();
        let name = names(&[kind]).next().unwrap_or_default();
        let help = format!("remove it, or write {}", homes.join(" or "));
        reader.note(Code::Contradiction, node, format!("the {name} store has no such setting"), help);
    }
    match kind {
        Kind::Memory => Some(Store::Memory),
        Kind::File => file::store(reader, &fields).map(Store::File),
        Kind::Redis => redis::store(reader, &fields).map(Store::Redis),
        Kind::Postgres => postgres::store(reader, &fields).map(Store::Postgres),
    }
}

/// A URL that at least one kind takes.
fn anybodys_url(reader: &mut Reader<'_>, node: &Node) -> Option<()> {
    let secrets::Secret { text, .. } = secrets::quiet(reader, node)?;
    if rules::redis_url(text.expose()).is_ok() || rules::postgres::postgres_url(text.expose()).is_ok() {
        return Some(());
    }
    let help = "write `redis://…` for a Redis, or `postgres://…` for a PostgreSQL";
    reader.note(Code::BadUrl, node, "this is the URL of no store", help);
    None
}

fn names(kinds: &[Kind]) -> impl Iterator<Item = &'static str> {
    KINDS.iter().filter(|(_, kind)| kinds.contains(kind)).map(|(name, _)| *name)
}

fn command_timeout(reader: &mut Reader<'_>, fields: &Fields<'_>, default: Duration) -> Option<Duration> {
    fields.optional(reader, "command_timeout", default, |r, n| values::duration(r, n, MILLISECOND, 60 * SECOND))
}
