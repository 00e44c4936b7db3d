//! Which session a request has, and what is said to one that has none.

use std::sync::Arc;

use http::HeaderValue;

use super::admit::Gate;
use super::answers::{goes_to_login, refusal};
use super::check::log_in_first;
use super::proxy_token::is_by_token;
use super::{Bearer, Client, Request, Scheme, Upgrade};
use crate::answer::{Answer, Code, continue_to};
use crate::config::settings::{Access, CsrfMode, Level, SameSite, Token};
use crate::login::navigation::{is_cross_site, is_navigation};
use crate::login::{ReturnTo, SiteAuth, Visit, Wishes};
use crate::primitives::clock::Timestamp;
use crate::refresh::{Failure, Refreshed};
use crate::routing::cors::Grant;
use crate::routing::host::Authority;
use crate::routing::route::is_preflight;
use crate::routing::table::{Route, Site};
use crate::session::cookie::{Sorted, Ticket};
use crate::session::csrf;
use crate::session::open::Open;
use crate::telemetry::Throttle;
use crate::telemetry::audit::{Actor, Entry, Event};

/// A request with everything that was found out about it so far.
pub(super) struct Case<'r> {
    pub(super) request: Request<'r>,
    pub(super) upgrade: Upgrade,
    pub(super) path: &'r str,
    pub(super) origin: Origin<'r>,
    pub(super) site: &'r Arc<Site>,
    pub(super) auth: &'r Arc<SiteAuth>,
    pub(super) route: &'r Arc<Route>,
    pub(super) grant: Option<&'r Grant>,
    pub(super) sorted: &'r Sorted<'r>,
}

/// The session of a request, and how well its user is known by it.
pub(super) struct Held {
    pub(super) open: Arc<Open>,
    pub(super) level: Level,
    /// Whether it was its cookie that named it.
    pub(super) by_cookie: bool,
    /// Whether new tokens were waited for.
    pub(super) refreshed: bool,
    /// What the CSRF check said; `None` = nothing was checked.
    pub(super) csrf: Option<&'static str>,
}

impl Held {
    fn at(level: Level, open: Arc<Open>, by_cookie: bool) -> Self {
        Self { open, level, by_cookie, refreshed: false, csrf: None }
    }
}

impl Case<'_> {
    /// Whether the route takes sessions of this one's provider.
    pub(super) fn takes(&self, open: &Open) -> bool {
        self.route.provider.as_ref().is_none_or(|name| **name == *open.provider())
    }
}

/// Our origin as the browser sees it; written out only where somebody asks.
pub(super) struct Origin<'r> {
    pub(super) client: &'r Client,
    pub(super) authority: &'r Authority<'r>,
}

impl Origin<'_> {
    /// Scheme, host and port.
    pub(super) fn write(&self) -> String {
        let scheme = self.client.scheme;
        let default = if scheme == Scheme::Https { 443 } else { 80 };
        match self.authority.port {
            Some(port) if port != default => format!("{}://{}:{port}", scheme.as_str(), self.authority.host),
            _ => format!("{}://{}", scheme.as_str(), self.authority.host),
        }
    }
}

impl Gate {
    /// The session that the route asks for, with a token fit to be sent; or the answer to give instead.
    /// A client with a token of its own has none, whatever cookies it sends (behaviour A1).
    pub(super) async fn session(&self, case: &Case<'_>, bearer: Option<&Bearer>) -> Result<Option<Held>, Box<Answer>> {
        // A preflight brings no cookies, so it is for the upstream to answer; what we answer ourselves is not given for it.
        let preflight = is_preflight(case.request.method, case.request.headers) && case.route.forward().is_some();
        if case.route.access == Access::Public || preflight || bearer.is_some() || case.route.accept.is_bearer_only() {
            return Ok(None);
        }
        if is_by_token(case) {
            // On the heap: it would make this future large for all others.
            return Box::pin(self.by_proxy_token(case)).await;
        }
        let found = match case.sorted.ticket {
            Ticket::One(id) => match self.sessions.at_level(&id, &case.auth.profile, case.route.level).await {
                Ok(found) => found,
                Err(error) => {
                    static FAILURES: Throttle = Throttle::new();
                    if let Some(held_back) = FAILURES.pass() {
                        tracing::warn!(%error, held_back, "a session could not be looked up");
                    }
                    return Err(self.unavailable(case, Code::StoreUnavailable, None));
                }
            },
            _ => None,
        };
        let Some(open) = found else {
            let code = match case.sorted.ticket {
                Ticket::Absent => Code::SessionMissing,
                _ => Code::SessionExpired,
            };
            return self.without_session(case, code).await;
        };
        if !case.takes(&open) {
            return self.without_session(case, Code::SessionMissing).await;
        }
        if let Some(answer) = self.too_many_of_session(&case.request, case.route, &open) {
            return Err(Box::new(answer));
        }
        let csrf = self.check_csrf(case, &open)?;
        // Read once for all that follows without a wait.
        let now = self.sessions.clock().now();
        if case.route.level == Level::Returning && open.is_over(now) {
            // No use of it puts its end off, and no token of it is sent.
            self.logins.part_with_tokens(case.auth, &open);
            return Ok(Some(Held { csrf, ..Held::at(Level::Returning, open, true) }));
        }
        let time = self.sessions.note_use(&open, now);
        let (open, now) = match time.rotate {
            true => (self.sessions.rotate(open).await, self.sessions.clock().now()),
            false => (Some(open), now),
        };
        let Some(open) = open else { return self.without_session(case, Code::SessionExpired).await };
        if time.refresh {
            self.refresher.hurry(&open);
        }
        let held = self.with_token(case, open, true, now).await?;
        Ok(held.map(|held| Held { csrf, ..held }))
    }

