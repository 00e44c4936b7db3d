//! What the token endpoint says: tokens (RFC 6749 §5.1), or why not (§5.2), sorted by what a refresh must do next
//! (behaviour R10).

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;
use openidconnect::core::{
    CoreErrorResponseType, CoreGenderClaim, CoreIdToken, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AccessToken, EmptyAdditionalClaims, ErrorResponse, OAuth2TokenResponse, RefreshToken, RequestTokenError, Scope,
    StandardErrorResponse, TokenResponse, TokenType,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::http;
use super::text::{self, ErrorCode};
use crate::primitives::clock::Timestamp;
use crate::primitives::dpop::SCHEME;
use crate::primitives::secret::SecretText;

/// No token is trusted to live longer, whatever its provider says.
const LONGEST_LIFE: f64 = 366.0 * 24.0 * 3600.0;

const NO_BEARER: &str = "the token is not a bearer token";
const NOT_BOUND: &str = "the token is not bound to our key: have it bind the tokens of this client, or take `dpop` out \
                         of the settings";

/// The scope of refresh tokens that outlive the user's logout (Core §11).
pub(super) const OFFLINE_ACCESS: &str = "offline_access";

/// Tokens of one answer.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Goes upstream; printable ASCII, fit for a header.
    pub access_token: SecretText,
    /// When it ends, counted from before the request was sent; `None` if the provider does not say.
    pub access_expires: Option<Timestamp>,
    /// `None`: the old one, if any, stays good (behaviour R5).
    pub refresh_token: Option<SecretText>,
    /// When the refresh token ends; `None` if the provider does not say, or says never.
    pub refresh_expires: Option<Timestamp>,
    /// Whether `offline_access` is in the scope; `None` if the answer names no scope, which means as much as was asked
    /// for (RFC 6749 §5.1), or as before (§6).
    pub offline: Option<bool>,
    /// Whether the access token is bound to our key: whoever takes it wants a proof with it (RFC 9449).
    pub bound: bool,
}

/// A refresh token that came in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// It.
    pub token: SecretText,
    /// When it ends; `None` if the provider does not say, or says never.
    pub expires: Option<Timestamp>,
}

/// A successful answer as it is parsed. Lenient where providers differ, for a 200 that cannot be read costs the
/// session its refresh token.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct TokenAnswer {
    #[serde(skip_serializing)]
    access_token: AccessToken,
    #[serde(skip_serializing, default)]
    token_type: Kind,
    #[serde(skip_serializing, default, deserialize_with = "seconds")]
    expires_in: Option<Duration>,
    #[serde(skip_serializing)]
    refresh_token: Option<RefreshToken>,
    /// Keycloak
    #[serde(skip_serializing, default, deserialize_with = "seconds")]
    refresh_expires_in: Option<Duration>,
    /// Google
    #[serde(skip_serializing, default, deserialize_with = "seconds")]
    refresh_token_expires_in: Option<Duration>,
    /// Only looked at, never insisted on: whatever is odd here is as good as missing.
    #[serde(skip_serializing, default)]
    scope: Option<Value>,
    /// Text until it is verified: one that cannot be read must not take the tokens beside it along.
    #[serde(skip_serializing)]
    id_token: Option<Value>,
}

/// `token_type`, compared without case; missing means Bearer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Kind(String);

impl Default for Kind {
    fn default() -> Self {
        Self("Bearer".to_owned())
    }
}

impl TokenType for Kind {}

/// A number, or a number as text (Entra ID's older endpoints); anything else is as good as missing.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let seconds = match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    Ok(seconds.filter(|s: &f64| !s.is_nan()).map(|s| Duration::from_secs_f64(s.clamp(0.0, LONGEST_LIFE))))
}

impl TokenAnswer {
    /// The refresh token among them, which may be worth something although the rest is not.
    pub(super) fn successor(&self, sent: Timestamp) -> Option<Successor> {
        let token = self.refresh_token.as_ref().map(RefreshToken::secret).filter(|token| !token.is_empty())?;
        let life = self.refresh_expires_in.or(self.refresh_token_expires_in).filter(|life| !life.is_zero());
        Some(Successor { token: SecretText::new(token.clone()), expires: life.map(|life| sent.plus(life)) })
    }

