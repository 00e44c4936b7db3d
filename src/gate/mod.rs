//! The gate: what happens to a request before it goes upstream. Site, route, session, CSRF and token are decided here,
//! on HTTP's vocabulary alone, so that each decision is tested without a socket.

mod admit;
mod answers;
mod bearer;
mod client;
mod context;
mod dpop;
mod dress;
mod https;
mod hygiene;
mod proxy_token;
mod rate;
mod refused;
mod rules;
mod session;
mod step_up;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Uri};

pub use admit::Gate;
pub use answers::refusal;
pub use bearer::{Bearer, Bearers};
pub use client::{Client, Connection, Scheme};
pub use dress::{Dress, change, put_on, silence};
pub use hygiene::Hygiene;
pub use refused::{Refusal, asks_for_token};
pub use step_up::asks_to_step_up;
pub use upgrade::Upgrade;

use crate::answer::Answer;
use crate::config::settings::{ContextAccess, Level, Token};
use crate::login::{Endpoint, SiteAuth};
use crate::routing::cors::Grant;
use crate::routing::table::{Route, Site};
use crate::routing::upstream::Upstream;
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
    /// Who calls with a token of their own; then there is no session.
    pub bearer: Option<Arc<Bearer>>,
    /// How well its user is known by it.
    pub level: Level,
    /// The proxy token for the upstream, where the route sends one.
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
            (None, Some(bearer)) if self.route.token == Token::Access => Some(bearer.authorization()),
            (None, _) => None,
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
    pub fn token_hash(&self) -> Option<&str> {
        let open = self.session.as_ref().filter(|_| self.route.token == Token::Access)?;
        open.token_hash().filter(|_| self.level != Level::Returning)
    }

    /// What the route sends of a session in `Authorization`: nothing of a user who is no longer logged on.
    #[must_use]
    pub fn token_of<'o>(&'o self, open: &'o Open) -> Option<&'o HeaderValue> {
        match self.route.token {
            _ if self.level == Level::Returning => None,
            Token::None => None,
            Token::Access => open.authorization(),
            Token::Id => open.id_authorization(),
            Token::Proxy => self.minted.as_ref(),
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
