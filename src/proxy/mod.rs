//! The only Pingora [`ProxyHttp`] code: one file a hook. A hook reads the request, calls one function, writes the
//! answer; what is decided is decided in [`crate::gate`].

mod access;
mod compress;
mod deadline;
mod failure;
mod fields;
mod files;
mod leash;
mod request;
mod respond;
mod response;
mod retry;
mod stream;
mod traces;
mod unauthorized;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{Error, HttpPeer, ProxyHttp, Session};
use pingora_proxy::{FailToProxy, ProxyWarnLogContext};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::config::settings::Limits;
use crate::gate::{self, Dress, Gate, Pass, Scheme};
use crate::listener::{self, Connection, Overload};
use crate::routing::tunnel::CloseCode;
use crate::routing::upstream::{Target, UnderWay};
use crate::session::context::UPDATE as USER_CONTEXT_UPDATE;
use crate::telemetry::access::Draft;
use crate::telemetry::handles::InFlight;
#[cfg(any(test, fuzzing))]
pub(crate) use upstream::set_path;

/// Cloakroom as Pingora runs it.
pub struct Proxy {
    gate: Arc<ArcSwap<Gate>>,
    limits: Limits,
    overload: Overload,
}

/// A request from hook to hook: the gate that held when it began, to its end, and what is remembered of it.
pub struct Passage {
    gate: Arc<Gate>,
    context: Context,
}

/// What is remembered from hook to hook of one request.
pub struct Context {
    connection: Option<Arc<Connection>>,
    started: Instant,
    pass: Option<Box<Pass>>,
    in_flight: Option<InFlight>,
    /// Attempts at an upstream so far.
    attempts: usize,
    /// Address of the present attempt.
    target: Option<Arc<Target>>,
    /// Counts it there.
    under_way: Option<UnderWay>,
    /// Addresses that failed this request.
    failed: Vec<SocketAddr>,
    upstream_started: Option<Instant>,
    /// From the request to the header of the upstream's answer.
    upstream_took: Option<Duration>,
    /// When it must be over, if its route says so.
    deadline: Option<Instant>,
    body_bytes: u64,
    /// When its first piece came.
    body_began: Option<Instant>,
    /// The protocol was switched: what flows is no body.
    tunnel: bool,
    /// Tells the tunnel to end.
    close: Option<oneshot::Sender<CloseCode>>,
    /// The upstream refused the token, and the request is sent again with a newer one.
    sent_again: bool,
    /// The present attempt has a DPoP proof.
    proved: bool,
    /// The upstream wanted its nonce in the proof, and the request is sent again with it.
    proved_again: bool,
    /// What the client gets in place of the upstream's answer.
    instead: Option<Box<Answer>>,
    /// Status of an answer of our own.
    answered: Option<StatusCode>,
    /// Why it was answered otherwise than asked.
    reason: Option<&'static str>,
    /// What is told of it should it be cut off.
    draft: Option<Draft>,
    /// Its trace, if traces are made.
    traced: Option<Box<traces::Traced>>,
    /// What an answer to a request that does not pass wears.
    dress: Option<Dress>,
    /// Compresses the answer.
    encoder: Option<compress::Encoder>,
}

impl Context {
    /// Puts on what the site and the route want every answer to wear.
    fn dress(&self, headers: &mut HeaderMap) {
        match (&self.pass, &self.dress) {
            (Some(pass), _) => {
                let tls = pass.client.scheme == Scheme::Https;
                gate::put_on(headers, &pass.site, Some(&pass.route), pass.grant.as_ref(), tls);
            }
            (None, Some(dress)) => dress.put_on(headers),
            (None, None) => {}
        }
    }
}

