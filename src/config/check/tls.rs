//! Certificates and their keys: read, parsed and compared at check time, so that a start does not fail on them.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{CERTIFICATE, TLS};
use crate::config::secrets::read_file;
use crate::config::settings::{Certificate, ClientCertificates, ListenerTls, TlsVersion};
use crate::config::yaml::{Kind, Node};

/// At least one certificate, and what is asked of clients.
pub(super) fn listener_tls(reader: &mut Reader<'_>, node: &Node) -> Option<ListenerTls> {
    let fields = reader.fields(node, &TLS)?;
    let example = "[{ certificate: tls.crt, key: tls.key }]";
    let certificates =
        fields.required(reader, "certificates", example, |reader, node| reader.list_of_some(node, certificate));
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let min_version = fields.optional(reader, "min_version", TlsVersion::Tls12, |reader, node| {
        // Without quotes YAML reads a number.
        if matches!(node.kind, Kind::Float) {
            reader.wrong_type(node, "a version in quotes", "write `min_version: \"1.3\"`");
            return None;
        }
        reader.choice(node, &versions)
    });
    let authorities = fields.maybe(reader, "client_ca", authorities);
    let required = fields.optional(reader, "client_certificate", true, |reader, node| {
        reader.choice(node, &[("required", true), ("optional", false)])
    });
    if let (None, Some(at)) = (fields.get("client_ca"), fields.get("client_certificate")) {
        let help = "add `client_ca` with the authorities that sign the certificates of clients";
        reader.note(Code::MissingKey, at, "nobody can judge the certificates of clients", help);
    }
    let clients = match (authorities?, required?) {
        (Some(authorities), required) => Some(ClientCertificates { authorities, required }),
        (None, _) => None,
    };
    Some(ListenerTls { certificates: certificates?, min_version: min_version?, clients })
}

/// Certificates that others are judged by.
fn authorities(reader: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let (path, certificates) = chain(reader, node)?;
    let mut roots = rustls::RootCertStore::empty();
    if let Some(error) = certificates.into_iter().find_map(|certificate| roots.add(certificate).err()) {
        let help = "it must hold the certificates of authorities, in PEM";
        let message = format!("`{}` holds a certificate that cannot be used: {error}", path.display());
        reader.note(Code::BadCertificate, node, message, help);
        return None;
    }
    Some(path)
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

pub(super) fn key(reader: &mut Reader<'_>, node: &Node) -> Option<(PathBuf, PrivateKeyDer<'static>)> {
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
