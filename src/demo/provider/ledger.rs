//! What the provider remembers for tests: who asked what how often, and what was given out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::http::HeaderMap;

use super::switches::Endpoint;
use crate::demo::support::{Ring, locked};

/// How many refresh-token presentations are remembered, so that a long load test stays exact.
const PRESENTATIONS: usize = 1_000_000;

/// A set of tokens given out by the token endpoint.
#[derive(Clone)]
pub struct Issued {
    /// The subject.
    pub subject: String,
    /// The provider session (`sid`).
    pub sid: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token, if one was given.
    pub refresh_token: Option<String>,
    /// The ID token, if one was given.
    pub id_token: Option<String>,
}

/// A request as it came in.
#[derive(Clone)]
pub struct Recorded {
    /// The parameters, from the form or the query, in order.
    pub parameters: Vec<(String, String)>,
    /// The header lines.
    pub headers: Vec<(String, String)>,
}

impl Recorded {
    pub(super) fn new(parameters: &[(String, String)], headers: &HeaderMap) -> Self {
        let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            parameters: parameters.to_vec(),
            headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        }
    }

    /// The first parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        first(&self.parameters, name)
    }

    /// The first header line of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The memory of the provider. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Pages>>);

struct Pages {
    counts: BTreeMap<Endpoint, usize>,
    presented: Ring<String>,
    revoked: Ring<String>,
    issued: Ring<Issued>,
    requests: BTreeMap<Endpoint, Ring<Recorded>>,
    capacity: usize,
}

impl Ledger {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Pages {
            counts: BTreeMap::new(),
            presented: Ring::new(PRESENTATIONS),
            revoked: Ring::new(capacity),
            issued: Ring::new(capacity),
            requests: BTreeMap::new(),
            capacity,
        })))
    }

    /// How often `endpoint` was called, refused calls included.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        locked(&self.0).counts.get(&endpoint).copied().unwrap_or_default()
    }

    /// How often this refresh token was shown to the token endpoint.
    pub fn presentations(&self, refresh_token: &str) -> usize {
        locked(&self.0).presented.iter().filter(|token| *token == refresh_token).count()
    }

    /// How often each refresh token was shown to the token endpoint.
    pub fn all_presentations(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for token in locked(&self.0).presented.iter() {
            *counts.entry(token.clone()).or_default() += 1;
        }
        counts
    }

    /// The tokens that were revoked by the revocation endpoint, oldest first.
    pub fn revoked(&self) -> Vec<String> {
        locked(&self.0).revoked.all()
    }

    /// The tokens given out last.
    pub fn last_issued(&self) -> Option<Issued> {
        locked(&self.0).issued.last()
    }

    /// All tokens given out, oldest first.
    pub fn issued(&self) -> Vec<Issued> {
        locked(&self.0).issued.all()
    }

    /// The requests an endpoint got (authorization, token, revocation, end of session), oldest first.
    pub fn requests(&self, endpoint: Endpoint) -> Vec<Recorded> {
        locked(&self.0).requests.get(&endpoint).map(Ring::all).unwrap_or_default()
    }

    /// The last request an endpoint got.
    pub fn last_request(&self, endpoint: Endpoint) -> Option<Recorded> {
        locked(&self.0).requests.get(&endpoint).and_then(Ring::last)
    }

    /// Forgets all, between two parts of a test.
    pub fn clear(&self) {
        let mut pages = locked(&self.0);
        pages.counts.clear();
        pages.presented.clear();
        pages.revoked.clear();
        pages.issued.clear();
        pages.requests.clear();
    }

    pub(super) fn called(&self, endpoint: Endpoint) {
        *locked(&self.0).counts.entry(endpoint).or_default() += 1;
    }

    pub(super) fn record(&self, endpoint: Endpoint, parameters: &[(String, String)], headers: &HeaderMap) {
        let mut pages = locked(&self.0);
        let capacity = pages.capacity;
        let requests = pages.requests.entry(endpoint).or_insert_with(|| Ring::new(capacity));
        requests.push(Recorded::new(parameters, headers));
    }

    pub(super) fn presented(&self, refresh_token: &str) {
        locked(&self.0).presented.push(refresh_token.to_owned());
    }

    pub(super) fn revocation(&self, token: &str) {
        locked(&self.0).revoked.push(token.to_owned());
    }

    pub(super) fn gave(&self, issued: Issued) {
        locked(&self.0).issued.push(issued);
    }
}
