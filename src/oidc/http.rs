//! Outgoing HTTP to a provider: no redirects, no proxy variables, short deadlines, capped answers (behaviour H7).
//!
//! What went wrong is decided here, before any parser sees the answer, because a refresh token that may have been
//! used is another case than one that was never sent (behaviour R10).

mod call;
mod observer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use openidconnect::{HttpRequest, HttpResponse};
use url::Url;

pub use self::observer::{Endpoint, Observer, Outcome};
use super::credentials::Credentials;
use super::dpop::Dpop;
use super::text;
use super::tls::{self, Tls};
use crate::primitives::dpop::{USE_NONCE, asks_for_nonce, authorization};
use crate::primitives::secret::SecretText;

/// A provider that asks for more patience than this is asked again anyway.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Kept connections are dropped before a provider drops them: a request on a connection that is just being closed
/// leaves us in doubt whether it arrived. Node.js and some others drop them after five seconds.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// How long a request may take and how large its answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// DNS, TCP and TLS; default 2 s.
    pub connect: Duration,
    /// From start to the last byte of the answer; default 5 s.
    pub total: Duration,
    /// The same for a refresh: default 30 s. It runs in a task of its own, and whoever gives it up early is left in
    /// doubt whether the refresh token is used up (behaviour R8, R9).
    pub refresh: Duration,
    /// Bytes of the answer's body; default 1 MiB.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            total: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            body: 1 << 20,
        }
    }
}

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `rustls` has no process-wide crypto provider yet; the program installs it first thing.
    #[error("no crypto provider is installed")]
    NoCryptoProvider,
    /// No trusted certificates could be loaded, or the like.
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

/// Why there is no answer to parse. No text here comes from an answer's body or from a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No connection: the provider has seen nothing.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// The request may have arrived.
    #[error("no complete answer in time")]
    Timeout,
    /// The request may have arrived.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The request arrived.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// An answer that no parser needs to see.
    #[error("status {}", status.as_u16())]
    Status {
        /// As it came.
        status: StatusCode,
        /// How long to wait, if the provider says.
        retry_after: Option<Duration>,
    },
    /// The provider wants its nonce in the DPoP proof, which it has given us (RFC 9449 §8, §9): nothing was done.
    #[error("a DPoP proof with the provider's nonce is refused for want of another")]
    NonceWanted,
    /// The request is no HTTP request; nothing was sent.
    #[error("the request cannot be built")]
    Invalid,
}

impl Error {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotSent(_) | Self::Invalid => Outcome::Unreachable,
            Self::NonceWanted => Outcome::Refused,
            Self::Timeout => Outcome::Timeout,
            Self::Broken(_) | Self::TooLarge(_) => Outcome::Error,
            Self::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled,
            Self::Status { status, .. } if status.is_redirection() || status.is_client_error() => Outcome::Refused,
            Self::Status { .. } => Outcome::Error,
        }
    }
}

/// The HTTP client of one provider. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
    limits: Limits,
    observer: Arc<dyn Observer>,
}