    /// The session with a token fit to be sent, and with claims of its age where rules look at them. A route for users who
    /// return takes one for whom there is no such token to be had.
    pub(super) async fn with_token(
        &self,
        case: &Case<'_>,
        open: Arc<Open>,
        by_cookie: bool,
        now: Timestamp,
    ) -> Result<Option<Held>, Box<Answer>> {
        let route = case.route;
        let needs_none = matches!(route.token, Token::None | Token::Proxy) && route.rules.is_empty();
        if needs_none || self.refresher.is_fresh(&open, now) {
            return Ok(Some(Held::at(Level::LoggedOn, open, by_cookie)));
        }
        match self.refresher.freshen(open.clone()).await {
            Refreshed::Renewed(open) => {
                Ok(Some(Held { refreshed: true, ..Held::at(Level::LoggedOn, open, by_cookie) }))
            }
            // After a logout nobody is known any more, nor after the provider's refusal.
            Refreshed::Ended => self.without_session(case, Code::RefreshRejected).await,
            Refreshed::Failed(_) if route.level == Level::Returning && !open.was_ended() => {
                Ok(Some(Held::at(Level::Returning, open, by_cookie)))
            }
            Refreshed::Failed(Failure::NoRefreshToken | Failure::InDoubt) => {
                self.without_session(case, Code::SessionExpired).await
            }
            Refreshed::Failed(Failure::Provider(pause)) => {
                Err(self.unavailable(case, Code::ProviderUnavailable, Some(pause.as_secs().max(1))))
            }
            Refreshed::Failed(Failure::Store) => Err(self.unavailable(case, Code::StoreUnavailable, None)),
        }
    }

    /// A session that was prepared for other settings of the site. Its identity headers must not be taken for those of
    /// this request's route.
    pub(super) async fn prepared(&self, case: &Case<'_>, held: &Held) -> Result<Option<Held>, Box<Answer>> {
        match self.sessions.prepare(&held.open, &case.auth.profile, held.level).await {
            Ok(Some(open)) => Ok(Some(Held { open, ..*held })),
            Ok(None) => self.without_session(case, Code::SessionExpired).await,
            Err(_) => Err(self.unavailable(case, Code::StoreUnavailable, None)),
        }
    }

    async fn without_session(&self, case: &Case<'_>, code: Code) -> Result<Option<Held>, Box<Answer>> {
        if is_by_token(case) {
            return Err(self.token_invalid());
        }
        if case.route.access == Access::Optional {
            return Ok(None);
        }
        let Request { method, headers, .. } = case.request;
        if !goes_to_login(&case.request, case.route.on_missing) {
            self.count_unauthenticated("401");
            let answer = Answer::problem(code, None, Some(&case.auth.login_url()));
            return Err(Box::new(if case.route.accept.bearer { answer.or_bearer() } else { answer }));
        }
        self.count_unauthenticated("redirect");
        let origin = case.origin.write();
        let visit = Visit {
            method,
            path: case.path,
            query: case.request.uri.query(),
            headers,
            origin: &origin,
            ticket: case.sorted.ticket,
            client_ip: case.origin.client.ip,
            site: case.auth,
        };
        let asked = visit.target();
        if let Some(manner) = case.request.connection.forward_auth {
            return Err(Box::new(log_in_first(case.auth, case.route, &asked, &origin, manner, code)));
        }
        // The browser holds Strict cookies back on a navigation that another site began: ask again from our own page.
        let held_back = self.same_site == SameSite::Strict && case.sorted.ticket == Ticket::Absent;
        if held_back && is_cross_site(headers) && is_navigation(method, headers) {
            return Err(Box::new(continue_to(&asked)));
        }
        let return_to = ReturnTo::parse(&asked, case.auth);
        let provider = case.route.provider.as_deref();
        Err(Box::new(self.logins.start(&visit, provider, return_to, Wishes::default()).await))
    }

