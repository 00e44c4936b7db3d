//! `fail_to_proxy`: an error becomes an answer, here and nowhere else. Nothing internal reaches the client.

use pingora::prelude::{Error, ErrorSource, ErrorType, Session};
use pingora_proxy::FailToProxy;

use super::{Context, deadline, request, respond, unauthorized, upstream};
use crate::answer::Code;
use crate::gate;
use crate::telemetry::handles::method_label;

/// Answers an error if the client can still be answered.
pub(super) async fn answer(session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
    if is_gone(error) {
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    }
    if let Some(answer) = ctx.instead.take() {
        session.set_keepalive(None);
        let status = answer.status().as_u16();
        if let Err(error) = respond::write(session, ctx, *answer).await {
            tracing::debug!(%error, "an answer could not be given to the client");
        }
        return FailToProxy { error_code: status, can_reuse_downstream: false };
    }
    let mut code = code(error);
    if code == Code::UpstreamTimeout
        && *error.etype() == ErrorType::ReadTimedout
        && !ctx.tunnel
        && !session.as_mut().is_body_done()
    {
        // The upstream waits for the rest of a body that does not come.
        code = Code::RequestTimeout;
    }
    if code == Code::UpstreamUnavailable && deadline::is_over(ctx) {
        code = Code::UpstreamTimeout;
    }
    let status = code.status().as_u16();
    ctx.reason = Some(code.as_str());
    if let Some(forward) = ctx.pass.as_ref().and_then(|pass| pass.route.forward())
        && *error.esource() == ErrorSource::Upstream
        && !code.status().is_client_error()
    {
        forward.upstream.metrics().failed(code.as_str());
        // What breaks off after the answer has begun may be the fault of that one answer.
        if ctx.upstream_started.take().is_some()
            && let Some(target) = &ctx.target
        {
            forward.upstream.failed(target);
        }
    }
    let reason = told(error);
    if code == Code::Internal {
        tracing::error!(reason, "a request failed");
    } else {
        tracing::debug!(reason, code = code.as_str(), "a request failed");
    }
    if !respond::has_begun(session) {
        // Pingora closes the connection after an error; a client that is not told would send its next request there.
        session.set_keepalive(None);
        let answer = gate::refusal(&request::view(session.req_header(), session, &ctx.connection), code, text(code));
        if let Err(error) = respond::write(session, ctx, answer).await {
            tracing::debug!(%error, "an error could not be told to the client");
        }
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

/// Nobody is left to be answered.
pub(super) fn is_gone(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream
        && matches!(
            error.etype(),
            ErrorType::WriteError
                | ErrorType::WriteTimedout
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed
                | ErrorType::H2Error
        )
}

/// Whether the error is the client's doing, or no error at all.
pub(super) fn is_the_clients(error: &Error) -> bool {
    is_gone(error) || *error.etype() == unauthorized::ANSWERED || code(error).status().is_client_error()
}

/// Whether the request was refused for want of memory.
pub(super) fn is_shed(error: &Error) -> bool {
    code(error) == Code::Overloaded
}

/// What a request was about, without anything that a stranger wrote but the method.
pub(super) fn summary(session: &Session, ctx: &Context) -> String {
    let method = method_label(&session.req_header().method);
    match &ctx.in_flight {
        Some(in_flight) => {
            let (site, route) = in_flight.route().names();
            format!("{method}, site {site}, route {route}")
        }
        None => format!("{method}, no route"),
    }
}

/// The error for our own log.
pub(super) fn told(error: &Error) -> String {
    if quotes_bytes(error) { error.etype().as_str().to_owned() } else { error.to_string() }
}

/// Whether the error's text holds what could not be parsed: header fields, cookies among them (behaviour D3).
pub(super) fn quotes_bytes(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::InvalidHTTPHeader | ErrorType::H1Error)
}

/// The word for the error in metrics.
pub(super) fn word(error: &Error) -> &'static str {
    code(error).as_str()
}

fn code(error: &Error) -> Code {
    match error.etype() {
        ErrorType::HTTPStatus(431) => Code::HeaderTooLarge,
        ErrorType::HTTPStatus(414) => Code::UriTooLong,
        ErrorType::HTTPStatus(408) => Code::RequestTimeout,
        ErrorType::HTTPStatus(503) => Code::Overloaded,
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
        Code::UpstreamUnavailable | Code::UpstreamTimeout | Code::UpstreamFailed | Code::Overloaded => {
            "Please try again in a moment."
        }
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

    #[test]
    fn clients_that_are_gone_or_send_nonsense_are_no_trouble_of_ours() {
        for kind in [ErrorType::WriteTimedout, ErrorType::WriteError, ErrorType::ReadError, ErrorType::ConnectionClosed]
        {
            assert!(is_gone(&Error::new(kind.clone()).into_down()) && !is_gone(&Error::new(kind).into_up()));
        }
        let timeout = || Error::new(ErrorType::ReadTimedout);
        assert!(is_the_clients(&timeout().into_down()) && !is_the_clients(&timeout().into_up()));
    }
}
