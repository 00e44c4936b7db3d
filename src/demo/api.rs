//! The sample API: the service behind the proxy. It answers with what reached it, except for secrets.
//!
//! The rule that its answers obey: no token and no cookie value goes back. It shows a fingerprint of the
//! token, which is enough to watch a refresh. Tests that want the values ask the [`Recorder`].

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, RawQuery, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::faults::Faults;
use super::page;
use super::recorder::{Received, Recorder};
use super::server::Server;
use super::support::{fingerprint, locked, unverified_claims};

/// The largest request body that is taken, and the largest answer that is given.
const BODY_LIMIT: usize = 1024 * 1024 * 1024;
const CHUNK: usize = 16 * 1024;

/// The sample API and page on one address. It stops when it is dropped.
pub struct Upstream {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    recorder: Recorder,
    faults: Faults,
    refusals: Mutex<Refusals>,
}

#[derive(Default)]
struct Refusals {
    next: usize,
    tokens: BTreeSet<String>,
    nonce: Option<String>,
    next_nonce: Option<String>,
}

impl Upstream {
    /// Binds `address` (port 0 picks a free one) and serves on the current tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { recorder: Recorder::new(), faults: Faults::default(), refusals: Mutex::default() });
        let server = Server::start(address, |_| router(&shared))?;
        Ok(Self { server, shared })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Goes down: the listener closes, open connections are reset.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Comes back on the same port.
    ///
    /// # Errors
    /// If somebody took the port meanwhile.
    pub fn restart(&self) -> io::Result<()> {
        self.server.restart()
    }

    /// What reached it.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// Its bad manners, on every path.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The next `count` requests with an access token are answered with 401 `invalid_token`.
    pub fn refuse_next(&self, count: usize) {
        locked(&self.shared.refusals).next = count;
    }

    /// Requests with this access token are answered with 401 `invalid_token` from now on.
    pub fn refuse_token(&self, token: &str) {
        locked(&self.shared.refusals).tokens.insert(token.to_owned());
    }

    /// Requests with a bound token need this nonce in their proof (RFC 9449, 9); `None` = they need none.
    pub fn require_nonce(&self, nonce: Option<&str>) {
        locked(&self.shared.refusals).nonce = nonce.map(str::to_owned);
    }

    /// Good answers to requests with a bound token bring this nonce along (RFC 9449, 8.2).
    pub fn give_nonce(&self, nonce: Option<&str>) {
        locked(&self.shared.refusals).next_nonce = nonce.map(str::to_owned);
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    let faults = shared.faults.clone();
    Router::new()
        .route("/api/whoami", any(whoami))
        .route("/api/status/{code}", any(status))
        .route("/api/set-cookie", any(set_cookie))
        .route("/api/set-header", any(set_header))
        .route("/api/large", get(large))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(echo)
        .merge(page::router())
        .layer(from_fn_with_state(Arc::clone(shared), record))
        .layer(from_fn(move |request: Request, next: Next| faults.clone().strike(request, next)))
}

/// Reads and remembers every request before its handler runs, and refuses tokens that a test wants refused.
async fn record(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let received = Received::new(&parts, &body);
    shared.recorder.remember(received.clone());
    let bound = received.token().is_some() && received.bearer().is_none();
    let scheme = if bound { "DPoP" } else { "Bearer" };
    if bound && let Some(nonce) = shared.wants_nonce(&received) {
        return with_nonce(refused(scheme, "use_dpop_nonce"), &nonce);
    }
    if received.token().is_some_and(|token| shared.refuses(token)) {
        return refused(scheme, "invalid_token");
    }
    parts.extensions.insert(Arc::new(received));
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    match shared.next_nonce() {
        Some(nonce) if bound => with_nonce(answer, &nonce),
        _ => answer,
    }
}

impl Shared {
    fn refuses(&self, token: &str) -> bool {
        let mut refusals = locked(&self.refusals);
        if refusals.next > 0 {
            refusals.next -= 1;
            return true;
        }
        refusals.tokens.contains(token)
    }

    /// The nonce that a request's proof lacks.
    fn wants_nonce(&self, received: &Received) -> Option<String> {
        let nonce = locked(&self.refusals).nonce.clone()?;
        let said = received.header("dpop").and_then(unverified_claims);
        (said.as_ref().and_then(|claims| claims.get("nonce")?.as_str()) != Some(&nonce)).then_some(nonce)
    }