    /// Unsafe methods and WebSocket handshakes must come from our own pages; unsafe methods must prove it twice. A
    /// handshake is checked whatever the settings say: a page of another site could read all that comes through the
    /// tunnel, for the same-origin policy does not cover it (behaviour C5).
    fn check_csrf(&self, case: &Case<'_>, open: &Open) -> Result<Option<&'static str>, Box<Answer>> {
        let Request { method, headers, .. } = case.request;
        let handshake = case.upgrade == Upgrade::WebSocket;
        let unsafe_method = !csrf::is_safe(method);
        // Whose pages may use the session, where pages of others may: a page of another origin cannot read the token, but
        // it cannot hide where it comes from either.
        let shared = case.route.cors.as_ref().is_some_and(|cors| cors.has_credentials());
        let with_token = case.route.csrf && self.csrf_mode != CsrfMode::Off;
        let checks = unsafe_method && (with_token || shared && self.csrf_mode != CsrfMode::Off);
        if !handshake && !checks {
            return Ok(None);
        }
        let origin = case.origin.write();
        let granted = shared && !handshake && case.grant.is_some();
        let mut checked =
            if granted { Ok(()) } else { csrf::check_origin(headers, case.auth.trusted_origins(&origin)) };
        if unsafe_method && with_token && checked.is_ok() {
            let echo = headers.get(self.sessions.csrf_header()).map(HeaderValue::as_bytes);
            let cookie = echo.is_some_and(|echo| self.has_csrf_cookie(case, echo));
            checked = csrf::check_token(echo, cookie, open.csrf_token());
        }
        let Err(refusal) = checked else { return Ok(Some("passed")) };
        let (mode, enforced) = match self.csrf_mode {
            CsrfMode::Report if !handshake => ("report", false),
            _ => ("enforce", true),
        };
        self.metrics.csrf_rejections_total.with_label_values(&[refusal.as_str(), mode]).inc();
        tracing::info!(site = %case.site.name, route = %case.route.name, reason = refusal.as_str(), mode, "CSRF check failed");
        self.sessions.audit().tell(
            Event::CsrfRejected,
            &Entry {
                actor: Actor::User,
                reason: Some(refusal.as_str()),
                failed: enforced,
                site: Some(&case.site.name),
                provider: Some(open.provider()),
                session: Some(open.key().as_bytes()),
                client_ip: Some(case.origin.client.ip),
                ..Entry::default()
            },
        );
        if !enforced {
            return Ok(Some("reported"));
        }
        let header = self.sessions.csrf_header();
        let detail = format!("Send the value of the CSRF cookie in the header {header}, from a page of this site.");
        // A page that lost its cookie gets it again with the refusal.
        let answer = Answer::problem(Code::CsrfFailed, Some(&detail), None).cookie(open.csrf_cookie().cloned());
        Err(Box::new(answer))
    }

    /// The cookie comes with the first page; scripts and pictures of it need not bring it again.
    pub(super) fn needs_csrf_cookie(&self, case: &Case<'_>, open: &Open) -> bool {
        self.csrf_mode != CsrfMode::Off
            && !self.has_csrf_cookie(case, open.csrf_token().as_bytes())
            && is_navigation(case.request.method, case.request.headers)
    }

    /// Whether one of the request's CSRF cookies is `token`; as a rule it is the first and only one. Nobody learns
    /// anything from the time this takes: the token stands in the same request, or is told in the answer.
    fn has_csrf_cookie(&self, case: &Case<'_>, token: &[u8]) -> bool {
        case.sorted.csrf == Some(token) || self.sessions.cookies().csrf_matches(case.request.headers, token)
    }

    pub(super) fn unavailable(&self, case: &Case<'_>, code: Code, seconds: Option<u64>) -> Box<Answer> {
        self.count_unauthenticated("503");
        let answer = refusal(&case.request, code, "Your session is safe. Please try again in a moment.");
        Box::new(match seconds {
            Some(seconds) => answer.retry_after(seconds),
            None => answer,
        })
    }

    pub(super) fn count_unauthenticated(&self, answer: &str) {
        self.metrics.unauthenticated_total.with_label_values(&[answer]).inc();
    }
}