impl Client {
    /// A client with the default limits.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn new(tls: Tls<'_>, observer: Arc<dyn Observer>) -> Result<Self, BuildError> {
        Self::with_limits(Limits::default(), tls, observer)
    }

    /// A client with limits of its own. Certificates are always verified.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn with_limits(limits: Limits, tls: Tls<'_>, observer: Arc<dyn Observer>) -> Result<Self, BuildError> {
        // reqwest panics without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(BuildError::NoCryptoProvider);
        }
        let builder = match tls::config(tls).map_err(BuildError::Client)? {
            Some(config) => reqwest::Client::builder().tls_backend_preconfigured(config),
            None => reqwest::Client::builder(),
        };
        let inner = builder
            .user_agent(concat!("cloakroom/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A refresh token is shown once (behaviour R2): nobody repeats a request but its owner.
            .retry(reqwest::retry::never())
            .http1_only()
            .no_proxy()
            .referer(false)
            .connect_timeout(limits.connect)
            .pool_idle_timeout(POOL_IDLE)
            .build()
            .map_err(|e| BuildError::Client(chain(e)))?;
        Ok(Self { inner, limits, observer })
    }

    /// Tells the observer of a fetched key set.
    pub(super) fn key_set(&self, good: bool) {
        self.observer.key_set(good);
    }

    /// The body of a JSON document.
    pub(super) async fn get(&self, endpoint: Endpoint, url: &Url) -> Result<Vec<u8>, Error> {
        let request = http::Request::get(url.as_str())
            .header(ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| Error::Invalid)?;
        self.send(endpoint, request, self.limits.total, None).await.map(HttpResponse::into_body)
    }

    /// The same, for the holder of an access token (RFC 6750 §2.1, RFC 9449 §7.1).
    pub(super) async fn get_as(
        &self,
        endpoint: Endpoint,
        url: &Url,
        token: &SecretText,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, Error> {
        let request = http::Request::get(url.as_str())
            .header(ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| Error::Invalid)?;
        let answer = self.send_proved(endpoint, &request, self.limits.total, credentials, Some(token)).await;
        answer.map(HttpResponse::into_body)
    }

    /// Posts a form that is proved to be ours; `accept` is the kind of answer asked for.
    pub(super) async fn post_form(
        &self,
        endpoint: Endpoint,
        url: &Url,
        form: &[(String, String)],
        accept: &'static str,
        credentials: &Credentials,
    ) -> Result<HttpResponse, Error> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = http::Request::post(url.as_str())
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.into_bytes())
            .map_err(|_| Error::Invalid)?;
        self.send_proved(endpoint, &request, self.limits.total, credentials, None).await
    }

    /// Posts JSON, or nothing, and returns the body of a good answer. `token` goes into `Authorization`.
    pub(crate) async fn post(
        &self,
        endpoint: Endpoint,
        url: &Url,
        token: Option<&SecretText>,
        json: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let mut request = http::Request::post(url.as_str()).header(ACCEPT, "application/json");
        if !json.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, authorization(false, token).ok_or(Error::Invalid)?);
        }
        let request = request.body(json).map_err(|_| Error::Invalid)?;
        let total = if endpoint == Endpoint::Refresh { self.limits.refresh } else { self.limits.total };
        self.send(endpoint, request, total, None).await.map(HttpResponse::into_body)
    }

    /// One attempt; with `dpop` it has a proof in it, and the answer may ask for another.
    pub(super) async fn send(
        &self,
        endpoint: Endpoint,
        request: HttpRequest,
        total: Duration,
        dpop: Option<&Dpop>,
    ) -> Result<HttpResponse, Error> {
        let started = Instant::now();
        let result = self.exchange(endpoint, request, total, dpop).await;
        let outcome = match &result {
            Ok(answer) if answer.status().is_success() => Outcome::Ok,
            Ok(_) => Outcome::Refused,
            Err(error) => error.outcome(),
        };
        self.observer.request(endpoint, outcome, started.elapsed());
        result
    }

    async fn exchange(
        &self,
        endpoint: Endpoint,
        request: HttpRequest,
        total: Duration,
        dpop: Option<&Dpop>,
    ) -> Result<HttpResponse, Error> {
        let mut request = reqwest::Request::try_from(request).map_err(|_| Error::Invalid)?;
        *request.timeout_mut() = Some(total);
        let mut answer = self.inner.execute(request).await.map_err(classify)?;
        let status = answer.status();
        let nonce = dpop.is_some_and(|dpop| dpop.hear(endpoint, answer.headers()));
        if nonce && status == StatusCode::UNAUTHORIZED && asks_for_nonce(answer.headers()) {
            return Err(Error::NonceWanted);
        }
        let unparsed = Error::Status { status, retry_after: retry_after(answer.headers()) };
        let oauth = matches!(endpoint, Endpoint::Token | Endpoint::Revocation | Endpoint::Pushed);
        let may_be_an_oauth_error = oauth
            && status.is_client_error()
            && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
        let good = match endpoint {
            // RFC 7009 §2.2 says 200 and ignores the body; some say 204.
            Endpoint::Revocation | Endpoint::Logout => status.is_success(),
            // RFC 9126 §2.2 says 201, some say 200; and to some backends a session is a thing that is made.
            Endpoint::Pushed | Endpoint::Login | Endpoint::Refresh => {
                matches!(status, StatusCode::OK | StatusCode::CREATED)
            }
            // No content says that a token is not active, to who asks for a token in its place.
            Endpoint::Introspection => matches!(status, StatusCode::OK | StatusCode::NO_CONTENT),
            Endpoint::Discovery | Endpoint::Jwks | Endpoint::Token | Endpoint::UserInfo => status == StatusCode::OK,
        };
        if !good && !may_be_an_oauth_error {
            if answer.headers().contains_key(LOCATION) {
                tracing::debug!(endpoint = endpoint.as_str(), "a redirect is not followed");
            }
            return Err(unparsed);
        }
        let body = self.body(&mut answer).await?;
        let error = oauth_error(&body);
        if may_be_an_oauth_error && error.is_none() {
            return Err(unparsed);
        }
        // Some token endpoints refuse with 200. What RFC 6749 §5.2 calls an error is one, unless there is a token too.
        let refused = good && endpoint == Endpoint::Token && error.is_some() && !has_access_token(&body);
        if nonce && (refused || !good) && error.as_deref() == Some(USE_NONCE) {
            return Err(Error::NonceWanted);
        }
        let mut out = http::Response::new(body);
        *out.status_mut() = match (good, refused) {
            (_, true) => StatusCode::BAD_REQUEST,
            (true, false) if endpoint == Endpoint::Introspection => status,
            (true, false) => StatusCode::OK,
            (false, false) => status,
        };
        *out.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(out)
    }

    /// Reads by chunks: a `Content-Length` may lie, and there may be none.
    async fn body(&self, answer: &mut reqwest::Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(classify)? {
            if chunk.len() > self.limits.body.saturating_sub(body.len()) {
                return Err(Error::TooLarge(self.limits.body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn classify(error: reqwest::Error) -> Error {
    // First: a connect timeout is both, and nothing was sent.
    if error.is_connect() {
        Error::NotSent(chain(error))
    } else if error.is_timeout() {
        Error::Timeout
    } else if error.is_builder() {
        Error::Invalid
    } else {
        Error::Broken(chain(error))
    }
}

/// The innermost cause names what an operator must know ("certificate has expired"); the URL is left out.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    text::printable(&cause.to_string())
}

/// RFC 6749 §5.2: a JSON object with the text `error`.
fn oauth_error(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Shape {
        error: String,
    }
    serde_json::from_slice::<Shape>(body).ok().map(|shape| shape.error)
}

fn has_access_token(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Shape {
        #[serde(rename = "access_token")]
        _access_token: String,
    }
    serde_json::from_slice::<Shape>(body).is_ok()
}

/// Seconds or a date (RFC 9110 §10.2.3). A date is compared with the answer's own `Date`: so no clock need agree with
/// another, and without it a date is as good as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(RETRY_AFTER)?;
    let wait = match after.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let (until, now) = (httpdate::parse_http_date(after).ok()?, httpdate::parse_http_date(text(DATE)?).ok()?);
            until.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}
