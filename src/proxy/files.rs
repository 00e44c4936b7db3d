//! Writes a file to the client, a piece at a time.

use http::StatusCode;
use http::header::ALLOW;
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, ErrorType, Session};

use super::{Context, leash, request, respond, response};
use crate::answer::{Answer, Code};
use crate::config::settings::Access;
use crate::files::{Ask, Body, Head, METHODS, Reply};
use crate::gate::{self, Gate};
use crate::login::navigation::wants_page;
use crate::primitives::path::escape_query;
use crate::routing::table::Action;
use crate::telemetry::Throttle;

/// Answers with what the route's folder holds. An error means that the client is gone, or that a file became shorter
/// while it was sent.
pub(super) async fn write(gate: &Gate, session: &mut Session, ctx: &mut Context) -> pingora::Result<()> {
    let Some(pass) = &ctx.pass else { return Ok(()) };
    let Action::Files(files) = &pass.route.action else { return Ok(()) };
    let path = pass.path.as_deref().unwrap_or("/");
    let header = session.req_header();
    let ask = Ask {
        method: &header.method,
        path: pass.route.path.rest(path).unwrap_or(path),
        headers: &header.headers,
        page: wants_page(&header.headers),
    };
    let reply = files.answer(ask).await;
    let view = request::view(session.req_header(), session, &ctx.connection);
    let answer = match reply {
        Ok(Reply::File(head, body)) => return send(gate, session, ctx, head, body).await,
        Ok(Reply::Folder) => {
            let query = view.uri.query().map(|query| format!("?{}", escape_query(query))).unwrap_or_default();
            let answer = Answer::moved(StatusCode::TEMPORARY_REDIRECT, &format!("{path}/{query}"));
            answer.map(|answer| if pass.route.access == Access::Public { answer.for_everybody() } else { answer })
        }
        Ok(Reply::NotFound) => Some(gate::refusal(&view, Code::NotFound, "Check the address.")),
        Ok(Reply::MethodNotAllowed) => Some(gate::refusal(&view, Code::MethodNotAllowed, "").header(ALLOW, METHODS)),
        Err(error) => {
            static FAILURES: Throttle = Throttle::new();
            if let Some(held_back) = FAILURES.pass() {
                tracing::error!(route = %pass.route.name, %error, held_back, "a file could not be read");
            }
            None
        }
    };
    let answer = answer.unwrap_or_else(|| gate::refusal(&view, Code::Internal, "Please try again in a moment."));
    let cookies: Vec<_> = gate.own_cookies(pass).collect();
    respond::write(session, ctx, answer.cookies(cookies)).await
}

async fn send(
    gate: &Gate,
    session: &mut Session,
    ctx: &mut Context,
    head: Head,
    body: Option<Body>,
) -> pingora::Result<()> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.headers) = (head.status, head.headers);
    ctx.dress(&mut parts.headers);
    let mut header: ResponseHeader = parts.into();
    if let Some(pass) = &ctx.pass {
        response::bring_cookies(gate, &mut header, pass)?;
    }
    ctx.answered = Some(header.status);
    leash::answer(gate, session, &header, ctx);
    let drains = respond::prepare(session, ctx, header.status);
    session.write_response_header(Box::new(header), body.is_none()).await?;
    if let Some(mut body) = body {
        let failed = |error| Error::because(ErrorType::FileReadError, "a file was not read to its end", error);
        while let Some(piece) = body.next().await.map_err(failed)? {
            session.write_response_body(Some(piece), body.is_done()).await?;
        }
    }
    if drains { respond::finish(session).await } else { Ok(()) }
}
