//! One route, compiled: which requests it takes, and what it does with them.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use http::{Method, StatusCode};

use super::cors::Cors;
use super::rates::Rates;
use super::upstream::Upstream;
use crate::config::settings::{
    self, Accept, Access, Conditions, ContextAccess, HeaderChanges, HeaderMatch, HostPattern, Level, OnMissing,
    Redirect, Respond, Rewrite, RouteTimeouts, Token,
};
use crate::files::Files;
use crate::primitives::path::PathPrefix;
use crate::telemetry::handles::RouteMetrics;

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs and metrics: the path as configured.
    pub name: Arc<str>,
    /// Matches this path and all below it.
    pub path: PathPrefix,
    /// What a request must be beside that; `None` = anything.
    pub when: Option<Box<Conditions>>,
    /// What is done with a request that may pass.
    pub action: Action,
    /// Who may pass.
    pub access: Access,
    /// By what it knows its user.
    pub accept: Accept,
    /// What the scope of a client's own access token must name.
    pub scopes: Vec<String>,
    /// How well its users must be known.
    pub level: Level,
    /// The header that tells the upstream how well the user is known.
    pub level_header: Option<HeaderName>,
    /// What the claims of its user must be, all of it; empty = anything.
    pub rules: Box<[Rule]>,
    /// Only sessions of this provider count; `None` = those of any of the site's.
    pub provider: Option<Arc<str>>,
    /// What a request without a session gets.
    pub on_missing: OnMissing,
    /// Which token goes upstream.
    pub token: Token,
    /// Which token is made for it; `None` = none.
    pub made: Option<Made>,
    /// Name of a header and the index of its claim in [`super::table::Site::claim_paths`].
    pub identity_headers: Vec<(HeaderName, usize)>,
    /// Whether its upstream is told the user context, and may change it.
    pub context: ContextAccess,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Whether unsafe methods need the CSRF token.
    pub csrf: bool,
    /// Whether a request whose token the upstream refuses is sent again with a newer one.
    pub retry_unauthorized: bool,
    /// Whether its upstream may ask for a stronger or more recent login.
    pub step_up: bool,
    /// Changes of the answer's header; `None` = none.
    pub response_headers: Option<Box<HeaderChanges>>,
    /// What pages of other origins may do; `None` = nothing is said about it here.
    pub cors: Option<Box<Cors>>,
    /// Time limits of its own.
    pub timeouts: Option<RouteTimeouts>,
    /// How often it may be asked; `None` = as often as anybody likes.
    pub rates: Option<Box<Rates>>,
    /// Counts its requests.
    pub metrics: Arc<RouteMetrics>,
}

/// A token that a provider makes for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// For the user's: an index into [`super::table::Site::exchanges`].
    Exchanged(usize),
    /// For us, where there is no user: an index into [`super::table::Site::client_tokens`].
    Own(usize),
}

/// A rule on the claims of a user.
#[derive(Debug)]
pub struct Rule {
    /// Its name in answers and in the audit log.
    pub name: Arc<str>,
    /// The index of what must hold in [`super::table::Site::conditions`].
    pub condition: usize,
}

/// What is done with a request that may pass.
#[derive(Debug)]
pub enum Action {
    /// It goes to an upstream.
    Upstream(Forward),
    /// The client is sent elsewhere.
    Redirect(Box<Redirect>),
    /// It is answered with what stands in the settings.
    Respond(Box<Respond>),
    /// It is answered with a file.
    Files(Box<Files>),
}

/// The way to an upstream.
#[derive(Debug)]
pub struct Forward {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// What becomes of the path.
    pub rewrite: Option<Rewrite>,
    /// `Host` for the upstream, if not the client's.
    pub host: Option<HeaderValue>,
    /// Changes of the request's header; `None` = none.
    pub request_headers: Option<Box<HeaderChanges>>,
    /// Media types of answers that are compressed; empty = none.
    pub compress: Box<[String]>,
}

