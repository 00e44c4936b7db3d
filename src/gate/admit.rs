//! The way of a request through the gate.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::answers::{answered, refusal};
use super::session::{Case, Origin};
use super::{Bearers, Call, Client, Dress, Hygiene, Pass, Refused, Request, Traces, Upgrade, Verdict};
use crate::answer::Code;
use crate::config::settings::{CsrfMode, Level, SameSite};
use crate::grants::Grants;
use crate::login::{Endpoint, Logins, Reply, SiteAuth, Visit};
use crate::primitives::clock::Clock;
use crate::primitives::path;
use crate::refresh::Refresher;
use crate::routing::host::{self, Authority};
use crate::routing::route::{is_preflight, rewritten};
use crate::routing::table::{Action, Asked, Choice, Site, Table};
use crate::session::cookie::{Foreign, Ticket};
use crate::session::issued::Slot;
use crate::session::manager::Sessions;
use crate::session::open::Open;
use crate::session::proxy_token::ProxyTokens;
use crate::session::vigil::{Vigil, forgotten};
use crate::telemetry::access::AccessLog;
use crate::telemetry::handles::RouteMetrics;
use crate::telemetry::{Metrics, Throttle};

/// What is said to a method that is never passed on. An upstream may know more of them.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Most bytes of the form that confirms a logout.
const LOGOUT_BODY: usize = 8 * 1024;
/// Most bytes of a form with credentials.
const LOGIN_BODY: usize = 64 * 1024;
/// Most bytes of a form with a logout token.
const LOGOUT_TOKEN_BODY: usize = 16 * 1024;
/// Largest body of a posted answer to a login.
const CALLBACK_BODY: usize = 16 * 1024;

/// All that decides about a request.
pub struct Gate {
    /// Sites and routes.
    pub table: Table,
    /// What the login room knows of each site, by [`Site::index`].
    pub auth: Vec<Arc<SiteAuth>>,
    /// The access tokens of each site that takes any, by [`Site::index`].
    pub bearers: Vec<Option<Arc<Bearers>>>,
    /// The places of our own tokens of each site, by [`Site::index`] and [`Made::Own`](crate::routing::table::Made::Own).
    pub client_tokens: Vec<Box<[Arc<Slot>]>>,
    /// Header fields that are ours alone.
    pub hygiene: Hygiene,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What a failed CSRF check does.
    pub csrf_mode: CsrfMode,
    /// `SameSite` of the session cookie.
    pub same_site: SameSite,
    /// Sessions.
    pub sessions: Arc<Sessions>,
    /// Logins.
    pub logins: Arc<Logins>,
    /// Tokens that name sessions to applications.
    pub proxy_tokens: Option<Arc<ProxyTokens>>,
    /// Fresh tokens.
    pub refresher: Arc<Refresher>,
    /// Tokens for single upstreams.
    pub grants: Arc<Grants>,
    /// Counts requests of no site.
    pub unknown: Arc<RouteMetrics>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where requests that are over are told of; `None` = nowhere.
    pub access_log: Option<AccessLog>,
    /// The traces of requests; `None` = there are none.
    pub traces: Option<Traces>,
    /// The time by which requests are limited.
    pub clock: Clock,
}

impl Gate {
    /// Decides about a request. Nothing has been sent anywhere when this returns.
    pub async fn admit(&self, request: Request<'_>) -> Verdict {
        if let Some(manner) = request.connection.forward_auth {
            // On the heap: it would make this future large for all others.
            return Box::pin(self.check(request, manner)).await;
        }
        let client = Client::of(request.connection, request.headers, &self.trusted_proxies);
        let upgrade = Upgrade::of(request.method, request.headers);
        match self.decide(request, client, upgrade).await {
            Ok(pass) => match &pass.route.action {
                Action::Upstream(_) => Verdict::Forward(pass),
                Action::Files(_) => Verdict::Files(pass),
                Action::Redirect(_) | Action::Respond(_) => self.fixed_answer(&request, *pass),
            },
            Err(verdict) => verdict,
        }
    }

