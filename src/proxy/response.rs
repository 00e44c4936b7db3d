//! `response_filter` and `logging`: our cookies to the browser, none of the upstream's in our name, and the count.

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, SET_COOKIE};
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, Session};

use super::{Context, access, compress, failure, fields, leash, respond, traces};
use crate::answer::ERROR_HEADER;
use crate::gate::{self, Gate, Pass};
use crate::listener;
use crate::session::context::UPDATE;
use crate::session::cookie::drop_ours;

/// The upstream's answer on its way to the client.
pub(super) fn filter(
    gate: &Gate,
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> pingora::Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS && session.is_upgrade_req() {
        // From here on it is a tunnel: no body to be counted, and the client may be silent for as long as it likes.
        ctx.tunnel = true;
        session.set_read_timeout(None);
        leash::tunnel(gate, session, ctx);
    }
    if !ctx.tunnel {
        respond::send_away(session, ctx);
    }
    let last = respond::is_final(response.status);
    let Some(forward) = ctx.pass.as_ref().and_then(|pass| pass.route.forward()) else { return Ok(()) };
    if last && let Some(started) = ctx.upstream_started.take() {
        let took = started.elapsed();
        ctx.upstream_took = Some(took);
        if let Some(traced) = &mut ctx.traced {
            traced.answered(response.status, took);
        }
        forward.upstream.metrics().answered(response.status, took);
        if let Some(target) = &ctx.target {
            forward.upstream.answered(target, response.status);
        }
    }
    if last && !ctx.tunnel {
        leash::answer(gate, session, response, ctx);
    }
    let Some(pass) = &ctx.pass else { return Ok(()) };
    let Some(forward) = pass.route.forward() else { return Ok(()) };
    fields::edit_answer(response, |headers| {
        if let Some(kept) = drop_ours(gate.sessions.cookies(), headers) {
            headers.remove(SET_COOKIE);
            for value in kept {
                headers.append(SET_COOKIE, value);
            }
        }
        headers.remove(&ERROR_HEADER);
        if last && !ctx.tunnel {
            gate::silence(headers, &pass.route);
            ctx.dress(headers);
        }
    })?;
    if last && !ctx.tunnel {
        ctx.encoder = compress::begin(&forward.compress, session, response)?;
    }
    if last { bring_cookies(gate, response, pass) } else { Ok(()) }
}

/// What an upstream says only behind the body comes too late to be kept, and is no more the browser's than in the header.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    for name in [&UPDATE, &ERROR_HEADER, &SET_COOKIE] {
        trailers.remove(name);
    }
}

/// The cookies that the session needs, and with them what keeps the answer to one browser.
pub(super) fn bring_cookies(gate: &Gate, response: &mut ResponseHeader, pass: &Pass) -> pingora::Result<()> {
    if pass.session.is_none() || !(pass.needs_ticket || pass.needs_csrf_cookie) {
        return Ok(());
    }
    for cookie in gate.own_cookies(pass) {
        response.append_header(SET_COOKIE, cookie)?;
    }
    keep_to_one_browser(response)
}

/// An answer with a user's cookie must not be given to anybody else by a shared cache, whatever the upstream says.
fn keep_to_one_browser(response: &mut ResponseHeader) -> pingora::Result<()> {
    fields::edit_answer(response, |headers| keep_out_of_caches(headers, "private, no-cache"))
}

/// What the gate, a login or a failure says to one client stays its own, whatever the route's `response_headers` say: a
/// shared cache would send all users to one's login, or tell them of an error that has passed. Nor may the browser keep a
/// login or an error: it would come back with a `state` that is spent.
pub(super) fn dress_our_own(headers: &mut HeaderMap, ctx: &Context) {
    let own = headers.get(CACHE_CONTROL).is_some_and(|value| value == "no-store");
    let of_the_moment = headers.contains_key(SET_COOKIE) || headers.contains_key(&ERROR_HEADER);
    ctx.dress(headers);
    if own && of_the_moment {
        headers.remove(CACHE_CONTROL);
    }
    if own {
        keep_out_of_caches(headers, "no-store");
    }
}

fn keep_out_of_caches(headers: &mut HeaderMap, otherwise: &'static str) {
    // RFC 9213 and what came before it: for shared caches these count more than `Cache-Control`.
    let targeted =
        |name: &str| name.ends_with("-cache-control") || matches!(name, "surrogate-control" | "x-accel-expires");
    let names: Vec<_> = headers.keys().filter(|name| targeted(name.as_str())).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
    if !is_private(headers) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(otherwise));
    }
}

/// Whether shared caches are told to keep out. `private="field"` speaks of that field alone.
fn is_private(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        let mut directives = value.split(',').map(str::trim);
        directives.any(|one| one.eq_ignore_ascii_case("no-store") || one.eq_ignore_ascii_case("private"))
    })
}

/// The request is over, whichever way.
pub(super) fn finished(gate: &Gate, session: &Session, error: Option<&Error>, ctx: &mut Context) {
    listener::untie();
    let took = ctx.started.elapsed();
    let written = session.response_written().map(|header| header.status).filter(|status| respond::is_final(*status));
    let status = ctx.answered.or(written);
    if status.is_none()
        && let Some(error) = error
    {
        // The client went away before there was anything to tell it.
        if let Some(connection) = ctx.connection.as_ref().filter(|_| failure::is_gone(error)) {
            connection.request_cancelled();
        }
        tracing::debug!(reason = failure::told(error), "a request ended without an answer");
    }
    let reason = access::reason(error, ctx);
    if let Some(log) = &gate.access_log {
        access::tell(log, gate, session, reason, ctx, (status, took));
    }
    if ctx.traced.is_some() {
        traces::finish(gate, session, ctx, reason, (status, took));
    }
    let Some(status) = status else { return };
    let in_flight = ctx.in_flight.take().unwrap_or_else(|| gate.unknown.enter());
    let route = in_flight.route();
    route.finished(&session.req_header().method, status, took);
    route.transferred(bytes(session.body_bytes_read()), bytes(session.body_bytes_sent()));
}

/// 16 EiB fit.
pub(super) fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_trailer_says_what_only_cloakroom_may_hear_or_say() {
        let mut fields = HeaderMap::new();
        for name in ["x-user-context-update", "cloakroom-error", "set-cookie", "set-cookie", "grpc-status"] {
            fields.append(name, HeaderValue::from_static("0"));
        }
        trailers(&mut fields);
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["grpc-status"]);
    }

    #[test]
    fn an_answer_with_our_cookie_stays_out_of_shared_caches() {
        for (before, after) in [
            (None, "private, no-cache"),
            (Some("public, max-age=3600"), "private, no-cache"),
            (Some("max-age=60, private=\"set-cookie\""), "private, no-cache"),
            (Some("Private, max-age=60"), "Private, max-age=60"),
            (Some("no-store"), "no-store"),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            if let Some(value) = before {
                response.insert_header(CACHE_CONTROL, value).unwrap();
            }
            for name in ["Surrogate-Control", "CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "X-Accel-Expires"] {
                response.insert_header(name, "max-age=3600").unwrap();
            }
            response.insert_header("ETag", "\"1\"").unwrap();
            keep_to_one_browser(&mut response).unwrap();
            assert_eq!(response.headers[CACHE_CONTROL], after);
            assert_eq!(response.headers.len(), 2, "{:?}", response.headers);
        }
    }
}
