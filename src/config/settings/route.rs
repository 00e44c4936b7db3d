//! What a route can be and do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::HostPattern;
use crate::primitives::path::PathPrefix;

/// What a request must be, beside its path, for a route to take it. Everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these hosts; empty = any of the site's.
    pub hosts: Vec<HostPattern>,
    /// One of these methods; empty = any. GET stands for HEAD too, which is listed beside it then.
    pub methods: Vec<Method>,
    /// All of these header fields, by name.
    pub headers: Vec<(HeaderName, HeaderMatch)>,
}

impl Conditions {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.methods.is_empty() && self.headers.is_empty()
    }
}

/// What a header field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// It is there.
    Present,
    /// One of its lines is exactly this.
    Exact(HeaderValue),
}

/// By what a request may show whose it is; at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The session cookie.
    pub session: bool,
    /// An access token of the client's own in `Authorization` (RFC 6750 §2.1). Where one comes, the cookie means nothing.
    pub bearer: bool,
    /// A proxy token in `Authorization`. Where one comes, the cookie means nothing.
    pub proxy_token: bool,
}

impl Accept {
    /// Whether nothing but access tokens counts.
    #[must_use]
    pub const fn is_bearer_only(self) -> bool {
        self.bearer && !self.session && !self.proxy_token
    }
}

impl Default for Accept {
    fn default() -> Self {
        Self { session: true, bearer: false, proxy_token: false }
    }
}

/// What is done with a request that may pass; exactly one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes to an upstream.
    Upstream(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered with what stands in the settings.
    Respond(Respond),
    /// It is answered with a file.
    Files(Files),
}

/// The way to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// What becomes of the path; default: it stays.
    pub rewrite: Option<Rewrite>,
    /// `Host` for the upstream; `None` = the client's.
    pub host: Option<HeaderValue>,
    /// Changes of the request's header, before ours are put in.
    pub request_headers: HeaderChanges,
    /// Media types (`type/subtype`, lower case) of answers that are compressed; empty = none.
    pub compress: Vec<String>,
}

/// The front of a path is exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Taken off; a prefix of the route's path.
    pub from: PathPrefix,
    /// Put in its place.
    pub to: PathPrefix,
}

/// The client is sent elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Path of the site, or `http` or `https` URL, without fragment. Without a final slash if `keep_path` is set.
    pub to: String,
    /// 301, 302, 303, 307 or 308; default 302.
    pub status: StatusCode,
    /// Whether what follows the route's path, and the query, is put behind `to`; default false.
    pub keep_path: bool,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599; default 200.
    pub status: StatusCode,
    /// Default empty.
    pub body: Bytes,
    /// Default `text/plain; charset=utf-8`.
    pub content_type: HeaderValue,
}

/// Files below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The folder, joined to that of the settings file. The rest of the path behind the route's names the file.
    pub root: PathBuf,
    /// File below the root that a navigation gets where there is no other; `None` = 404.
    pub fallback: Option<String>,
    /// Whether `x.br`, `x.zst` or `x.gz` is sent for `x` to who takes it; default true.
    pub precompressed: bool,
    /// How long a browser may keep files whose name holds a hash of what is in them; default 365 d.
    pub fingerprinted: Duration,
    /// The same for other files but HTML, which is always asked for again; default 0 = these too.
    pub max_age: Duration,
}

/// Changes of a header. Removed is first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// In place of what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// No more there.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// What pages of other origins may do (Fetch §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: CorsOrigins,
    /// `Access-Control-Allow-Methods`; default GET, HEAD, POST, which browsers allow in any case.
    pub methods: Vec<Method>,
    /// `Access-Control-Allow-Headers`; default none.
    pub headers: Vec<HeaderName>,
    /// `Access-Control-Expose-Headers`; default none.
    pub expose: Vec<HeaderName>,
    /// How long a browser may remember the answer to a preflight; default 10 min.
    pub max_age: Duration,
    /// Whether cookies come along; never with [`CorsOrigins::Any`]. Default false.
    pub credentials: bool,
}

/// Whose pages may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Everybody's.
    Any,
    /// Those of these origins, as a browser writes them in `Origin`.
    List(Vec<HeaderValue>),
}

/// How often one client may ask on a route; more gets 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Whose requests are counted together.
    pub by: RateBy,
    /// Most of them in any time of this length, 1 to 1,000,000.
    pub requests: u32,
    /// The length, 1 s to 1 h.
    pub per: Duration,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// Those of one client address, or of one IPv6 /64.
    Address,
    /// Those of one session.
    Session,
}

/// What protects a site's answers in the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityHeaders {
    /// `Strict-Transport-Security` over TLS (RFC 6797): how long; zero = not sent. Default 365 d.
    pub hsts: Duration,
    /// Its `includeSubDomains`; default false.
    pub hsts_subdomains: bool,
    /// `X-Content-Type-Options: nosniff`; default true.
    pub nosniff: bool,
    /// `Referrer-Policy`; default `strict-origin-when-cross-origin`; `None` = not sent.
    pub referrer_policy: Option<HeaderValue>,
    /// Who may show its pages in a frame; default the site itself.
    pub frames: Frames,
}

/// Who may show a page in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Everybody; no header is sent.
    Any,
    /// Nobody: `X-Frame-Options: DENY`.
    Nobody,
    /// Pages of the same origin: `X-Frame-Options: SAMEORIGIN`.
    SameOrigin,
    /// Pages of these, told by a `Content-Security-Policy` with this value.
    Policy(HeaderValue),
}
