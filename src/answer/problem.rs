//! Errors that Cloakroom answers: a stable code for each, as problem+json (RFC 9457) for scripts.

use http::StatusCode;
use serde_json::json;

use super::Answer;

/// What went wrong, for machines. The words are part of the contract with frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Needs a session, and none came.
    SessionMissing,
    /// The session, or its last token, has ended.
    SessionExpired,
    /// The provider refused to renew the session's tokens.
    RefreshRejected,
    /// Needs an access token, and none came.
    TokenMissing,
    /// The access token does not reach so far (RFC 6750 §3.1).
    InsufficientScope,
    /// An upstream asks for a stronger or more recent login (RFC 9470).
    StepUpRequired,
    /// A token in `Authorization` is needed, and none or a worthless one came (RFC 6750 §3.1).
    TokenInvalid,
    /// The access token is bound to a key, and showing it alone is not enough (RFC 9449 §7.1, RFC 8705 §3).
    TokenBound,
    /// The CSRF check failed.
    CsrfFailed,
    /// A rule of the route keeps the user out.
    RuleFailed,
    /// The provider lets this user have no token for the upstream.
    UpstreamTokenDenied,
    /// The provider gives Cloakroom no token for the upstream.
    UpstreamTokenRefused,
    /// A proxy in front asks about a request in a way that is not understood, or may not ask.
    CheckRefused,
    /// The session store does not answer.
    StoreUnavailable,
    /// The OpenID provider does not answer.
    ProviderUnavailable,
    /// No endpoint of the upstream answers.
    UpstreamUnavailable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream's answer was broken.
    UpstreamFailed,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// This host is not served here (RFC 9110 §15.5.20).
    UnknownHost,
    /// No route covers this path.
    NotFound,
    /// The endpoint does not know this method.
    MethodNotAllowed,
    /// The request body did not arrive in time.
    RequestTimeout,
    /// The request body is longer than the route takes.
    BodyTooLarge,
    /// The request header is larger than the proxy takes.
    HeaderTooLarge,
    /// The request target is longer than the proxy takes.
    UriTooLong,
    /// There is no memory for more work.
    Overloaded,
    /// The login could not be finished.
    LoginFailed,
    /// The backend does not take these credentials.
    LoginRefused,
    /// The backend of the login answered what cannot be understood.
    ProviderFailed,
    /// The request body is of a kind that this address does not take.
    UnsupportedMediaType,
    /// Too many logins in a short time, probably a loop.
    TooManyLogins,
    /// Too many event streams of one session, or of all.
    TooManyStreams,
    /// More requests than the route takes of one client or session.
    TooManyRequests,
    /// A defect or a broken environment on our side.
    Internal,
}