    /// Whether a request may have what its route gives, and what is said to it if not. Everything that is decided is decided
    /// here, whether the request goes on from here or a proxy in front asks about it.
    pub(super) async fn decide(
        &self,
        request: Request<'_>,
        client: Client,
        upgrade: Upgrade,
    ) -> Result<Box<Pass>, Verdict> {
        if is_echo(request.method) {
            self.metrics.requests_rejected_total.with_label_values(&["method"]).inc();
            let answer = refusal(&request, Code::MethodNotAllowed, "").header(http::header::ALLOW, METHODS);
            return Err(Verdict::Answer(Box::new(Refused { answer, metrics: None, dress: None })));
        }
        if upgrade == Upgrade::Malformed {
            return Err(self.reject(
                &request,
                None,
                Code::BadRequest,
                "upgrade",
                "A WebSocket begins with a bodiless GET.",
            ));
        }
        let authority = match self.authority(&request, &client) {
            Ok(authority) => authority,
            Err(error) => return Err(self.reject(&request, None, Code::BadRequest, "host", &error.to_string())),
        };
        let Some(site) = self.table.site(&authority.host) else {
            return Err(self.reject(&request, None, Code::UnknownHost, "unknown_host", "Check the address."));
        };
        if let Some(name) = request.connection.only_for
            && self.table.site(name).is_none_or(|other| other.index != site.index)
        {
            return Err(self.reject(
                &request,
                Some(site),
                Code::UnknownHost,
                "server_name",
                "Open a connection of its own.",
            ));
        }
        let Some(auth) = self.auth.get(site.index) else {
            return Err(self.reject(&request, Some(site), Code::Internal, "internal", "Please try again in a moment."));
        };
        let path = match path::canonical(request.raw_path) {
            Ok(path) => path,
            Err(error) => return Err(self.reject(&request, Some(site), Code::BadRequest, "path", &error.to_string())),
        };
        let asked = Asked { host: &authority.host, method: request.method, headers: request.headers };
        if is_ambiguous(site, auth, &path, &asked) {
            let text = "a parameter in the path makes it one route's for us and another's for others";
            return Err(self.reject(&request, Some(site), Code::BadRequest, "path", text));
        }
        if let Some(verdict) = self.redirect_to_https(&request, &client, site, &asked, &path) {
            return Err(verdict);
        }
        let sorted = self.sessions.cookies().sort(request.headers);
        if sorted.ticket == Ticket::Doubled {
            static DOUBLED: Throttle = Throttle::new();
            if let Some(held_back) = DOUBLED.pass() {
                tracing::warn!(site = %site.name, held_back, "two session cookies in one request; none counts");
            }
        }
        let origin = Origin { client: &client, authority: &authority };
        match auth.endpoint(&path) {
            None => {}
            Some(None) => {
                return Err(self.reject(&request, Some(site), Code::NotFound, "not_found", "Check the address."));
            }
            Some(Some(endpoint)) => {
                return Err(Verdict::Endpoint(Box::new(Call {
                    endpoint,
                    site: auth.clone(),
                    path: path.into_owned(),
                    origin: origin.write(),
                    ticket: sorted.ticket,
                    client_ip: client.ip,
                    metrics: site.own.clone(),
                    dress: Dress {
                        site: site.clone(),
                        route: None,
                        grant: None,
                        tls: client.scheme == super::Scheme::Https,
                    },
                })));
            }
        }
        let route = match site.route(&path, &asked) {
            Choice::Route(route) => route,
            Choice::Method(allow) => return Err(self.wrong_method(&request, site, &client, allow)),
            Choice::Elsewhere | Choice::Refused => {
                return Err(self.reject(&request, Some(site), Code::NotFound, "not_found", "Check the address."));
            }
        };
        let preflight = is_preflight(request.method, request.headers);
        let mut grant = None;
        if let Some(cors) = &route.cors {
            grant = cors.grant(request.headers);
            // Whoever asks about a request passes it on: then its upstream answers.
            if preflight && request.connection.forward_auth.is_none() {
                return Err(self.preflight(cors, site, route, grant, &client));
            }
        }
        if let Some(answer) = self.too_many_of_client(&request, route, &client) {
            return Err(answered(answer, site, route, grant, &client));
        }
        let case =
            Case { request, upgrade, path: &path, origin, site, auth, route, grant: grant.as_ref(), sorted: &sorted };
        let bearer = match route.accept.bearer {
            true => match Box::pin(self.bearer(&case)).await {
                Ok(bearer) => bearer,
                Err(answer) => return Err(answered(*answer, site, route, grant, &client)),
            },
            false => None,
        };
        let held = match self.session(&case, bearer.as_deref()).await {
            Ok(None) => None,
            Ok(Some(held)) if Arc::ptr_eq(held.open.profile(), &auth.profile) => Some(held),
            Ok(Some(held)) => match self.prepared(&case, &held).await {
                Ok(held) => held,
                Err(answer) => return Err(answered(*answer, site, route, grant, &client)),
            },
            Err(answer) => return Err(answered(*answer, site, route, grant, &client)),
        };
        // What a token names is none of the browser's business, should one have sent it.
        let by_cookie = held.as_ref().is_some_and(|held| held.by_cookie);
        let (refreshed, csrf) = held.as_ref().map_or((false, None), |held| (held.refreshed, held.csrf));
        let (session, level) = held.map_or((None, Level::LoggedOn), |held| (Some(held.open), held.level));
        let minted = session.as_ref().and_then(|open| self.minted(route, open, level));
        let needs_ticket = match (&session, sorted.ticket) {
            (Some(open), Ticket::One(shown)) if by_cookie => !open.id().is(&shown),
            _ => false,
        };
        let needs_csrf_cookie = by_cookie && session.as_ref().is_some_and(|open| self.needs_csrf_cookie(&case, open));
        let path = match &route.action {
            Action::Upstream(forward) => {
                let path = rewritten(forward.rewrite.as_ref(), &path);
                (path != request.raw_path).then(|| path.into_owned())
            }
            Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => Some(path.into_owned()),
        };
        let mut pass = Box::new(Pass {
            site: site.clone(),
            route: route.clone(),
            session,
            by_cookie,
            refreshed,
            csrf,
            bearer,
            level,
            minted,
            grant,
            cookies: if preflight { Foreign::Nothing } else { sorted.foreign },
            path,
            needs_ticket,
            needs_csrf_cookie,
            client,
        });
        if let Some(open) = &pass.session
            && let Some(answer) = self.kept_out(&request, &pass, open)
        {
            return Err(answered(answer, site, route, pass.grant, &pass.client));
        }
        if let Some(bearer) = &pass.bearer
            && let Some(answer) = self.kept_out_bearer(&request, &pass, bearer)
        {
            return Err(answered(answer, site, route, pass.grant, &pass.client));
        }
        if let Some(made) = route.made
            && let Err(answer) = self.make(&request, &mut pass, made).await
        {
            return Err(answered(*answer, site, route, pass.grant, &pass.client));
        }
        Ok(pass)
    }

