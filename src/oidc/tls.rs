//! TLS towards a provider where the settings say more than the system does: other authorities, a certificate of ours.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::config::settings::{self, ClientAuth, ClientCertificate};

/// Whom to trust and what to show; by default the system's authorities and nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tls<'a> {
    ca: Option<&'a [CertificateDer<'static>]>,
    shown: Option<&'a ClientCertificate>,
}

impl<'a> Tls<'a> {
    /// What the settings of a provider say.
    #[must_use]
    pub fn of(settings: &'a settings::Provider) -> Self {
        let shown = match &settings.client_auth {
            ClientAuth::Tls(certificate) => Some(&**certificate),
            _ => None,
        };
        Self { ca: settings.ca.as_deref(), shown }
    }
}

/// `None` where there is nothing to say.
pub(super) fn config(tls: Tls<'_>) -> Result<Option<ClientConfig>, String> {
    if tls.ca.is_none() && tls.shown.is_none() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    let native = if tls.ca.is_none() { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
    roots.add_parsable_certificates(tls.ca.unwrap_or(&native).iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match tls.shown {
        Some(shown) => builder
            .with_client_auth_cert(shown.chain.clone(), shown.key.clone_key())
            .map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    Ok(Some(config))
}
