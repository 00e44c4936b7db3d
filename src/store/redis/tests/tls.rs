//! Over TLS, with an authority of one's own.

use std::path::PathBuf;

use super::*;

struct Tls {
    server: RedisServer,
    port: u16,
    directory: tempfile::TempDir,
}

/// A server that takes TLS on one port, and none on another, for the test to look in.
fn start() -> Tls {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("crt"), made.cert.pem()).unwrap();
    std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    let port = free_port();
    let (tls_port, crt, key) = (port.to_string(), path("crt"), path("key"));
    let options =
        ["--tls-port", &tls_port, "--tls-cert-file", &crt, "--tls-key-file", &key, "--tls-ca-cert-file", &crt];
    let server = RedisServer::start_with(&[&options[..], &["--tls-auth-clients", "no"]].concat());
    Tls { server, port, directory }
}

fn tls_store(port: u16, ca: Option<PathBuf>, clock: Clock) -> RedisStore {
    let settings = settings::RedisStore {
        url: SecretText::new(format!("rediss://127.0.0.1:{port}")),
        prefix: "cloakroom:".to_owned(),
        command_timeout: Duration::from_secs(5),
        ca,
    };
    RedisStore::new(&settings, clock).unwrap()
}

conformance::suite!(async {
    let tls = start();
    let clock = Clock::manual(Clock::system().now());
    (tls_store(tls.port, Some(tls.directory.path().join("crt")), clock.clone()), clock, tls)
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_an_unknown_authority_is_refused_by_name() {
    let tls = start();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = tls.directory.path().join("other");
    std::fs::write(&other, made.cert.pem()).unwrap();
    let error = tls_store(tls.port, Some(other), Clock::system()).ping().await.unwrap_err().to_string();
    assert!(error.contains("no TLS with Redis") && error.contains("`store.ca`"), "{error}");
    // And a port without TLS.
    let ca = tls.directory.path().join("crt");
    let error = tls_store(tls.server.port(), Some(ca), Clock::system()).ping().await.unwrap_err().to_string();
    assert!(error.contains("TLS"), "{error}");
}
