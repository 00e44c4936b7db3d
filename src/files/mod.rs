//! A folder of files as answers, so that a single-page application needs no server of its own.
//!
//! No file server there is drives this, and why: `tower-http`'s `ServeDir` and `hyper-staticfile` can be called without a
//! stack of middleware, but they follow links out of the folder, serve dotfiles, and their futures give a body of `hyper`
//! that would have to be unwrapped again for Pingora; the first knows no entity tags. `http-serve` has a release candidate
//! only, and reads within `block_in_place`, on a thread that serves requests. What is left is what a route's policy
//! decides anyway: which file, and what is said about it. So the file is found in [`find`], judged against the request's
//! conditions in [`conditions`], and described in [`kind`]; the syntax of `Range`, of dates and of file kinds is that of
//! `http-range-header`, `httpdate` and `mime_guess`.
//!
//! Whatever touches the disk runs on the threads that tokio keeps for such work: one visit there finds, opens and begins
//! to read a file, and each further piece of [`PIECE`] bytes is one more. No file is ever whole in memory, nor does the
//! room remember anything between requests: what lies in the folder is what is served.

mod body;
mod conditions;
mod find;
mod kind;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, LAST_MODIFIED, VARY,
};
use http::{Method, StatusCode};

pub use body::Body;
use conditions::{Conditions, Verdict};
use find::{Found, Job};

use crate::config::settings;
use crate::primitives::coding::{Coding, accepted};

/// Most bytes of a file in memory at a time, for each request.
pub const PIECE: usize = 64 * 1024;

/// What `Allow` says of files.
pub const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// A folder of files.
#[derive(Debug)]
pub struct Files {
    root: Arc<PathBuf>,
    fallback: Option<Arc<str>>,
    precompressed: bool,
    fingerprinted: HeaderValue,
    others: HeaderValue,
}

/// A request for a file.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'r> {
    /// Method.
    pub method: &'r Method,
    /// What of the canonical path lies behind the route's: empty, or beginning with `/`.
    pub path: &'r str,
    /// Header.
    pub headers: &'r HeaderMap,
    /// Whether a page is asked for, so that the fallback will do where there is no file.
    pub page: bool,
}

/// What there is to say.
#[derive(Debug)]
pub enum Reply {
    /// This head, and perhaps a body.
    File(Head, Option<Body>),
    /// A folder: it is to be asked for with a final slash, or the links in its page would not fit.
    Folder,
    /// There is nothing.
    NotFound,
    /// Files are only read.
    MethodNotAllowed,
}

/// Status and fields of an answer.
#[derive(Debug)]
pub struct Head {
    /// 200, 206, 304, 412 or 416.
    pub status: StatusCode,
    /// `Content-Length` among them where there is a body, or would be one.
    pub headers: HeaderMap,
}

impl Files {
    /// Prepares a folder. `public`: caches on the way may keep its files for everybody.
    #[must_use]
    pub fn new(settings: &settings::Files, public: bool) -> Self {
        let scope = if public { "public" } else { "private" };
        let keep = |age: Duration, more: &str| {
            let value = format!("{scope}, max-age={}{more}", age.as_secs());
            HeaderValue::from_str(&value).ok().filter(|_| !age.is_zero()).unwrap_or_else(|| ASK_AGAIN.clone())
        };
        Self {
            root: Arc::new(settings.root.clone()),
            fallback: settings.fallback.as_deref().map(Into::into),
            precompressed: settings.precompressed,
            fingerprinted: keep(settings.fingerprinted, ", immutable"),
            others: keep(settings.max_age, ""),
        }
    }

    /// Finds the file and begins to read it.
    ///
    /// # Errors
    /// If the disk fails; that a file is not there, or not ours to show, is no error.
    pub async fn answer(&self, ask: Ask<'_>) -> io::Result<Reply> {
        if !matches!(*ask.method, Method::GET | Method::HEAD) {
            return Ok(Reply::MethodNotAllowed);
        }
        let Some(wanted) = find::wanted(ask.path) else { return Ok(Reply::NotFound) };
        let offered: &[Coding] = if self.precompressed { &[Coding::Brotli, Coding::Zstd, Coding::Gzip] } else { &[] };
        let job = Job {
            root: self.root.clone(),
            fallback: self.fallback.clone().filter(|_| ask.page && !kind::is_asset(&wanted.name)),
            wanted,
            codings: accepted(ask.headers, offered).collect(),
        };
        let conditions = Conditions::of(ask.method, ask.headers);
        let (found, opened) = match tokio::task::spawn_blocking(move || job.run(&conditions)).await {
            Ok(done) => match done? {
                Found::File(found, opened) => (found, opened),
                Found::Folder => return Ok(Reply::Folder),
                Found::Nothing => return Ok(Reply::NotFound),
            },
            Err(error) => return Err(io::Error::other(error)),
        };
        let (status, range) = match opened {
            Verdict::Whole => (StatusCode::OK, None),
            Verdict::Part(first, last) => (StatusCode::PARTIAL_CONTENT, Some((first, last))),
            Verdict::NotModified => (StatusCode::NOT_MODIFIED, None),
            Verdict::Failed => (StatusCode::PRECONDITION_FAILED, None),
            Verdict::NoSuchPart => (StatusCode::RANGE_NOT_SATISFIABLE, None),
        };
        let mut headers = HeaderMap::with_capacity(10);
        if self.precompressed {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        headers.insert(CACHE_CONTROL, self.cache_control(&found.name).clone());
        if let Some(tag) = &found.tag {
            headers.insert(ETAG, tag.clone());
        }
        if let Some(date) = found.modified.and_then(|time| HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()) {
            headers.insert(LAST_MODIFIED, date);
        }
        let size = found.size;
        let length = match status {
            StatusCode::OK => size,
            StatusCode::PARTIAL_CONTENT => range.map_or(0, |(first, last)| last - first + 1),
            _ => 0,
        };
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            headers.insert(CONTENT_TYPE, kind::content_type(&found.name));
            if let Some(coding) = found.coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
            }
        }
        let content_range = match (status, range) {
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => Some(format!("bytes */{size}")),
            (_, Some((first, last))) => Some(format!("bytes {first}-{last}/{size}")),
            _ => None,
        };
        if let Some(value) = content_range.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(CONTENT_RANGE, value);
        }
        if status != StatusCode::NOT_MODIFIED {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let body = found.body.filter(|_| length > 0);
        Ok(Reply::File(Head { status, headers }, body))
    }

    /// HTML names the files that belong to it, so that it is what tells a browser of new ones: it is asked for each time.
    fn cache_control(&self, name: &str) -> &HeaderValue {
        if kind::is_html(name) {
            &ASK_AGAIN
        } else if kind::is_fingerprinted(name) {
            &self.fingerprinted
        } else {
            &self.others
        }
    }
}

static ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// What was found: a file, opened, of which as much was read as one piece holds.
#[derive(Debug)]
struct File {
    /// The name that was asked for: its kind is the file's, also where a compressed one is sent.
    name: String,
    size: u64,
    coding: Option<Coding>,
    tag: Option<HeaderValue>,
    modified: Option<SystemTime>,
    body: Option<Body>,
}
