//! Refusals as gRPC clients read them: HTTP status 200, the call's status and message in the header, and no body
//! ("Trailers-Only" of gRPC over HTTP/2; gRPC-Web knows the same).

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::header::{LOCATION, WWW_AUTHENTICATE, X_FRAME_OPTIONS};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Answer, Code};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What must be encoded in a message, beside all that is not ASCII.
const UNSAFE: &AsciiSet = &CONTROLS.add(b'%');
/// The kinds of gRPC, and what is answered to them; the longest prefix first.
const KINDS: [(&[u8], &str); 3] = [
    (b"application/grpc-web-text", "application/grpc-web-text+proto"),
    (b"application/grpc-web", "application/grpc-web+proto"),
    (b"application/grpc", "application/grpc"),
];

/// The content type of an answer to a gRPC call; `None` if the request is no such call.
#[must_use]
pub fn grpc_kind(request: &HeaderMap) -> Option<&'static str> {
    let kind = request.get(CONTENT_TYPE)?.as_bytes();
    let (_, answer) = KINDS.iter().find(|(prefix, _)| {
        let (begin, rest) = kind.split_at_checked(prefix.len()).unwrap_or_default();
        begin.eq_ignore_ascii_case(prefix) && rest.first().is_none_or(|next| b"+; \t".contains(next))
    })?;
    Some(answer)
}

impl Answer {
    /// The same refusal for a gRPC call; `kind` is its content type. An answer that refuses nothing stays as it is.
    #[must_use]
    pub fn for_grpc(self, kind: &'static str) -> Self {
        if self.status().is_success() {
            return self;
        }
        let (mut parts, _) = self.0.into_parts();
        let title = parts.extensions.get::<Code>().map_or("Something else is needed first", |code| code.title());
        let message = utf8_percent_encode(title, UNSAFE).to_string();
        for name in [LOCATION, WWW_AUTHENTICATE, CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS] {
            parts.headers.remove(name);
        }
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        parts.headers.insert(STATUS, HeaderValue::from_static(grpc_status(parts.status)));
        if let Ok(message) = HeaderValue::from_str(&message) {
            parts.headers.insert(MESSAGE, message);
        }
        parts.status = StatusCode::OK;
        Self(Response::from_parts(parts, Bytes::new()))
    }
}

/// The status code of gRPC for a refusal. A redirect leads to a login, so it is one for want of a session.
fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 | 401 => "16", // UNAUTHENTICATED
        403 => "7",              // PERMISSION_DENIED
        404 | 405 | 501 => "12", // UNIMPLEMENTED
        421 => "5",              // NOT_FOUND
        413 | 429 | 431 => "8",  // RESOURCE_EXHAUSTED
        408 | 504 => "4",        // DEADLINE_EXCEEDED
        502 | 503 => "14",       // UNAVAILABLE
        400..=499 => "3",        // INVALID_ARGUMENT
        500 => "13",             // INTERNAL
        _ => "2",                // UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_a_status_of_its_own_without_body_and_redirect() {
        let answer = Answer::problem(Code::SessionMissing, Some("secret"), Some("/auth/login"));
        let response = answer.for_grpc("application/grpc").into_response();
        assert_eq!((response.status().as_u16(), response.body().len()), (200, 0));
        let headers = response.headers();
        assert_eq!(headers["grpc-status"], "16");
        assert_eq!(headers["grpc-message"], "You are not logged in");
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(headers["cloakroom-error"], "session_missing");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers.contains_key("www-authenticate"));
        let redirect = Answer::redirect("/auth/login").unwrap().for_grpc("application/grpc").into_response();
        assert_eq!(redirect.headers()["grpc-status"], "16");
        assert!(!redirect.headers().contains_key("location"));
        let good = Answer::json(&serde_json::json!({})).for_grpc("application/grpc").into_response();
        assert!(!good.headers().contains_key("grpc-status"));
    }

    #[test]
    fn each_code_has_its_status() {
        for (code, status) in [
            (Code::SessionExpired, "16"),
            (Code::CsrfFailed, "7"),
            (Code::NotFound, "12"),
            (Code::MethodNotAllowed, "12"),
            (Code::UnknownHost, "5"),
            (Code::BodyTooLarge, "8"),
            (Code::HeaderTooLarge, "8"),
            (Code::RequestTimeout, "4"),
            (Code::UpstreamTimeout, "4"),
            (Code::UpstreamFailed, "14"),
            (Code::UpstreamUnavailable, "14"),
            (Code::StoreUnavailable, "14"),
            (Code::ProviderUnavailable, "14"),
            (Code::TooManyLogins, "8"),
            (Code::TooManyRequests, "8"),
            (Code::BadRequest, "3"),
            (Code::Internal, "13"),
        ] {
            assert_eq!(grpc_status(code.status()), status, "{code:?}");
        }
    }

    #[test]
    fn a_call_is_known_by_its_whole_media_type() {
        let kind =
            |value: &'static str| grpc_kind(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]));
        for (value, answer) in [
            ("application/grpc", Some("application/grpc")),
            ("Application/gRPC+proto", Some("application/grpc")),
            ("application/grpc; charset=utf-8", Some("application/grpc")),
            ("application/grpc-web", Some("application/grpc-web+proto")),
            ("application/grpc-web+json", Some("application/grpc-web+proto")),
            ("application/grpc-web-text+proto", Some("application/grpc-web-text+proto")),
            ("application/grpcx", None),
            ("application/grpc-webx", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(kind(value), answer, "{value}");
        }
        assert_eq!(grpc_kind(&HeaderMap::new()), None);
    }
}
