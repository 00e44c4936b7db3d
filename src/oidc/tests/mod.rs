//! A small provider in this process, with one manner at a time, and the client against it.

mod access_token;
mod credentials;
mod discovery;
mod dpop;
mod exchange;
mod http;
mod id_token;
mod keys;
mod logout_token;
mod pushed;
mod refresh;
mod signer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::http::{Client, Limits};
use super::{OidcError, Previous, Provider, Refreshed, Tls};
use crate::config::settings::{self, ClientAuth};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::secret::SecretText;
pub(crate) use signer::RSA_PKCS8;
use signer::Signer;

const NOW: u64 = 1_800_000_000;
const NONCE: &str = "nonce-of-this-login";
const VERIFIER: &str = "verifier-verifier-verifier-verifier-verifier";
const CLIENT_SECRET: &str = "client-secret-canary";
const REFRESH_TOKEN: &str = "refresh-token-canary";

/// What an endpoint does.
#[derive(Clone)]
enum Reply {
    Json(u16, Value),
    Raw(u16, &'static [(&'static str, &'static str)], Vec<u8>),
    /// As [`Reply::Json`], with status 200, after a while.
    Slow(Duration, Value),
    /// Takes the request and never answers.
    Hang,
    /// Sends half an answer and drops the connection.
    Cut,
}

#[derive(Default)]
struct Hits {
    discovery: AtomicUsize,
    jwks: AtomicUsize,
    token: AtomicUsize,
    other: AtomicUsize,
}

struct Shared {
    metadata: Mutex<Reply>,
    jwks: Mutex<Reply>,
    token: Mutex<Reply>,
    revoke: Mutex<Reply>,
    pushed: Mutex<Reply>,
    hits: Hits,
    posts: Mutex<Vec<(HeaderMap, String)>>,
}

/// The provider. Gone when dropped.
struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::over(listener, address, &format!("http://{address}/realm"))
    }

    fn over<L>(listener: L, address: SocketAddr, issuer: &str) -> Self
    where
        L: axum::serve::Listener<Addr = SocketAddr>,
    {
        let shared = Arc::new(Shared {
            metadata: Mutex::new(Reply::Json(200, metadata(issuer))),
            jwks: Mutex::new(Reply::Json(200, json!({"keys": [Signer::es256("key-1").jwk()]}))),
            token: Mutex::new(Reply::Json(500, json!({}))),
            revoke: Mutex::new(Reply::Json(200, json!({}))),
            pushed: Mutex::new(Reply::Json(201, json!({"request_uri": "urn:x:1", "expires_in": 60}))),
            hits: Hits::default(),
            posts: Mutex::default(),
        });
        let app = axum::Router::new().fallback(handle).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, task }
    }

    fn issuer(&self) -> String {
        format!("http://{}/realm", self.address)
    }

    fn hits(&self) -> &Hits {
        &self.shared.hits
    }

    fn set_metadata(&self, reply: Reply) {
        *self.shared.metadata.lock().unwrap() = reply;
    }

    fn set_jwks(&self, reply: Reply) {
        *self.shared.jwks.lock().unwrap() = reply;
    }

    fn set_keys(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|s| s.jwk()).collect();
        self.set_jwks(Reply::Json(200, json!({"keys": keys})));
    }

    fn set_token(&self, reply: Reply) {
        *self.shared.token.lock().unwrap() = reply;
    }

    fn set_revoke(&self, reply: Reply) {
        *self.shared.revoke.lock().unwrap() = reply;
    }

    /// From now on the metadata offers pushed requests, which are answered like this.
    fn offer_pushed(&self, reply: Reply) {
        let mut offered = metadata(&self.issuer());
        offered["pushed_authorization_request_endpoint"] = format!("{}/par", self.issuer()).into();
        self.set_metadata(Reply::Json(200, offered));
        *self.shared.pushed.lock().unwrap() = reply;
    }

    /// The next code or refresh token brings this ID token.
    fn grant(&self, id_token: &str) {
        self.set_token(Reply::Json(200, answer(id_token)));
    }

    /// Headers and body of the last POST.
    fn last_post(&self) -> (HeaderMap, BTreeMap<String, String>) {
        self.posts().pop().unwrap_or_default()
    }

    /// The same of all of them, oldest first.
    fn posts(&self) -> Vec<(HeaderMap, BTreeMap<String, String>)> {
        let read = |(headers, body): &(HeaderMap, String)| {
            (headers.clone(), url::form_urlencoded::parse(body.as_bytes()).into_owned().collect())
        };
        self.shared.posts.lock().unwrap().iter().map(read).collect()
    }

    /// Claims that are good in every respect.
    fn claims(&self) -> Value {
        json!({
            "iss": self.issuer(), "aud": "cloakroom", "azp": "cloakroom", "sub": "alice", "sid": "provider-session",
            "nonce": NONCE, "iat": NOW, "exp": NOW + 300, "auth_time": NOW - 10,
            "at_hash": signer::at_hash("access-token"), "email": "alice@example.com",
            "realm_access": {"roles": ["user"]},
        })
    }
}

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize?policy=p"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "end_session_endpoint": format!("{issuer}/logout?tenant=t"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "authorization_response_iss_parameter_supported": true,
    })
}