    /// The cookies that the answer to a request should bring.
    pub fn own_cookies(&self, pass: &Pass) -> impl Iterator<Item = HeaderValue> + use<> {
        let open = pass.session.as_ref().filter(|_| pass.needs_ticket || pass.needs_csrf_cookie);
        let ticket = open.filter(|_| pass.needs_ticket).and_then(|open| self.sessions.cookies().set_session(open.id()));
        let csrf = open.filter(|_| pass.needs_csrf_cookie).and_then(|open| open.csrf_cookie().cloned());
        [ticket, csrf].into_iter().flatten()
    }

    /// The fields of a forwarded request that must not reach the upstream.
    #[must_use]
    pub fn unwanted(&self, headers: &HeaderMap, pass: &Pass) -> Vec<HeaderName> {
        // The CSRF header echoes a secret of the session.
        let echo = (!pass.site.providers.is_empty()).then(|| self.sessions.csrf_header());
        headers.keys().filter(|name| self.hygiene.is_reserved(name) || Some(*name) == echo).cloned().collect()
    }

    /// Answers a call of one of our own endpoints.
    pub async fn endpoint(&self, request: Request<'_>, call: &Call, body: &Bytes) -> Reply {
        let visit = Visit {
            method: request.method,
            path: &call.path,
            query: request.uri.query(),
            headers: request.headers,
            origin: &call.origin,
            ticket: call.ticket,
            client_ip: call.client_ip,
            site: &call.site,
        };
        self.logins.answer(call.endpoint, visit, body).await
    }

