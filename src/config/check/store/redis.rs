//! `kind: redis`.

use std::time::Duration;

use super::super::tls;
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
    let command_timeout = super::command_timeout(reader, fields, Duration::from_millis(200));
    let ca = fields.maybe(reader, "ca", |reader, node| tls::chain(reader, node).map(|(path, _)| path));
    if let (Some((_, false)), Some(node)) = (&url, fields.get("ca")) {
        let help = "write `rediss` in place of `redis` in `url`, or remove it";
        reader.note(Code::Contradiction, node, "certificates are not looked at without TLS", help);
    }
    let ca = match ca {
        Some(ca) => Some(ca?),
        None => None,
    };
    let (url, _) = url?;
    Some(RedisStore { url, prefix: prefix?, command_timeout: command_timeout?, ca })
}

/// A whole URL is kept as a secret: it may carry a password. And whether it means TLS.
fn redis_url(reader: &mut Reader<'_>, node: &Node) -> Option<(SecretText, bool)> {
    let secrets::Secret { text, plain } = secrets::quiet(reader, node)?;
    let url = match rules::redis_url(text.expose()) {
        Ok(url) => url,
        Err(error) => {
            let help = "write `redis://user:password@host:port/database`, \
                        `redis-sentinel://host:port?sentinelServiceName=name&node=host:port` or \
                        `redis-cluster://host:port?node=host:port`, with `rediss` for TLS";
            reader.note(Code::BadUrl, node, error.to_string(), help);
            return None;
        }
    };
    if plain && url.holds_a_password() {
        let help = "write `url: { env: REDIS_URL }`, or `${REDIS_PASSWORD}` within the URL";
        reader.note(Code::PlainSecret, node, "this URL holds a password", help);
    }
    Some((text, url.tls))
}
