//! What the access log tells of a request: small values are copied, nothing is written out here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::{StatusCode, Version};
use pingora::http::RequestHeader;
use pingora::prelude::{Error, Session};

use super::{Context, failure, request, response, unauthorized};
use crate::gate::{Client, Gate, Pass};
use crate::telemetry::access::{AccessLog, Auth, Draft, Entry, Field, Hop, Known};
use crate::telemetry::handles::method_label;

/// The request is over.
pub(super) fn tell(
    log: &AccessLog,
    gate: &Gate,
    session: &Session,
    reason: Option<&'static str>,
    ctx: &mut Context,
    (status, took): (Option<StatusCode>, Duration),
) {
    if let Some(draft) = ctx.draft.take() {
        draft.withdraw();
    }
    let mut entry = entry(log, gate, session, ctx, status, took);
    entry.reason = reason;
    log.take(entry);
}

/// Why a request was answered otherwise than asked, in a word.
pub(super) fn reason(error: Option<&Error>, ctx: &Context) -> Option<&'static str> {
    match (error, ctx.reason) {
        (Some(error), _) if failure::is_gone(error) => Some("client_gone"),
        (Some(error), None) if *error.etype() != unauthorized::ANSWERED => Some(failure::word(error)),
        (_, reason) => reason,
    }
}

/// The request may be cut off from here on, and no hook would see it. `status` is what it has been told, or would be.
pub(super) fn expect_cut(gate: &Gate, session: &Session, ctx: &mut Context, status: StatusCode) {
    let Some(log) = &gate.access_log else { return };
    let draft = Draft::new(log.clone(), entry(log, gate, session, ctx, Some(status), Duration::ZERO));
    if let Some(former) = ctx.draft.replace(draft) {
        former.withdraw();
    }
}

fn entry(
    log: &AccessLog,
    gate: &Gate,
    session: &Session,
    ctx: &Context,
    status: Option<StatusCode>,
    took: Duration,
) -> Box<Entry> {
    let header = session.req_header();
    let route = ctx.in_flight.as_ref().map_or(&gate.unknown, |in_flight| in_flight.route());
    let path = if header.raw_path_is_utf8() { header.uri.path() } else { "" };
    let user_agent = if log.tells(Field::UserAgent) { header.headers.get(USER_AGENT) } else { None };
    let mut entry = Box::new(Entry::new(
        (ctx.started, took),
        Arc::clone(route),
        client_ip(gate, session, ctx),
        (method_label(&header.method), protocol(header)),
        path.as_bytes(),
        user_agent.map(HeaderValue::as_bytes),
    ));
    entry.status = status.map(|status| status.as_u16());
    entry.reason = ctx.reason;
    entry.trace = ctx.traced.as_ref().map(|traced| traced.id());
    entry.bytes_in = response::bytes(session.body_bytes_read());
    entry.bytes_out = response::bytes(session.body_bytes_sent());
    entry.sni = ctx.connection.as_ref().and_then(|connection| connection.server_name.clone());
    if let Some(pass) = &ctx.pass {
        let upstream = pass.upstream().filter(|_| ctx.attempts > 0);
        entry.upstream = upstream.map(|upstream| Hop {
            name: upstream.name().clone(),
            address: ctx.target.as_ref().map(|target| target.address()).or_else(|| ctx.failed.last().copied()),
            took: ctx.upstream_took,
        });
        entry.auth = Some(auth(pass));
    }
    entry
}

/// Who asked, also where no gate has looked.
pub(super) fn client_ip(gate: &Gate, session: &Session, ctx: &Context) -> IpAddr {
    match &ctx.pass {
        Some(pass) => pass.client.ip,
        None => {
            let view = request::view(session.req_header(), session, &ctx.connection);
            Client::of(view.connection, view.headers, &gate.trusted_proxies).ip
        }
    }
}

fn auth(pass: &Pass) -> Auth {
    let state = match (&pass.session, &pass.bearer) {
        (Some(_), _) if pass.by_cookie => "session",
        (Some(_), _) => "proxy_token",
        (None, Some(_)) => "bearer",
        (None, None) => "none",
    };
    let session = pass.session.as_ref().map(|open| Known {
        provider: open.shared_provider().clone(),
        level: pass.level.as_str(),
        key: *open.key().as_bytes(),
    });
    Auth { state, session, refreshed: pass.refreshed, csrf: pass.csrf }
}

fn protocol(header: &RequestHeader) -> &'static str {
    match header.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
