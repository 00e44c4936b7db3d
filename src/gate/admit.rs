//! The way of a request through the gate.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::{Call, Client, Dress, Hygiene, Pass, Refused, Request, Upgrade, Verdict};
use crate::answer::{Answer, Code, Page, continue_to};
use crate::config::settings::{Access, CsrfMode, OnMissing, SameSite, Token};
use crate::login::navigation::{is_cross_site, is_navigation, may_navigate, wants_page};
use crate::login::{Endpoint, Logins, Reply, ReturnTo, SiteAuth, Visit, Wishes};
use crate::primitives::path;
use crate::refresh::{Failure, Refreshed, Refresher};
use crate::routing::cors::{Cors, Grant};
use crate::routing::host::{self, Authority};
use crate::routing::route::{has_body, is_preflight, redirect_target, rewritten};
use crate::routing::table::{Action, Asked, Choice, Route, Site, Table};
use crate::session::cookie::{Foreign, Sorted, Ticket};
use crate::session::csrf;
use crate::session::manager::Sessions;
use crate::session::open::Open;
use crate::session::vigil::{Reason, Vigil};
use crate::telemetry::audit::{Actor, Entry, Event};
use crate::telemetry::handles::RouteMetrics;
use crate::telemetry::{Metrics, Throttle};

/// What is said to a method that is never passed on. An upstream may know more of them.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Most bytes of the form that confirms a logout.
const LOGOUT_BODY: usize = 8 * 1024;
/// Most bytes of a form with a logout token.
const LOGOUT_TOKEN_BODY: usize = 16 * 1024;

/// All that decides about a request.
pub struct Gate {
    /// Sites and routes.
    pub table: Table,
    /// What the login room knows of each site, by [`Site::index`].
    pub auth: Vec<Arc<SiteAuth>>,
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
    /// Fresh tokens.
    pub refresher: Arc<Refresher>,
    /// Counts requests of no site.
    pub unknown: Arc<RouteMetrics>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A request with everything that was found out about it so far.
struct Case<'r> {
    request: Request<'r>,
    upgrade: Upgrade,
    path: &'r str,
    origin: Origin<'r>,
    site: &'r Arc<Site>,
    auth: &'r Arc<SiteAuth>,
    route: &'r Arc<Route>,
    grant: Option<&'r Grant>,
    sorted: &'r Sorted<'r>,
}

/// Our origin as the browser sees it; written out only where somebody asks.
struct Origin<'r> {
    client: &'r Client,
    authority: &'r Authority<'r>,
}

impl Origin<'_> {
    fn write(&self) -> String {
        let scheme = self.client.scheme;
        let default = if scheme == super::Scheme::Https { 443 } else { 80 };
        match self.authority.port {
            Some(port) if port != default => format!("{}://{}:{port}", scheme.as_str(), self.authority.host),
            _ => format!("{}://{}", scheme.as_str(), self.authority.host),
        }
    }
}

