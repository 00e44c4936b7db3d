//! `fail_to_connect` and `error_while_proxy`: which requests are sent once more.
//!
//! A request is repeated only where that cannot do its work twice: nothing of it was sent, the upstream says that it has
//! not touched it, or its method is idempotent (RFC 9110 §9.2.2) and its body can be sent again. Nothing of an answer may
//! have reached the client. A timeout is never a reason: an upstream that is slow gets slower by it.

use std::time::Instant;

use pingora::RetryType;
use pingora::prelude::{Error, ErrorSource, ErrorType, Session};

use super::{Context, deadline, failure, respond, unauthorized};
use crate::routing::upstream::Upstream;

/// Nothing was sent yet, so another endpoint may be tried whatever the method.
pub(super) fn failed_to_connect(ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
    ctx.upstream_started = None;
    if let (Some(pass), Some(target)) = (&ctx.pass, ctx.target.take()) {
        if let Some(upstream) = pass.upstream() {
            upstream.refused(&target, &failure::told(&error));
        }
        ctx.failed.push(target.address());
    }
    error.set_retry(is_granted(ctx));
    error
}

/// The connection was there, and something went wrong on it.
pub(super) fn after_error(session: &Session, mut error: Box<Error>, ctx: &mut Context, reused: bool) -> Box<Error> {
    if *error.etype() == unauthorized::REFUSED {
        error.set_retry(true);
        return error;
    }
    let again = *error.esource() == ErrorSource::Upstream
        && !respond::has_begun(session)
        && !session.as_ref().retry_buffer_truncated()
        && (is_untouched(&error) || session.req_header().method.is_idempotent() && is_broken(&error, reused));
    let again = again && is_granted(ctx);
    // The last failure of a request is counted with the answer to it, for metrics and address alike.
    if again {
        failed_attempt(ctx, &error, reused);
    }
    error.set_retry(again);
    error
}

/// An attempt that is followed by another. A connection that had been idle says nothing about its address.
fn failed_attempt(ctx: &mut Context, error: &Error, reused: bool) {
    ctx.upstream_started = None;
    let (Some(upstream), Some(target)) = (ctx.pass.as_ref().and_then(|pass| pass.upstream()), ctx.target.take()) else {
        return;
    };
    upstream.metrics().failed(failure::word(error));
    if !reused {
        upstream.failed(&target);
        ctx.failed.push(target.address());
    }
}

/// The upstream has said that it did nothing with the request: it refused the stream, or went away and left it behind, for
/// whatever reason (RFC 9113 §8.7 and §6.8). It does not matter which step met with it.
fn is_untouched(error: &Error) -> bool {
    let Some(cause) = error.root_cause().downcast_ref::<h2::Error>() else { return false };
    // A stream that GOAWAY does not leave behind goes on, and never has that for its error.
    let left_behind = cause.is_go_away();
    cause.is_remote() && (left_behind || cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// The connection ended before there was an answer. One that had been idle may have ended before the request came.
fn is_broken(error: &Error, reused: bool) -> bool {
    match error.retry {
        RetryType::Decided(true) => true,
        RetryType::ReusedOnly if reused => true,
        _ => matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError),
    }
}

fn upstream(ctx: &Context) -> Option<&Upstream> {
    Some(ctx.pass.as_ref()?.upstream()?)
}

/// Whether the upstream's settings and budget have one more attempt for this request.
fn is_granted(ctx: &Context) -> bool {
    let Some(upstream) = upstream(ctx) else { return false };
    let retries = upstream.retries();
    // Sending it again for a refused token or proof is counted on its own.
    let attempts = ctx.attempts - usize::from(ctx.sent_again) - usize::from(ctx.proved_again);
    if attempts >= retries.attempts() || deadline::is_over(ctx) {
        return false;
    }
    let granted = retries.take(Instant::now());
    upstream.metrics().retried(if granted { "sent_again" } else { "over_budget" });
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_no_timeout_and_no_nonsense() {
        let with = |kind: ErrorType, retry: RetryType| {
            let mut error = Error::new(kind).into_up();
            error.retry = retry;
            error
        };
        let broken = |kind, retry, reused| is_broken(&with(kind, retry), reused);
        let no = || RetryType::Decided(false);
        assert!(broken(ErrorType::ConnectionClosed, RetryType::ReusedOnly, false));
        assert!(broken(ErrorType::ReadError, no(), false) && broken(ErrorType::WriteError, no(), true));
        assert!(broken(ErrorType::H2Error, RetryType::Decided(true), false));
        assert!(!broken(ErrorType::ReadTimedout, no(), true) && !broken(ErrorType::WriteTimedout, no(), true));
        assert!(!broken(ErrorType::InvalidHTTPHeader, no(), true));
        assert!(!is_untouched(&with(ErrorType::H2Error, RetryType::Decided(true))));
    }
}
