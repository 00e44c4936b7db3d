//! The URL of a Redis, read so that a mistake in it is named without showing its password.

use fred::types::config::{Config, Server, ServerConfig};
use url::{Host, Url};

/// What is wrong with the URL. Never shows the URL itself: it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No URL at all.
    #[error("the Redis URL cannot be read: {0}")]
    Syntax(url::ParseError),
    /// The scheme decides how to connect.
    #[error(
        "the Redis URL begins with `{0}://`; expected redis, rediss (TLS), redis-sentinel, rediss-sentinel, \
         redis-cluster or rediss-cluster"
    )]
    Scheme(String),
    /// `redis:///0` and the like.
    #[error("the Redis URL names no host")]
    NoHost,
    /// The path is the number of the database.
    #[error("the path of the Redis URL is not the number of a database (0 to 255), or there is none in a cluster")]
    Database,
    /// A sentinel keeps watch over several.
    #[error("the Redis URL lacks `?sentinelServiceName=…`, the name of the primary that the sentinels watch")]
    NoServiceName,
    /// Parameters that were not understood.
    #[error("the parameters of the Redis URL cannot be read")]
    Parameters,
    /// The system's trusted certificates could not be loaded; `SSL_CERT_FILE` names others.
    #[error("no TLS towards Redis: {0}")]
    Tls(String),
}

/// Reads `redis[s][-sentinel|-cluster]://[[user:]password@]host[:port][/database]`, with `node=host:port` parameters for
/// further members and `sentinelServiceName` for a sentinel.
pub(super) fn parse(text: &str) -> Result<Config, AddressError> {
    let url = Url::parse(text).map_err(AddressError::Syntax)?;
    let (cluster, sentinel) = match url.scheme() {
        "redis" | "rediss" => (false, false),
        "redis-sentinel" | "rediss-sentinel" => (false, true),
        "redis-cluster" | "rediss-cluster" => (true, false),
        other => return Err(AddressError::Scheme(other.to_owned())),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(AddressError::NoHost)?;
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() && (cluster || database.parse::<u8>().is_err()) {
        return Err(AddressError::Database);
    }
    if sentinel && !url.query_pairs().any(|(name, value)| name == "sentinelServiceName" && !value.is_empty()) {
        return Err(AddressError::NoServiceName);
    }

    let mut config = Config::from_url(text).map_err(|error| match error.kind() {
        fred::error::ErrorKind::Tls => AddressError::Tls(error.details().to_owned()),
        _ => AddressError::Parameters,
    })?;
    // An IPv6 address has brackets in a URL, and must have none where it is resolved. `url` parses hosts of schemes
    // it does not know as text, so the brackets are looked for.
    if let ServerConfig::Centralized { server } = &mut config.server {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let (Some(bare), Ok(Host::Ipv6(_))) = (bare, Host::parse(host)) {
            *server = Server::new(bare, server.port);
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> (String, u16) {
        let ServerConfig::Centralized { server } = parse(text).unwrap().server else { panic!("{text}") };
        (server.host.to_string(), server.port)
    }

    #[test]
    fn usual_addresses() {
        assert_eq!(server("redis://cache.example.com"), ("cache.example.com".to_owned(), 6379));
        assert_eq!(server("redis://127.0.0.1:7000/3"), ("127.0.0.1".to_owned(), 7000));
        assert_eq!(server("redis://[::1]:7000"), ("::1".to_owned(), 7000));
        let config = parse("redis://alice:p%40ss@cache/3").unwrap();
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("alice"), Some("p@ss")));
        assert_eq!(config.database, Some(3));
        assert!(config.tls.is_none());
        assert!(parse("redis-cluster://:pw@a:1?node=b:2").unwrap().server.is_clustered());
        assert!(parse("redis-sentinel://a:1?node=b:2&sentinelServiceName=main").unwrap().server.is_sentinel());
    }

    #[test]
    fn a_tls_address_is_one() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        match parse("rediss://cache") {
            Ok(config) => assert!(config.tls.is_some()),
            // A machine without certificates may run the tests too.
            Err(error) => assert!(matches!(error, AddressError::Tls(_)), "{error}"),
        }
    }

    #[test]
    fn mistakes_are_named_without_the_password() {
        let cases = [
            ("hunter2", AddressError::Syntax(url::ParseError::RelativeUrlWithoutBase)),
            ("redis://:hunter2@cache:port", AddressError::Syntax(url::ParseError::InvalidPort)),
            ("http://:hunter2@cache", AddressError::Scheme("http".to_owned())),
            ("redis+unix://hunter2", AddressError::Scheme("redis+unix".to_owned())),
            ("redis:///1", AddressError::NoHost),
            ("redis://:hunter2@cache/sessions", AddressError::Database),
            ("redis://:hunter2@cache/256", AddressError::Database),
            ("redis-cluster://:hunter2@cache/1", AddressError::Database),
            ("redis-sentinel://:hunter2@cache", AddressError::NoServiceName),
            ("redis-cluster://:hunter2@cache?node=hunter2", AddressError::Parameters),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert_eq!(error, expected, "{text}");
        }
    }
}