impl Proxy {
    /// In front of everything that the gate knows, whichever gate it is at the time.
    #[must_use]
    pub fn new(gate: Arc<ArcSwap<Gate>>, limits: Limits, overload: Overload) -> Self {
        Self { gate, limits, overload }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Passage;

    fn new_ctx(&self) -> Passage {
        let context = Context {
            connection: listener::request_began(),
            started: Instant::now(),
            pass: None,
            in_flight: None,
            attempts: 0,
            target: None,
            under_way: None,
            failed: Vec::new(),
            upstream_started: None,
            upstream_took: None,
            deadline: None,
            body_bytes: 0,
            body_began: None,
            tunnel: false,
            close: None,
            sent_again: false,
            proved: false,
            proved_again: false,
            instead: None,
            answered: None,
            reason: None,
            draft: None,
            traced: None,
            dress: None,
            encoder: None,
        };
        Passage { gate: self.gate.load_full(), context }
    }

    /// None: the module that Pingora adds by itself compresses answers once it is switched on, and costs every request
    /// until then; see [`compress`].
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Passage) -> pingora::Result<bool> {
        request::filter(self, &ctx.gate, session, &mut ctx.context).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Passage) -> pingora::Result<Box<HttpPeer>> {
        upstream::peer(session, &mut ctx.context)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Passage,
        error: Box<Error>,
    ) -> Box<Error> {
        retry::failed_to_connect(&mut ctx.context, error)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Passage,
    ) -> pingora::Result<()> {
        if upstream_request.version == Version::HTTP_2 && upstream_request.headers.contains_key(EXPECT) {
            // On the heap, for it is rare.
            Box::pin(upstream::go_on(session, upstream_request)).await?;
        }
        upstream::request(&ctx.gate, session, upstream_request, &mut ctx.context)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Passage,
    ) -> pingora::Result<()> {
        upstream::body(&self.limits, session, body, end_of_stream, &mut ctx.context)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Passage,
    ) -> pingora::Result<()> {
        let context = &mut ctx.context;
        let nonce = context.proved && unauthorized::take_nonce(upstream_response, context);
        if unauthorized::is_refusal(upstream_response) {
            // On the heap: it is rare, and would make this future large for all others.
            Box::pin(unauthorized::filter(&ctx.gate, session, upstream_response, nonce, context)).await?;
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Passage,
        client_reused: bool,
    ) -> Box<Error> {
        retry::after_error(session, error, &mut ctx.context, client_reused)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Passage,
    ) -> pingora::Result<()> {
        if upstream_response.headers.contains_key(&USER_CONTEXT_UPDATE) {
            if let Some(pass) = &ctx.context.pass {
                // On the heap: it is rare, and would make this future large for all others.
                Box::pin(ctx.gate.take_context(pass, &upstream_response.headers)).await;
            }
            upstream_response.remove_header(&USER_CONTEXT_UPDATE);
        }
        response::filter(&ctx.gate, session, upstream_response, &mut ctx.context)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Passage,
    ) -> pingora::Result<Option<Duration>> {
        compress::body(body, end_of_stream, &mut ctx.context)?;
        // A tunnel may be silent for long after a large message.
        if let (Some(piece), Some(connection), false) = (body, &ctx.context.connection, ctx.context.tunnel) {
            connection.hold(piece);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        upstream_trailers: &mut HeaderMap,
        ctx: &mut Passage,
    ) -> pingora::Result<Option<Bytes>> {
        response::trailers(upstream_trailers);
        compress::end(&mut ctx.context)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Passage) -> FailToProxy {
        failure::answer(session, error, &mut ctx.context).await
    }

    /// What Pingora writes beside an error: no path and no query, for there may be a code or a token in them (behaviour
    /// D3).
    fn request_summary(&self, session: &Session, ctx: &Passage) -> String {
        failure::summary(session, &ctx.context)
    }

    /// Clients that go away or send nonsense are no trouble of ours, and what could not be parsed may hold a secret. Work
    /// refused for want of memory is told once, not for each request.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Passage, error: &Error) -> bool {
        failure::is_the_clients(error) || failure::quotes_bytes(error) || failure::is_shed(error)
    }

    /// Requests that are sent again are counted; a line each would only make an outage worse.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Passage,
        error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        tracing::debug!(reason = failure::told(error), "a request is sent again");
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Passage) {
        response::finished(&ctx.gate, session, error, &mut ctx.context);
    }
}
