//! The gate: what happens to a request before it goes upstream. Site, route, session, CSRF and token are decided here,
//! on HTTP's vocabulary alone, so that each decision is tested without a socket.

mod admit;
mod answers;
mod bearer;
mod check;
mod client;
mod context;
mod dress;
mod https;
mod hygiene;
mod made;
mod opaque;
mod proof;
mod proxy_token;
mod rate;
mod refused;
mod rules;
mod session;
mod step_up;
mod traces;
mod upgrade;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Uri};

pub use admit::Gate;
pub use answers::{goes_to_login, refusal};
pub use bearer::{Bearer, Bearers};
pub use client::{Client, Connection, Scheme};
pub use dress::{Dress, change, put_on, silence};
pub use hygiene::Hygiene;
pub use refused::{Refusal, asks_for_token};
pub use step_up::asks_to_step_up;
pub use traces::Traces;
pub use upgrade::Upgrade;

use crate::answer::Answer;
use crate::config::settings::{ContextAccess, Level, Token};
use crate::login::{Endpoint, SiteAuth};
use crate::primitives::dpop;
use crate::routing::cors::Grant;
use crate::routing::table::{Route, Site};
use crate::routing::upstream::Upstream;
use crate::session::context::HEADER as USER_CONTEXT;
use crate::session::cookie::Foreign;
use crate::session::open::Open;
use crate::telemetry::handles::RouteMetrics;

/// A request as the gate sees it: as it came, nothing removed yet.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// Method.
    pub method: &'r Method,
    /// Target; absolute form or HTTP/2 bring an authority along.
    pub uri: &'r Uri,
    /// The path as it stands on the wire, without query.
    pub raw_path: &'r str,
    /// Header fields.
    pub headers: &'r HeaderMap,
    /// The connection it came over.
    pub connection: Connection<'r>,
}

/// What is to be done with a request.
pub enum Verdict {
    /// It goes upstream like this.
    Forward(Box<Pass>),
    /// A file of the route's folder answers it.
    Files(Box<Pass>),
    /// It is for one of our own endpoints; [`Gate::endpoint`] answers it, once the body is read.
    Endpoint(Box<Call>),
    /// This is the answer.
    Answer(Box<Refused>),
}

/// An answer of the gate, and what it was about as far as that was found out.
pub struct Refused {
    /// The answer.
    pub answer: Answer,
    /// Where it is counted; `None` if not even the site was found.
    pub metrics: Option<Arc<RouteMetrics>>,
    /// What it wears; `None` if not even the site was found.
    pub dress: Option<Dress>,
}

/// A request that may pass.
pub struct Pass {
    /// Its site.
    pub site: Arc<Site>,
    /// Its route.
    pub route: Arc<Route>,
    /// Its session, if it has one here.
    pub session: Option<Arc<Open>>,
    /// Whether it was a browser's cookie that named the session, and no token of an application.
    pub by_cookie: bool,
    /// Whether it waited for new tokens of its session.
    pub refreshed: bool,
    /// What the CSRF check said, `passed` or `reported`; `None` = nothing was checked.
    pub csrf: Option<&'static str>,
    /// Who calls with a token of their own; then there is no session.
    pub bearer: Option<Arc<Bearer>>,
    /// How well its user is known by it.
    pub level: Level,
    /// The token that was made for this route: a proxy token, one that the user's was exchanged for, or one of our own.
    pub minted: Option<HeaderValue>,
    /// What `cors` grants to the page that asks.
    pub grant: Option<Grant>,
    /// Cookies for the upstream.
    pub cookies: Foreign,
    /// The path for the upstream, if it differs from the one on the wire; the canonical one where a file answers.
    pub path: Option<String>,
    /// Whether the answer should bring the session's present ticket: the one that came has been exchanged.
    pub needs_ticket: bool,
    /// Whether the answer should bring the CSRF cookie.
    pub needs_csrf_cookie: bool,
    /// Who asks, for the forwarded headers.
    pub client: Client,
}

