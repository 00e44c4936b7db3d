//! `request_filter`: limits, then the gate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use pingora::http::RequestHeader;
use pingora::prelude::{Error, ErrorType, Session};

use super::{Context, Proxy, deadline, fields, files, respond, stream, traces};
use crate::answer::{Answer, Code};
use crate::config::settings::Limits;
use crate::gate::{self, Gate, Request, Upgrade, Verdict};
use crate::listener::Connection;
use crate::login::Reply;
use crate::telemetry::traces::within;

/// Longest wait for the whole of such a body.
const OWN_BODY_TIME: Duration = Duration::from_secs(5);

/// Refuses what is too much or too large before anything looks at it. Says what `Content-Length` does.
fn check_limits(proxy: &Proxy, gate: &Gate, session: &Session) -> pingora::Result<Option<u64>> {
    let (header, limits) = (session.req_header(), &proxy.limits);
    let refuse = |reason: &str, status: u16, text: &'static str| {
        gate.metrics.requests_rejected_total.with_label_values(&[reason]).inc();
        Error::e_explain(ErrorType::HTTPStatus(status), text)
    };
    if proxy.overload.refuses_requests() {
        return refuse("memory", 503, "no memory for more work");
    }
    if header.raw_path().len() > limits.uri_length {
        return refuse("uri_too_long", 414, "request target too long");
    }
    let http1 = session.as_ref().as_http1();
    let raw = http1.map(|session| session.get_headers_raw_bytes());
    if header.headers.len() > limits.header_fields || is_too_long(header, raw.as_deref(), limits) {
        return refuse("header_too_large", 431, "request header too large");
    }
    let ambiguous = match raw {
        Some(raw) => ambiguity(header, &raw),
        // Behind HTTP/1 such a name would be another, or end the header.
        None => header.headers.keys().any(|name| name.as_str().contains('"')).then_some("framing"),
    };
    match ambiguous.map_or_else(|| said_length(&header.headers), Err) {
        Ok(length) => Ok(length),
        Err(reason) => refuse(reason, 400, "a request that can be read in two ways"),
    }
}

fn is_too_long(header: &RequestHeader, raw: Option<&[u8]>, limits: &Limits) -> bool {
    // A field is counted with four bytes beside name and value, and has at least two of them on the wire. Nearly every
    // header is so short that this settles it.
    if raw.is_some_and(|raw| raw.len() + 2 * limits.header_fields <= limits.header_size) {
        return false;
    }
    let fields: usize = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    fields + header.raw_path().len() > limits.header_size
}

/// What only the bytes on the wire show (behaviour H4, H9): by now Pingora has dropped a `Content-Length` beside a
/// `Transfer-Encoding`, the URI parser everything behind `#`, and the header parser has taken a bare line feed for a line
/// end, where another may see none (RFC 9112 §2.2).
fn ambiguity(header: &RequestHeader, raw: &[u8]) -> Option<&'static str> {
    if header.headers.contains_key(TRANSFER_ENCODING) && has_field(raw, b"content-length") {
        return Some("framing");
    }
    // Every line has a line feed, so to stop at each costs more than to look at all bytes without a branch.
    let (mut bare, mut fragment) = (raw.first() == Some(&b'\n'), raw.first() == Some(&b'#'));
    for (before, byte) in raw.iter().zip(raw.get(1..).unwrap_or_default()) {
        bare |= (*byte == b'\n') & (*before != b'\r');
        fragment |= *byte == b'#';
    }
    if bare {
        return Some("framing");
    }
    if !fragment {
        return None;
    }
    let line = raw.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    target.contains(&b'#').then_some("path")
}

/// What `Content-Length` says, if it is there. An error if it is said more than once, though with the same value, or is no
/// plain number (RFC 9110 §8.6): not everybody reads it alike.
fn said_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err("framing");
    }
    Ok(length.to_str().ok().and_then(|length| length.parse().ok()))
}

fn has_field(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n').any(|line| {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        line.get(..end).is_some_and(|field| field.trim_ascii().eq_ignore_ascii_case(name))
    })
}

/// `true`: answered.
pub(super) async fn filter(
    proxy: &Proxy,
    gate: &Gate,
    session: &mut Session,
    ctx: &mut Context,
) -> pingora::Result<bool> {
    traces::begin(gate, session, ctx);
    let length = check_limits(proxy, gate, session)?;
    let header = session.req_header();
    if Upgrade::of(&header.method, &header.headers) == Upgrade::Ignored {
        // Pingora would take any `Upgrade` for the beginning of a tunnel.
        session.req_header_mut().remove_header(&UPGRADE);
    }
    let verdict = match ctx.scope() {
        None => gate.admit(view(session.req_header(), session, &ctx.connection)).await,
        // On the heap: it is not for everybody, and would make this future large for all.
        Some(scope) => {
            let admit = gate.admit(view(session.req_header(), session, &ctx.connection));
            Box::pin(within(scope, admit)).await
        }
    };
    let refused = match verdict {
        Verdict::Forward(pass) => {
            let too_long = length.is_some_and(|length| length > pass.route.max_body);
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
            deadline::begin(gate, session, ctx);
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
            let answer = match (body, ctx.scope()) {
                (Ok(body), None) => gate.endpoint(request, &call, &body).await,
                (Ok(body), Some(scope)) => Box::pin(within(scope, gate.endpoint(request, &call, &body))).await,
                (Err(code), _) => Answer::problem(code, None, None).into(),
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
    connection: &'r Option<Arc<Connection>>,
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
            nameless: connection.is_some_and(|c| c.nameless),
            tls: connection.is_some_and(|c| c.tls),
            redirect_to_https: connection.and_then(|c| c.redirect_to_https),
            forward_auth: connection.and_then(|c| c.forward_auth),
            only_for: connection.filter(|c| c.asks_clients).and_then(|c| c.server_name.as_deref()),
        },
    }
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
