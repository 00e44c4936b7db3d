//! Ways to prove who we are that need a key or a certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::config::settings::ClientCertificate;
use crate::oidc::metadata::Metadata;
use crate::primitives::signing::SigningKey;

fn key(id: &str) -> SigningKey {
    SigningKey::from_pkcs8(&STANDARD.decode(RSA_PKCS8).unwrap(), Some(id), None).unwrap()
}

async fn signing(fake: &Fake, keys: &[SigningKey]) -> (Arc<Provider>, Clock) {
    let mut settings = settings(&fake.issuer());
    settings.client_auth = ClientAuth::PrivateKeyJwt(keys.into());
    let (provider, clock) = client_with(&settings);
    provider.discover().await.unwrap();
    fake.set_token(Reply::Json(200, json!({"access_token": "a", "token_type": "Bearer"})));
    (provider, clock)
}

/// Header (0) or claims (1) of a JWT.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn kid(assertion: &str) -> String {
    part(assertion, 0)["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn l8_an_assertion_is_for_the_issuer_alone_short_lived_and_never_sent_twice() {
    let fake = Fake::start().await;
    let (provider, _) = signing(&fake, &[key("first"), key("second")]).await;
    let mut ids = std::collections::BTreeSet::new();
    for round in 0..3 {
        if round < 2 {
            refresh(&provider).await.unwrap();
        } else {
            provider.revoke(&SecretText::new(REFRESH_TOKEN.to_owned())).await.unwrap();
        }
        let (headers, form) = fake.last_post();
        assert!(!headers.contains_key("authorization") && !form.contains_key("client_secret"), "{form:?}");
        assert_eq!(form["client_id"], "cloakroom");
        assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert_eq!(kid(&form["client_assertion"]), "first");
        let claims = part(&form["client_assertion"], 1);
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("cloakroom"), &json!("cloakroom")));
        assert_eq!(claims["aud"], fake.issuer(), "one audience, and not the endpoint");
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 60)));
        assert!(ids.insert(claims["jti"].as_str().unwrap().to_owned()), "an id was used twice");
    }
}

#[tokio::test]
async fn all_keys_are_published_and_other_keys_are_taken_at_once() {
    let fake = Fake::start().await;
    let (provider, _) = signing(&fake, &[key("first"), key("second")]).await;
    let published = |provider: &Provider| -> Vec<String> {
        let keys = provider.client_keys();
        assert!(keys.iter().all(|key| key.get("d").is_none() && key["use"] == "sig"), "{keys:?}");
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(published(&provider), ["first", "second"]);
    provider.replace_client_keys(&[key("second"), key("third")].into());
    assert_eq!(published(&provider), ["second", "third"]);
    refresh(&provider).await.unwrap();
    assert_eq!(kid(&fake.last_post().1["client_assertion"]), "second");
    assert!(client_with(&settings(&fake.issuer())).0.client_keys().is_empty(), "a secret is no key");
}

#[test]
fn who_shows_a_certificate_takes_the_endpoints_for_that() {
    let issuer = openidconnect::IssuerUrl::new("https://id.example.com".to_owned()).unwrap();
    let mut document = metadata("https://id.example.com");
    document["mtls_endpoint_aliases"] = json!({
        "token_endpoint": "https://mtls.example.com/token",
        "pushed_authorization_request_endpoint": "https://mtls.example.com/par",
        "authorization_endpoint": "https://evil.example.com",
        "jwks_uri": "https://evil.example.com",
    });
    let parse = |document: &Value, with| Metadata::parse(document.to_string().as_bytes(), &issuer, with);
    let without = parse(&document, false).unwrap();
    assert_eq!(without.token_endpoint.url().as_str(), "https://id.example.com/token");
    assert!(without.pushed_endpoint.is_none());
    let with = parse(&document, true).unwrap();
    assert_eq!(with.token_endpoint.url().as_str(), "https://mtls.example.com/token");
    assert_eq!(with.pushed_endpoint.unwrap().as_str(), "https://mtls.example.com/par");
    assert_eq!(with.revocation_endpoint, without.revocation_endpoint, "not among them: as usual");
    assert_eq!(with.jwks_uri, without.jwks_uri);
    assert_eq!(with.authorization_endpoint, without.authorization_endpoint, "the browser has no certificate");
    document["mtls_endpoint_aliases"]["token_endpoint"] = "http://mtls.example.com/token".into();
    assert!(parse(&document, true).is_err(), "plain http");
}

struct TlsListener(TcpListener, TlsAcceptor);

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

#[tokio::test]
async fn a_provider_of_an_own_authority_that_asks_for_a_certificate() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority: CertificateDer<'static> = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], der(&key))
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let (chain, private) = issue("localhost");
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, private).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = format!("https://localhost:{}/realm", address.port());
    let fake = Fake::over(TlsListener(listener, TlsAcceptor::from(Arc::new(config))), address, &name);
    fake.set_token(Reply::Json(200, json!({"access_token": "a", "token_type": "Bearer"})));

    let provider = |ca: bool, certificate: bool| {
        let mut settings = settings(&name);
        settings.ca = ca.then(|| [authority.clone()].into());
        if certificate {
            let (chain, key) = issue("client");
            settings.client_auth = ClientAuth::Tls(Arc::new(ClientCertificate { chain, key }));
        }
        let http = Client::new(Tls::of(&settings), Arc::new(())).unwrap();
        Arc::new(Provider::new(&settings, http, Clock::manual(Timestamp::from_secs(NOW))).unwrap())
    };
    assert!(provider(false, true).discover().await.is_err(), "nobody vouches for it");
    assert!(provider(true, false).discover().await.is_err(), "it asks for a certificate");
    let provider = provider(true, true);
    provider.discover().await.unwrap();
    refresh(&provider).await.unwrap();
    let (headers, form) = fake.last_post();
    assert_eq!(form["client_id"], "cloakroom", "RFC 8705 §2");
    assert!(!headers.contains_key("authorization") && !form.contains_key("client_secret"));
}
