//! A listener that asks clients for certificates, and what upstreams hear of them (RFC 9440).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Client, Identity, StatusCode};

use crate::harness::{Wishes, World};
use crate::tls_kit::{certificate, draft, pair};

/// An authority and clients of it.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    /// A client's certificate: what it proves itself with, and its DER form.
    fn client(&self) -> (Identity, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["client.test".to_owned()]).expect("parameters");
        let made = params.signed_by(&key, &self.0).expect("a certificate");
        let pem = made.pem() + &key.serialize_pem();
        (Identity::from_pem(pem.as_bytes()).expect("an identity"), made.der().to_vec())
    }
}

struct Listening {
    world: World,
    trusted: String,
    authority: Authority,
    _folder: tempfile::TempDir,
}

impl Listening {
    async fn with(setting: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let trusted = certificate(folder.path(), "app", &["app.test", "other.test"]);
        let authority = Authority::new();
        let file = folder.path().join("clients.crt");
        std::fs::write(&file, authority.0.pem()).expect("a file");
        let (pair, file) = (pair(folder.path(), "app"), file.display());
        let world = World::with(Wishes {
            listener: format!(", tls: {{ certificates: [{pair}], client_ca: \"{file}\"{setting} }}"),
            hosts: "[app.test]".into(),
            more: "  - hosts: [other.test]
    routes: [{ path: /, upstream: demo, access: public }]"
                .into(),
            ..Wishes::default()
        })
        .await;
        world.proxy.knows_provider().await;
        Self { world, trusted, authority, _folder: folder }
    }

    fn client(&self, identity: Option<Identity>, http1: bool) -> Client {
        let draft = draft(&self.trusted, self.world.proxy.address, http1);
        let draft = match identity {
            Some(identity) => draft.identity(identity),
            None => draft,
        };
        draft.build().expect("client")
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/open/x", self.world.proxy.address.port())
    }
}

const FORGED: [&str; 4] = ["client-cert", "client-cert-chain", "client_cert", "Client.Cert"];

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_told_which_certificate_a_client_has_and_a_client_cannot_lie() {
    let listening = Listening::with("").await;
    let recorder = listening.world.demo.upstream.recorder();
    let (identity, der) = listening.authority.client();
    let expected = format!(":{}:", STANDARD.encode(&der));
    for http1 in [true, false] {
        let client = listening.client(Some(identity.clone()), http1);
        // The second time the session is resumed or the connection used again.
        for _ in 0..2 {
            let mut request = client.get(listening.url("app.test"));
            for name in FORGED {
                request = request.header(name, ":Zm9yZ2Vk:");
            }
            assert_eq!(request.send().await.expect("an answer").status(), StatusCode::OK);
            let received = recorder.last().expect("a request");
            assert_eq!(received.header("client-cert"), Some(&*expected));
            for name in &FORGED[1..] {
                assert_eq!(received.header(&name.to_ascii_lowercase()), None, "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_none_or_a_strangers_is_not_let_in() {
    let listening = Listening::with(", client_certificate: required").await;
    let (stranger, _) = Authority::new().client();
    for http1 in [true, false] {
        for identity in [None, Some(stranger.clone())] {
            let client = listening.client(identity, http1);
            assert!(client.get(listening.url("app.test")).send().await.is_err());
        }
    }
    assert_eq!(listening.world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_certificate_may_be_left_out_but_must_be_good() {
    let listening = Listening::with(", client_certificate: optional").await;
    let recorder = listening.world.demo.upstream.recorder();
    let nobody = listening.client(None, false);
    let answer = nobody.get(listening.url("app.test")).header("client-cert", ":Zm9yZ2Vk:").send().await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    assert_eq!(recorder.last().expect("a request").header("client-cert"), None);
    let (identity, _) = listening.authority.client();
    let known = listening.client(Some(identity), false);
    assert_eq!(known.get(listening.url("app.test")).send().await.expect("an answer").status(), StatusCode::OK);
    assert!(recorder.last().expect("a request").header("client-cert").is_some());
    let (stranger, _) = Authority::new().client();
    assert!(listening.client(Some(stranger), false).get(listening.url("app.test")).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_for_the_site_of_the_handshake_alone() {
    let listening = Listening::with("").await;
    let (identity, _) = listening.authority.client();
    for http1 in [true, false] {
        let client = listening.client(Some(identity.clone()), http1);
        for (host, asked, status) in [
            ("app.test", "app.test", StatusCode::OK),
            ("other.test", "other.test", StatusCode::OK),
            ("app.test", "other.test", StatusCode::MISDIRECTED_REQUEST),
            ("other.test", "app.test", StatusCode::MISDIRECTED_REQUEST),
        ] {
            if !http1 && host != asked {
                continue;
            }
            let mut request = client.get(listening.url(host));
            if host != asked {
                request = request.header("host", asked);
            }
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), status, "{host} {asked}");
        }
    }
    let counted = listening.world.metric("cloakroom_requests_rejected_total{reason=\"server_name\"}").await;
    assert_eq!(counted, 2.0);
}