impl Gate {
    /// Decides about a request. Nothing has been sent anywhere when this returns.
    pub async fn admit(&self, request: Request<'_>) -> Verdict {
        if *request.method == Method::TRACE {
            // An upstream that answers it sends the request back to the browser, our token in it (behaviour K1).
            self.metrics.requests_rejected_total.with_label_values(&["method"]).inc();
            let answer = refusal(&request, Code::MethodNotAllowed, "").header(http::header::ALLOW, METHODS);
            return Verdict::Answer(Box::new(Refused { answer, metrics: None, dress: None }));
        }
        let upgrade = Upgrade::of(request.method, request.headers);
        if upgrade == Upgrade::Malformed {
            return self.reject(&request, None, Code::BadRequest, "upgrade", "A WebSocket begins with a bodiless GET.");
        }
        let client = Client::of(request.connection, request.headers, &self.trusted_proxies);
        let authority = match self.authority(&request, &client) {
            Ok(authority) => authority,
            Err(error) => return self.reject(&request, None, Code::BadRequest, "host", &error.to_string()),
        };
        let Some(site) = self.table.site(&authority.host) else {
            return self.reject(&request, None, Code::UnknownHost, "unknown_host", "Check the address.");
        };
        if let Some(name) = request.connection.only_for
            && self.table.site(name).is_none_or(|other| other.index != site.index)
        {
            return self.reject(
                &request,
                Some(site),
                Code::UnknownHost,
                "server_name",
                "Open a connection of its own.",
            );
        }
        let Some(auth) = self.auth.get(site.index) else {
            return self.reject(&request, Some(site), Code::Internal, "internal", "Please try again in a moment.");
        };
        let path = match path::canonical(request.raw_path) {
            Ok(path) => path,
            Err(error) => return self.reject(&request, Some(site), Code::BadRequest, "path", &error.to_string()),
        };
        let asked = Asked { host: &authority.host, method: request.method, headers: request.headers };
        if is_ambiguous(site, auth, &path, &asked) {
            let text = "a parameter in the path makes it one route's for us and another's for others";
            return self.reject(&request, Some(site), Code::BadRequest, "path", text);
        }
        if let Some(verdict) = self.redirect_to_https(&request, &client, site, &asked, &path) {
            return verdict;
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
                return self.reject(&request, Some(site), Code::NotFound, "not_found", "Check the address.");
            }
            Some(Some(endpoint)) => {
                return Verdict::Endpoint(Box::new(Call {
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
                }));
            }
        }
        let route = match site.route(&path, &asked) {
            Choice::Route(route) => route,
            Choice::Method(allow) => return self.wrong_method(&request, site, &client, allow),
            Choice::Elsewhere | Choice::Refused => {
                return self.reject(&request, Some(site), Code::NotFound, "not_found", "Check the address.");
            }
        };
        let preflight = is_preflight(request.method, request.headers);
        let mut grant = None;
        if let Some(cors) = &route.cors {
            grant = cors.grant(request.headers);
            if preflight {
                return self.preflight(cors, site, route, grant, &client);
            }
        }
        let case =
            Case { request, upgrade, path: &path, origin, site, auth, route, grant: grant.as_ref(), sorted: &sorted };
        let session = match self.session(&case).await {
            Ok(None) => None,
            Ok(Some(open)) if Arc::ptr_eq(open.profile(), &auth.profile) => Some(open),
            Ok(Some(open)) => match self.prepared(&case, &open).await {
                Ok(session) => session,
                Err(answer) => return answered(*answer, site, route, grant, &client),
            },
            Err(answer) => return answered(*answer, site, route, grant, &client),
        };
        let needs_ticket = match (&session, sorted.ticket) {
            (Some(open), Ticket::One(shown)) => !open.id().is(&shown),
            _ => false,
        };
        let needs_csrf_cookie = session.as_ref().is_some_and(|open| self.needs_csrf_cookie(&case, open));
        let path = match &route.action {
            Action::Upstream(forward) => {
                let path = rewritten(forward.rewrite.as_ref(), &path);
                (path != request.raw_path).then(|| path.into_owned())
            }
            Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => Some(path.into_owned()),
        };
        let pass = Box::new(Pass {
            site: site.clone(),
            route: route.clone(),
            session,
            grant,
            cookies: if preflight { Foreign::Nothing } else { sorted.foreign },
            path,
            needs_ticket,
            needs_csrf_cookie,
            client,
        });
        match &route.action {
            Action::Upstream(_) => Verdict::Forward(pass),
            Action::Files(_) => Verdict::Files(pass),
            Action::Redirect(_) | Action::Respond(_) => self.fixed_answer(&request, *pass),
        }
    }

    /// What stands in the settings, for who may see it.
    fn fixed_answer(&self, request: &Request<'_>, pass: Pass) -> Verdict {
        let Pass { site, route, grant, client, .. } = &pass;
        let path = pass.path.as_deref().unwrap_or("/");
        let answer = match &route.action {
            Action::Redirect(redirect) => {
                let target = redirect_target(redirect, &route.path, path, request.uri.query());
                Answer::moved(redirect.status, &target)
            }
            Action::Respond(respond) if has_body(respond.status) => {
                Some(Answer::fixed(respond.status, respond.content_type.clone(), respond.body.clone()))
            }
            Action::Respond(respond) => Some(Answer::status_only(respond.status)),
            Action::Upstream(_) | Action::Files(_) => None,
        };
        let Some(answer) = answer else {
            return self.reject(request, Some(site), Code::Internal, "internal", "Please try again in a moment.");
        };
        // What anybody gets is nobody's own, and `response_headers` may say how long it is good for.
        let answer = if route.access == Access::Public { answer.for_everybody() } else { answer };
        answered(answer.cookies(self.own_cookies(&pass)), site, route, grant.clone(), client)
    }

    /// The cookies that the answer to a request should bring.
    pub fn own_cookies(&self, pass: &Pass) -> impl Iterator<Item = HeaderValue> + use<> {
        let open = pass.session.as_ref().filter(|_| pass.needs_ticket || pass.needs_csrf_cookie);
        let ticket = open.filter(|_| pass.needs_ticket).and_then(|open| self.sessions.cookies().set_session(open.id()));
        let csrf = open.filter(|_| pass.needs_csrf_cookie).and_then(|open| open.csrf_cookie().cloned());
        [ticket, csrf].into_iter().flatten()
    }

    /// Tells a browser what pages of other origins may do (Fetch §4.9). No session is looked up, and nothing goes upstream
    /// (behaviour C6).
    fn preflight(
        &self,
        cors: &Cors,
        site: &Arc<Site>,
        route: &Arc<Route>,
        grant: Option<Grant>,
        client: &Client,
    ) -> Verdict {
        let answer = cors
            .of_preflight(grant.as_ref())
            .fold(Answer::status_only(http::StatusCode::NO_CONTENT), |answer, (name, value)| {
                answer.header(name, value)
            });
        answered(answer.for_everybody(), site, route, grant, client)
    }

    fn wrong_method(&self, request: &Request<'_>, site: &Arc<Site>, client: &Client, allow: HeaderValue) -> Verdict {
        self.metrics.requests_rejected_total.with_label_values(&["method"]).inc();
        let answer = refusal(request, Code::MethodNotAllowed, "").header(http::header::ALLOW, allow);
        let tls = client.scheme == super::Scheme::Https;
        let dress = Some(Dress { site: site.clone(), route: None, grant: None, tls });
        Verdict::Answer(Box::new(Refused { answer, metrics: Some(site.own.clone()), dress }))
    }

    /// The fields of a forwarded request that must not reach the upstream.
    #[must_use]
    pub fn unwanted(&self, headers: &HeaderMap, pass: &Pass) -> Vec<HeaderName> {
        // The CSRF header echoes a secret of the session.
        let echo = pass.site.provider.is_some().then(|| self.sessions.csrf_header());
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

    /// Waits until a session is over.
    pub fn end_of(&self, open: &Arc<Open>) -> impl Future<Output = Reason> + Send + 'static {
        let (sessions, open) = (self.sessions.clone(), open.clone());
        // Begun when it is first waited for, and not before: until then it costs nothing.
        async move { Vigil::new(sessions, open).over().await }
    }

    /// The host that counts. A trusted peer may say that the client asked for another one than it does.
    fn authority<'r>(&self, request: &Request<'r>, client: &'r Client) -> Result<Authority<'r>, host::HostError> {
        let direct = host::of_request(request.uri, request.headers)?;
        match &client.host {
            Some(said) => Authority::parse(said.to_str().map_err(|_| host::HostError::Malformed)?),
            None => Ok(direct),
        }
    }

    /// The session that the route asks for, with a token fit to be sent; or the answer to give instead.
    async fn session(&self, case: &Case<'_>) -> Result<Option<Arc<Open>>, Box<Answer>> {
        if case.route.access == Access::Public || is_preflight(case.request.method, case.request.headers) {
            return Ok(None);
        }
        let found = match case.sorted.ticket {
            Ticket::One(id) => match self.sessions.lookup(&id, &case.auth.profile).await {
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
        self.check_csrf(case, &open)?;
        let time = self.sessions.note_use(&open);
        let open = if time.rotate { self.sessions.rotate(open).await } else { Some(open) };
        let Some(open) = open else { return self.without_session(case, Code::SessionExpired).await };
        if time.refresh {
            self.refresher.hurry(&open);
        }
        if case.route.token == Token::None || self.refresher.is_fresh(&open) {
            return Ok(Some(open));
        }
        match self.refresher.freshen(open).await {
            Refreshed::Renewed(open) => Ok(Some(open)),
            Refreshed::Ended => self.without_session(case, Code::RefreshRejected).await,
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
    async fn prepared(&self, case: &Case<'_>, open: &Arc<Open>) -> Result<Option<Arc<Open>>, Box<Answer>> {
        match self.sessions.prepare(open, &case.auth.profile).await {
            Ok(Some(open)) => Ok(Some(open)),
            Ok(None) => self.without_session(case, Code::SessionExpired).await,
            Err(_) => Err(self.unavailable(case, Code::StoreUnavailable, None)),
        }
    }

    async fn without_session(&self, case: &Case<'_>, code: Code) -> Result<Option<Arc<Open>>, Box<Answer>> {
        if case.route.access == Access::Optional {
            return Ok(None);
        }
        let Request { method, headers, .. } = case.request;
        let navigation = is_navigation(method, headers);
        let to_login = match case.route.on_missing {
            OnMissing::Auto => navigation,
            OnMissing::Redirect => may_navigate(method, headers),
            OnMissing::Unauthorized => false,
        };
        if !to_login {
            self.count_unauthenticated("401");
            return Err(Box::new(Answer::problem(code, None, Some(&case.auth.login_url()))));
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
        // The browser holds Strict cookies back on a navigation that another site began: ask again from our own page.
        let held_back = self.same_site == SameSite::Strict && case.sorted.ticket == Ticket::Absent;
        if navigation && held_back && is_cross_site(headers) {
            return Err(Box::new(continue_to(&asked)));
        }
        let return_to = ReturnTo::parse(&asked, case.auth);
        Err(Box::new(self.logins.start(&visit, return_to, Wishes::default()).await))
    }

    /// Unsafe methods and WebSocket handshakes must come from our own pages; unsafe methods must prove it twice. A
    /// handshake is checked whatever the settings say: a page of another site could read all that comes through the
    /// tunnel, for the same-origin policy does not cover it (behaviour C5).
    fn check_csrf(&self, case: &Case<'_>, open: &Open) -> Result<(), Box<Answer>> {
        let Request { method, headers, .. } = case.request;
        let handshake = case.upgrade == Upgrade::WebSocket;
        let unsafe_method = !csrf::is_safe(method);
        // Whose pages may use the session, where pages of others may: a page of another origin cannot read the token, but
        // it cannot hide where it comes from either.
        let shared = case.route.cors.as_ref().is_some_and(|cors| cors.has_credentials());
        let with_token = case.route.csrf && self.csrf_mode != CsrfMode::Off;
        let checks = unsafe_method && (with_token || shared && self.csrf_mode != CsrfMode::Off);
        if !handshake && !checks {
            return Ok(());
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
        let Err(refusal) = checked else { return Ok(()) };
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
            return Ok(());
        }
        let header = self.sessions.csrf_header();
        let detail = format!("Send the value of the CSRF cookie in the header {header}, from a page of this site.");
        // A page that lost its cookie gets it again with the refusal.
        let answer = Answer::problem(Code::CsrfFailed, Some(&detail), None).cookie(open.csrf_cookie().cloned());
        Err(Box::new(answer))
    }

    /// The cookie comes with the first page; scripts and pictures of it need not bring it again.
    fn needs_csrf_cookie(&self, case: &Case<'_>, open: &Open) -> bool {
        self.csrf_mode != CsrfMode::Off
            && !self.has_csrf_cookie(case, open.csrf_token().as_bytes())
            && is_navigation(case.request.method, case.request.headers)
    }

    /// Whether one of the request's CSRF cookies is `token`; as a rule it is the first and only one. Nobody learns
    /// anything from the time this takes: the token stands in the same request, or is told in the answer.
    fn has_csrf_cookie(&self, case: &Case<'_>, token: &[u8]) -> bool {
        case.sorted.csrf == Some(token) || self.sessions.cookies().csrf_matches(case.request.headers, token)
    }

    fn unavailable(&self, case: &Case<'_>, code: Code, seconds: Option<u64>) -> Box<Answer> {
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

    pub(super) fn reject(
        &self,
        request: &Request<'_>,
        site: Option<&Arc<Site>>,
        code: Code,
        reason: &str,
        text: &str,
    ) -> Verdict {
        self.metrics.requests_rejected_total.with_label_values(&[reason]).inc();
        let metrics = site.map(|site| site.own.clone());
        // Nobody who may be trusted was asked yet: what the connection itself shows will do.
        let tls = request.connection.tls;
        let dress = site.map(|site| Dress { site: site.clone(), route: None, grant: None, tls });
        Verdict::Answer(Box::new(Refused { answer: refusal(request, code, text), metrics, dress }))
    }
}

/// An error as a page or as JSON, whichever the client reads.
#[must_use]
pub fn refusal(request: &Request<'_>, code: Code, text: &str) -> Answer {
    if wants_page(request.headers) {
        Page { heading: code.title(), text, link: None, form: None, code: Some(code) }.answer()
    } else {
        Answer::problem(code, Some(text), None)
    }
}

/// An answer of a route's own.
fn answered(answer: Answer, site: &Arc<Site>, route: &Arc<Route>, grant: Option<Grant>, client: &Client) -> Verdict {
    let tls = client.scheme == super::Scheme::Https;
    let dress = Dress { site: site.clone(), route: Some(route.clone()), grant, tls };
    Verdict::Answer(Box::new(Refused { answer, metrics: Some(route.metrics.clone()), dress: Some(dress) }))
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
    /// logout is all in there. 0 = not at all.
    #[must_use]
    pub fn body_limit(&self, method: &Method, headers: &HeaderMap, csrf_header: &HeaderName) -> usize {
        match self.endpoint {
            Endpoint::BackchannelLogout if *method == Method::POST => LOGOUT_TOKEN_BODY,
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
