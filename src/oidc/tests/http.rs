//! The outgoing client's own manners.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Reply, client_with, log_in, ready, refresh, settings};
use crate::oidc::http::{Client, Endpoint, Limits, Observer, Outcome};
use crate::oidc::{Provider, Tls};
use crate::primitives::clock::Clock;

#[derive(Default)]
struct Seen(Mutex<Vec<(&'static str, &'static str)>>);

impl Observer for Seen {
    fn request(&self, endpoint: Endpoint, outcome: Outcome, _: Duration) {
        self.0.lock().unwrap().push((endpoint.as_str(), outcome.as_str()));
    }
    fn key_set(&self, good: bool) {
        self.0.lock().unwrap().push(("key set", if good { "good" } else { "bad" }));
    }
}

#[tokio::test]
async fn every_request_is_observed() {
    let (fake, _, _) = ready().await;
    let seen = Arc::new(Seen::default());
    let limits = Limits { refresh: Duration::from_millis(200), ..Limits::default() };
    let http = Client::with_limits(limits, Tls::default(), seen.clone()).unwrap();
    let provider = Arc::new(Provider::new(&settings(&fake.issuer()), http, Clock::system()).unwrap());
    provider.discover().await.unwrap();
    for reply in [Reply::Raw(429, &[], vec![]), Reply::Raw(400, &[], vec![]), Reply::Raw(502, &[], vec![]), Reply::Hang]
    {
        fake.set_token(reply);
        refresh(&provider).await.unwrap_err();
    }
    fake.set_jwks(Reply::Json(200, serde_json::json!({"keys": []})));
    provider.discover().await.unwrap_err();
    let expected = [
        ("discovery", "ok"),
        ("jwks", "ok"),
        ("key set", "good"),
        ("token", "throttled"),
        ("token", "refused"),
        ("token", "error"),
        ("token", "timeout"),
        ("discovery", "ok"),
        ("jwks", "ok"),
        ("key set", "bad"),
    ];
    assert_eq!(*seen.0.lock().unwrap(), expected);
}

#[tokio::test]
async fn r9_a_refresh_may_take_longer_than_other_calls() {
    let (fake, _, _) = ready().await;
    let limits = Limits { total: Duration::from_millis(300), refresh: Duration::from_secs(10), ..Limits::default() };
    let http = Client::with_limits(limits, Tls::default(), Arc::new(())).unwrap();
    let provider = Arc::new(Provider::new(&settings(&fake.issuer()), http, Clock::system()).unwrap());
    provider.discover().await.unwrap();
    fake.set_token(Reply::Slow(
        Duration::from_millis(600),
        serde_json::json!({"access_token": "late", "token_type": "Bearer"}),
    ));
    assert_eq!(refresh(&provider).await.unwrap().tokens.access_token.expose(), "late");
    assert!(log_in(&provider).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn h7_redirects_of_the_metadata_are_not_followed() {
    let (fake, provider, _) = ready().await;
    let before = fake.hits().discovery.load(Ordering::SeqCst);
    fake.set_metadata(Reply::Raw(302, &[("location", "/realm/.well-known/openid-configuration")], Vec::new()));
    assert_eq!(provider.discover().await.unwrap_err(), "discovery: status 302");
    assert_eq!(fake.hits().discovery.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn a_length_that_lies_does_not_fill_the_memory() {
    // Announces little and sends without end, in chunks.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut sent = 0_usize;
        let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {
            sent += 0x1000;
        }
        sent
    });
    let (provider, _) = client_with(&settings(&issuer));
    assert_eq!(provider.discover().await.unwrap_err(), "discovery: the answer is larger than 1048576 bytes");
    // The rest lay in socket buffers.
    assert!(server.await.unwrap() < 16 << 20);
}

#[tokio::test]
async fn l7_a_certificate_of_nobody_is_refused() {
    let (provider, server) = {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (provider, _) = client_with(&settings(&format!("https://localhost:{port}")));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            tls.complete_io(&mut stream).is_err() || tls.complete_io(&mut stream).is_err()
        });
        (provider, server)
    };
    let error = provider.discover().await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    assert!(server.join().unwrap(), "the handshake breaks off");
}
