//! Certificates and keys from their files, and which of them a client gets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::parse_x509_certificate;

use crate::config::settings::Certificate;

/// A certificate or key cannot be used. The text says which file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {problem}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system or the PEM parser says.
        problem: String,
    },
    /// No certificate in the file.
    #[error("{0} holds no PEM certificate; it must hold the chain, the server's own certificate first")]
    NoCertificate(PathBuf),
    /// No key in the file.
    #[error("{0} holds no PEM private key (PKCS#8, PKCS#1 or SEC1); decrypt an encrypted key first")]
    NoKey(PathBuf),
    /// The first certificate is not one.
    #[error("the first certificate in {path} cannot be used: {problem}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        problem: String,
    },
    /// The key is of a kind that the backend does not know.
    #[error(
        "the key in {path} cannot be used: {problem}; use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519"
    )]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What the backend says.
        problem: String,
    },
    /// Certificate and key are strangers to each other.
    #[error(
        "the key in {key} does not belong to the certificate in {certificate}; check that both are from the same renewal"
    )]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A TLS listener without a certificate.
    #[error("a TLS listener needs at least one certificate")]
    NoneGiven,
    /// The authorities of clients' certificates cannot be used.
    #[error("{path} holds no authority that clients' certificates can be judged by: {problem}")]
    BadAuthorities {
        /// The file.
        path: PathBuf,
        /// What the backend says.
        problem: String,
    },
    /// The backend refuses its own configuration.
    #[error("TLS cannot be set up: {0}")]
    Backend(String),
}

/// Chooses the certificate: exact name, then wildcard, then the first of the list.
#[derive(Debug)]
pub(super) struct Resolver {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the first label.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
    /// When each certificate ends, in the order of the settings.
    expiries: Vec<Expiry>,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    /// The file, as the settings name it.
    pub(super) file: PathBuf,
    /// Seconds since 1970.
    pub(super) not_after: u64,
}

impl Resolver {
    pub(super) fn load(certificates: &[Certificate]) -> Result<Self, TlsError> {
        let (mut exact, mut wildcard, mut default, mut expiries) = (HashMap::new(), HashMap::new(), None, Vec::new());
        for files in certificates {
            let certified = Arc::new(certified_key(files)?);
            for name in names(&certified, &files.certificate)? {
                // Where two certificates have a name in common, the earlier one serves it.
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_insert_with(|| Arc::clone(&certified)),
                    None => exact.entry(name).or_insert_with(|| Arc::clone(&certified)),
                };
            }
            expiries.push(Expiry {
                file: files.certificate.clone(),
                not_after: not_after(&certified, &files.certificate)?,
            });
            default.get_or_insert(certified);
        }
        Ok(Self { exact, wildcard, default: default.ok_or(TlsError::NoneGiven)?, expiries })
    }

    pub(super) fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    pub(super) fn find(&self, server_name: &str) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(server_name).or_else(|| self.wildcard.get(server_name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case.
        let chosen = hello.server_name().and_then(|name| self.find(name)).unwrap_or(&self.default);
        Some(Arc::clone(chosen))
    }
}

fn certified_key(files: &Certificate) -> Result<CertifiedKey, TlsError> {
    let chain = read(&files.certificate, |path| CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>())?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(files.certificate.clone()));
    }
    let key = match PrivateKeyDer::from_pem_file(&files.key) {
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey(files.key.clone())),
        other => read(&files.key, |_| other)?,
    };
    let key = ring::sign::any_supported_type(&key)
        .map_err(|error| TlsError::BadKey { path: files.key.clone(), problem: error.to_string() })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Some kinds of key cannot be compared; the handshake will tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() })
        }
        Err(error) => Err(TlsError::BadCertificate { path: files.certificate.clone(), problem: error.to_string() }),
    }
}

/// The authorities in a PEM file.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let certificates = read(file, |path| CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>())?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(file.to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let bad = |error: rustls::Error| TlsError::BadAuthorities { path: file.to_owned(), problem: error.to_string() };
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