impl Code {
    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionMissing => "session_missing",
            Self::SessionExpired => "session_expired",
            Self::RefreshRejected => "refresh_rejected",
            Self::TokenMissing => "token_missing",
            Self::InsufficientScope => "insufficient_scope",
            Self::StepUpRequired => "step_up_required",
            Self::TokenInvalid => "token_invalid",
            Self::TokenBound => "token_bound",
            Self::CsrfFailed => "csrf_failed",
            Self::RuleFailed => "rule_failed",
            Self::UpstreamTokenDenied => "upstream_token_denied",
            Self::UpstreamTokenRefused => "upstream_token_refused",
            Self::CheckRefused => "check_refused",
            Self::StoreUnavailable => "store_unavailable",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamFailed => "upstream_failed",
            Self::BadRequest => "bad_request",
            Self::UnknownHost => "unknown_host",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::HeaderTooLarge => "header_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::Overloaded => "overloaded",
            Self::LoginFailed => "login_failed",
            Self::LoginRefused => "login_refused",
            Self::ProviderFailed => "provider_failed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyLogins => "too_many_logins",
            Self::TooManyStreams => "too_many_streams",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal_error",
        }
    }

    /// The status it is answered with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::SessionMissing | Self::SessionExpired | Self::RefreshRejected => StatusCode::UNAUTHORIZED,
            Self::TokenMissing | Self::StepUpRequired | Self::TokenInvalid | Self::TokenBound | Self::LoginRefused => {
                StatusCode::UNAUTHORIZED
            }
            Self::CsrfFailed
            | Self::InsufficientScope
            | Self::RuleFailed
            | Self::UpstreamTokenDenied
            | Self::CheckRefused => StatusCode::FORBIDDEN,
            Self::StoreUnavailable | Self::ProviderUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamFailed | Self::ProviderFailed | Self::UpstreamTokenRefused => StatusCode::BAD_GATEWAY,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadRequest | Self::LoginFailed => StatusCode::BAD_REQUEST,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyLogins | Self::TooManyStreams | Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A sentence for people. Says nothing of what is inside.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::SessionMissing => "You are not logged in",
            Self::SessionExpired => "Your session has ended",
            Self::RefreshRejected => "Your login has ended at the login service",
            Self::TokenMissing => "An access token is needed",
            Self::InsufficientScope => "The access token does not reach so far",
            Self::TokenInvalid => "The token is missing or worthless",
            Self::TokenBound => "The access token is bound to a key",
            Self::StepUpRequired => "This needs a stronger or more recent login",
            Self::RuleFailed => "You may not do this",
            Self::UpstreamTokenDenied => "You may not use the service behind this address",
            Self::UpstreamTokenRefused => "The login service gives no token for the service behind this address",
            Self::CheckRefused => "The question about a request was not understood",
            Self::CsrfFailed => "The request did not prove that it comes from this site",
            Self::StoreUnavailable => "Sessions are out of reach for the moment",
            Self::ProviderUnavailable => "The login service is out of reach for the moment",
            Self::UpstreamUnavailable => "The service behind this address is out of reach for the moment",
            Self::UpstreamTimeout => "The service behind this address took too long",
            Self::UpstreamFailed => "The service behind this address failed to answer",
            Self::BadRequest => "The request cannot be understood",
            Self::UnknownHost => "This host is not served here",
            Self::NotFound => "There is nothing at this address",
            Self::MethodNotAllowed => "This method is not allowed here",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::BodyTooLarge => "The request is too large",
            Self::HeaderTooLarge => "The request header is too large",
            Self::UriTooLong => "The address is too long",
            Self::Overloaded => "There is too much to do for the moment",
            Self::LoginFailed => "The login could not be finished",
            Self::LoginRefused => "The login was refused",
            Self::ProviderFailed => "The login service failed to answer",
            Self::UnsupportedMediaType => "The request body is of the wrong kind",
            Self::TooManyLogins => "Too many logins in a row",
            Self::TooManyStreams => "Too many event streams are open",
            Self::TooManyRequests => "Too many requests in a short time",
            Self::Internal => "Something went wrong on our side",
        }
    }

    /// When it makes sense to come back, in seconds.
    #[must_use]
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::StoreUnavailable | Self::UpstreamUnavailable => Some(1),
            Self::ProviderUnavailable | Self::Overloaded => Some(5),
            Self::TooManyLogins | Self::TooManyStreams => Some(10),
            _ => None,
        }
    }
}

impl Answer {
    /// An error for a script. `detail` is for people and holds nothing secret; `login_url` is where a login starts.
    #[must_use]
    pub fn problem(code: Code, detail: Option<&str>, login_url: Option<&str>) -> Self {
        let mut body = json!({
            "type": "about:blank",
            "title": code.title(),
            "status": code.status().as_u16(),
            "code": code.as_str(),
        });
        if let Some(object) = body.as_object_mut() {
            if let Some(text) = detail {
                object.insert("detail".into(), text.into());
            }
            if let Some(url) = login_url {
                object.insert("login_url".into(), url.into());
            }
        }
        Self::new(code.status(), Some("application/problem+json"), body.to_string()).error_headers(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_marked_challenged_and_never_cached() {
        let response = Answer::problem(Code::SessionMissing, None, Some("/auth/login")).into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["cloakroom-error"], "session_missing");
        assert_eq!(response.headers()["www-authenticate"], "Cloakroom");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["login_url"], "/auth/login");
        assert_eq!(body["status"], 401);
    }
}