    fn next_nonce(&self) -> Option<String> {
        locked(&self.refusals).next_nonce.clone()
    }
}

fn with_nonce(mut answer: Response, nonce: &str) -> Response {
    if let Ok(nonce) = HeaderValue::from_str(nonce) {
        answer.headers_mut().insert("dpop-nonce", nonce);
    }
    answer
}

fn refused(scheme: &str, error: &str) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, format!("{scheme} error=\"{error}\""))];
    (StatusCode::UNAUTHORIZED, challenge, Json(json!({ "error": error }))).into_response()
}

type Arrived = Extension<Arc<Received>>;

/// Who calls, as far as the token says. The claims are read, not verified: the demo shows what arrives.
async fn whoami(Extension(received): Arrived) -> Json<Value> {
    let claims = received.token().and_then(unverified_claims).unwrap_or_default();
    let claim = |name: &str| claims.get(name).cloned().unwrap_or_default();
    Json(json!({
        "authenticated": received.token().is_some(),
        "subject": claim("sub"),
        "user": claim("preferred_username"),
        "roles": claims.pointer("/realm_access/roles").cloned().unwrap_or_default(),
        "audience": claim("aud"),
        "scope": claim("scope"),
        "expires_at": claim("exp"),
        "token_fingerprint": received.token().map(fingerprint),
        "headers": redacted(&received),
    }))
}

/// What came, on any path and by any method.
async fn echo(Extension(received): Arrived) -> Json<Value> {
    Json(described(&received))
}

fn described(received: &Received) -> Value {
    json!({
        "method": received.method,
        "path": received.path,
        "query": received.query,
        "body_bytes": received.body_bytes,
        "token_fingerprint": received.token().map(fingerprint),
        "headers": redacted(received),
    })
}

/// The header lines without what must not be seen: credentials, cookie values, and the token wherever else
/// it stands.
fn redacted(received: &Received) -> Vec<[String; 2]> {
    let token = received.token().filter(|token| !token.is_empty());
    let shown = |name: &str, value: &str| match name {
        "authorization" | "proxy-authorization" => {
            let (scheme, credentials) = value.split_once(' ').unwrap_or(("", value));
            format!("{scheme} (hidden, fingerprint {})", fingerprint(credentials)).trim_start().to_owned()
        }
        "cookie" => value.split(';').map(cookie_name).collect::<Vec<_>>().join("; "),
        _ => token.map_or_else(|| value.to_owned(), |token| value.replace(token, "(hidden)")),
    };
    received.headers.iter().map(|(name, value)| [name.clone(), shown(name, value)]).collect()
}

fn cookie_name(pair: &str) -> String {
    match pair.trim().split_once('=') {
        Some((name, _)) => format!("{name}=(hidden)"),
        None => "(hidden)".to_owned(),
    }
}

/// Answers with any status a server may end with.
async fn status(Path(code): Path<u16>, Extension(received): Arrived) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if !status.is_informational() => (status, Json(described(&received))).into_response(),
        _ => (StatusCode::BAD_REQUEST, Json(json!({ "error": "a status from 200 to 999" }))).into_response(),
    }
}

/// Sets a cookie for each pair of the query, or the whole line given as `raw`.
async fn set_cookie(RawQuery(query): RawQuery, Extension(received): Arrived) -> Response {
    let mut response = Json(described(&received)).into_response();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let line = if name == "raw" { value.into_owned() } else { format!("{name}={value}; Path=/") };
        if let Ok(line) = HeaderValue::from_str(&line) {
            response.headers_mut().append(header::SET_COOKIE, line);
        }
    }
    response
}

/// Sets a response header for each pair of the query.
async fn set_header(RawQuery(query): RawQuery, Extension(received): Arrived) -> Response {
    let mut response = Json(described(&received)).into_response();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

#[derive(Deserialize)]
struct Size {
    bytes: usize,
}

/// An answer of any size up to 1 GiB, made as it is sent.
async fn large(Query(Size { bytes }): Query<Size>) -> Response {
    if bytes > BODY_LIMIT {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "at most 1 GiB" }))).into_response();
    }
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = stream::iter((0..bytes.div_ceil(CHUNK)).map(move |index| {
        let rest = bytes - index * CHUNK;
        Ok::<_, io::Error>(chunk.slice(..rest.min(CHUNK)))
    }));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(bytes)),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
mod tests;