impl Pass {
    /// The upstream that it goes to, if it goes to one.
    #[must_use]
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.route.forward().map(|forward| &forward.upstream)
    }

    /// What the route tells its upstream of the user.
    #[must_use]
    pub fn context(&self) -> Option<&HeaderValue> {
        let open = self.session.as_ref().filter(|_| self.route.context != ContextAccess::None)?;
        open.context(self.level)
    }

    /// What the route sends in `Authorization`: of the session, or of a client with a token of its own.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        match (&self.session, &self.bearer) {
            (Some(open), _) => self.token_of(open),
            (None, Some(bearer)) if matches!(self.route.token, Token::Access | Token::ClientCredentials(_)) => {
                Some(bearer.authorization())
            }
            (None, _) => self.minted.as_ref(),
        }
    }

    /// The same, but for a token that its client has brought: that one is not ours to replace.
    #[must_use]
    pub fn own_token(&self) -> Option<&HeaderValue> {
        match &self.session {
            Some(open) => self.token_of(open),
            None => self.minted.as_ref(),
        }
    }

    /// Puts in what the route tells its upstream of the user, if there is one: token, claims, level and context.
    pub fn identify(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.authorization() {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some(name) = &self.route.level_header
            && let Some(value) = self.level_value()
        {
            headers.insert(name.clone(), value);
        }
        if let Some(value) = self.context() {
            headers.insert(USER_CONTEXT, value.clone());
        }
        for (name, claim) in &self.route.identity_headers {
            if let Some(value) = self.identity(*claim) {
                headers.insert(name.clone(), value.clone());
            }
        }
    }

    /// The header value of a claim of the site's [`Profile`](crate::session::profile::Profile).
    #[must_use]
    pub fn identity(&self, claim: usize) -> Option<&HeaderValue> {
        match (&self.session, &self.bearer) {
            (Some(open), _) => open.identity(claim),
            (None, Some(bearer)) => bearer.identity(claim),
            (None, None) => None,
        }
    }

    /// How well the user is known, in a header value; `None` = there is no user.
    #[must_use]
    pub fn level_value(&self) -> Option<HeaderValue> {
        let known = self.session.is_some() || self.bearer.is_some();
        known.then(|| HeaderValue::from_static(self.level.as_str()))
    }

    /// What a proof says of the token in `Authorization` (RFC 9449 §4.2); `None` = it needs none.
    #[must_use]
    pub fn token_hash(&self) -> Option<Cow<'_, str>> {
        let value = self.own_token()?;
        let token = dpop::bound_token(value)?;
        match self.session.as_ref().filter(|_| self.is_of_session(value)).and_then(|open| open.token_hash()) {
            Some(ready) => Some(ready.into()),
            None => Some(dpop::token_hash(token).into()),
        }
    }

    /// Whether this is the access token of its session, and none that was made for the route.
    fn is_of_session(&self, value: &HeaderValue) -> bool {
        let own = self.session.as_ref().and_then(|open| open.authorization());
        own.is_some_and(|own| std::ptr::eq(own, value))
    }

    /// What the route sends of a session in `Authorization`: nothing of a user who is no longer logged on.
    #[must_use]
    pub fn token_of<'o>(&'o self, open: &'o Open) -> Option<&'o HeaderValue> {
        match self.route.token {
            // To the upstream he is nobody in particular.
            Token::ClientCredentials(_) if self.level == Level::Returning => self.minted.as_ref(),
            _ if self.level == Level::Returning => None,
            Token::None => None,
            Token::Access | Token::ClientCredentials(_) => open.authorization(),
            Token::Id => open.id_authorization(),
            Token::Proxy | Token::Exchange(_) => self.minted.as_ref(),
        }
    }
}

/// A request to one of our own endpoints.
pub struct Call {
    /// Which one.
    pub endpoint: Endpoint,
    /// Of which site.
    pub site: Arc<SiteAuth>,
    /// Canonical path.
    pub path: String,
    /// Our origin as this browser sees it.
    pub origin: String,
    /// The session cookie.
    pub ticket: crate::session::cookie::Ticket,
    /// Where it came from.
    pub client_ip: IpAddr,
    /// Where it is counted.
    pub metrics: Arc<RouteMetrics>,
    /// What the answer wears.
    pub dress: Dress,
}
