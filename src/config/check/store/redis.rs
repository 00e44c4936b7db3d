//! `kind: redis`.

use std::time::Duration;

use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::settings::RedisStore;
use crate::config::yaml::Node;
use crate::config::{rules, secrets};
use crate::primitives::secret::SecretText;

pub(super) fn store(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<RedisStore> {
    let url = fields.required(reader, "url", "\"redis://redis:6379\"", redis_url);
    let prefix = fields.optional(reader, "prefix", "cloakroom:".to_owned(), |reader, node| {
        let prefix = reader.word(node)?;
        if prefix.contains(['{', '}', '*', ' ']) {
            let help = "use letters, digits, `:`, `.`, `_` and `-`";
            reader.note(Code::BadValue, node, format!("`{prefix}` cannot begin a key"), help);
            return None;
        }
        Some(prefix)
    });
    let command_timeout = super::command_timeout(reader, fields, Duration::from_millis(500));
    Some(RedisStore { url: url?, prefix: prefix?, command_timeout: command_timeout? })
}

/// A whole URL is kept as a secret: it may carry a password.
fn redis_url(reader: &mut Reader<'_>, node: &Node) -> Option<SecretText> {
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
