//! When a connection is cut, whatever it is doing.

use std::pin::pin;
use std::task::Poll;

use futures::future::BoxFuture;
use pingora::prelude::sleep;
use tokio::time::Instant;

use super::connection::Connection;
use super::overload::Overload;

/// Why a connection is cut.
pub(super) enum Cut {
    /// Its client makes requests only to take them back.
    Resets,
    /// A request header is overdue.
    Late,
    /// It holds memory that runs out.
    Memory,
}

/// Runs `work` to its end, or drops it when the connection's request header is overdue, when it is cut, or when memory runs
/// out and it is one of those that hold it or may do so soon.
///
/// One timer serves all requests of a connection: it is not set anew for each of them, but goes off at a time that was
/// right once, and then sees how long there is to go. The time that is due only ever moves forward. It is one of Pingora's
/// timers, to a hundredth of a second: as long as one of Tokio's is set, a worker reads the clock and sets an alarm each time
/// that it has nothing to do.
///
/// An HTTP/2 connection watches the server's stop here; HTTP/1 is told of it by Pingora.
pub(super) async fn while_in_time<F: Future>(
    connection: &Connection,
    overload: &Overload,
    is_heavy: impl Fn() -> bool,
    work: F,
) -> Result<F::Output, Cut> {
    let mut work = pin!(work);
    let mut stop = pin!(connection.sent_away());
    let mut short = pin!(overload.runs_short());
    let mut stopping = false;
    let mut timer: Option<BoxFuture<'static, ()>> = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        if connection.is_cut() {
            return Poll::Ready(Err(Cut::Resets));
        }
        if connection.is_http2() && !stopping && stop.as_mut().poll(context).is_ready() {
            stopping = true;
            connection.retire();
        }
        if connection.is_http2() || connection.held().any() {
            while short.as_mut().poll(context).is_ready() {
                short.set(overload.runs_short());
                if is_heavy() {
                    return Poll::Ready(Err(Cut::Memory));
                }
            }
        }
        while let Some(due) = connection.header_due() {
            if let Some(timer) = &mut timer
                && timer.as_mut().poll(context).is_pending()
            {
                return Poll::Pending;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(Err(Cut::Late));
            }
            timer = Some(Box::pin(sleep(left)));
        }
        Poll::Pending
    })
    .await
}
