//! Certificates, and clients that trust one of them alone.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::{Certificate, Client, ClientBuilder};

/// A certificate for these names; returns its PEM and writes `FILE.crt` and `FILE.key`.
pub(crate) fn certificate(folder: &Path, file: &str, names: &[&str]) -> String {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(folder.join(format!("{file}.crt")), made.cert.pem()).expect("a file");
    let key = folder.join(format!("{file}.key"));
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("rights");
    made.cert.pem()
}

/// `certificate: …, key: …` of such a pair, as settings have it.
pub(crate) fn pair(folder: &Path, file: &str) -> String {
    let path = folder.display();
    format!("{{ certificate: \"{path}/{file}.crt\", key: \"{path}/{file}.key\" }}")
}

/// A client that trusts this certificate alone and finds `app.test` and `other.test` at the address.
pub(crate) fn draft(trusted: &str, address: SocketAddr, http1: bool) -> ClientBuilder {
    let certificate = Certificate::from_pem(trusted.as_bytes()).expect("PEM");
    let builder = Client::builder()
        .tls_certs_only([certificate])
        .resolve("app.test", address)
        .resolve("other.test", address)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if http1 { builder.http1_only() } else { builder }
}

pub(crate) fn client(trusted: &str, address: SocketAddr, http1: bool) -> Client {
    draft(trusted, address, http1).build().expect("client")
}
