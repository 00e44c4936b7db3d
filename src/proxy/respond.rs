//! Writes an [`Answer`] to the client.

use pingora::http::ResponseHeader;
use pingora::prelude::Session;

use super::Context;
use crate::answer::Answer;

/// Sends the answer. An error means that the client is gone.
pub(super) async fn write(session: &mut Session, ctx: &mut Context, answer: Answer) -> pingora::Result<()> {
    let (parts, body) = answer.into_response().into_parts();
    ctx.answered = Some(parts.status);
    let mut header: ResponseHeader = parts.into();
    let bodiless = session.req_header().method == http::Method::HEAD || body.is_empty();
    header.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    session.write_response_header(Box::new(header), bodiless).await?;
    if !bodiless {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
