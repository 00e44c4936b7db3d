//! Writes an [`Answer`] to the client.

use std::time::Duration;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::prelude::Session;
use pingora::protocols::http::ServerSession as Downstream;

use super::{Context, response};
use crate::answer::{Answer, Code, grpc_kind};

/// Most of an unread request body that is read after the answer.
const DRAIN_BYTES: usize = 10 * 1024 * 1024;
/// Longest time that this may take.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Whether the client has got the header of a final answer: from then on it can be told nothing else. Interim answers do
/// not count, but for the switch to another protocol.
pub(super) fn has_begun(session: &Session) -> bool {
    session.response_written().is_some_and(|header| is_final(header.status))
}

/// Whether a status ends what can be said in a header.
pub(super) fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// Sends the answer, to a gRPC call in its own form. An error means that the client is gone.
pub(super) async fn write(session: &mut Session, ctx: &mut Context, answer: Answer) -> pingora::Result<()> {
    ctx.reason = answer.code().map(Code::as_str).or(ctx.reason);
    // A gRPC error is a success of HTTP: to a proxy that asks about a call it would be leave to go on.
    let asks = ctx.connection.as_ref().is_some_and(|connection| connection.forward_auth.is_some());
    let answer = match grpc_kind(&session.req_header().headers) {
        Some(kind) if !asks => answer.for_grpc(kind),
        _ => answer,
    };
    let (mut parts, body) = answer.into_response().into_parts();
    response::dress_our_own(&mut parts.headers, ctx);
    let status = parts.status;
    ctx.answered = Some(status);
    let mut header: ResponseHeader = parts.into();
    let bodiless = session.req_header().method == http::Method::HEAD || body.is_empty();
    // RFC 9110 §8.6 forbids it beside 204; beside 304 it would be that of an answer which is not known here.
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        header.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    }
    let drains = prepare(session, ctx, status);
    match session.as_mut() {
        // The end in the header itself: a gRPC client takes it for trailers only then, and after an error nobody else
        // would send it.
        Downstream::H2(stream) if bodiless => stream.write_response_header(Box::new(header), true)?,
        _ => session.write_response_header(Box::new(header), bodiless).await?,
    }
    if !bodiless {
        session.write_response_body(Some(body), true).await?;
    }
    if drains { finish(session).await } else { Ok(()) }
}

/// Behind this answer the connection is closed if the server is about to stop, so the client should not send another
/// request there.
pub(super) fn send_away(session: &mut Session, ctx: &Context) {
    if ctx.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
        session.set_keepalive(None);
    }
}

/// Before an answer of ours: whether what the client still sends is to be read after it.
pub(super) fn prepare(session: &mut Session, ctx: &Context, status: StatusCode) -> bool {
    send_away(session, ctx);
    // A client that is told to close goes on sending until it has read the answer; one that stalls sends nothing.
    let expects = session.req_header().headers.contains_key(http::header::EXPECT);
    let drains = status != StatusCode::REQUEST_TIMEOUT
        && !expects
        && session.as_ref().as_http1().is_some()
        && !session.as_mut().is_body_done();
    if drains {
        session.set_keepalive(None);
    }
    drains
}

/// After it.
pub(super) async fn finish(session: &mut Session) -> pingora::Result<()> {
    session.as_mut().finish_body().await?;
    let _ = tokio::time::timeout(DRAIN_TIME, drain(session)).await;
    Ok(())
}

/// Reads what a client still sends: closing the socket on unread bytes would reset the connection, and the answer might
/// be lost with it (RFC 9112 §9.6).
async fn drain(session: &mut Session) {
    let mut read = 0;
    while read < DRAIN_BYTES {
        match session.as_mut().read_request_body().await {
            Ok(Some(piece)) => read += piece.len(),
            Ok(None) | Err(_) => return,
        }
    }
}
