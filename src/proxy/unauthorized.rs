//! `upstream_response_filter`: an upstream refuses a token of ours. It gets the request again with a newer one, once.
//! Nothing has reached the client by then.

use http::{HeaderName, StatusCode};
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, ErrorType, Session};

use super::{Context, request};
use crate::gate::{Gate, Refusal, asks_for_token, asks_to_step_up};
use crate::primitives::dpop::{NONCE, asks_for_nonce};

/// Says that the request is to be sent again.
pub(super) const REFUSED: ErrorType = ErrorType::Custom("the upstream refuses the token");
/// Says that [`Context::instead`] is the answer.
pub(super) const ANSWERED: ErrorType = ErrorType::Custom("the session is over");
/// A gRPC call that fails at once has its status in the header (gRPC over HTTP/2, Trailers-Only).
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether an answer refuses the credentials of its request.
pub(super) fn is_refusal(response: &ResponseHeader) -> bool {
    match response.status {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::OK => response.headers.get(GRPC_STATUS).is_some_and(|status| status == "16"),
        _ => false,
    }
}

/// Notes what the upstream wants in the next DPoP proof. That is between the two of us, so no client sees it.
pub(super) fn take_nonce(response: &mut ResponseHeader, ctx: &Context) -> bool {
    let heard =
        ctx.pass.as_ref().and_then(|pass| pass.upstream()).map(|upstream| upstream.nonce().hear(&response.headers));
    response.remove_header(&NONCE);
    heard == Some(true)
}

/// Decides about an answer that [`is_refusal`]; `nonce`: it brought one. An error ends this attempt; what follows is in the
/// error's type.
pub(super) async fn filter(
    gate: &Gate,
    session: &mut Session,
    response: &ResponseHeader,
    nonce: bool,
    ctx: &mut Context,
) -> pingora::Result<()> {
    let Some(pass) = &mut ctx.pass else { return Ok(()) };
    let heeds = pass.route.retry_unauthorized && !session.as_ref().retry_buffer_truncated();
    if nonce && heeds && !ctx.proved_again && asks_for_nonce(&response.headers) {
        // The token is good, and so is the session: nothing was wrong but the proof.
        ctx.proved_again = true;
        return leave(response, ctx, "nonce", REFUSED);
    }
    let sent = pass.own_token().is_some();
    if let (Some(open), Some(asked)) = (&pass.session, asks_to_step_up(&response.headers, pass)) {
        let view = request::view(session.req_header(), session, &ctx.connection);
        let Some(answer) = Box::pin(gate.step_up(view, pass, open, &asked)).await else { return Ok(()) };
        ctx.instead = Some(Box::new(answer));
        return leave(response, ctx, "step_up", ANSWERED);
    }
    let bound = pass.token_hash().is_some();
    // Without a key that it is bound to a token is of no use, whatever the upstream says of it.
    let asks = (bound && !ctx.proved) || asks_for_token(&response.headers, bound);
    if !sent || !pass.route.retry_unauthorized || !asks {
        return Ok(());
    }
    let Some(upstream) = pass.upstream().cloned() else { return Ok(()) };
    let metrics = upstream.metrics();
    if ctx.sent_again {
        metrics.refused_token("refused_again");
        return Ok(());
    }
    if session.as_ref().retry_buffer_truncated() {
        metrics.refused_token("body_too_long");
        return Ok(());
    }
    let refusal = gate.refused(request::view(session.req_header(), session, &ctx.connection), pass).await;
    let (result, error) = match refusal {
        Refusal::PassOn => {
            metrics.refused_token("nothing_newer");
            return Ok(());
        }
        Refusal::Again(newer) => {
            pass.session = Some(newer);
            ctx.sent_again = true;
            ("sent_again", REFUSED)
        }
        Refusal::AgainWith(token) => {
            pass.minted = Some(token);
            ctx.sent_again = true;
            ("sent_again", REFUSED)
        }
        Refusal::Over(answer) => {
            ctx.instead = Some(answer);
            ("session_over", ANSWERED)
        }
    };
    leave(response, ctx, result, error)
}

/// The upstream's answer goes no further, so it is counted here.
fn leave(response: &ResponseHeader, ctx: &mut Context, result: &'static str, error: ErrorType) -> pingora::Result<()> {
    let Some(upstream) = ctx.pass.as_ref().and_then(|pass| pass.upstream()).cloned() else { return Ok(()) };
    let metrics = upstream.metrics();
    metrics.refused_token(result);
    if let Some(started) = ctx.upstream_started.take() {
        metrics.answered(response.status, started.elapsed());
        if let Some(target) = &ctx.target {
            upstream.answered(target, response.status);
        }
    }
    Err(Error::explain(error, "by the upstream's answer").into_up())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_401_refuses_and_so_does_a_grpc_call_that_fails_at_once() {
        let refuses = |code: u16, status: Option<&str>| {
            let mut response = ResponseHeader::build(code, None).unwrap();
            if let Some(status) = status {
                response.insert_header("Grpc-Status", status).unwrap();
            }
            is_refusal(&response)
        };
        assert!(refuses(401, None) && refuses(200, Some("16")));
        assert!(!refuses(200, None) && !refuses(200, Some("7")) && !refuses(403, None) && !refuses(100, Some("16")));
    }
}
