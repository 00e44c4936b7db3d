//! Requests of applications that show a proxy token, and the tokens that they get.

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use super::admit::Gate;
use super::session::{Case, Held};
use crate::answer::{Answer, Code};
use crate::config::settings::{Access, Level, Token};
use crate::routing::table::Route;
use crate::session::open::Open;
use crate::session::proxy_token::ProxyTokenError;
use crate::telemetry::Throttle;
use crate::telemetry::audit::{Actor, Entry, Event};

impl Gate {
    /// The session that the request's proxy token names. It is no use of the session: a user who is gone must not stay
    /// logged on for what applications do among themselves. The cookie of such a request means nothing (behaviour A1).
    /// Where a session is optional, who shows no token at all passes without one; whoever shows one is judged by it.
    pub(super) async fn by_proxy_token(&self, case: &Case<'_>) -> Result<Option<Held>, Box<Answer>> {
        if case.route.access == Access::Optional && !shows_token(case.request.headers) {
            return Ok(None);
        }
        let token = bearer(case.request.headers);
        let key = match (&self.proxy_tokens, token) {
            (Some(tokens), Some(token)) => tokens.verify(token, self.sessions.clock().now()),
            _ => Err(ProxyTokenError::NotOurs),
        };
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                if error == ProxyTokenError::NotOurs && shows_token(case.request.headers) {
                    self.tell_of_stray(case);
                }
                return Err(self.token_invalid());
            }
        };
        match self.sessions.by_key(&key, &case.auth.profile).await {
            Ok(Some(open)) if !case.takes(&open) => Err(self.token_invalid()),
            Ok(Some(open)) => match self.too_many_of_session(&case.request, case.route, &open) {
                Some(answer) => Err(Box::new(answer)),
                None => self.with_token(case, open, false, self.sessions.clock().now()).await,
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

    /// One line a second: anybody may send tokens. That one has ended, or its session, is no news at all.
    fn tell_of_stray(&self, case: &Case<'_>) {
        static REFUSALS: Throttle = Throttle::new();
        let Some(held_back) = REFUSALS.pass() else { return };
        tracing::info!(site = %case.site.name, route = %case.route.name, held_back, "a proxy token is refused");
        self.sessions.audit().tell(
            Event::TokenRejected,
            &Entry {
                actor: Actor::User,
                reason: Some("proxy_token"),
                site: Some(&case.site.name),
                client_ip: Some(case.origin.client.ip),
                ..Entry::default()
            },
        );
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
    accept.proxy_token && (!accept.session || shows_token(case.request.headers))
}

/// Whether there is a token in `Authorization`, be it good or not. Another scheme is not for us, and does not go on.
fn shows_token(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| token_of(value).is_some())
}

/// The one token in `Authorization`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    std::str::from_utf8(token_of(value)?).ok()
}

/// What stands behind the scheme `Bearer` (RFC 6750 §2.1).
fn token_of(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
    let bearer = scheme.eq_ignore_ascii_case(b"bearer") && rest.first().is_none_or(|next| *next == b' ');
    bearer.then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_scheme_bearer_shows_a_token() {
        let read = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            (shows_token(&headers), bearer(&headers).map(str::to_owned))
        };
        for (fields, shows, token) in [
            (&[][..], false, None),
            (&["Basic eDp5"], false, None),
            (&["DPoP a.b.c"], false, None),
            (&["Bearerx a"], false, None),
            (&["Bea"], false, None),
            (&["Bearer a.b.c"], true, Some("a.b.c")),
            (&["bEARER  a "], true, Some("a")),
            (&["Bearer"], true, Some("")),
            (&["Bearer a", "Bearer a"], true, None),
            (&["Basic eDp5", "Bearer a"], true, None),
            (&["Bearer \u{fc}"], true, Some("\u{fc}")),
        ] {
            assert_eq!(read(fields), (shows, token.map(str::to_owned)), "{fields:?}");
        }
    }
}
