//! The URL of a PostgreSQL.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Longest name of a schema: the channel of its changes is named after it, and PostgreSQL cuts names at 63 bytes.
const LONGEST_SCHEMA: usize = 48;

/// What of a URL is understood; anything else would go unheeded or contradict what the store relies on.
const PARAMETERS: [&str; 9] =
    ["sslmode", "sslrootcert", "sslnegotiation", "channel_binding", "host", "port", "user", "password", "dbname"];

/// What is wrong with the URL of a PostgreSQL. Never shows any of it: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresUrlError {
    /// The scheme says what it is.
    #[error("this is no PostgreSQL URL: it does not begin with `postgres://`")]
    Scheme,
    /// No URL at all.
    #[error("this PostgreSQL URL cannot be read")]
    Syntax,
    /// The client would take the name of the process' user otherwise.
    #[error("this PostgreSQL URL names no user")]
    NoUser,
    /// There is no default.
    #[error("this PostgreSQL URL names no host")]
    NoHost,
    /// See [`PARAMETERS`].
    #[error(
        "this PostgreSQL URL has a parameter that means nothing here; known are sslmode, sslrootcert, sslnegotiation, \
         channel_binding, host, port, user, password and dbname"
    )]
    Parameter,
    /// `prefer` and `allow` can be talked out of TLS by whoever sits on the wire, and `verify-ca` takes any host's name.
    #[error("sslmode of this PostgreSQL URL is none of `disable`, `require` and `verify-full`")]
    SslMode,
}

/// How to reach a PostgreSQL.
#[derive(Clone)]
pub struct PostgresAddress {
    /// Hosts, user, password, database. Asks for a server that takes writes.
    pub config: Config,
    /// Whose certificates are trusted; `None` = no TLS.
    pub tls: Option<Trust>,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that the system trusts.
    System,
    /// Those that these authorities in a PEM file have signed.
    File(PathBuf),
}

/// Reads `postgres://user[:password]@host[:port][,host…]/[database][?sslmode=…&sslrootcert=…]`.
///
/// A server's certificate is always checked in full, its name included: `require` and `verify-full` mean the same.
/// Without `sslmode`, TLS is asked for unless the server is on this very machine.
///
/// # Errors
/// [`PostgresUrlError`]
pub fn postgres_url(text: &str) -> Result<PostgresAddress, PostgresUrlError> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(PostgresUrlError::Scheme);
    }
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let mut kept = Vec::new();
    let (mut mode, mut root) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(PostgresUrlError::Syntax)?;
        if !PARAMETERS.contains(&name) {
            return Err(PostgresUrlError::Parameter);
        }
        let value = || percent_decode_str(value).decode_utf8().map_err(|_| PostgresUrlError::Syntax);
        match name {
            "sslmode" => mode = Some(value()?),
            "sslrootcert" => root = Some(PathBuf::from(value()?.into_owned())),
            _ => kept.push(pair),
        }
    }
    let address = if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    let mut config: Config = address.parse().map_err(|_| PostgresUrlError::Syntax)?;
    if config.get_hosts().is_empty() {
        return Err(PostgresUrlError::NoHost);
    }
    if config.get_user().is_none_or(str::is_empty) {
        return Err(PostgresUrlError::NoUser);
    }
    let tls = match mode.as_deref() {
        Some("disable") => false,
        Some("require" | "verify-full") => true,
        Some(_) => return Err(PostgresUrlError::SslMode),
        None => !config.get_hosts().iter().all(is_here),
    };
    config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
    // A stand-by or a demoted primary may still show sessions that have ended.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.application_name("cloakroom");
    Ok(PostgresAddress { config, tls: tls.then(|| root.map_or(Trust::System, Trust::File)) })
}

/// Whether the way to it never leaves this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// Whether the name of a schema needs no second thought: lower case letters, digits and `_`, not PostgreSQL's own.
#[must_use]
pub fn is_schema_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let begins = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    begins && name.len() <= LONGEST_SCHEMA && name.bytes().all(good) && !name.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_understood() {
        let full = postgres_url("postgres://alice:p%40ss@db.example.com:6000/sessions").unwrap();
        assert_eq!(full.config.get_user(), Some("alice"));
        assert_eq!(full.config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!((full.config.get_dbname(), full.config.get_ports()), (Some("sessions"), &[6000][..]));
        assert_eq!(full.config.get_hosts().len(), postgres_url("postgres://a@b").unwrap().config.get_hosts().len());
        assert_eq!(postgres_url("postgresql://a@b,c:6000/d").unwrap().config.get_hosts().len(), 2);
        assert_eq!(full.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn tls_is_asked_for_unless_the_server_is_here() {
        let tls = |text: &str| postgres_url(text).map(|address| address.tls);
        for far in ["postgres://a@db", "postgres://a@127.0.0.1,db", "postgres://a@localhost?sslmode=verify-full"] {
            assert_eq!(tls(far), Ok(Some(Trust::System)), "{far}");
        }
        for near in ["localhost", "127.0.0.1:6000", "[::1]", "%2Frun%2Fpostgresql", "db?sslmode=disable"] {
            assert_eq!(tls(&format!("postgres://a@{near}")), Ok(None), "{near}");
        }
        let root = tls("postgres://a@db?sslrootcert=%2Fca.pem&sslmode=require").unwrap();
        assert_eq!(root, Some(Trust::File("/ca.pem".into())));
    }

    #[test]
    fn d3_mistakes_are_named_without_the_password() {
        for (text, expected) in [
            ("hunter2", PostgresUrlError::Scheme),
            ("mysql://a:hunter2@db", PostgresUrlError::Scheme),
            ("postgres://a:hunter2@db:port", PostgresUrlError::Syntax),
            ("postgres://a:hunter2@db?x", PostgresUrlError::Syntax),
            ("postgres://:hunter2@db", PostgresUrlError::NoUser),
            ("postgres://db/hunter2", PostgresUrlError::NoUser),
            ("postgres://a:hunter2@db?target_session_attrs=any", PostgresUrlError::Parameter),
            ("postgres://a:hunter2@db?sslmode=prefer", PostgresUrlError::SslMode),
        ] {
            let error = postgres_url(text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert_eq!(error, expected, "{text}");
        }
    }

    #[test]
    fn schemas_have_plain_names() {
        for good in ["cloakroom", "_a", "a1_b", &"a".repeat(48)] {
            assert!(is_schema_name(good), "{good}");
        }
        for bad in ["", "1a", "A", "a-b", "a\"b", "a b", "pg_catalog", "ä", &"a".repeat(49)] {
            assert!(!is_schema_name(bad), "{bad}");
        }
    }
}