    /// Tokens and ID token; `sent` is from before the request, so that a slow answer does not lengthen a life. With `bound`
    /// the access token must be bound to the key that the request had a proof of; without, it must be a bearer token.
    pub(super) fn into_parts(self, sent: Timestamp, bound: bool) -> Result<(Tokens, Option<String>), Failure> {
        // A sender-constrained token (DPoP, MTLS as `N_A`) is of no use as a bearer token, and a bearer token is not what
        // was asked for with a proof: it would be good for whoever finds it (RFC 9449 §5).
        let (wanted, otherwise) = if bound { (SCHEME, NOT_BOUND) } else { ("Bearer", NO_BEARER) };
        if !self.token_type.0.eq_ignore_ascii_case(wanted) {
            return Err(Failure::Unusable(otherwise));
        }
        let access_token = self.access_token.secret();
        if access_token.is_empty() || !access_token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Failure::Unusable("the access token does not fit a header"));
        }
        let (refresh_token, refresh_expires) = match self.successor(sent) {
            Some(Successor { token, expires }) => (Some(token), expires),
            None => (None, None),
        };
        // `exp` is in whole seconds, and a provider that cuts off the rest counts from up to a second before.
        let from = Timestamp::from_secs(sent.as_secs());
        let tokens = Tokens {
            access_token: SecretText::new(access_token.clone()),
            access_expires: self.expires_in.map(|life| from.plus(life)),
            refresh_token,
            refresh_expires,
            offline: self
                .scope
                .as_ref()
                .and_then(Value::as_str)
                .map(|scope| scope.split(' ').any(|s| s == OFFLINE_ACCESS)),
            bound,
        };
        let id_token = match self.id_token {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            // Not even text: refused by the verifier as malformed.
            Some(_) => Some(String::new()),
        };
        Ok((tokens, id_token))
    }
}

impl fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenAnswer(…)")
    }
}

impl OAuth2TokenResponse for TokenAnswer {
    type TokenType = Kind;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }
    fn token_type(&self) -> &Kind {
        &self.token_type
    }
    fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }
    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }
    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl TokenResponse<EmptyAdditionalClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>
    for TokenAnswer
{
    /// Never: the text goes to `id_token::verify`.
    fn id_token(&self) -> Option<&CoreIdToken> {
        None
    }
}

/// The crate's error response.
pub(super) type Refusal = StandardErrorResponse<CoreErrorResponseType>;

/// Why a call brought no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// An error of RFC 6749 §5.2.
    Refused(ErrorCode),
    /// Surely not processed: try again later.
    Unavailable { reason: String, retry_after: Option<Duration> },
    /// Perhaps processed.
    InDoubt(String),
    /// Processed, and what came of it is of no use.
    Unusable(&'static str),
    /// An answer that no token endpoint gives: a redirect, a 404, a 403 of a firewall. Not processed.
    Unexpected(String),
}

impl Failure {
    /// Reads an error body of RFC 6749 §5.2; `secrets` were part of the request.
    pub(super) fn refusal(body: &[u8], secrets: &[&str]) -> Self {
        #[derive(Deserialize)]
        struct Shape {
            error: String,
            #[serde(default)]
            error_description: Option<String>,
        }
        let Ok(refusal) = serde_json::from_slice::<Shape>(body) else {
            return Self::Unexpected("the answer is not understood".to_owned());
        };
        let code = ErrorCode::new(&refusal.error);
        let description = text::description(&refusal.error_description.unwrap_or_default(), secrets);
        tracing::info!(%code, description, "the provider refuses a request");
        Self::Refused(code)
    }

    /// Reads the crate's error; `secrets` were part of the request.
    pub(super) fn read<T>(error: RequestTokenError<http::Error, T>, secrets: &[&str]) -> Self
    where
        T: ErrorResponse + Refused,
    {
        match error {
            RequestTokenError::ServerResponse(refusal) => {
                let code = ErrorCode::new(refusal.code());
                let description = text::description(refusal.description().unwrap_or_default(), secrets);
                tracing::info!(%code, description, "the provider refuses a request");
                Self::Refused(code)
            }
            RequestTokenError::Request(error) => error.into(),
            // Both may quote the answer, so nothing of them is kept.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                Self::InDoubt("the answer is not understood".to_owned())
            }
        }
    }
}

/// What [`Failure::read`] needs of the crate's error responses.
pub(super) trait Refused {
    fn code(&self) -> &str;
    fn description(&self) -> Option<&str>;
}

