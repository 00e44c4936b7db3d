//! The settings' URL, with the certificates that it asks for.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::rules::postgres::{PostgresUrlError, Trust, is_schema_name, postgres_url};

/// What is wrong with the settings. Never shows the URL itself: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum PostgresAddressError {
    /// It breaks a rule that `check` applies as well.
    #[error("store.url: {0}")]
    Url(#[from] PostgresUrlError),
    /// So does the name of the schema.
    #[error("store.schema is no plain name")]
    Schema,
    /// No certificates to check the server's with.
    #[error("store.url: no TLS towards PostgreSQL: {0}")]
    Tls(String),
}

/// How to connect.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

pub(super) fn parse(url: &str, schema: &str) -> Result<Address, PostgresAddressError> {
    if !is_schema_name(schema) {
        return Err(PostgresAddressError::Schema);
    }
    let address = postgres_url(url)?;
    let roots = match address.tls {
        // Never asked.
        None => RootCertStore::empty(),
        Some(Trust::System) => system()?,
        Some(Trust::File(path)) => file(&path)?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let versions = builder.with_safe_default_protocol_versions();
    let client = versions.map_err(|error| PostgresAddressError::Tls(error.to_string()))?;
    let tls = client.with_root_certificates(roots).with_no_client_auth();
    Ok(Address { config: address.config, tls: MakeRustlsConnect::new(tls) })
}

fn system() -> Result<RootCertStore, PostgresAddressError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
        return Err(PostgresAddressError::Tls(format!("the system has no trusted certificates: {reason}")));
    }
    Ok(roots)
}

fn file(path: &Path) -> Result<RootCertStore, PostgresAddressError> {
    let fail = |reason: String| PostgresAddressError::Tls(format!("sslrootcert {}: {reason}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))? {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail("it holds no certificate".to_owned()));
    }
    Ok(roots)
}
