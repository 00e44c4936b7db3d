//! What PostgreSQL or the way to it has to say, in words for the operator.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Why something did not work.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// For the operator. Names no password and quotes no value.
    pub(super) text: String,
    /// What it means for the connection.
    pub(super) kind: Kind,
}

/// What a fault means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This statement failed; the next one may not.
    Statement,
    /// There is no room for one more connection.
    Crowded,
    /// The connection is gone, or leads to a server that is of no use now.
    Server,
}

impl Fault {
    pub(super) fn server(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Server }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::server(connection(&error));
        };
        let (kind, hint) = meaning(db.code());
        // Not the detail: it quotes values.
        let text = format!("{}PostgreSQL says: {} ({})", hint, db.message(), db.code().code());
        Self { text, kind }
    }
}

/// What a code means for the connection, and what to do about it.
fn meaning(code: &SqlState) -> (Kind, &'static str) {
    let server = |hint| (Kind::Server, hint);
    match *code {
        SqlState::QUERY_CANCELED => (Kind::Statement, "no answer in time; "),
        SqlState::DISK_FULL => (Kind::Statement, "the disk of PostgreSQL is full; "),
        SqlState::OUT_OF_MEMORY => (Kind::Statement, "PostgreSQL is out of memory; "),
        SqlState::TOO_MANY_CONNECTIONS => {
            (Kind::Crowded, "too many connections: lower store.connections or raise max_connections; ")
        }
        SqlState::INVALID_PASSWORD => server("wrong user or password in store.url; "),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            server("PostgreSQL lets this user not in from here (pg_hba.conf, or no such role); ")
        }
        SqlState::INVALID_CATALOG_NAME => server("there is no such database: create it, or change store.url; "),
        SqlState::INSUFFICIENT_PRIVILEGE | SqlState::INVALID_SCHEMA_NAME => server(
            "the user lacks a right: let it create the schema of store.schema, or create that schema with this user as \
             its owner; ",
        ),
        SqlState::READ_ONLY_SQL_TRANSACTION => server("PostgreSQL is read-only; "),
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => {
            server("a table is missing or is not as it should be; ")
        }
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => {
            server("a prepared statement was lost: is there a pooler in transaction mode between? ")
        }
        // 57P01 to 57P05: it shuts down, crashed, starts, the database is dropped. 0A000: a table has changed.
        SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::DATABASE_DROPPED
        | SqlState::FEATURE_NOT_SUPPORTED => server(""),
        _ => (Kind::Statement, ""),
    }
}

/// An error that PostgreSQL itself has not told.
fn connection(error: &Error) -> String {
    let cause = error.source().map(ToString::to_string);
    match cause.as_deref() {
        Some("database does not allow writes") => "PostgreSQL is read-only, and so is every other host of store.url \
                                                   that answers"
            .to_owned(),
        Some("server does not support TLS") => "PostgreSQL offers no TLS; add ?sslmode=disable to store.url if the \
                                                network between is to be trusted"
            .to_owned(),
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
