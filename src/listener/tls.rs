//! TLS towards clients. This file and [`certificates`](super::certificates) alone name the TLS backend: rustls with ring.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::tls::TlsRef;
use pingora::protocols::{Ssl as _, Stream};
use rustls::crypto::ring;
use rustls::server::{NoClientAuth, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use sha2::{Digest as _, Sha256};

pub use super::certificates::TlsError;
use super::certificates::{Expiry, Resolver, authorities};
use crate::config::settings::{ListenerTls, TlsVersion};

/// Largest file whose change is noticed by its content; more of it is not looked at.
const LARGEST_FILE: u64 = 1 << 20;

/// Makes rustls with ring the TLS of the whole process, for outgoing connections too. Call it first in `main`; later
/// calls do nothing.
pub fn install_crypto_provider() {
    // An error means that one is installed already.
    let _ = ring::default_provider().install_default();
}

/// TLS of one listener: certificates by name, HTTP/2 and HTTP/1.1, session tickets under keys that change every six hours.
pub struct Tls {
    settings: ListenerTls,
    config: ArcSwap<ServerConfig>,
    /// What the files held when they were last read, whether that was of use or not.
    seen: Mutex<Fingerprint>,
}

/// SHA-256 of all files of a listener.
type Fingerprint = [u8; 32];

/// A connection whose handshake is done.
pub(super) struct Secured {
    pub(super) stream: Stream,
    /// The name that the client asked for, in lower case.
    pub(super) server_name: Option<Arc<str>>,
    /// The client's certificate as a field of RFC 9440, if it has shown one that we trust.
    pub(super) client_certificate: Option<HeaderValue>,
    /// It speaks HTTP/2.
    pub(super) http2: bool,
}

impl Tls {
    /// Reads and checks the files; tells when the certificates end.
    ///
    /// # Errors
    /// [`TlsError`] if one of them cannot be used.
    pub(super) fn load(settings: &ListenerTls) -> Result<(Self, Vec<Expiry>), TlsError> {
        // Taken first: a change in between is then found at the next look.
        let seen = Mutex::new(fingerprint(settings));
        let (config, expiries) = server_config(settings, None)?;
        Ok((Self { settings: settings.clone(), config: ArcSwap::from(config), seen }, expiries))
    }

    /// Reads the files again if they have changed; connections from now on use them. On an error everything stays as it
    /// was. `None`: nothing has changed since the last look.
    ///
    /// # Errors
    /// [`TlsError`], as [`Tls::load`].
    pub(super) fn reload(&self) -> Option<Result<Vec<Expiry>, TlsError>> {
        let now = fingerprint(&self.settings);
        if std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), now) == now {
            return None;
        }
        // Tickets stay good, unless they vouch for clients: an authority that is gone must not live on in them.
        let tickets = self.settings.clients.is_none().then(|| self.config.load().ticketer.clone());
        Some(server_config(&self.settings, tickets).map(|(config, expiries)| {
            self.config.store(config);
            expiries
        }))
    }

    /// Whether clients are asked for certificates.
    pub(super) fn asks_clients(&self) -> bool {
        self.settings.clients.is_some()
    }

    /// Shakes hands. The error is for the log.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Secured, String> {
        let acceptor = Acceptor::from_server_config(self.config.load_full());
        let stream = acceptor.tls_handshake(stream).await.map_err(|error| error.to_string())?;
        let session = stream.get_ssl();
        let server_name = session.and_then(|tls| tls.server_name()).map(Into::into);
        let client_certificate = session.and_then(client_certificate);
        let http2 = stream.selected_alpn_proto() == Some(pingora::protocols::ALPN::H2);
        Ok(Secured { stream: Box::new(stream), server_name, client_certificate, http2 })
    }
}

/// A byte sequence (RFC 8941 §3.3.5) with the DER form of the certificate (RFC 9440 §2.2).
fn client_certificate(session: &TlsRef) -> Option<HeaderValue> {
    let der = session.peer_certificate_der()?;
    HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()
}

