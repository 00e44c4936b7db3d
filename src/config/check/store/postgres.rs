//! `kind: postgres`.

use std::time::Duration;

use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::rules::postgres::{is_schema_name, postgres_url};
use crate::config::secrets;
use crate::config::settings::PostgresStore;
use crate::config::yaml::Node;
use crate::primitives::secret::SecretText;

/// Below what behaviour D1 allows for a whole answer.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(200);
const CONNECTIONS: usize = 8;
const MOST_CONNECTIONS: u64 = 256;

pub(super) fn store(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<PostgresStore> {
    let url = fields.required(reader, "url", "\"postgres://cloakroom@db/cloakroom\"", url);
    let schema = fields.optional(reader, "schema", "cloakroom".to_owned(), |reader, node| {
        let schema = reader.word(node)?;
        if !is_schema_name(&schema) {
            let help = "use at most 48 lower case letters, digits and `_`, no digit in front, and not `pg_…`";
            reader.note(Code::BadValue, node, format!("`{schema}` cannot name the schema"), help);
            return None;
        }
        Some(schema)
    });
    let command_timeout = super::command_timeout(reader, fields, COMMAND_TIMEOUT);
    let connections = fields.optional(reader, "connections", CONNECTIONS, |reader, node| {
        reader.integer(node, 1, MOST_CONNECTIONS).and_then(|number| usize::try_from(number).ok())
    });
    Some(PostgresStore { url: url?, schema: schema?, command_timeout: command_timeout?, connections: connections? })
}

/// A whole URL is kept as a secret: it may carry a password.
fn url(reader: &mut Reader<'_>, node: &Node) -> Option<SecretText> {
    let secrets::Secret { text, plain } = secrets::quiet(reader, node)?;
    let address = match postgres_url(text.expose()) {
        Ok(address) => address,
        Err(error) => {
            let help = "write `postgres://user:password@host:port/database`; `?sslmode=disable` turns TLS off, and \
                        `?sslrootcert=/ca.pem` names who signed the server's certificate";
            reader.note(Code::BadUrl, node, error.to_string(), help);
            return None;
        }
    };
    if plain && address.config.get_password().is_some() {
        let help = "write `url: { env: POSTGRES_URL }`, or `${POSTGRES_PASSWORD}` within the URL";
        reader.note(Code::PlainSecret, node, "this URL holds a password", help);
    }
    Some(text)
}
