//! Remembers what reached the sample API, unabridged. Only code in the same process can read it; what goes
//! back over HTTP is redacted by the API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::sync::watch;

use super::support::locked;

/// How many requests are remembered.
const CAPACITY: usize = 2_000;
/// How many bytes of a body are remembered.
const BODY_LIMIT: usize = 64 * 1024;

/// A request as it reached the API.
#[derive(Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The path as it came, not decoded.
    pub path: String,
    /// The query as it came, not decoded.
    pub query: Option<String>,
    /// `HTTP/1.0` or `HTTP/1.1`.
    pub version: String,
    /// Every header line. Names are lower case; lines of one name are kept together and in their order.
    pub headers: Vec<(String, String)>,
    /// Size of the body.
    pub body_bytes: usize,
    /// The body, up to 64 KiB of it.
    pub body: Bytes,
}

impl Received {
    pub(super) fn new(parts: &Parts, body: &Bytes) -> Self {
        Self {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            version: format!("{:?}", parts.version),
            headers: lines(&parts.headers),
            body_bytes: body.len(),
            body: body.slice(..body.len().min(BODY_LIMIT)),
        }
    }

    /// The first header line of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All header lines of this name (lower case).
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The bearer token of the request.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The access token of the request, bound to a key or not.
    pub fn token(&self) -> Option<&str> {
        self.bearer().or_else(|| self.header("authorization")?.strip_prefix("DPoP "))
    }
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// The memory of the API. Clones share it.
#[derive(Clone)]
pub struct Recorder(Arc<Memory>);

struct Memory {
    requests: Mutex<VecDeque<Received>>,
    total: watch::Sender<usize>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self(Arc::new(Memory { requests: Mutex::default(), total: watch::Sender::new(0) }))
    }

    /// The requests that came in, oldest first; the oldest are forgotten when there are too many.
    pub fn all(&self) -> Vec<Received> {
        locked(&self.0.requests).iter().cloned().collect()
    }

    /// The last request.
    pub fn last(&self) -> Option<Received> {
        locked(&self.0.requests).back().cloned()
    }

    /// How many requests came in since the start or the last `clear`, forgotten ones included.
    pub fn count(&self) -> usize {
        *self.0.total.borrow()
    }

    /// Returns once at least `count` requests came in.
    pub async fn reached(&self, count: usize) {
        // The sender lives as long as the recorder does, so this ends only by the count.
        let _ = self.0.total.subscribe().wait_for(|total| *total >= count).await;
    }

    /// Forgets all.
    pub fn clear(&self) {
        locked(&self.0.requests).clear();
        self.0.total.send_replace(0);
    }

    pub(super) fn remember(&self, received: Received) {
        let mut requests = locked(&self.0.requests);
        if requests.len() >= CAPACITY {
            requests.pop_front();
        }
        requests.push_back(received);
        drop(requests);
        self.0.total.send_modify(|total| *total += 1);
    }
}
