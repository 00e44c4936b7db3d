//! Compresses the answers of an upstream, on routes that ask for it.
//!
//! Pingora's encoders do the work, its module does not: the module would have to be there for every request, chooses
//! before any hook has seen the answer, takes no weights of `Accept-Encoding`, and panics when a request is sent again.
//! Its encoder for Brotli leaves the end of the stream away, so there is none.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, TRANSFER_ENCODING, VARY,
};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::prelude::Session;
use pingora::protocols::http::compression::{Algorithm, Encode};

use super::Context;
use crate::primitives::coding::{Coding, accepted};

/// What is tried, in this order where a client likes them alike.
const OFFERED: [Coding; 2] = [Coding::Zstd, Coding::Gzip];
/// A shorter answer fits into a packet or two in any case.
const SMALL: u64 = 1024;
/// Good enough to be worth it, fast enough for a thread that serves others too.
const ZSTD_LEVEL: u32 = 3;
const GZIP_LEVEL: u32 = 5;

/// The encoder of one answer.
pub(super) type Encoder = Box<dyn Encode + Send + Sync>;

/// Looks at the head of an answer, and changes it if the body is going to be compressed.
pub(super) fn begin(
    types: &[String],
    session: &Session,
    response: &mut ResponseHeader,
) -> pingora::Result<Option<Encoder>> {
    if types.is_empty() || !is_eligible(&response.headers, response.status, types) {
        return Ok(None);
    }
    // The next client may take it another way.
    if !names_accept_encoding(&response.headers) {
        response.append_header(VARY, HeaderValue::from_static("Accept-Encoding"))?;
    }
    let request = session.req_header();
    let is_http1 = session.as_ref().as_http1().is_some();
    if request.method == Method::HEAD || is_http1 && request.version != Version::HTTP_11 {
        return Ok(None);
    }
    let Some(coding) = accepted(&request.headers, &OFFERED).next() else { return Ok(None) };
    let encoder = match coding {
        Coding::Zstd => Algorithm::Zstd.compressor(ZSTD_LEVEL),
        Coding::Gzip | Coding::Brotli => Algorithm::Gzip.compressor(GZIP_LEVEL),
    };
    let Some(encoder) = encoder else { return Ok(None) };
    response.insert_header(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()))?;
    response.remove_header(&CONTENT_LENGTH);
    response.remove_header(&ACCEPT_RANGES);
    if is_http1 {
        response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    weaken_tag(response)?;
    Ok(Some(encoder))
}

/// A piece of the body.
pub(super) fn body(piece: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> pingora::Result<()> {
    let Some(encoder) = &mut ctx.encoder else { return Ok(()) };
    let encoded = encoder.encode(piece.as_deref().unwrap_or_default(), end)?;
    // An empty piece in the middle would end a chunked body.
    *piece = Some(encoded).filter(|encoded| end || !encoded.is_empty());
    if end {
        ctx.encoder = None;
    }
    Ok(())
}

/// What is left where trailers end the body. They cannot be sent any more then.
pub(super) fn end(ctx: &mut Context) -> pingora::Result<Option<Bytes>> {
    match ctx.encoder.take() {
        Some(mut encoder) => encoder.encode(&[], true).map(Some),
        None => Ok(None),
    }
}

fn is_eligible(headers: &HeaderMap, status: StatusCode, types: &[String]) -> bool {
    let whole = status.is_success() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT);
    if !whole && !status.is_client_error() && !status.is_server_error() {
        return false;
    }
    if headers.contains_key(CONTENT_ENCODING) || headers.contains_key(CONTENT_RANGE) {
        return false;
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(CONTENT_LENGTH).and_then(|length| length.parse().ok()).is_some_and(|length: u64| length < SMALL) {
        return false;
    }
    let told = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    if told.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("no-transform")) {
        return false;
    }
    let Some(kind) = text(CONTENT_TYPE).and_then(|kind| kind.split(';').next()) else { return false };
    types.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind.trim()))
}

fn names_accept_encoding(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|name| name == "*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str()))
}

/// The bytes are others now, what they say is the same (RFC 9110 §8.8.1).
fn weaken_tag(response: &mut ResponseHeader) -> pingora::Result<()> {
    let weak = response
        .headers
        .get(ETAG)
        .filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        .and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
    match weak {
        Some(weak) => response.insert_header(ETAG, weak),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eligible(status: u16, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_eligible(&headers, StatusCode::from_u16(status).unwrap(), &["application/json".to_owned()])
    }

    #[test]
    fn only_whole_plain_and_large_answers_of_a_listed_type_are_compressed() {
        assert!(eligible(200, &[]));
        assert!(eligible(200, &[("content-length", "1024")]));
        assert!(eligible(404, &[("content-type", "Application/JSON")]));
        for pairs in [
            &[("content-length", "1023")][..],
            &[("content-encoding", "br")],
            &[("content-range", "bytes 0-1/9")],
            &[("cache-control", "public, No-Transform")],
            &[("content-type", "text/event-stream")],
            &[("content-type", "application/grpc")],
            &[("content-type", "image/png")],
        ] {
            assert!(!eligible(200, pairs), "{pairs:?}");
        }
        for status in [101, 204, 206, 304, 302] {
            assert!(!eligible(status, &[]), "{status}");
        }
    }

    #[test]
    fn what_the_encoders_make_can_be_read_again() {
        let plain = b"Cloakroom ".repeat(1000);
        for algorithm in [Algorithm::Gzip, Algorithm::Zstd] {
            let mut encoder = algorithm.compressor(GZIP_LEVEL).unwrap();
            let mut all = Vec::new();
            for piece in plain.chunks(100) {
                all.extend_from_slice(&encoder.encode(piece, false).unwrap());
            }
            all.extend_from_slice(&encoder.encode(&[], true).unwrap());
            assert!(all.len() < plain.len() / 10, "{} bytes by {algorithm:?}", all.len());
        }
    }
}