fn server_config(
    settings: &ListenerTls,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<(Arc<ServerConfig>, Vec<Expiry>), TlsError> {
    let backend = |error: rustls::Error| TlsError::Backend(error.to_string());
    let resolver = Resolver::load(&settings.certificates)?;
    let expiries = resolver.expiries().to_vec();
    let provider = Arc::new(ring::default_provider());
    let clients = match &settings.clients {
        None => Arc::new(NoClientAuth),
        Some(clients) => {
            let roots = Arc::new(authorities(&clients.authorities)?);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
            let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
            builder.build().map_err(|error| TlsError::BadAuthorities {
                path: clients.authorities.clone(),
                problem: error.to_string(),
            })?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(settings.min_version))
        .map_err(backend)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Our order of cipher suites, the strongest first; all of them are good.
    config.ignore_client_order = true;
    // Resumption without memory of ours; the default would remember 256 sessions.
    config.ticketer = match tickets {
        Some(tickets) => tickets,
        None => ring::Ticketer::new().map_err(backend)?,
    };
    Ok((Arc::new(config), expiries))
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match least {
        TlsVersion::Tls12 => &FROM_12,
        TlsVersion::Tls13 => &FROM_13,
    }
}

/// What the files hold. Modification times are no help: Kubernetes swaps a symbolic link, and copies keep old times.
fn fingerprint(settings: &ListenerTls) -> Fingerprint {
    let pairs = settings.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let mut all = Sha256::new();
    for file in pairs.chain(settings.clients.iter().map(|clients| &clients.authorities)) {
        // A file that is away for the moment is a change too.
        all.update(Sha256::digest(content(file).unwrap_or_default()));
    }
    all.finalize().into()
}

fn content(file: &Path) -> std::io::Result<zeroize::Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    std::fs::File::open(file)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::certificates::tests::{Files, both, files};
    use super::*;
    use crate::config::settings::Certificate;

    fn settings(certificates: Vec<Certificate>) -> ListenerTls {
        ListenerTls { certificates, min_version: TlsVersion::Tls12, clients: None }
    }

    fn overwrite(old: &Files, new: &Files) {
        fs::copy(&new.certificate, &old.certificate).unwrap();
        fs::copy(&new.key, &old.key).unwrap();
    }

    #[test]
    fn changed_files_are_read_once_and_bad_ones_change_nothing() {
        let one = files(&["one.test"]);
        let (tls, _) = Tls::load(&settings(vec![both(&one, &one)])).unwrap();
        let before = tls.config.load_full();
        assert!(tls.reload().is_none(), "nothing has changed");
        fs::copy(files(&["two.test"]).certificate, &one.certificate).unwrap();
        assert!(matches!(tls.reload(), Some(Err(TlsError::Mismatch { .. }))), "half of a renewal");
        assert!(tls.reload().is_none(), "told once");
        assert!(Arc::ptr_eq(&before, &tls.config.load_full()));
        overwrite(&one, &files(&["three.test"]));
        assert_eq!(tls.reload().unwrap().unwrap().len(), 1);
        let after = tls.config.load_full();
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&before.ticketer, &after.ticketer), "sessions may still be resumed");
        fs::remove_file(&one.certificate).unwrap();
        assert!(matches!(tls.reload(), Some(Err(TlsError::Unreadable { .. }))));
    }

    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        let (one, two) = (files(&["one.test"]), files(&["two.test"]));
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("..data");
        symlink(one.certificate.parent().unwrap(), &data).unwrap();
        let pair = Certificate { certificate: data.join("tls.crt"), key: data.join("tls.key") };
        let (tls, _) = Tls::load(&settings(vec![pair])).unwrap();
        assert!(tls.reload().is_none());
        let next = folder.path().join("..next");
        symlink(two.certificate.parent().unwrap(), &next).unwrap();
        fs::rename(&next, &data).unwrap();
        assert!(tls.reload().is_some_and(|outcome| outcome.is_ok()));
    }

    #[test]
    fn an_authority_that_is_gone_does_not_live_on_in_tickets() {
        let (one, other) = (files(&["one.test"]), files(&["other.test"]));
        let mut settings = settings(vec![both(&one, &one)]);
        let authorities = tempfile::NamedTempFile::new().unwrap();
        fs::copy(&other.certificate, authorities.path()).unwrap();
        settings.clients = Some(crate::config::settings::ClientCertificates {
            authorities: authorities.path().to_owned(),
            required: true,
        });
        let (tls, _) = Tls::load(&settings).unwrap();
        let before = tls.config.load_full();
        fs::copy(&one.certificate, authorities.path()).unwrap();
        tls.reload().unwrap().unwrap();
        assert!(!Arc::ptr_eq(&before.ticketer, &tls.config.load_full().ticketer));
        fs::write(authorities.path(), "").unwrap();
        assert!(matches!(tls.reload(), Some(Err(TlsError::NoCertificate(_)))));
    }
}