impl Route {
    /// The way to its upstream; `None` if it answers by itself.
    #[must_use]
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            Action::Upstream(forward) => Some(forward),
            Action::Redirect(_) | Action::Respond(_) | Action::Files(_) => None,
        }
    }

    /// Whether its upstream hears anything of the user, so that the answer may be meant for that user alone.
    #[must_use]
    pub fn tells_who(&self) -> bool {
        self.token != Token::None
            || self.context != ContextAccess::None
            || self.level_header.is_some()
            || !self.identity_headers.is_empty()
    }
}

/// What of a request decides between routes with one path.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// Its host, normalised.
    pub host: &'r str,
    /// Its method.
    pub method: &'r Method,
    /// Its header.
    pub headers: &'r HeaderMap,
}

/// What the routes with one path say to a request.
#[derive(Debug)]
pub enum Choice<'s> {
    /// This route takes it.
    Route(&'s Arc<Route>),
    /// Nothing: they are for other hosts.
    Elsewhere,
    /// They would take it with another method, one of these.
    Method(HeaderValue),
    /// They do not take it.
    Refused,
}

/// The routes with one path, those first that count more.
#[derive(Debug)]
pub(super) struct Slot {
    first: Arc<Route>,
    rest: Vec<Arc<Route>>,
}

impl Slot {
    pub(super) fn new(route: Arc<Route>) -> Self {
        Self { first: route, rest: Vec::new() }
    }

