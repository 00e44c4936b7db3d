//! The spans of a request: its own, and one for each attempt at an upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderMap, USER_AGENT};
use http::{StatusCode, Version};
use pingora::prelude::Session;

use super::{Context, access, request};
use crate::gate::{Gate, Scheme};
use crate::primitives::path;
use crate::telemetry::access::{Field, PATH};
use crate::telemetry::handles::method_label;
use crate::telemetry::traces::{Scope, Span, Trace, Tracer, Value, some_id};

/// The name of the route of requests that have none.
const NO_ROUTE: &str = "none";

/// The trace of a request.
pub(super) struct Traced {
    tracer: Tracer,
    trace: Trace,
    attempt: Option<Attempt>,
}

/// A request to an upstream.
struct Attempt {
    span: u64,
    began: Instant,
    upstream: Arc<str>,
    address: SocketAddr,
    method: &'static str,
    /// How often the request was sent before.
    resent: usize,
    answer: Option<(StatusCode, Duration)>,
}

/// A request begins.
pub(super) fn begin(gate: &Gate, session: &Session, ctx: &mut Context) {
    if gate.traces.is_some() {
        let view = request::view(session.req_header(), session, &ctx.connection);
        let traced = gate.trace(&view).map(|(tracer, trace)| Box::new(Traced { tracer, trace, attempt: None }));
        ctx.traced = traced;
    }
}

impl Context {
    /// What is done for the request in this scope is told of.
    pub(super) fn scope(&self) -> Option<Scope> {
        let traced = self.traced.as_ref()?;
        traced.trace.scope(&traced.tracer)
    }
}

impl Traced {
    /// Its id.
    pub(super) fn id(&self) -> u128 {
        self.trace.id()
    }

    /// An attempt begins; the one before is over.
    pub(super) fn attempt(
        &mut self,
        (upstream, address): (&Arc<str>, SocketAddr),
        method: &http::Method,
        resent: usize,
        began: Instant,
    ) {
        if !self.trace.is_sampled() {
            return;
        }
        self.end_attempt(began, Some("sent_again"));
        let (upstream, method) = (upstream.clone(), standard(method));
        self.attempt = Some(Attempt { span: some_id(), began, upstream, address, method, resent, answer: None });
    }

    /// The header of its answer has come.
    pub(super) fn answered(&mut self, status: StatusCode, took: Duration) {
        if let Some(attempt) = &mut self.attempt {
            attempt.answer = Some((status, took));
        }
    }

    /// Tells the upstream of the trace.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        self.trace.write(headers, self.attempt.as_ref().map_or_else(|| self.trace.span(), |attempt| attempt.span));
    }

    /// From the request to the header of its answer, or to its failure.
    fn end_attempt(&mut self, now: Instant, failed: Option<&'static str>) {
        let Some(attempt) = self.attempt.take() else { return };
        let took = attempt.answer.map_or_else(|| now.saturating_duration_since(attempt.began), |(_, took)| took);
        let mut span = self.trace.child_span(attempt.span, attempt.method, attempt.began, took);
        span.set("http.request.method", Value::Word(attempt.method));
        span.set("server.address", Value::Text(attempt.address.ip().to_string()));
        span.set("server.port", Value::Number(attempt.address.port().into()));
        span.set("cloakroom.upstream", Value::Name(attempt.upstream));
        if attempt.resent > 0 {
            span.set("http.request.resend_count", Value::Number(u64::try_from(attempt.resent).unwrap_or(u64::MAX)));
        }
        match (attempt.answer, failed) {
            (Some((status, _)), _) => answer(&mut span, status, status.as_u16() >= 400),
            (None, failed) => span.fail(failed.unwrap_or("no_answer")),
        }
        self.tracer.tell(span);
    }
}

/// The request is over.
pub(super) fn finish(
    gate: &Gate,
    session: &Session,
    ctx: &mut Context,
    reason: Option<&'static str>,
    (status, took): (Option<StatusCode>, Duration),
) {
    let Some(mut traced) = ctx.traced.take() else { return };
    if !traced.trace.is_sampled() {
        return;
    }
    traced.end_attempt(ctx.started + took, reason);
    let header = session.req_header();
    let omit = gate.traces.as_ref().map_or_else(Default::default, |traces| traces.omit);
    let route = ctx.in_flight.as_ref().map_or(&gate.unknown, |in_flight| in_flight.route());
    let (site, route) = route.names();
    let method = standard(&header.method);
    let route = Some(route).filter(|route| *route != NO_ROUTE);
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let mut span = traced.trace.own_span(name, ctx.started, took);
    let scheme = match (&ctx.pass, &ctx.connection) {
        (Some(pass), _) => pass.client.scheme,
        (None, Some(connection)) if connection.tls => Scheme::Https,
        _ => Scheme::Http,
    };
    let version = match header.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    span.set("http.request.method", Value::Word(method));
    span.set("url.scheme", Value::Word(scheme.as_str()));
    // What is longer was refused, as a rule, and would only fill the queue.
    let told = !omit.has(Field::Path) && header.raw_path_is_utf8() && header.uri.path().len() <= PATH;
    if let Some(path) = told.then(|| path::canonical(header.uri.path()).ok()).flatten() {
        span.set("url.path", Value::Text(path.into_owned()));
    }
    if let Some(route) = route {
        span.set("http.route", Value::Text(route.to_owned()));
    }
    span.set("server.address", Value::Text(site.to_owned()));
    if !omit.has(Field::ClientIp) {
        span.set("client.address", Value::Text(access::client_ip(gate, session, ctx).to_canonical().to_string()));
    }
    span.set("network.protocol.version", Value::Word(version));
    let agent = header.headers.get(USER_AGENT).filter(|_| !omit.has(Field::UserAgent));
    if let Some(agent) = agent.and_then(|agent| agent.to_str().ok()) {
        span.set("user_agent.original", Value::Text(agent.chars().take(256).collect()));
    }
    if let Some(open) = ctx.pass.as_ref().and_then(|pass| pass.session.as_ref()) {
        if !omit.has(Field::Auth) {
            span.set("session.id", Value::Text(traced.tracer.name_of(open.key().as_bytes())));
        }
        span.set("cloakroom.provider", Value::Name(open.shared_provider().clone()));
    }
    if let Some(reason) = reason {
        span.set("cloakroom.reason", Value::Word(reason));
    }
    match status {
        // What clients do wrong is no failure of the server's.
        Some(status) => answer(&mut span, status, status.is_server_error()),
        None => span.fail(reason.unwrap_or("no_answer")),
    }
    traced.tracer.tell(span);
}

fn answer(span: &mut Span, status: StatusCode, failed: bool) {
    span.set("http.response.status_code", Value::Number(status.as_u16().into()));
    if failed {
        span.fail(status.as_str().to_owned());
    }
}

/// As the semantic conventions for HTTP write methods.
fn standard(method: &http::Method) -> &'static str {
    match method_label(method) {
        "OTHER" => "_OTHER",
        known => known,
    }
}
