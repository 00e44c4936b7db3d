//! The only Pingora [`ProxyHttp`] code: one file a hook. A hook reads the request, calls one function, writes the
//! answer; what is decided is decided in [`crate::gate`].

mod compress;
mod failure;
mod fields;
mod files;
mod leash;
mod request;
mod respond;
mod response;
mod retry;
mod stream;
mod unauthorized;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{Error, HttpPeer, ProxyHttp, Session};
use pingora_proxy::{FailToProxy, ProxyWarnLogContext};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::config::settings::Limits;
use crate::gate::{self, Dress, Fields, Gate, Pass, Scheme};
use crate::listener::{self, Connection, Overload};
use crate::routing::tunnel::CloseCode;
use crate::telemetry::handles::InFlight;

/// Cloakroom as Pingora runs it.
pub struct Proxy {
    gate: Arc<Gate>,
    limits: Limits,
    overload: Overload,
}

/// What is remembered from hook to hook of one request.
pub struct Context {
    connection: Option<Arc<Connection>>,
    started: Instant,
    pass: Option<Box<Pass>>,
    in_flight: Option<InFlight>,
    /// Attempts at an upstream so far.
    attempts: usize,
    /// Endpoint of the present attempt.
    address: Option<SocketAddr>,
    /// Endpoints that failed this request.
    failed: Vec<SocketAddr>,
    upstream_started: Option<Instant>,
    body_bytes: u64,
    /// When its first piece came.
    body_began: Option<Instant>,
    /// The protocol was switched: what flows is no body.
    tunnel: bool,
    /// Tells the tunnel to end.
    close: Option<oneshot::Sender<CloseCode>>,
    /// The upstream refused the token, and the request is sent again with a newer one.
    sent_again: bool,
    /// What the client gets in place of the upstream's answer.
    instead: Option<Box<Answer>>,
    /// Status of an answer of our own.
    answered: Option<StatusCode>,
    /// What an answer to a request that does not pass wears.
    dress: Option<Dress>,
    /// Compresses the answer.
    encoder: Option<compress::Encoder>,
}

impl Context {
    /// Puts on what the site and the route want every answer to wear.
    fn dress(&self, fields: &mut impl Fields) {
        match (&self.pass, &self.dress) {
            (Some(pass), _) => {
                let tls = pass.client.scheme == Scheme::Https;
                gate::put_on(fields, &pass.site, Some(&pass.route), pass.grant.as_ref(), tls);
            }
            (None, Some(dress)) => dress.put_on(fields),
            (None, None) => {}
        }
    }
}

impl Proxy {
    /// In front of everything that the gate knows.
    #[must_use]
    pub fn new(gate: Arc<Gate>, limits: Limits, overload: Overload) -> Self {
        Self { gate, limits, overload }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            connection: listener::request_began(),
            started: Instant::now(),
            pass: None,
            in_flight: None,
            attempts: 0,
            address: None,
            failed: Vec::new(),
            upstream_started: None,
            body_bytes: 0,
            body_began: None,
            tunnel: false,
            close: None,
            sent_again: false,
            instead: None,
            answered: None,
            dress: None,
            encoder: None,
        }
    }

    /// None: the module that Pingora adds by itself compresses answers once it is switched on, and costs every request
    /// until then; see [`compress`].
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        request::filter(self, session, ctx).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        upstream::peer(session, ctx)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        retry::failed_to_connect(ctx, error)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        upstream::request(session, upstream_request, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        upstream::body(&self.limits, session, body, end_of_stream, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        if unauthorized::is_refusal(upstream_response) {
            // On the heap: it is rare, and would make this future large for all others.
            Box::pin(unauthorized::filter(&self.gate, session, upstream_response, ctx)).await?;
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        retry::after_error(session, error, ctx, client_reused)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        response::filter(&self.gate, session, upstream_response, ctx)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        compress::body(body, end_of_stream, ctx)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        _upstream_trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> pingora::Result<Option<Bytes>> {
        compress::end(ctx)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        failure::answer(session, error, ctx).await
    }

    /// What Pingora writes beside an error: no path and no query, for there may be a code or a token in them (behaviour
    /// D3).
    fn request_summary(&self, session: &Session, ctx: &Context) -> String {
        failure::summary(session, ctx)
    }

    /// Clients that go away or send nonsense are no trouble of ours, and what could not be parsed may hold a secret. Work
    /// refused for want of memory is told once, not for each request.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, error: &Error) -> bool {
        failure::is_the_clients(error) || failure::quotes_bytes(error) || failure::is_shed(error)
    }

    /// Requests that are sent again are counted; a line each would only make an outage worse.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        tracing::debug!(reason = failure::told(error), "a request is sent again");
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        response::finished(&self.gate, session, error, ctx);
    }
}
