//! `early_request_filter` and `request_filter`: limits, then the gate.

use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use pingora::http::RequestHeader;
use pingora::prelude::{Error, ErrorType, Session};

use super::{Context, respond};
use crate::answer::{Answer, Code};
use crate::gate::{self, Gate, Request, Verdict};

/// Most header fields of a request.
const MOST_FIELDS: usize = 100;
/// Most bytes of a request's target and header fields together.
const MOST_BYTES: usize = 32 * 1024;
/// Most bytes of a body that our own endpoints read.
const OWN_BODY: usize = 8 * 1024;

/// Refuses what is too large before anything looks at it.
pub(super) fn check_limits(gate: &Gate, header: &RequestHeader) -> pingora::Result<()> {
    let bytes: usize = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header.headers.len() > MOST_FIELDS || bytes + header.raw_path().len() > MOST_BYTES {
        gate.metrics.requests_rejected_total.with_label_values(&["header_too_large"]).inc();
        return Error::e_explain(ErrorType::HTTPStatus(431), "request header too large");
    }
    Ok(())
}

/// `true`: answered.
pub(super) async fn filter(gate: &Gate, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
    let verdict = gate.admit(view(session.req_header(), session, ctx)).await;
    let refused = match verdict {
        Verdict::Forward(pass) => {
            let too_long = content_length(&session.req_header().headers).is_some_and(|n| n > pass.route.max_body);
            ctx.in_flight = Some(pass.route.metrics.enter());
            if too_long {
                let answer = gate::refusal(&view(session.req_header(), session, ctx), Code::BodyTooLarge, "");
                respond::write(session, ctx, answer).await?;
                return Ok(true);
            }
            for name in gate.hygiene.unwanted(&session.req_header().headers) {
                session.req_header_mut().remove_header(&name);
            }
            ctx.pass = Some(pass);
            return Ok(false);
        }
        Verdict::Endpoint(call) => {
            ctx.in_flight = Some(call.metrics.enter());
            let body = if call.reads_body(&session.req_header().method) {
                own_body(session).await?
            } else {
                Some(Bytes::new())
            };
            let request = view(session.req_header(), session, ctx);
            let answer = match body {
                // A box of its own: what is rarely awaited must not make every request's future larger.
                Some(body) => Box::pin(gate.endpoint(request, &call, &body)).await,
                None => Answer::problem(Code::BodyTooLarge, None, None),
            };
            respond::write(session, ctx, answer).await?;
            return Ok(true);
        }
        Verdict::Answer(refused) => refused,
    };
    ctx.in_flight = refused.metrics.map(|metrics| metrics.enter());
    respond::write(session, ctx, refused.answer).await?;
    Ok(true)
}

/// The request for the gate.
pub(super) fn view<'r>(header: &'r RequestHeader, session: &Session, ctx: &Context) -> Request<'r> {
    let connection = ctx.connection.as_ref();
    let peer = connection.map(|c| c.peer.ip()).or_else(|| Some(session.client_addr()?.as_inet()?.ip()));
    Request {
        method: &header.method,
        uri: &header.uri,
        raw_path: if header.raw_path_is_utf8() { header.uri.path() } else { "" },
        headers: &header.headers,
        connection: gate::Connection {
            peer: peer.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
            tls: connection.is_some_and(|c| c.tls),
        },
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body of a request to one of our own endpoints; `None` if it is too long.
async fn own_body(session: &mut Session) -> pingora::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    if session.req_header().headers.contains_key(http::header::EXPECT) {
        session.as_mut().write_continue_response().await?;
    }
    while let Some(piece) = session.as_mut().read_request_body().await? {
        if body.len() + piece.len() > OWN_BODY {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body.freeze()))
}
