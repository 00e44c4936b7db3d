//! Towards the upstream: which endpoint, which headers, how much body.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::prelude::{Error, ErrorType, HttpPeer, Session};
use tokio::sync::oneshot;

use super::{Context, deadline, fields};
use crate::config::settings::{HashOn, Limits};
use crate::gate::{self, Gate, Pass};
use crate::primitives::dpop::PROOF;
use crate::routing::upstream::{Full, Target, Upstream};
use crate::session::cookie::Foreign;

/// The client's certificate (RFC 9440).
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How many fields are put in beside those that a route asks for: token, certificate and forwarding headers.
const OURS: usize = 5;
/// A body that brings fewer bytes a second than it must.
const TOO_SLOW: ErrorType = ErrorType::HTTPStatus(408);
/// A body longer than the route takes.
pub(super) const TOO_LONG: ErrorType = ErrorType::HTTPStatus(413);

/// An address of the route's upstream; none of those that have just failed, if there is another.
pub(super) fn peer(session: &mut Session, ctx: &mut Context) -> pingora::Result<Box<HttpPeer>> {
    let pass = ctx.pass.as_ref().ok_or_else(|| Error::explain(ErrorType::InternalError, "no route was decided"))?;
    let nowhere = || Error::explain(ErrorType::InternalError, "a route without an upstream");
    let upstream = pass.upstream().ok_or_else(nowhere)?;
    let picked = match upstream.hash_on() {
        None => upstream.pick(&[], &ctx.failed),
        Some(on) => pick_by(on, upstream, session.req_header(), pass, &ctx.failed),
    };
    let Some(target) = picked else {
        return Error::e_explain(ErrorType::ConnectNoRoute, "the upstream has no address");
    };
    // A further attempt takes the place of the one before.
    ctx.under_way = None;
    let full = |error: Full| Error::explain(ErrorType::ConnectNoRoute, error.to_string()).into_up();
    ctx.under_way = Some(upstream.enter(&target).map_err(full)?);
    let now = Instant::now();
    if ctx.attempts == 0 {
        upstream.retries().note_request(now);
    }
    ctx.attempts += 1;
    ctx.upstream_started = Some(now);
    let peer = if session.is_upgrade_req() {
        // Body count and the client's deadline hold until the upstream has switched protocols.
        let (close, ending) = oneshot::channel();
        ctx.close = Some(close);
        let unusable = |problem: String| Error::explain(ErrorType::TLSHandshakeFailure, problem).into_up();
        upstream.tunnel_peer(&target, ending).map_err(unusable)?
    } else {
        let mut peer = upstream.peer(&target);
        if let Some(timeouts) = &pass.route.timeouts {
            deadline::limit(&mut peer.options, timeouts, ctx.deadline, now);
        }
        peer
    };
    if let Some(traced) = &mut ctx.traced {
        traced.attempt((upstream.name(), target.address()), &session.req_header().method, ctx.attempts - 1, now);
    }
    ctx.target = Some(target);
    Ok(peer)
}

/// The session's name in the store is a hash of its ticket's handle, so that a place on the ring tells nothing of either.
fn pick_by(
    on: &HashOn,
    upstream: &Upstream,
    request: &RequestHeader,
    pass: &Pass,
    failed: &[SocketAddr],
) -> Option<Arc<Target>> {
    let key = match on {
        HashOn::Session => pass.session.as_ref().map(|open| open.key().as_bytes().as_slice()),
        HashOn::Header(name) => request.headers.get(name).map(HeaderValue::as_bytes),
        HashOn::Address => None,
    };
    match (key, pass.client.ip.to_canonical()) {
        (Some(key), _) => upstream.pick(key, failed),
        (None, IpAddr::V4(ip)) => upstream.pick(&ip.octets(), failed),
        (None, IpAddr::V6(ip)) => upstream.pick(&ip.octets(), failed),
    }
}