    /// Puts a route behind all that count as much as it does, or more.
    pub(super) fn add(&mut self, route: Arc<Route>) {
        let at = self.routes().take_while(|other| rank(other) >= rank(&route)).count();
        match at.checked_sub(1) {
            Some(at) => self.rest.insert(at, route),
            None => {
                let first = std::mem::replace(&mut self.first, route);
                self.rest.insert(0, first);
            }
        }
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    pub(super) fn choose(&self, asked: &Asked<'_>) -> Choice<'_> {
        if self.first.when.is_none() {
            // What counts least comes last: there is no other.
            return Choice::Route(&self.first);
        }
        self.choose_by_conditions(asked)
    }

    fn choose_by_conditions(&self, asked: &Asked<'_>) -> Choice<'_> {
        let preflight = is_preflight(asked.method, asked.headers);
        let named = preflight.then(|| announced_method(asked)).flatten();
        let method = named.as_ref().unwrap_or(asked.method);
        let mut outcome = Choice::Elsewhere;
        let mut allowed: Vec<&Method> = Vec::new();
        for route in self.routes() {
            let Some(when) = &route.when else { return Choice::Route(route) };
            match misfit(when, asked, method, preflight) {
                None => return Choice::Route(route),
                Some(Misfit::Host) => continue,
                Some(Misfit::Header(_)) => {}
                Some(Misfit::Method) => {
                    allowed.extend(when.methods.iter().filter(|method| !allowed.contains(method)).collect::<Vec<_>>());
                }
            }
            outcome = Choice::Refused;
        }
        if allowed.is_empty() {
            return outcome;
        }
        let names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
        HeaderValue::from_str(&names.join(", ")).map_or(Choice::Refused, Choice::Method)
    }
}

/// Which condition a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit<'w> {
    /// It is for another host.
    Host,
    /// This field is not as wanted.
    Header(&'w HeaderName),
    /// It has another method.
    Method,
}

impl Route {
    /// Why it does not take a request that its path covers; `None` = it would.
    #[must_use]
    pub fn misfit(&self, asked: &Asked<'_>) -> Option<Misfit<'_>> {
        let preflight = is_preflight(asked.method, asked.headers);
        let named = preflight.then(|| announced_method(asked)).flatten();
        misfit(self.when.as_deref()?, asked, named.as_ref().unwrap_or(asked.method), preflight)
    }
}

/// A preflight asks for a request that is still to come, with this method.
fn announced_method(asked: &Asked<'_>) -> Option<Method> {
    let name = asked.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(name.as_bytes()).ok()
}

fn misfit<'w>(when: &'w Conditions, asked: &Asked<'_>, method: &Method, preflight: bool) -> Option<Misfit<'w>> {
    if !when.hosts.is_empty() && !when.hosts.iter().any(|pattern| covers(pattern, asked.host)) {
        return Some(Misfit::Host);
    }
    if let Some((name, _)) = when.headers.iter().find(|(name, wanted)| !holds(name, wanted, asked.headers, preflight)) {
        return Some(Misfit::Header(name));
    }
    (!when.methods.is_empty() && !when.methods.contains(method)).then_some(Misfit::Method)
}

/// How much a route counts among those with its path, by what it asks for: the host first, an exact one more than a
/// wildcard, then methods, then the number of headers, then how many of them exactly.
fn rank(route: &Route) -> (u8, bool, usize, usize) {
    let Some(when) = &route.when else { return (0, false, 0, 0) };
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(_) => 3,
        HostPattern::Wildcard(_) => 2,
        HostPattern::Any => 1,
    };
    let exact = when.headers.iter().filter(|(_, wanted)| matches!(wanted, HeaderMatch::Exact(_))).count();
    // A list counts as much as the least of it.
    (when.hosts.iter().map(host).min().unwrap_or(0), !when.methods.is_empty(), when.headers.len(), exact)
}

/// Whether a pattern covers a normalised host.
fn covers(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(exact) => exact == host,
        HostPattern::Wildcard(parent) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
    }
}

/// Whether a header is as wanted. What a preflight announces counts as there, for its value is not told.
fn holds(name: &HeaderName, wanted: &HeaderMatch, headers: &HeaderMap, preflight: bool) -> bool {
    if preflight {
        let announced = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        return announced
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case(name.as_str()));
    }
    match wanted {
        HeaderMatch::Present => headers.contains_key(name),
        HeaderMatch::Exact(value) => headers.get_all(name).iter().any(|line| line == value),
    }
}

/// A browser's question whether a page of another origin may ask (Fetch §4.9); it never carries a session (behaviour C6).
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// `None` where nothing is said, so that nothing is looked at either.
pub(super) fn changes(changes: &HeaderChanges) -> Option<Box<HeaderChanges>> {
    (!changes.is_empty()).then(|| Box::new(changes.clone()))
}

/// Whether an answer of this status may stand in the settings with a body.
#[must_use]
pub fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Where a redirect leads, for a request with this canonical path and query. The target's own host stays whatever is
/// appended: what follows the route's path is empty or begins with one slash.
#[must_use]
pub fn redirect_target(redirect: &Redirect, route: &PathPrefix, path: &str, query: Option<&str>) -> String {
    let rest = match route.rest(path) {
        Some(rest) if redirect.keep_path => rest,
        _ => return redirect.to.clone(),
    };
    // A path of its own is all that is left of `/`.
    let rest = if redirect.to.is_empty() && rest.is_empty() { "/" } else { rest };
    match query {
        Some(query) => format!("{}{rest}?{}", redirect.to, crate::primitives::path::escape_query(query)),
        None => format!("{}{rest}", redirect.to),
    }
}

/// The path for the upstream: canonical, its front exchanged as the route says.
#[must_use]
pub fn rewritten<'p>(rewrite: Option<&settings::Rewrite>, path: &'p str) -> std::borrow::Cow<'p, str> {
    let Some((rewrite, rest)) = rewrite.and_then(|rewrite| Some((rewrite, rewrite.from.rest(path)?))) else {
        return path.into();
    };
    match (rewrite.to.as_str(), rest) {
        ("", "") => "/".into(),
        ("", rest) => rest.into(),
        (to, rest) => format!("{to}{rest}").into(),
    }
}
