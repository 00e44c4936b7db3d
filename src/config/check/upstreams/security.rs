//! TLS towards an upstream: whom to trust, which name to ask for, what to show.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;

use crate::config::check::tls::{self, chain};
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{CLIENT_CERTIFICATE, UPSTREAM_TLS};
use crate::config::settings::{ClientCertificate, Endpoint, ServerName, UpstreamTls};
use crate::config::source::Span;
use crate::config::yaml::Node;

/// What an endpoint says of TLS.
pub(super) struct Scheme {
    /// `https://`, `http://`, or nothing.
    pub(super) tls: Option<bool>,
    pub(super) at: Span,
    pub(super) setting: String,
}

/// `None` only if a mistake was noted.
pub(super) fn tls(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    schemes: &[Scheme],
    endpoints: Option<&[Endpoint]>,
) -> Option<Option<UpstreamTls>> {
    let wanted = fields.get("tls").is_some() || schemes.iter().any(|scheme| scheme.tls == Some(true));
    let bare = UpstreamTls { ca: None, server_name: None, client_certificate: None };
    let tls = fields.optional(reader, "tls", bare, settings);
    if !wanted {
        return Some(None);
    }
    let mut fits = true;
    let all_https = fields.get("tls").is_some();
    for scheme in schemes.iter().filter(|scheme| scheme.tls == Some(false) || scheme.tls.is_none() && !all_https) {
        let message = "all endpoints of an upstream speak TLS, or none";
        let help = "write `https://` or no scheme, or make two upstreams of it";
        reader.note_at(Code::Contradiction, scheme.at, &scheme.setting, message, help);
        fits = false;
    }
    let tls = tls?;
    for (endpoint, scheme) in endpoints?.iter().zip(schemes) {
        if tls.server_name.is_none() && ServerName::parse(&endpoint.host).is_none() {
            let message = format!("which name must `{}` prove?", endpoint.host);
            let help = "write `tls: { server_name: … }` with the DNS name in its certificate";
            reader.note_at(Code::MissingKey, scheme.at, &scheme.setting, message, help);
            fits = false;
        }
    }
    fits.then_some(Some(tls))
}

fn settings(reader: &mut Reader<'_>, node: &Node) -> Option<UpstreamTls> {
    let fields = reader.fields(node, &UPSTREAM_TLS)?;
    let ca = fields.maybe(reader, "ca", authorities);
    let server_name = fields.maybe(reader, "server_name", server_name);
    let client_certificate = fields.maybe(reader, "client_certificate", client_certificate);
    Some(UpstreamTls { ca: ca?, server_name: server_name?, client_certificate: client_certificate?.map(Arc::new) })
}

fn server_name(reader: &mut Reader<'_>, node: &Node) -> Option<ServerName> {
    let text = reader.word(node)?;
    let name = ServerName::parse(&text);
    if name.is_none() {
        let help = "write a DNS name as it stands in the certificate, without scheme and port";
        reader.note(Code::BadHost, node, format!("`{text}` is no name that a certificate can prove"), help);
    }
    name
}

pub(crate) fn authorities(reader: &mut Reader<'_>, node: &Node) -> Option<Arc<[CertificateDer<'static>]>> {
    let (path, certificates) = chain(reader, node)?;
    let usable =
        |der: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(der).is_ok() && parse_x509_certificate(der).is_ok();
    if let Some(index) = certificates.iter().position(|der| !usable(der)) {
        let message = format!("certificate {} of `{}` cannot be an authority", index + 1, path.display());
        reader.note(Code::BadCertificate, node, message, "remove it from the file, or export it again");
        return None;
    }
    Some(certificates.into())
}

fn client_certificate(reader: &mut Reader<'_>, node: &Node) -> Option<ClientCertificate> {
    let fields = reader.fields(node, &CLIENT_CERTIFICATE)?;
    certified(reader, node, &fields)
}

/// `certificate` and `key` of a mapping, which must belong together.
pub(crate) fn certified(reader: &mut Reader<'_>, node: &Node, fields: &Fields<'_>) -> Option<ClientCertificate> {
    let chain = fields.required(reader, "certificate", "client.crt", chain);
    let key = fields.required(reader, "key", "client.key", tls::key);
    let ((_, chain), (_, key)) = (chain?, key?);
    let pair = CertifiedKey::from_der(chain.clone(), key.clone_key(), &rustls::crypto::ring::default_provider());
    let problem = match pair {
        Err(error) => Some(error.to_string()),
        Ok(_) if chain.iter().any(|der| parse_x509_certificate(der).is_err()) => Some("not X.509".to_owned()),
        // Whoever uses the key tells its kind by its first bytes.
        Ok(_) if PrivateKeyDer::try_from(key.secret_der()).is_err() => Some("a key of unknown kind".to_owned()),
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        let at = fields.get("key").unwrap_or(node);
        let help = "the key must be the one the certificate was made for";
        reader.note(Code::BadCertificate, at, format!("certificate and key do not work together: {problem}"), help);
        return None;
    }
    Some(ClientCertificate { chain, key })
}