/// Tells a client that waits for leave to send its body to go on: Pingora hears no interim answer of an HTTP/2 upstream, so
/// both would wait. Sent once at most.
pub(super) async fn go_on(session: &mut Session, request: &mut RequestHeader) -> pingora::Result<()> {
    request.remove_header(&EXPECT);
    if session.req_header().version == Version::HTTP_11 {
        session.as_mut().write_continue_response().await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

/// Our cookies leave; token, identity and forwarding headers enter; the path is the canonical one. Runs for every
/// attempt on a fresh copy of the client's header.
pub(super) fn request(
    gate: &Gate,
    session: &mut Session,
    request: &mut RequestHeader,
    ctx: &mut Context,
) -> pingora::Result<()> {
    (ctx.body_bytes, ctx.body_began) = (0, None);
    let Some(pass) = &ctx.pass else { return Ok(()) };
    set_path(request, pass)?;
    // Who has begun to send the body waits for no `100 Continue` any more.
    let begun = ctx.attempts > 1 && session.as_ref().get_retry_buffer().is_some();
    fields::edit(request, |headers| {
        if begun {
            headers.remove(EXPECT);
        }
        headers.reserve(OURS + pass.route.identity_headers.len());
        if let Some(forward) = pass.route.forward() {
            // Before what is ours, so that nothing of ours depends on it.
            if let Some(changes) = &forward.request_headers {
                gate::change(headers, changes);
            }
            if let Some(host) = &forward.host {
                headers.insert(HOST, host.clone());
            }
        }
        match &pass.cookies {
            Foreign::Unchanged => {}
            Foreign::Nothing => {
                headers.remove(COOKIE);
            }
            Foreign::Field(value) => {
                headers.insert(COOKIE, value.clone());
            }
        }
        pass.identify(headers);
        if let Some(traced) = &ctx.traced {
            traced.write(headers);
        }
        forwarded(session, headers, pass, ctx)
    })??;
    ctx.proved = pass.token_hash().is_some() && prove(gate, session, request, pass)?;
    Ok(())
}

/// Puts a proof beside a token that is bound to our key: over what is really sent, so it comes last.
fn prove(gate: &Gate, session: &Session, request: &mut RequestHeader, pass: &Pass) -> pingora::Result<bool> {
    let host = request.headers.get(HOST).cloned().or_else(|| host(session.req_header()));
    let proof = host.and_then(|host| gate.proof(pass, &request.method, &host, request.uri.path()));
    let Some(proof) = proof else { return Ok(false) };
    request.insert_header(PROOF, proof)?;
    Ok(true)
}

pub(crate) fn set_path(request: &mut RequestHeader, pass: &Pass) -> pingora::Result<()> {
    let absolute_form = request.raw_path().first() != Some(&b'/');
    let path = match &pass.path {
        Some(path) => path.as_str(),
        None if absolute_form => request.uri.path(),
        None => return Ok(()),
    };
    let target = match request.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    request.set_raw_path(target.as_bytes())
}

/// Rebuilt from what we know ourselves; a client's own were removed (behaviour H2).
fn forwarded(session: &Session, headers: &mut HeaderMap, pass: &Pass, ctx: &Context) -> pingora::Result<()> {
    let connection = ctx.connection.as_ref();
    let peer = match connection {
        Some(connection) => connection.peer_text().clone(),
        None => HeaderValue::from_str(&pass.client.ip.to_string()).map_err(|_| Error::new(ErrorType::InternalError))?,
    };
    let chain = match &pass.client.chain {
        Some(before) => {
            let chain = [before.as_bytes(), b", ", peer.as_bytes()].concat();
            HeaderValue::from_bytes(&chain).map_err(|_| Error::new(ErrorType::InternalError))?
        }
        None => peer,
    };
    headers.insert(FORWARDED_FOR, chain);
    if let Some(certificate) = connection.and_then(|connection| connection.client_certificate.as_ref()) {
        headers.insert(CLIENT_CERT, certificate.clone());
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(pass.client.scheme.as_str()));
    let host = pass.client.host.clone().or_else(|| host(session.req_header()));
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    }
    Ok(())
}

fn host(request: &RequestHeader) -> Option<HeaderValue> {
    match request.headers.get(HOST) {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(request.uri.authority()?.as_str()).ok(),
    }
}

/// Counts the body, stops at the route's limit and when it comes too slowly.
pub(super) fn body(
    limits: &Limits,
    session: &Session,
    body: &mut Option<Bytes>,
    end_of_stream: bool,
    ctx: &mut Context,
) -> pingora::Result<()> {
    // An empty last frame from HTTP/2 would end a chunked body twice and poison the upstream connection (Pingora #935).
    if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
    let Some(pass) = ctx.pass.as_ref().filter(|_| !ctx.tunnel) else { return Ok(()) };
    ctx.body_bytes += body.as_ref().map_or(0, |piece| u64::try_from(piece.len()).unwrap_or(u64::MAX));
    if ctx.body_bytes > pass.route.max_body {
        // As the client's fault: Pingora takes any other for one of writing to an HTTP/2 upstream, and waits for its answer.
        return Error::e_explain(TOO_LONG, "the body is longer than the route takes")
            .map_err(|error| error.into_down());
    }
    if !end_of_stream && limits.body_rate > 0 {
        let began = *ctx.body_began.get_or_insert_with(Instant::now);
        if is_too_slow(limits, ctx.body_bytes, began.elapsed()) && !is_grpc(session.req_header()) {
            return Error::e_explain(TOO_SLOW, "the body comes too slowly").map_err(|error| error.into_down());
        }
    }
    Ok(())
}

/// Whether the body is a stream of messages that come when there are some. Only HTTP/2 carries such calls: over HTTP/1 the
/// content type alone would excuse a body that trickles in.
fn is_grpc(request: &RequestHeader) -> bool {
    let kind = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version == Version::HTTP_2 && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Whether so many bytes are too few for so long a time. Until `body_timeout` is over nothing is.
fn is_too_slow(limits: &Limits, bytes: u64, elapsed: Duration) -> bool {
    elapsed > limits.body_timeout && bytes < limits.body_rate.saturating_mul(elapsed.as_secs())
}