    /// Waits until a session does not serve a user of this level any more.
    pub fn end_of(&self, open: &Arc<Open>, level: Level) -> impl Future<Output = ()> + Send + 'static {
        let (sessions, open) = (self.sessions.clone(), open.clone());
        // Begun when it is first waited for, and not before: until then it costs nothing.
        async move {
            match level {
                Level::LoggedOn => drop(Vigil::new(sessions, open).over().await),
                Level::Returning => forgotten(sessions, open).await,
            }
        }
    }

    /// The host that counts. A trusted peer may say that the client asked for another one than it does.
    pub(super) fn authority<'r>(
        &self,
        request: &Request<'r>,
        client: &'r Client,
    ) -> Result<Authority<'r>, host::HostError> {
        let direct = host::of_request(request.uri, request.headers)?;
        match &client.host {
            Some(said) => Authority::parse(said.to_str().map_err(|_| host::HostError::Malformed)?),
            None => Ok(direct),
        }
    }
}

/// Whether a request asks for itself back: with `TRACE`, or with `TRACK`, the name that some servers have for it. An upstream
/// that answers it shows the browser our token (behaviour K1). Methods are case-sensitive; not every server keeps to that.
fn is_echo(method: &Method) -> bool {
    ["TRACE", "TRACK"].iter().any(|echo| method.as_str().eq_ignore_ascii_case(echo))
}

/// Whether a server that cuts `;` parameters off would see this path below another route (behaviour H4).
fn is_ambiguous(site: &Site, auth: &SiteAuth, path: &str, asked: &Asked<'_>) -> bool {
    let Some(bare) = path::without_parameters(path) else { return false };
    let route = |path: &str| match site.route(path, asked) {
        Choice::Route(route) => Some(Arc::as_ptr(route)),
        _ => None,
    };
    auth.endpoint(path) != auth.endpoint(&bare) || route(path) != route(&bare)
}

/// Endpoints that read a body.
impl Call {
    /// How much of the request's body the answer depends on: a logout may bring its CSRF token there, a provider's
    /// logout and a user's credentials are all in there. 0 = not at all.
    #[must_use]
    pub fn body_limit(&self, method: &Method, headers: &HeaderMap, csrf_header: &HeaderName) -> usize {
        match self.endpoint {
            Endpoint::Callback if *method == Method::POST => CALLBACK_BODY,
            Endpoint::BackchannelLogout if *method == Method::POST => LOGOUT_TOKEN_BODY,
            Endpoint::Login if *method == Method::POST && self.site.backends().next().is_some() => LOGIN_BODY,
            Endpoint::Logout
                if *method == Method::POST
                    && matches!(self.ticket, Ticket::One(_))
                    && !headers.contains_key(csrf_header) =>
            {
                LOGOUT_BODY
            }
            _ => 0,
        }
    }
}
