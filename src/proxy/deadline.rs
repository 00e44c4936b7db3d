//! The time limits of a route: what it sets beside its upstream's, and when a request must be over altogether.
//!
//! A read that waits for the upstream ends at the deadline, and the client is told so. Whatever else is still under way a
//! moment later, such as an answer that trickles, is cut.

use std::time::{Duration, Instant};

use http::StatusCode;
use pingora::prelude::Session;
use pingora::upstreams::peer::PeerOptions;

use super::{Context, access};
use crate::config::settings::RouteTimeouts;
use crate::gate::Gate;
use crate::listener;

/// How long after the deadline a request is cut that could not be ended with an answer.
const MARGIN: Duration = Duration::from_millis(500);
/// Least time for a step: zero would be none at all to Pingora.
const LEAST: Duration = Duration::from_millis(1);

/// A request goes upstream: from here on its deadline counts, measured from its beginning.
pub(super) fn begin(gate: &Gate, session: &Session, ctx: &mut Context) {
    let Some(pass) = &ctx.pass else { return };
    let Some(limit) = pass.route.timeouts.as_ref().and_then(|timeouts| timeouts.request) else { return };
    let deadline = ctx.started + limit;
    ctx.deadline = Some(deadline);
    let Some(upstream) = pass.upstream().cloned() else { return };
    let route = pass.route.metrics.clone();
    access::expect_cut(gate, session, ctx, StatusCode::GATEWAY_TIMEOUT);
    let (method, started) = (session.req_header().method.clone(), ctx.started);
    listener::tie(Box::pin(async move {
        passed(Some(deadline)).await;
        // Who is cut off is not seen by the hook that counts.
        upstream.metrics().failed("deadline");
        route.finished(&method, StatusCode::GATEWAY_TIMEOUT, started.elapsed());
    }));
}

/// Waits for the moment at which a request is cut; for ever if it has no deadline.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until((deadline + MARGIN).into()).await,
        None => std::future::pending().await,
    }
}

/// Whether a request has no time left.
pub(super) fn is_over(ctx: &Context) -> bool {
    ctx.deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Puts the route's limits in the place of the upstream's, and none of them beyond the deadline.
pub(super) fn limit(options: &mut PeerOptions, timeouts: &RouteTimeouts, deadline: Option<Instant>, now: Instant) {
    if let Some(connect) = timeouts.connect {
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect.saturating_mul(2));
    }
    options.read_timeout = timeouts.read.or(options.read_timeout);
    options.write_timeout = timeouts.write.or(options.write_timeout);
    let Some(deadline) = deadline else { return };
    let left = deadline.saturating_duration_since(now).max(LEAST);
    for step in [
        &mut options.connection_timeout,
        &mut options.total_connection_timeout,
        &mut options.read_timeout,
        &mut options.write_timeout,
    ] {
        *step = Some(step.map_or(left, |step| step.min(left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_overrides_its_upstream_and_the_deadline_both() {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        let with = |timeouts: &RouteTimeouts, deadline| {
            let mut options = PeerOptions::new();
            options.connection_timeout = Some(second);
            options.total_connection_timeout = Some(second * 2);
            options.read_timeout = Some(second * 10);
            limit(&mut options, timeouts, deadline, now);
            (options.connection_timeout, options.total_connection_timeout, options.read_timeout, options.write_timeout)
        };
        let none = RouteTimeouts::default();
        assert_eq!(with(&none, None), (Some(second), Some(second * 2), Some(second * 10), None));
        let some = RouteTimeouts { connect: Some(second * 3), read: Some(second * 90), ..none };
        assert_eq!(with(&some, None), (Some(second * 3), Some(second * 6), Some(second * 90), None));
        let soon = Some(second / 2);
        assert_eq!(with(&some, Some(now + second / 2)), (soon, soon, soon, soon));
        assert_eq!(with(&none, Some(now)).2, Some(LEAST), "no time is not no limit");
    }
}
