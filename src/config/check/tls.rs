//! Certificates and their keys: read, parsed and compared at check time, so that a start does not fail on them.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{CERTIFICATE, TLS};
use crate::config::secrets::read_file;
use crate::config::settings::Certificate;
use crate::config::yaml::Node;

/// At least one certificate.
pub(super) fn certificates(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Certificate>> {
    let fields = reader.fields(node, &TLS)?;
    let example = "[{ certificate: tls.crt, key: tls.key }]";
    fields.required(reader, "certificates", example, |reader, node| reader.list_of_some(node, certificate))
}

fn certificate(reader: &mut Reader<'_>, node: &Node) -> Option<Certificate> {
    let fields = reader.fields(node, &CERTIFICATE)?;
    let chain = fields.required(reader, "certificate", "/tls/tls.crt", chain);
    let key = fields.required(reader, "key", "/tls/tls.key", key);
    let ((certificate, chain), (key, der)) = (chain?, key?);
    if let Err(error) = CertifiedKey::from_der(chain, der, &rustls::crypto::ring::default_provider()) {
        let at = fields.get("key").unwrap_or(node);
        let help = "the key must be the one the certificate was made for";
        reader.note(Code::BadCertificate, at, format!("certificate and key do not work together: {error}"), help);
        return None;
    }
    Some(Certificate { certificate, key })
}

pub(super) fn chain(reader: &mut Reader<'_>, node: &Node) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let path = PathBuf::from(reader.word(node)?);
    let text = read_file(reader, node, &path, false)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Some((beside_settings(reader, &path), chain)),
        _ => {
            let help = "it must hold PEM certificates (`-----BEGIN CERTIFICATE-----`), the site's own first";
            reader.note(Code::BadCertificate, node, format!("`{}` holds no certificate", path.display()), help);
            None
        }
    }
}

fn key(reader: &mut Reader<'_>, node: &Node) -> Option<(PathBuf, PrivateKeyDer<'static>)> {
    let path = PathBuf::from(reader.word(node)?);
    let text = zeroize::Zeroizing::new(read_file(reader, node, &path, true)?);
    if let Ok(key) = PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        return Some((beside_settings(reader, &path), key));
    }
    let help = "it must hold one unencrypted PEM key (PKCS#8, PKCS#1 or SEC1)";
    reader.note(Code::BadCertificate, node, format!("`{}` holds no private key", path.display()), help);
    None
}

fn beside_settings(reader: &Reader<'_>, path: &Path) -> PathBuf {
    reader.base.join(path)
}