/// When a listener's certificate ends, in seconds since 1970, if it and its key can be used.
///
/// # Errors
/// [`TlsError`] with the file that is to blame.
pub fn end_of(files: &Certificate) -> Result<u64, TlsError> {
    not_after(&certified_key(files)?, &files.certificate)
}

/// When the site's own certificate ends, in seconds since 1970.
fn not_after(certified: &CertifiedKey, path: &Path) -> Result<u64, TlsError> {
    let leaf = certified.cert.first().ok_or_else(|| TlsError::NoCertificate(path.to_owned()))?;
    let (_, parsed) = parse_x509_certificate(leaf)
        .map_err(|error| TlsError::BadCertificate { path: path.to_owned(), problem: error.to_string() })?;
    // What ended before 1970 has ended.
    Ok(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0))
}

/// Reads a PEM file; the parser's error gets the name of the file.
fn read<T>(path: &Path, parse: impl FnOnce(&Path) -> Result<T, pem::Error>) -> Result<T, TlsError> {
    parse(path).map_err(|error| TlsError::Unreadable {
        path: path.to_owned(),
        problem: match error {
            pem::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        },
    })
}

/// The DNS names in a certificate, in lower case.
fn names(certified: &CertifiedKey, path: &Path) -> Result<Vec<String>, TlsError> {
    let bad = |problem: String| TlsError::BadCertificate { path: path.to_owned(), problem };
    let leaf = certified.cert.first().ok_or_else(|| TlsError::NoCertificate(path.to_owned()))?;
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| bad(error.to_string()))?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::listener) struct Files {
        _folder: tempfile::TempDir,
        pub(in crate::listener) certificate: PathBuf,
        pub(in crate::listener) key: PathBuf,
    }

    pub(in crate::listener) fn files(names: &[&str]) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let made =
            rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Files { _folder: folder, certificate, key }
    }

    pub(in crate::listener) fn both(certificate: &Files, key: &Files) -> Certificate {
        Certificate { certificate: certificate.certificate.clone(), key: key.key.clone() }
    }

    #[test]
    fn certificates_are_chosen_exactly_then_by_one_label_then_the_first() {
        let (first, second, third) = (files(&["first.test"]), files(&["*.Example.test"]), files(&["app.example.test"]));
        let all = [both(&first, &first), both(&second, &second), both(&third, &third)];
        let resolver = Resolver::load(&all).unwrap();
        let leaf = |files: &Files| CertificateDer::from_pem_file(&files.certificate).unwrap();
        let served = |name: &str| resolver.find(name).map(|certified| certified.cert[0].clone());
        assert_eq!(served("app.example.test"), Some(leaf(&third)));
        assert_eq!(served("other.example.test"), Some(leaf(&second)));
        for stranger in ["a.b.example.test", "example.test", "test"] {
            assert_eq!(served(stranger), None, "{stranger}");
        }
        assert_eq!(resolver.default.cert[0], leaf(&first));
        // The generator's own idea of "for ever".
        assert!(resolver.expiries().iter().all(|expiry| expiry.not_after > 60 * 365 * 24 * 3600));
        assert_eq!(resolver.expiries()[2].file, third.certificate);
    }

    #[test]
    fn mistakes_name_the_file_and_the_remedy() {
        let (one, two) = (files(&["one.test"]), files(&["two.test"]));
        let text =
            |certificate: &Certificate| Resolver::load(std::slice::from_ref(certificate)).err().unwrap().to_string();
        assert!(text(&both(&one, &two)).contains("does not belong to the certificate"));
        let swapped = Certificate { certificate: one.key.clone(), key: one.certificate.clone() };
        assert!(text(&swapped).contains("tls.key holds no PEM certificate"), "{}", text(&swapped));
        let no_key = Certificate { certificate: one.certificate.clone(), key: one.certificate.clone() };
        assert!(text(&no_key).contains("tls.crt holds no PEM private key"), "{}", text(&no_key));
        let missing = Certificate { certificate: "/nowhere/tls.crt".into(), key: one.key.clone() };
        assert!(text(&missing).starts_with("cannot read /nowhere/tls.crt: No such file"), "{}", text(&missing));
        assert!(matches!(Resolver::load(&[]), Err(TlsError::NoneGiven)));
    }
}