impl<T: AsRef<str> + openidconnect::ErrorResponseType + 'static> Refused for StandardErrorResponse<T> {
    fn code(&self) -> &str {
        self.error().as_ref()
    }
    fn description(&self) -> Option<&str> {
        self.error_description().map(String::as_str)
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        let reason = error.to_string();
        match error {
            // A nonce that changes all the time is the provider's trouble, and nothing was done.
            http::Error::NotSent(_) | http::Error::NonceWanted => Self::Unavailable { reason, retry_after: None },
            http::Error::Timeout | http::Error::Broken(_) | http::Error::TooLarge(_) => Self::InDoubt(reason),
            http::Error::Invalid => Self::Unexpected(reason),
            http::Error::Status { status, retry_after } => match status {
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable { reason, retry_after },
                status if status.is_redirection() || status.is_client_error() => Self::Unexpected(reason),
                // 502, 504 and their kin: a gateway lost the answer of a provider that may have acted.
                _ => Self::InDoubt(reason),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(json: &str) -> Result<(Tokens, Option<String>), Failure> {
        serde_json::from_str::<TokenAnswer>(json).unwrap().into_parts(Timestamp::from_secs(1000), false)
    }

    #[test]
    fn lifetimes_are_read_tolerantly() {
        for (json, expected) in [
            ("300", Some(1300)),
            ("\"300\"", Some(1300)),
            ("299.5", Some(1299)),
            ("0", Some(1000)),
            ("-5", Some(1000)),
            ("1e300", Some(1000 + 366 * 24 * 3600)),
            ("\"inf\"", Some(1000 + 366 * 24 * 3600)),
            ("\"soon\"", None),
            ("\"NaN\"", None),
            ("null", None),
            ("[1]", None),
        ] {
            let (tokens, _) = parts(&format!(r#"{{"access_token":"a","expires_in":{json}}}"#)).unwrap();
            assert_eq!(tokens.access_expires.map(Timestamp::as_secs), expected, "{json}");
        }
    }

    #[test]
    fn r5_refresh_tokens_and_their_ends() {
        let read = |json: &str| {
            let (tokens, _) = parts(json).unwrap();
            (tokens.refresh_token.map(|t| t.expose().to_owned()), tokens.refresh_expires.map(Timestamp::as_secs))
        };
        assert_eq!(read(r#"{"access_token":"a"}"#), (None, None));
        assert_eq!(read(r#"{"access_token":"a","refresh_token":null,"refresh_expires_in":9}"#), (None, None));
        assert_eq!(read(r#"{"access_token":"a","refresh_token":""}"#).0, None);
        let never = r#"{"access_token":"a","refresh_token":"r","refresh_expires_in":0}"#;
        assert_eq!(read(never), (Some("r".to_owned()), None));
        let google = r#"{"access_token":"a","refresh_token":"r","refresh_token_expires_in":60}"#;
        assert_eq!(read(google), (Some("r".to_owned()), Some(1060)));
    }

    #[test]
    fn only_bearer_tokens_that_fit_a_header() {
        assert!(parts(r#"{"access_token":"a","token_type":"bEARER"}"#).is_ok());
        for json in [r#"{"access_token":""}"#, r#"{"access_token":"a\r\nX-Evil: 1"}"#, r#"{"access_token":"ä"}"#] {
            assert!(matches!(parts(json), Err(Failure::Unusable(_))), "{json}");
        }
    }

    #[test]
    fn a_token_is_of_the_type_that_was_asked_for() {
        for (kind, bearer, bound) in [
            (r#","token_type":"Bearer""#, true, false),
            ("", true, false),
            (r#","token_type":"DPoP""#, false, true),
            (r#","token_type":"dpop""#, false, true),
            (r#","token_type":"N_A""#, false, false),
        ] {
            for (wanted, good) in [(false, bearer), (true, bound)] {
                let answer: TokenAnswer = serde_json::from_str(&format!(r#"{{"access_token":"a"{kind}}}"#)).unwrap();
                match answer.into_parts(Timestamp::default(), wanted) {
                    Ok((tokens, _)) => assert!(good && tokens.bound == wanted, "{kind} {wanted}"),
                    Err(failure) => assert!(!good && matches!(failure, Failure::Unusable(_)), "{kind} {wanted}"),
                }
            }
        }
    }

    #[test]
    fn d3_answers_and_tokens_print_nothing() {
        let answer: TokenAnswer =
            serde_json::from_str(r#"{"access_token":"canary","refresh_token":"canary","id_token":"canary"}"#).unwrap();
        let shown = format!("{answer:?} {}", serde_json::to_string(&answer).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
        let (tokens, _) = answer.into_parts(Timestamp::default(), false).unwrap();
        assert!(!format!("{tokens:?}").contains("canary"));
    }
}
