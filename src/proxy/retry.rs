//! `error_while_proxy`: which requests are sent once more.

use pingora::prelude::{Error, Session};

use super::{Context, unauthorized};

/// Decides whether a request is sent again after an attempt that went wrong while it was under way.
pub(super) fn after_error(session: &Session, mut error: Box<Error>, ctx: &Context, reused: bool) -> Box<Error> {
    if *error.etype() == unauthorized::REFUSED {
        error.set_retry(ctx.sent_again);
    } else if !session.req_header().method.is_idempotent() || session.as_ref().retry_buffer_truncated() {
        error.set_retry(false);
    } else {
        error.retry.decide_reuse(reused);
    }
    error
}