fn answer(id_token: &str) -> Value {
    json!({
        "access_token": "access-token", "token_type": "Bearer", "expires_in": 300,
        "refresh_token": "refresh-token-2", "refresh_expires_in": 1800, "id_token": id_token,
    })
}

async fn handle(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let (count, reply) = match uri.path() {
        "/realm/.well-known/openid-configuration" => (&shared.hits.discovery, &shared.metadata),
        "/realm/keys" => (&shared.hits.jwks, &shared.jwks),
        "/realm/token" => (&shared.hits.token, &shared.token),
        "/realm/par" => (&shared.hits.other, &shared.pushed),
        "/realm/revoke" => (&shared.hits.other, &shared.revoke),
        _ => {
            shared.hits.other.fetch_add(1, Ordering::SeqCst);
            return Response::builder().status(404).body(Body::empty()).unwrap();
        }
    };
    count.fetch_add(1, Ordering::SeqCst);
    if !body.is_empty() {
        shared.posts.lock().unwrap().push((headers, body));
    }
    let reply = reply.lock().unwrap().clone();
    let reply = match reply {
        Reply::Slow(pause, value) => {
            tokio::time::sleep(pause).await;
            Reply::Json(200, value)
        }
        other => other,
    };
    match reply {
        Reply::Json(status, value) => Response::builder()
            .status(status)
            .header("content-type", "application/json;charset=UTF-8")
            .body(value.to_string().into())
            .unwrap(),
        Reply::Raw(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            response.body(body.into()).unwrap()
        }
        Reply::Hang | Reply::Slow(..) => std::future::pending().await,
        Reply::Cut => {
            let half = futures::stream::iter([Ok(r#"{"access_token": "acc"#), Err("cut")]);
            let slowly = half.then(|part| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                part
            });
            Response::builder().header("content-type", "application/json").body(Body::from_stream(slowly)).unwrap()
        }
    }
}

fn settings(issuer: &str) -> settings::Provider {
    settings::Provider {
        name: "fake".into(),
        title: "Fake".into(),
        issuer: issuer.to_owned(),
        client_id: "cloakroom".to_owned(),
        client_auth: ClientAuth::Basic(SecretText::new(CLIENT_SECRET.to_owned())),
        dpop: None,
        ca: None,
        pushed_authorization: settings::PushedAuthorization::Auto,
        response_mode: settings::ResponseMode::Query,
        login_parameters: settings::LoginParameter::ALL.to_vec(),
        merge_userinfo: false,
        revoke_access_tokens: false,
        frontchannel_logout: settings::FrontchannelLogout::Off,
        scopes: ["openid", "profile"].map(str::to_owned).to_vec(),
        refresh_token_grace: Duration::ZERO,
        backchannel_logout: settings::BackchannelLogout::default(),
        introspection: None,
        authorization_params: BTreeMap::new(),
    }
}

fn http_client() -> Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (connect, second) = (Duration::from_millis(300), Duration::from_secs(1));
    let limits = Limits { connect, total: second, refresh: second, ..Limits::default() };
    Client::with_limits(limits, Tls::default(), Arc::new(())).unwrap()
}

fn client_with(settings: &settings::Provider) -> (Arc<Provider>, Clock) {
    let clock = Clock::manual(Timestamp::from_secs(NOW));
    (Arc::new(Provider::new(settings, http_client(), clock.clone()).unwrap()), clock)
}

/// A provider, and its client after discovery.
async fn ready() -> (Fake, Arc<Provider>, Clock) {
    let fake = Fake::start().await;
    let (provider, clock) = client_with(&settings(&fake.issuer()));
    provider.discover().await.unwrap();
    (fake, provider, clock)
}

fn callback() -> Url {
    "https://app.example.com/auth/callback".parse().unwrap()
}

async fn log_in(provider: &Arc<Provider>) -> Result<super::Login, OidcError> {
    log_in_beside(provider, false).await
}

/// `has_former`: the browser has a session already.
async fn log_in_beside(provider: &Arc<Provider>, has_former: bool) -> Result<super::Login, OidcError> {
    let demands = provider.demands(&[], false);
    sendable(provider.redeem("code-canary", VERIFIER, &callback(), NONCE, &demands, has_former)).await
}

async fn refresh(provider: &Arc<Provider>) -> Result<Refreshed, super::RefreshError> {
    let previous = Previous { subject: "alice", auth_time: Some(Timestamp::from_secs(NOW - 10)), nonce: Some(NONCE) };
    sendable(provider.refresh(&SecretText::new(REFRESH_TOKEN.to_owned()), previous)).await
}

/// Waits until something is so that another task brings about.
async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

/// Callers run these in tasks of their own (behaviour R3).
fn sendable<F: Future + Send>(future: F) -> F {
    future
}
