//! `fail_to_proxy`: an error becomes an answer, here and nowhere else. Nothing internal reaches the client.

use pingora::prelude::{Error, ErrorSource, ErrorType, Session};
use pingora_proxy::FailToProxy;

use super::{Context, request, respond, upstream};
use crate::answer::Code;
use crate::gate;

/// Answers an error if the client can still be answered.
pub(super) async fn answer(session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
    let gone = *error.esource() == ErrorSource::Downstream
        && matches!(error.etype(), ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed);
    if gone {
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    }
    let code = code(error);
    let status = code.status().as_u16();
    if let Some(pass) = &ctx.pass
        && *error.esource() == ErrorSource::Upstream
    {
        pass.route.upstream.metrics().failed(code.as_str());
    }
    let reason = told(error);
    if code == Code::Internal {
        tracing::error!(reason, "a request failed");
    } else {
        tracing::debug!(reason, code = code.as_str(), "a request failed");
    }
    if session.response_written().is_none() {
        // Pingora closes the connection after an error; a client that is not told would send its next request there.
        session.set_keepalive(None);
        let answer = gate::refusal(&request::view(session.req_header(), session, ctx), code, text(code));
        if let Err(error) = respond::write(session, ctx, answer).await {
            tracing::debug!(%error, "an error could not be told to the client");
        }
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

/// The error for our own log.
pub(super) fn told(error: &Error) -> String {
    if quotes_bytes(error) { error.etype().as_str().to_owned() } else { error.to_string() }
}

/// Whether the error's text holds what could not be parsed: header fields, cookies among them (behaviour D3).
pub(super) fn quotes_bytes(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::InvalidHTTPHeader | ErrorType::H1Error)
}

fn code(error: &Error) -> Code {
    match error.etype() {
        ErrorType::HTTPStatus(431) => Code::HeaderTooLarge,
        kind if *kind == upstream::TOO_LONG => Code::BodyTooLarge,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error if *error.esource() == ErrorSource::Downstream => {
            Code::BadRequest
        }
        ErrorType::HTTPStatus(400..=499) => Code::BadRequest,
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::SocketError
        | ErrorType::BindError => Code::UpstreamUnavailable,
        ErrorType::ReadTimedout if *error.esource() == ErrorSource::Downstream => Code::RequestTimeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Code::UpstreamTimeout,
        _ if *error.esource() == ErrorSource::Upstream => Code::UpstreamFailed,
        _ if *error.esource() == ErrorSource::Downstream => Code::BadRequest,
        _ => Code::Internal,
    }
}

fn text(code: Code) -> &'static str {
    match code {
        Code::UpstreamUnavailable | Code::UpstreamTimeout | Code::UpstreamFailed => "Please try again in a moment.",
        Code::HeaderTooLarge => "Deleting this site's cookies may help.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_blamed_for_its_own_failures() {
        let code_of = |kind: ErrorType, upstream: bool| {
            let error = Error::new(kind);
            let error = if upstream { error.into_up() } else { error.into_down() };
            code(&error)
        };
        for (kind, of_upstream, of_client) in [
            (ErrorType::ReadTimedout, Code::UpstreamTimeout, Code::RequestTimeout),
            (ErrorType::ReadError, Code::UpstreamFailed, Code::BadRequest),
            (ErrorType::ConnectionClosed, Code::UpstreamFailed, Code::BadRequest),
            (ErrorType::InvalidHTTPHeader, Code::UpstreamFailed, Code::BadRequest),
            (ErrorType::H1Error, Code::UpstreamFailed, Code::BadRequest),
        ] {
            assert_eq!(code_of(kind.clone(), true), of_upstream, "{kind:?}");
            assert_eq!(code_of(kind.clone(), false), of_client, "{kind:?}");
        }
        assert_eq!(code_of(ErrorType::ConnectRefused, true), Code::UpstreamUnavailable);
        assert_eq!(code(&Error::explain(upstream::TOO_LONG, "")), Code::BodyTooLarge);
        assert_eq!(code(&Error::explain(ErrorType::InternalError, "")), Code::Internal);
    }
}
