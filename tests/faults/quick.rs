//! A provider that answers at once and does nothing else: where ours would be the bottleneck, or logins would take hours.
//!
//! The refresh token of session `i` after `n` refreshes is `rt.i.n`. Each is good once; whoever shows another one is
//! counted and refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Most sessions it knows.
const SESSIONS: usize = 1 << 18;

pub(crate) struct Quick {
    pub(crate) address: SocketAddr,
    pub(crate) books: Arc<Books>,
}

pub(crate) struct Books {
    issuer: String,
    latency: Duration,
    /// Life of the access tokens it gives, in seconds.
    life: AtomicU64,
    /// Refreshes of each session.
    refreshes: Vec<AtomicU32>,
    /// When each session came first, in milliseconds since 1970.
    arrivals: Vec<AtomicU64>,
    pub(crate) calls: AtomicUsize,
    /// Tokens shown that were not the current one.
    pub(crate) wrong: AtomicUsize,
    under_way: AtomicUsize,
    pub(crate) most_under_way: AtomicUsize,
}

impl Quick {
    pub(crate) async fn start(latency: Duration, life: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let books = Arc::new(Books {
            issuer: format!("http://{address}"),
            latency,
            life: AtomicU64::new(life.as_secs()),
            refreshes: std::iter::repeat_with(AtomicU32::default).take(SESSIONS).collect(),
            arrivals: std::iter::repeat_with(AtomicU64::default).take(SESSIONS).collect(),
            calls: AtomicUsize::default(),
            wrong: AtomicUsize::default(),
            under_way: AtomicUsize::default(),
            most_under_way: AtomicUsize::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/calls", get(|State(books): State<Arc<Books>>| async move { books.summary() }))
            .with_state(books.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, books }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.books.issuer
    }
}

impl Books {
    /// When a session came first, in milliseconds since 1970; 0 = never.
    pub(crate) fn arrival(&self, session: usize) -> u64 {
        self.arrivals[session].load(Ordering::SeqCst)
    }

    /// Sessions that came, and that came more than once.
    pub(crate) fn sessions(&self) -> (usize, usize) {
        let of = |least| self.refreshes.iter().filter(|count| count.load(Ordering::SeqCst) >= least).count();
        (of(1), of(2))
    }

    fn summary(&self) -> String {
        format!("{} {}", self.calls.load(Ordering::SeqCst), self.wrong.load(Ordering::SeqCst))
    }

    /// Takes the current token, once.
    fn take(&self, shown: &str) -> Option<(usize, u32)> {
        let (session, count) = shown.strip_prefix("rt.")?.split_once('.')?;
        let (session, count): (usize, u32) = (session.parse().ok()?, count.parse().ok()?);
        let current = self.refreshes.get(session)?;
        current.compare_exchange(count, count + 1, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let _ = self.arrivals[session].compare_exchange(
            0,
            u64::try_from(now).expect("not that late"),
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        Some((session, count + 1))
    }
}

/// The access token of a session, as long as wanted.
pub(crate) fn access_token(session: usize, count: u32, length: usize) -> String {
    format!("at.{session}.{count}.{}", "x".repeat(length.saturating_sub(16)))
}

pub(crate) fn refresh_token(session: usize, count: u32) -> String {
    format!("rt.{session}.{count}")
}

async fn metadata(State(books): State<Arc<Books>>) -> Json<Value> {
    let issuer = &books.issuer;
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
    }))
}

/// A key with which nothing is ever signed.
async fn jwks() -> Json<Value> {
    Json(json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "none", "x": "AAAA", "y": "AAAA", "use": "sig" }] }))
}

async fn token(State(books): State<Arc<Books>>, body: String) -> (axum::http::StatusCode, Json<Value>) {
    books.calls.fetch_add(1, Ordering::SeqCst);
    let now = books.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    books.most_under_way.fetch_max(now, Ordering::SeqCst);
    let shown = body.split('&').find_map(|pair| pair.strip_prefix("refresh_token=")).unwrap_or_default();
    let taken = books.take(shown);
    if !books.latency.is_zero() {
        tokio::time::sleep(books.latency).await;
    }
    books.under_way.fetch_sub(1, Ordering::SeqCst);
    let Some((session, count)) = taken else {
        books.wrong.fetch_add(1, Ordering::SeqCst);
        return (axum::http::StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
    };
    let answer = json!({
        "access_token": access_token(session, count, 1024),
        "token_type": "Bearer",
        "expires_in": books.life.load(Ordering::SeqCst),
        "refresh_token": refresh_token(session, count),
    });
    (axum::http::StatusCode::OK, Json(answer))
}

/// As a process of its own: prints its issuer, ends with its standard input.
pub(crate) async fn serve(latency: &str) -> ExitCode {
    let latency = Duration::from_millis(latency.parse().unwrap_or(0));
    let quick = Quick::start(latency, Duration::from_secs(3600)).await;
    println!("{}", quick.issuer());
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    ExitCode::SUCCESS
}
