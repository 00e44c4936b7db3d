//! The settings' URL of a Redis, as the client wants it.

use fred::types::config::{Config, Server, ServerConfig};
use url::{Host, Url};

use crate::config::rules::{self, RedisUrlError};

/// What is wrong with the URL. Never shows the URL itself: it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It breaks a rule that `check` applies as well.
    #[error(transparent)]
    Url(#[from] RedisUrlError),
    /// The client does not take it all the same.
    #[error("the Redis URL cannot be used")]
    Refused,
    /// The system's trusted certificates could not be loaded; `SSL_CERT_FILE` names others.
    #[error("no TLS towards Redis: {0}")]
    Tls(String),
}

/// Reads what [`rules::redis_url`] allows.
pub(super) fn parse(text: &str) -> Result<Config, AddressError> {
    let url: Url = rules::redis_url(text)?;
    let mut config = Config::from_url_centralized(text).map_err(|error| match error.kind() {
        fred::error::ErrorKind::Tls => AddressError::Tls(error.details().to_owned()),
        _ => AddressError::Refused,
    })?;
    // An IPv6 address has brackets in a URL, and must have none where it is resolved. `url` parses hosts of schemes
    // it does not know as text, so the brackets are looked for.
    if let (ServerConfig::Centralized { server }, Some(host)) = (&mut config.server, url.host_str()) {
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
    fn what_the_rules_allow_is_understood() {
        assert_eq!(server("redis://cache.example.com"), ("cache.example.com".to_owned(), 6379));
        assert_eq!(server("redis://cache/"), ("cache".to_owned(), 6379));
        assert_eq!(server("redis://127.0.0.1:7000/3"), ("127.0.0.1".to_owned(), 7000));
        assert_eq!(server("redis://[::1]:7000"), ("::1".to_owned(), 7000));
        let config = parse("redis://alice:p%40ss@cache/3").unwrap();
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("alice"), Some("p@ss")));
        assert_eq!(config.database, Some(3));
        assert!(config.tls.is_none());
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
    fn what_the_rules_forbid_is_refused() {
        assert_eq!(parse("redis-cluster://cache").unwrap_err(), AddressError::Url(RedisUrlError::Scheme));
        assert_eq!(parse("redis://cache//3").unwrap_err(), AddressError::Url(RedisUrlError::Database));
    }
}
