//! The settings' URL of a Redis, as the client wants it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fred::types::config::{Config, Server, ServerConfig, TlsConfig, TlsConnector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::rules::{self, RedisKind, RedisUrl, RedisUrlError};

/// What is wrong with the URL. Never shows the URL itself: it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It breaks a rule that `check` applies as well.
    #[error(transparent)]
    Url(#[from] RedisUrlError),
    /// The system's trusted certificates could not be loaded; `SSL_CERT_FILE` names others.
    #[error("no TLS towards Redis: {0}")]
    Tls(String),
    /// `store.ca` could not be used.
    #[error("no TLS towards Redis: {} holds no certificates", .0.display())]
    Ca(PathBuf),
}

/// Where to go, and as whom.
pub(super) struct Address {
    /// Who asks, TLS and database; its server means nothing.
    pub(super) client: Config,
    pub(super) place: Place,
}

pub(super) enum Place {
    /// One server, or the one that the Sentinels name.
    One(Target),
    /// Some nodes of a cluster.
    Cluster(Vec<Server>),
}

/// How a server is found.
pub(super) enum Target {
    Server(Server),
    Sentinels(Box<Sentinels>),
}

pub(super) struct Sentinels {
    pub(super) hosts: Vec<Server>,
    /// What they call the server.
    pub(super) service: String,
    /// Who asks them, and TLS.
    pub(super) client: Config,
}

/// Reads what [`rules::redis_url`] allows.
pub(super) fn parse(text: &str, ca: Option<&Path>) -> Result<Address, AddressError> {
    let RedisUrl { tls, hosts, username, password, database, kind } = rules::redis_url(text)?;
    let tls = if tls { Some(connector(ca)?) } else { None };
    let mut hosts: Vec<_> = hosts.into_iter().map(|(host, port)| Server::new(host, port)).collect();
    let client = Config { username, password, database, tls: tls.clone(), ..Config::default() };
    let place = match kind {
        RedisKind::Single => Place::One(Target::Server(hosts.swap_remove(0))),
        RedisKind::Cluster => Place::Cluster(hosts),
        RedisKind::Sentinel { service, username, password } => {
            let client = Config { username, password, tls, ..Config::default() };
            Place::One(Target::Sentinels(Box::new(Sentinels { hosts, service, client })))
        }
    };
    Ok(Address { client, place })
}

/// The same client at this server.
pub(super) fn at(client: &Config, server: Server) -> Config {
    Config { server: ServerConfig::Centralized { server }, ..client.clone() }
}

fn connector(ca: Option<&Path>) -> Result<TlsConfig, AddressError> {
    let Some(path) = ca else {
        let connector =
            TlsConnector::default_rustls().map_err(|error| AddressError::Tls(error.details().to_owned()))?;
        return Ok(connector.into());
    };
    let unusable = || AddressError::Ca(path.to_owned());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unusable())? {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| AddressError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_allow_is_understood() {
        let address = parse("redis://alice:p%40ss@[::1]:7000/3", None).unwrap();
        assert_eq!(
            (address.client.username.as_deref(), address.client.password.as_deref()),
            (Some("alice"), Some("p@ss"))
        );
        assert!(address.client.database == Some(3) && address.client.tls.is_none());
        assert!(matches!(address.place, Place::One(Target::Server(server)) if server == Server::new("::1", 7000)));

        let url = "redis-sentinel://a:b@s1?node=s2:1&sentinelServiceName=m&sentinelUsername=c&sentinelPassword=d";
        let Place::One(Target::Sentinels(sentinels)) = parse(url, None).unwrap().place else { panic!("{url}") };
        assert_eq!(sentinels.hosts, [Server::new("s1", 26379), Server::new("s2", 1)]);
        assert_eq!(
            (sentinels.client.username.as_deref(), sentinels.client.password.as_deref()),
            (Some("c"), Some("d"))
        );
    }

    #[test]
    fn a_tls_address_is_one() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        match parse("rediss://cache", None) {
            Ok(address) => assert!(address.client.tls.is_some()),
            // A machine without certificates may run the tests too.
            Err(error) => assert!(matches!(error, AddressError::Tls(_)), "{error}"),
        }
        let nothing = Path::new("/no/such/file");
        assert_eq!(parse("rediss://cache", Some(nothing)).err(), Some(AddressError::Ca(nothing.to_owned())));
        assert!(parse("redis://cache", Some(nothing)).is_ok(), "not looked at without TLS");
    }

    #[test]
    fn what_the_rules_forbid_is_refused() {
        assert_eq!(parse("http://cache", None).err(), Some(AddressError::Url(RedisUrlError::Scheme)));
    }
}
