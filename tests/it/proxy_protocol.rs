//! A listener behind a load balancer that tells the client's address in a PROXY header.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::StatusCode;
use rustls::pki_types::pem::PemObject as _;

use crate::harness::{Wishes, World};
use crate::tls_kit::{certificate, pair};
use crate::wire::Wire;

const V1: &str = "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";
/// Version 2 from 2001:db8::7, with a field of the load balancer's own behind the addresses.
fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29".to_vec();
    header.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    header.extend_from_slice(&[0xc8, 0x22, 1, 0xbb]);
    header.extend_from_slice(b"\xea\0\x02ab");
    header
}

async fn world(trusted: &str, listener: &str) -> World {
    let world = World::with(Wishes {
        listener: format!(", proxy_protocol: true{listener}"),
        more: format!(
            "trusted_proxies: [{trusted}]\nlimits: {{ handshake_timeout: 300ms, connections_per_address: 2 }}"
        ),
        hosts: "[app.test]".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

const REQUEST: &str = "GET /open/x HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_whom_the_header_names() {
    let world = world("127.0.0.0/8", "").await;
    let recorder = world.demo.upstream.recorder();
    for (header, client) in [
        (V1.as_bytes().to_vec(), "203.0.113.7"),
        (v2(), "2001:db8::7"),
        // The load balancer itself, which is trusted to name others.
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "6.6.6.6, 127.0.0.1"),
        // A client that it cannot name: whom that one names is nobody's word but its own.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0".to_vec(), "127.0.0.1"),
    ] {
        let whole = [&header, REQUEST.as_bytes()].concat();
        let mut wire = Wire::connect(world.proxy.address).await;
        assert_eq!(wire.exchange(&whole).await.status, StatusCode::OK, "{client}");
        assert_eq!(recorder.last().expect("a request").header("x-forwarded-for"), Some(client));
        assert_eq!(wire.exchange(REQUEST).await.status, StatusCode::OK, "the header comes once");
        assert_eq!(recorder.last().expect("a request").header("x-forwarded-for"), Some(client));

        // In two pieces, wherever it is cut.
        let mut wire = Wire::connect(world.proxy.address).await;
        wire.send(&whole[..header.len() / 2]).await;
        tokio::task::yield_now().await;
        assert_eq!(wire.exchange(&whole[header.len() / 2..]).await.status, StatusCode::OK, "{client}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_good_header_is_not_taken() {
    let world = world("127.0.0.0/8", "").await;
    let refused = || world.metric("cloakroom_connections_rejected_total{reason=\"proxy_protocol\"}");
    for opening in
        ["", REQUEST, "PROXY", "PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n", "\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c"]
    {
        let before = refused().await;
        let mut wire = Wire::connect(world.proxy.address).await;
        wire.send(opening).await;
        assert!(wire.is_closed().await, "{opening:?}");
        assert!(refused().await > before, "{opening:?}");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_claim_another_address() {
    let world = world("10.0.0.0/8", "").await;
    let mut wire = Wire::connect(world.proxy.address).await;
    wire.send(format!("{V1}{REQUEST}")).await;
    assert!(wire.is_closed().await);
    assert_eq!(world.demo.upstream.recorder().count(), 0);

    // Until the settings say that it is none.
    let outcome = world.proxy.reload("[10.0.0.0/8]", "[127.0.0.0/8]").await.expect("applied");
    assert_eq!((outcome.applied, outcome.needs_restart), (vec!["trusted_proxies"], vec![]));
    let mut wire = Wire::connect(world.proxy.address).await;
    assert_eq!(wire.exchange(format!("{V1}{REQUEST}")).await.status, StatusCode::OK);
    assert_eq!(
        world.demo.upstream.recorder().last().expect("a request").header("x-forwarded-for"),
        Some("203.0.113.7")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_count_for_the_client_and_not_for_the_load_balancer() {
    let world = world("127.0.0.0/8", "").await;
    let mut held = Vec::new();
    let header = |client: u8| format!("PROXY TCP4 203.0.113.{client} 10.0.0.1 51234 443\r\n{REQUEST}");
    for client in [1, 1, 2, 2, 3] {
        let mut wire = Wire::connect(world.proxy.address).await;
        assert_eq!(wire.exchange(header(client)).await.status, StatusCode::OK);
        held.push(wire);
    }
    let mut third = Wire::connect(world.proxy.address).await;
    third.send(header(1)).await;
    assert!(third.is_closed().await);
    assert_eq!(world.metric("cloakroom_connections_rejected_total{reason=\"address\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_comes_before_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = certificate(folder.path(), "app", &["app.test"]);
    let tls = format!(", tls: {{ certificates: [{}] }}", pair(folder.path(), "app"));
    let world = world("127.0.0.1", &tls).await;
    let address = world.proxy.address;
    let answer = tokio::task::spawn_blocking(move || over_tls(address, &pem)).await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let received = world.demo.upstream.recorder().last().expect("a request");
    assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
}

fn over_tls(address: SocketAddr, trusted: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    let trusted = rustls::pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).expect("PEM");
    roots.add(trusted).expect("a certificate");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = "app.test".try_into().expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.write_all(V1.as_bytes()).expect("it is taken");
    let mut stream = rustls::StreamOwned::new(session, stream);
    stream.write_all(REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).expect("it is taken");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
