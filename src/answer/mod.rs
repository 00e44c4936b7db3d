//! Answers that Cloakroom writes itself: one builder, so that each of them has its cookies, its security headers and
//! `no-store` (answers of our own pass no response hook).

mod grpc;
mod page;
mod problem;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

pub use grpc::grpc_kind;
pub use page::{Choice, Page, continue_to};
pub use problem::Code;

/// Marks an answer as ours and names the [`Code`], so that a page can tell it from its API's.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("cloakroom-error");

/// A whole answer of our own.
#[derive(Debug)]
pub struct Answer(Response<Bytes>);

impl Answer {
    fn new(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(kind) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Self(response)
    }

    /// Goes on at `location` with GET (303, so that a POST is never repeated there; behaviour L12). `None` if the
    /// location cannot stand in a header.
    #[must_use]
    pub fn redirect(location: &str) -> Option<Self> {
        let mut answer = Self::new(StatusCode::SEE_OTHER, None, Bytes::new());
        answer.0.headers_mut().insert(header::LOCATION, HeaderValue::from_str(location).ok()?);
        Some(answer)
    }

    /// Goes on at `location` with another status than [`Answer::redirect`]'s.
    #[must_use]
    pub fn moved(status: StatusCode, location: &str) -> Option<Self> {
        let mut answer = Self::redirect(location)?;
        *answer.0.status_mut() = status;
        Some(answer)
    }

    /// What stands in the settings.
    #[must_use]
    pub fn fixed(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        Self::new(status, None, body).header(header::CONTENT_TYPE, content_type)
    }

    /// A field of its header.
    #[must_use]
    pub fn field(&self, name: HeaderName) -> Option<&HeaderValue> {
        self.0.headers().get(name)
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.0.body()
    }

    /// A status without a body.
    #[must_use]
    pub fn status_only(status: StatusCode) -> Self {
        Self::new(status, None, Bytes::new())
    }

    /// Nothing of it is personal: caches may keep it as long as its status allows, unless a header says otherwise.
    #[must_use]
    pub fn for_everybody(mut self) -> Self {
        self.0.headers_mut().remove(header::CACHE_CONTROL);
        self
    }

    /// A JSON document.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Self {
        Self::new(StatusCode::OK, Some("application/json"), value.to_string())
    }

    /// The same with another status.
    #[must_use]
    pub fn json_with(status: StatusCode, value: &serde_json::Value) -> Self {
        Self::new(status, Some("application/json"), value.to_string())
    }

    /// 200 without a body.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(StatusCode::OK, None, Bytes::new())
    }

    /// The head of a stream of server-sent events, which no proxy on the way should collect.
    #[must_use]
    pub fn event_stream() -> Self {
        Self::new(StatusCode::OK, Some("text/event-stream"), Bytes::new())
            .header(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))
    }

    /// With the headers that belong to an error: its code, a challenge for a 401, when to come back.
    fn error_headers(mut self, code: Code) -> Self {
        self.0.extensions_mut().insert(code);
        let headers = self.0.headers_mut();
        headers.insert(ERROR_HEADER, HeaderValue::from_static(code.as_str()));
        if code.status() == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2 asks for a challenge; `Basic` would open the browser's password box.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Cloakroom"));
        }
        if let Some(seconds) = code.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        self
    }

    /// With another status, for a reader that knows few of them.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// With a cookie.
    #[must_use]
    pub fn cookie(mut self, set_cookie: Option<HeaderValue>) -> Self {
        if let Some(value) = set_cookie {
            self.0.headers_mut().append(header::SET_COOKIE, value);
        }
        self
    }

    /// With several cookies.
    #[must_use]
    pub fn cookies(self, all: impl IntoIterator<Item = HeaderValue>) -> Self {
        all.into_iter().fold(self, |answer, value| answer.cookie(Some(value)))
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// Tells that a token would do as well (RFC 6750 §3).
    #[must_use]
    pub fn or_bearer(mut self) -> Self {
        self.0.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        self
    }

    /// Asks to come back after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Status, headers and body.
    #[must_use]
    pub fn into_response(self) -> Response<Bytes> {
        self.0
    }

    /// The error that it tells of.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.0.extensions().get().copied()
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }
}
