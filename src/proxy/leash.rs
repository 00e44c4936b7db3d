//! What lasts ends with its session, or with the token that its client brought: tunnels, and answers that go on (behaviour
//! O8).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::prelude::Session;

use super::{Context, access, deadline};
use crate::config::settings::Access;
use crate::gate::{Bearer, Gate, Pass};
use crate::listener;
use crate::routing::tunnel::CloseCode;
use crate::session::open::Open;

/// An answer that is done by then never asks whether its session lives.
const SHORT: Duration = Duration::from_millis(500);
/// A longer body than this may take its time.
const MUCH: u64 = 1024 * 1024;
/// What a tunnel may still do after it was told to end; for a client that reads nothing more.
const LAST_WORDS: Duration = Duration::from_millis(800);

/// What a request depends on.
enum Tie<'p> {
    Session(&'p Arc<Open>),
    Token(&'p Arc<Bearer>),
}

/// A page that anybody may have depends on nothing.
fn tie_of(pass: &Pass) -> Option<Tie<'_>> {
    let tie = pass.session.as_ref().map(Tie::Session).or_else(|| pass.bearer.as_ref().map(Tie::Token));
    tie.filter(|_| pass.route.access != Access::Optional || pass.route.tells_who())
}

/// Waits until that is over.
fn end_of(gate: &Gate, pass: &Pass, tie: &Tie<'_>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match tie {
        Tie::Session(open) => Box::pin(gate.end_of(open, pass.level)),
        Tie::Token(bearer) => {
            let (clock, expires) = (gate.clock.clone(), bearer.expires());
            Box::pin(async move { tokio::time::sleep(expires.since(clock.now())).await })
        }
    }
}

/// The protocol was switched. The tunnel is told to end when its session or token does or the process stops; if it does
/// not, it is cut.
pub(super) fn tunnel(gate: &Gate, session: &Session, ctx: &mut Context) {
    access::expect_cut(gate, session, ctx, StatusCode::SWITCHING_PROTOCOLS);
    let (Some(close), Some(pass), Some(connection)) = (ctx.close.take(), &ctx.pass, &ctx.connection) else { return };
    let over = tie_of(pass).map(|tie| end_of(gate, pass, &tie));
    let over = async {
        match over {
            Some(over) => over.await,
            None => std::future::pending().await,
        }
    };
    let (connection, route, started) = (connection.clone(), pass.route.metrics.clone(), ctx.started);
    let ended = gate.metrics.streams_ended_total.with_label_values(&["tunnel"]);
    listener::tie(Box::pin(async move {
        let code = tokio::select! {
            _ = over => {
                ended.inc();
                CloseCode::SessionOver
            }
            () = connection.closing() => CloseCode::GoingAway,
        };
        let _ = close.send(code);
        tokio::time::sleep(LAST_WORDS).await;
        // Who is cut off is not seen by the hook that counts.
        route.finished(&Method::GET, StatusCode::SWITCHING_PROTOCOLS, started.elapsed());
    }));
}

/// An upstream has answered. If the answer goes on for long, it is cut off at the end of the session or token, or when the
/// request must be over.
pub(super) fn answer(gate: &Gate, session: &Session, response: &ResponseHeader, ctx: &mut Context) {
    let Some(pass) = &ctx.pass else { return };
    let tie = tie_of(pass).filter(|_| may_last(&session.req_header().method, response));
    if tie.is_none() && ctx.deadline.is_none() {
        return;
    }
    let over = tie.map(|tie| end_of(gate, pass, &tie));
    let over = async {
        match over {
            Some(over) => {
                tokio::time::sleep(SHORT).await;
                over.await;
            }
            None => std::future::pending().await,
        }
    };
    let (route, metrics, deadline) = (pass.route.clone(), gate.metrics.clone(), ctx.deadline);
    let (method, status, started) = (session.req_header().method.clone(), response.status, ctx.started);
    access::expect_cut(gate, session, ctx, status);
    listener::tie(Box::pin(async move {
        tokio::select! {
            () = over => metrics.streams_ended_total.with_label_values(&["answer"]).inc(),
            () = deadline::passed(deadline) => {
                if let Some(forward) = route.forward() {
                    forward.upstream.metrics().failed("deadline");
                }
            }
        }
        route.metrics.finished(&method, status, started.elapsed());
    }));
}

fn may_last(method: &Method, response: &ResponseHeader) -> bool {
    if *method == Method::HEAD || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return false;
    }
    let length = response.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_none_or(|length| length > MUCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_a_near_end_is_leashed() {
        let lasts = |method: Method, status: u16, length: Option<&str>| {
            let mut response = ResponseHeader::build(status, None).unwrap();
            if let Some(length) = length {
                response.insert_header(CONTENT_LENGTH, length).unwrap();
            }
            may_last(&method, &response)
        };
        assert!(lasts(Method::GET, 200, None) && lasts(Method::POST, 200, Some("1048577")));
        assert!(!lasts(Method::GET, 200, Some("1048576")) && !lasts(Method::GET, 404, Some("0")));
        assert!(!lasts(Method::HEAD, 200, None) && !lasts(Method::GET, 304, None) && !lasts(Method::GET, 204, None));
    }
}
