//! An upstream that speaks TLS, HTTP/2 or both, with an authority of its own.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// An authority that signs certificates, and a folder for its files.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        // Two of one name would differ by their keys alone.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der, folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }

    pub(crate) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain: vec![certificate.der().clone()], key, pem: certificate.pem() }
    }

    /// The file of the authority's certificate.
    pub(crate) fn file(&self) -> String {
        self.write("ca.pem", &self.pem, 0o644)
    }

    /// The files of an identity, as YAML.
    pub(crate) fn files(&self, identity: &Identity) -> String {
        let certificate = self.write("client.crt", &identity.pem, 0o644);
        let key = self.write("client.key", &identity.key.serialize_pem(), 0o600);
        format!("{{ certificate: \"{certificate}\", key: \"{key}\" }}")
    }

    fn write(&self, name: &str, text: &str, rights: u32) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(rights)).expect("rights");
        path.display().to_string()
    }
}

/// A running upstream.
pub(crate) struct Secure {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request<String>>>>,
    connections: Arc<Mutex<usize>>,
    refused: Refused,
    task: JoinHandle<()>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Secure {
    /// With TLS: offers these protocols, and asks clients for a certificate of `clients` if there is one.
    pub(crate) async fn tls(identity: &Identity, protocols: &[&str], clients: Option<&Authority>) -> Self {
        cloakroom::listener::tls::install_crypto_provider();
        let builder = ServerConfig::builder();
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
        let mut config = builder.with_single_cert(identity.chain.clone(), key).expect("a configuration");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// HTTP/2 in the clear.
    pub(crate) async fn h2c() -> Self {
        Self::start(None).await
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (seen, connections): (Arc<Mutex<Vec<_>>>, Arc<Mutex<usize>>) = Default::default();
        let refused = Refused::default();
        let (kept, count, refuses) = (seen.clone(), connections.clone(), refused.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, kept, count, refuses) = (tls.clone(), kept.clone(), count.clone(), refuses.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                        return serve_h2(stream, kept, refuses).await;
                    };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        serve_h2(stream, kept, refuses).await;
                    } else {
                        serve_h1(stream, kept).await;
                    }
                });
            }
        });
        Self { port, seen, connections, refused, task }
    }

    /// Requests so far, with their bodies.
    pub(crate) fn seen(&self) -> Vec<Request<String>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = |request: &Request<String>| {
            let mut copy = Request::new(request.body().clone());
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.version_mut() = request.version();
            *copy.headers_mut() = request.headers().clone();
            copy
        };
        seen.iter().map(copy).collect()
    }

    /// HTTP/2 requests with this bearer token are answered with 401 from now on.
    pub(crate) fn refuse_token(&self, token: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("Bearer {token}"));
    }

    /// Connections whose handshake was done.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Kept = Arc<Mutex<Vec<Request<String>>>>;

/// Values of `Authorization`.
type Refused = Arc<Mutex<HashSet<String>>>;

/// Answers each request with its body and a trailer, or with 401 if its token is refused.
async fn serve_h2(stream: impl AsyncRead + AsyncWrite + Unpin, kept: Kept, refused: Refused) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (kept, refused) = (kept.clone(), refused.clone());
        tokio::spawn(async move {
            let (parts, mut body) = request.into_parts();
            let mut bytes = Vec::new();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                bytes.extend_from_slice(&piece);
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let shown = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let is_refused = refused.lock().unwrap_or_else(PoisonError::into_inner).contains(shown);
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(Request::from_parts(parts, text));
            if is_refused {
                let answer =
                    Response::builder().status(401).header("www-authenticate", "Bearer error=\"invalid_token\"");
                let _ = respond.send_response(answer.body(()).expect("an answer"), true);
                return;
            }
            let answer = Response::builder().header("x-protocol", "h2").body(()).expect("an answer");
            let Ok(mut stream) = respond.send_response(answer, false) else { return };
            let _ = stream.send_data(Bytes::from(bytes), false);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
        });
    }
}

/// Answers each bodiless request with `h1`; switches protocols where it is asked to, and sends back what comes then.
async fn serve_h1(mut stream: impl AsyncRead + AsyncWrite + Unpin, kept: Kept) {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        head.clear();
        let mut request = Request::builder().uri(text.split(' ').nth(1).expect("a target"));
        for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let upgrades = text.to_ascii_lowercase().contains("upgrade: websocket");
        let request = request.body(String::new()).expect("a request");
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        if upgrades {
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            let _ = stream.write_all(switch).await;
            let _ = stream.flush().await;
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                if stream.write_all(&piece[..count]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            return;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh1").await.is_err() {
            return;
        }
        let _ = stream.flush().await;
    }
}
