//! `response_filter` and `logging`: our cookies to the browser, none of the upstream's in our name, and the count.

use http::StatusCode;
use http::header::SET_COOKIE;
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, Session};

use super::{Context, failure};
use crate::answer::ERROR_HEADER;
use crate::gate::Gate;
use crate::session::cookie::drop_ours;

/// The upstream's answer on its way to the client.
pub(super) fn filter(gate: &Gate, response: &mut ResponseHeader, ctx: &mut Context) -> pingora::Result<()> {
    let Some(pass) = &ctx.pass else { return Ok(()) };
    let last = !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS;
    if last && let Some(started) = ctx.upstream_started.take() {
        pass.route.upstream.metrics().answered(response.status, started.elapsed());
    }
    if let Some(kept) = drop_ours(gate.sessions.cookies(), &response.headers) {
        response.remove_header(&SET_COOKIE);
        for value in kept {
            response.append_header(SET_COOKIE, value)?;
        }
    }
    response.remove_header(&ERROR_HEADER);
    if last
        && pass.needs_csrf_cookie
        && let Some(cookie) = pass.session.as_ref().and_then(|open| open.csrf_cookie())
    {
        response.append_header(SET_COOKIE, cookie.clone())?;
    }
    Ok(())
}

/// The request is over, whichever way.
pub(super) fn finished(gate: &Gate, session: &Session, error: Option<&Error>, ctx: &mut Context) {
    let written = session.response_written().map(|header| header.status);
    let Some(status) = ctx.answered.or(written) else {
        // The client went away before there was anything to tell it.
        if let Some(error) = error {
            tracing::debug!(reason = failure::told(error), "a request ended without an answer");
        }
        return;
    };
    let in_flight = ctx.in_flight.take().unwrap_or_else(|| gate.unknown.enter());
    in_flight.route().finished(&session.req_header().method, status, ctx.started.elapsed());
}
