//! `request_filter`: limits, then the gate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{EXPECT, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use pingora::http::RequestHeader;
use pingora::prelude::{Error, ErrorType, Session};

use super::{Context, fields, files, respond, stream};
use crate::answer::{Answer, Code};
use crate::gate::{self, Gate, Request, Upgrade, Verdict};
use crate::listener::Connection;
use crate::login::Reply;

/// Most header fields of a request.
const MOST_FIELDS: usize = 100;
/// Most bytes of a request's target and header fields together.
const MOST_BYTES: usize = 32 * 1024;
/// Longest wait for the whole of such a body.
const OWN_BODY_TIME: Duration = Duration::from_secs(5);

/// Refuses what is too large before anything looks at it.
fn check_limits(gate: &Gate, session: &Session) -> pingora::Result<()> {
    let header = session.req_header();
    let http1 = session.as_ref().as_http1();
    let raw = http1.map(|session| session.get_headers_raw_bytes());
    if header.headers.len() > MOST_FIELDS || is_too_long(header, raw.as_deref()) {
        gate.metrics.requests_rejected_total.with_label_values(&["header_too_large"]).inc();
        return Error::e_explain(ErrorType::HTTPStatus(431), "request header too large");
    }
    if let Some(raw) = raw
        && let Some(reason) = ambiguity(header, &raw)
    {
        gate.metrics.requests_rejected_total.with_label_values(&[reason]).inc();
        return Error::e_explain(ErrorType::HTTPStatus(400), "a request that can be read in two ways");
    }
    Ok(())
}

fn is_too_long(header: &RequestHeader, raw: Option<&[u8]>) -> bool {
    // A field is counted with four bytes beside name and value, and has at least two of them on the wire. Nearly every
    // header is so short that this settles it.
    if raw.is_some_and(|raw| raw.len() + 2 * MOST_FIELDS <= MOST_BYTES) {
        return false;
    }
    let fields: usize = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    fields + header.raw_path().len() > MOST_BYTES
}

/// What only the bytes on the wire show: by now Pingora has dropped a `Content-Length` beside a `Transfer-Encoding`, and
/// the URI parser everything behind `#` (behaviour H4, H9).
fn ambiguity(header: &RequestHeader, raw: &[u8]) -> Option<&'static str> {
    if header.headers.contains_key(TRANSFER_ENCODING) && has_field(raw, b"content-length") {
        return Some("framing");
    }
    memchr::memchr(b'#', raw)?;
    let line = raw.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    target.contains(&b'#').then_some("path")
}

fn has_field(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n').any(|line| {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        line.get(..end).is_some_and(|field| field.trim_ascii().eq_ignore_ascii_case(name))
    })
}

/// `true`: answered.
pub(super) async fn filter(gate: &Gate, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
    check_limits(gate, session)?;
    let header = session.req_header();
    if Upgrade::of(&header.method, &header.headers) == Upgrade::Ignored {
        // Pingora would take any `Upgrade` for the beginning of a tunnel.
        session.req_header_mut().remove_header(&UPGRADE);
    }
    let verdict = gate.admit(view(session.req_header(), session, &ctx.connection)).await;
    let refused = match verdict {
        Verdict::Forward(pass) => {
            let too_long = content_length(&session.req_header().headers).is_some_and(|n| n > pass.route.max_body);
            ctx.in_flight = Some(pass.route.metrics.enter());
            if too_long {
                let answer =
                    gate::refusal(&view(session.req_header(), session, &ctx.connection), Code::BodyTooLarge, "");
                ctx.pass = Some(pass);
                respond::write(session, ctx, answer).await?;
                return Ok(true);
            }
            fields::edit(session.req_header_mut(), |headers| {
                for name in gate.unwanted(headers, &pass) {
                    headers.remove(name);
                }
            })?;
            ctx.pass = Some(pass);
            return Ok(false);
        }
        Verdict::Files(pass) => {
            ctx.in_flight = Some(pass.route.metrics.enter());
            ctx.pass = Some(pass);
            Box::pin(files::write(gate, session, ctx)).await?;
            return Ok(true);
        }
        Verdict::Endpoint(call) => {
            ctx.in_flight = Some(call.metrics.enter());
            ctx.dress = Some(call.dress.clone());
            let header = session.req_header();
            let body = match call.body_limit(&header.method, &header.headers, gate.sessions.csrf_header()) {
                0 => Ok(Bytes::new()),
                most => own_body(session, most).await?,
            };
            let request = view(session.req_header(), session, &ctx.connection);
            let answer = match body {
                Ok(body) => gate.endpoint(request, &call, &body).await,
                Err(code) => Answer::problem(code, None, None).into(),
            };
            match answer {
                Reply::Whole(answer) => respond::write(session, ctx, answer).await?,
                Reply::Stream(head, events) => Box::pin(stream::write(session, ctx, head, *events)).await?,
            }
            return Ok(true);
        }
        Verdict::Answer(refused) => refused,
    };
    ctx.in_flight = refused.metrics.map(|metrics| metrics.enter());
    ctx.dress = refused.dress;
    respond::write(session, ctx, refused.answer).await?;
    Ok(true)
}

/// The request for the gate.
pub(super) fn view<'r>(
    header: &'r RequestHeader,
    session: &Session,
    connection: &Option<Arc<Connection>>,
) -> Request<'r> {
    let connection = connection.as_ref();
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

/// The body of a request to one of our own endpoints, or what is wrong with it.
async fn own_body(session: &mut Session, most: usize) -> pingora::Result<Result<Bytes, Code>> {
    if session.req_header().headers.contains_key(EXPECT) {
        session.as_mut().write_continue_response().await?;
    }
    let read = async {
        let mut body = BytesMut::new();
        while let Some(piece) = session.as_mut().read_request_body().await? {
            if body.len() + piece.len() > most {
                return Ok(Err(Code::BodyTooLarge));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Ok(body.freeze()))
    };
    tokio::time::timeout(OWN_BODY_TIME, read).await.unwrap_or(Ok(Err(Code::RequestTimeout)))
}
