//! Writes a stream of events to the client for as long as it wants them.

use bytes::Bytes;
use http::Version;
use http::header::{HeaderValue, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, ErrorType, Session};

use super::{Context, response};
use crate::answer::Answer;
use crate::login::Events;

/// Sends head and events. An error means that the client is gone; then everything the stream holds is freed at once.
pub(super) async fn write(
    session: &mut Session,
    ctx: &mut Context,
    head: Answer,
    mut events: Events,
) -> pingora::Result<()> {
    let (mut parts, _) = head.into_response().into_parts();
    response::dress_our_own(&mut parts.headers, ctx);
    ctx.answered = Some(parts.status);
    let mut header: ResponseHeader = parts.into();
    match session.req_header().version {
        Version::HTTP_11 => header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?,
        // Its end is that of the connection.
        Version::HTTP_10 => session.set_keepalive(None),
        _ => {}
    }
    // The client has said all it has to say.
    session.set_read_timeout(None);
    session.write_response_header(Box::new(header), false).await?;
    let connection = ctx.connection.clone();
    let closing = async {
        match connection {
            Some(connection) => connection.closing().await,
            None => std::future::pending().await,
        }
    };
    let mut closing = std::pin::pin!(closing);
    loop {
        let piece = tokio::select! {
            piece = events.next() => piece,
            () = closing.as_mut() => {
                return session.write_response_body(Some(Events::farewell()), true).await;
            }
            // It went away, or sends what is no part of its request.
            _ = session.as_mut().read_body_or_idle(true) => {
                return Err(Error::new(ErrorType::ConnectionClosed).into_down());
            }
        };
        match piece {
            Some(piece) => session.write_response_body(Some(piece), false).await?,
            None => return session.write_response_body(Some(Bytes::new()), true).await,
        }
    }
}
