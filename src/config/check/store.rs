//! The session store.

use std::time::Duration;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::rules;
use crate::config::schema::STORE;
use crate::config::secrets;
use crate::config::settings::{RedisStore, Store};
use crate::config::values::{self, MILLISECOND, SECOND};
use crate::config::yaml::Node;

/// The session store.
pub(super) fn store(reader: &mut Reader<'_>, node: &Node) -> Option<Store> {
    let fields = reader.fields(node, &STORE)?;
    let kind = fields.required(reader, "kind", "memory", |r, n| r.choice(n, &[("memory", false), ("redis", true)]));
    if kind == Some(false) {
        for node in ["url", "prefix", "command_timeout"].iter().filter_map(|key| fields.get(key)) {
            reader.note(
                Code::Contradiction,
                node,
                "the memory store has no such setting",
                "remove it, or write `kind: redis`",
            );
        }
        return Some(Store::Memory);
    }
    let url = match kind {
        Some(_) => fields.required(reader, "url", "\"redis://redis:6379\"", redis_url),
        // The mistake in `kind` hides none in the URL.
        None => fields.maybe(reader, "url", redis_url).flatten(),
    };
    let prefix = fields.optional(reader, "prefix", "cloakroom:".to_owned(), |reader, node| {
        let prefix = reader.word(node)?;
        if prefix.contains(['{', '}', '*', ' ']) {
            let help = "use letters, digits, `:`, `.`, `_` and `-`";
            reader.note(Code::BadValue, node, format!("`{prefix}` cannot begin a key"), help);
            return None;
        }
        Some(prefix)
    });
    let command_timeout = fields.optional(reader, "command_timeout", Duration::from_millis(500), |r, n| {
        values::duration(r, n, MILLISECOND, 60 * SECOND)
    });
    Some(Store::Redis(RedisStore { url: url?, prefix: prefix?, command_timeout: command_timeout? }))
}

/// A whole URL is kept as a secret: it may carry a password.
fn redis_url(reader: &mut Reader<'_>, node: &Node) -> Option<crate::primitives::secret::SecretText> {
    let secrets::Secret { text, plain } = secrets::quiet(reader, node)?;
    let url = match rules::redis_url(text.expose()) {
        Ok(url) => url,
        Err(error) => {
            let help = "write `redis://user:password@host:port/database`, or `rediss://…` for TLS; user, password, port and \
                        database may be left out";
            reader.note(Code::BadUrl, node, error.to_string(), help);
            return None;
        }
    };
    if plain && url.password().is_some() {
        let help = "write `url: { env: REDIS_URL }`, or `${REDIS_PASSWORD}` within the URL";
        reader.note(Code::PlainSecret, node, "this URL holds a password", help);
    }
    Some(text)
}
