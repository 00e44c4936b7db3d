//! Requests of applications that show a proxy token, and the tokens that they get.

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use super::admit::Gate;
use super::session::{Case, Held};
use crate::answer::{Answer, Code};
use crate::config::settings::{Level, Token};
use crate::routing::table::Route;
use crate::session::open::Open;
use crate::telemetry::Throttle;

impl Gate {
    /// The session that the request's proxy token names. It is no use of the session: a user who is gone must not stay
    /// logged on for what applications do among themselves. The cookie of such a request means nothing (behaviour A1).
    pub(super) async fn by_proxy_token(&self, case: &Case<'_>) -> Result<Option<Held>, Box<Answer>> {
        let token = bearer(case.request.headers);
        let key = match (&self.proxy_tokens, token) {
            (Some(tokens), Some(token)) => tokens.verify(token, self.sessions.clock().now()),
            _ => None,
        };
        let Some(key) = key else { return Err(self.token_invalid()) };
        match self.sessions.by_key(&key, &case.auth.profile).await {
            Ok(Some(open)) if !case.takes(&open) => Err(self.token_invalid()),
            Ok(Some(open)) => match self.too_many_of_session(&case.request, case.route, &open) {
                Some(answer) => Err(Box::new(answer)),
                None => self.with_token(case, open, false).await,
            },
            Ok(None) => Err(self.token_invalid()),
            Err(error) => {
                static FAILURES: Throttle = Throttle::new();
                if let Some(held_back) = FAILURES.pass() {
                    tracing::warn!(%error, held_back, "the session of a proxy token could not be looked up");
                }
                Err(self.unavailable(case, Code::StoreUnavailable, None))
            }
        }
    }

    /// What is said to an application whose token is missing, worthless, or of a session that has ended.
    pub(super) fn token_invalid(&self) -> Box<Answer> {
        self.count_unauthenticated("401");
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        Box::new(Answer::problem(Code::TokenInvalid, None, None).header(WWW_AUTHENTICATE, challenge))
    }

    /// The proxy token that a route sends of a session.
    pub(super) fn minted(&self, route: &Route, open: &Open, level: Level) -> Option<HeaderValue> {
        if route.token != Token::Proxy || level != Level::LoggedOn {
            return None;
        }
        open.proxy_authorization(self.proxy_tokens.as_deref()?, self.sessions.clock().now())
    }
}

/// Whether a request shows a token where its route takes one, or has nothing else to show.
pub(super) fn is_by_token(case: &Case<'_>) -> bool {
    let accept = case.route.accept;
    accept.proxy_token && (!accept.session || case.request.headers.contains_key(AUTHORIZATION))
}

/// The one token in `Authorization`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}
