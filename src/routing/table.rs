//! All sites and routes compiled into one lookup table: host to site, path to route, no allocation on the way.
//!
//! The longest path with a route for the request's host decides; no shorter one is asked then, so that a route that is
//! strict about methods or headers is never bypassed to a laxer one above it. Among routes with that path the one counts
//! that asks for more: see [`super::route`].

use std::collections::HashMap;
use std::sync::Arc;

// The keys of these tables stand in the settings; strangers only ask for them. So a fast hash will do.
use foldhash::fast::RandomState;
use http::header::HeaderName;

use super::cors::Cors;
use super::rates::Rates;
pub use super::route::{Action, Asked, Choice, Forward, Made, Route, Rule};
use super::route::{Slot, changes};
use super::security::SecurityHeaders;
use super::upstream::Upstreams;
use crate::config::settings::{
    self, Aliases, ClaimCondition, ClaimPath, ClientToken, ContextAccess, HostPattern, Origin, Settings, Target,
};
use crate::files::Files;
use crate::primitives::path::PathPrefix;
use crate::telemetry::handles::RouteMetrics;
use crate::telemetry::metrics::Metrics;

/// Label `route` of requests that no route serves.
const OWN: &str = "none";

/// The settings contradict themselves. Checked settings never do.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A route names an upstream that is not there.
    #[error("site {site}: route {route} goes to the unknown upstream {upstream}")]
    UnknownUpstream {
        /// Name of the site.
        site: Arc<str>,
        /// Path of the route.
        route: String,
        /// The unknown name.
        upstream: Arc<str>,
    },
}

/// Finds the site of a host.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<Box<str>, Arc<Site>, RandomState>,
    /// By what follows the first label.
    wildcard: HashMap<Box<str>, Arc<Site>, RandomState>,
    any: Option<Arc<Site>>,
    sites: Vec<Arc<Site>>,
}

/// One web application, compiled.
#[derive(Debug)]
pub struct Site {
    /// Its position in [`Table::sites`].
    pub index: usize,
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Providers of its logins, the default first.
    pub providers: Vec<Arc<str>>,
    /// The auth endpoints live below it.
    pub auth_path: PathPrefix,
    /// Extra paths of single endpoints.
    pub aliases: Aliases,
    /// Public origins beside the one the request itself shows.
    pub origins: Vec<Origin>,
    /// Every claim that a route of this site sends upstream, once; [`Route::identity_headers`] points into it.
    pub claim_paths: Vec<ClaimPath>,
    /// Every condition that a rule of its routes asks for, once; [`Rule::condition`] points into it.
    pub conditions: Vec<ClaimCondition>,
    /// What its routes exchange tokens for, each once; [`Made::Exchanged`] points into it.
    pub exchanges: Vec<Target>,
    /// The tokens of our own that its routes send, each once; [`Made::Own`] points into it.
    pub client_tokens: Vec<ClientToken>,
    /// Claims in the user context; `None` = no route tells it.
    pub context_claims: Option<Vec<ClaimPath>>,
    /// Every identity header of *any* site: no client may send one of them to any upstream, for two sites may share
    /// an upstream that trusts it.
    pub reserved_headers: Arc<[HeaderName]>,
    /// What protects its answers in the browser.
    pub security_headers: SecurityHeaders,
    /// Counts requests that no route serves: our own endpoints, and paths that lead nowhere.
    pub own: Arc<RouteMetrics>,
    /// By prefix, as [`PathPrefix::as_str`] writes it.
    routes: HashMap<Box<str>, Slot, RandomState>,
    /// Segments of the deepest route: no lookup needs to begin below.
    depth: usize,
}

impl Table {
    /// Compiles the sites of the settings. What the routes of the table `before` have counted for their limits is still
    /// counted where site, path and conditions are the same.
    ///
    /// # Errors
    /// [`TableError`] if a route names an upstream that is not in `upstreams`.
    pub fn new(
        settings: &Settings,
        upstreams: &Upstreams,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, TableError> {
        let reserved = reserved_headers(&settings.sites);
        let mut table = Self::default();
        for (index, site_settings) in settings.sites.iter().enumerate() {
            let known = before.and_then(|before| before.sites.iter().find(|site| site.name == site_settings.name));
            let (known, reserved) = (known.map(Arc::as_ref), Arc::clone(&reserved));
            let site = Arc::new(Site::new(index, site_settings, reserved, upstreams, known, metrics)?);
            for host in &site_settings.hosts {
                match host {
                    HostPattern::Exact(host) => {
                        table.exact.insert(host.as_str().into(), Arc::clone(&site));
                    }
                    HostPattern::Wildcard(parent) => {
                        table.wildcard.insert(parent.as_str().into(), Arc::clone(&site));
                    }
                    HostPattern::Any => table.any = Some(Arc::clone(&site)),
                }
            }
            table.sites.push(site);
        }
        Ok(table)
    }

    /// The site of a normalised host (see [`super::host`]): exact names first, then wildcards, then `*`.
    #[must_use]
    pub fn site(&self, host: &str) -> Option<&Arc<Site>> {
        if let Some(site) = self.exact.get(host) {
            return Some(site);
        }
        if !self.wildcard.is_empty()
            && let Some((label, parent)) = host.split_once('.')
            && !label.is_empty()
            && let Some(site) = self.wildcard.get(parent)
        {
            return Some(site);
        }
        self.any.as_ref()
    }

    /// All sites in the order of the settings.
    #[must_use]
    pub fn sites(&self) -> &[Arc<Site>] {
        &self.sites
    }
}

impl Site {
    fn new(
        index: usize,
        settings: &settings::Site,
        reserved_headers: Arc<[HeaderName]>,
        upstreams: &Upstreams,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, TableError> {
        let (mut claim_paths, mut conditions) = (Vec::new(), Vec::new());
        let (mut exchanges, mut client_tokens) = (Vec::new(), Vec::new());
        let mut routes: HashMap<Box<str>, Slot, _> =
            HashMap::with_capacity_and_hasher(settings.routes.len(), RandomState::default());
        for route in &settings.routes {
            let name: Arc<str> = route.path.to_string().into();
            let compiled = Arc::new(Route {
                metrics: Arc::new(metrics.route(&settings.name, &name)),
                name,
                path: route.path.clone(),
                when: (!route.when.is_empty()).then(|| Box::new(route.when.clone())),
                action: action(&settings.name, route, upstreams)?,
                access: route.access,
                accept: route.accept,
                scopes: route.scopes.clone(),
                level: route.level,
                level_header: route.level_header.clone(),
                rules: route
                    .allow
                    .iter()
                    .map(|rule| Rule { name: rule.name.clone(), condition: index_of(&mut conditions, &rule.condition) })
                    .collect(),
                provider: route.provider.clone(),
                on_missing: route.on_missing,
                token: route.token.clone(),
                made: match &route.token {
                    settings::Token::Exchange(target) => Some(Made::Exchanged(index_of(&mut exchanges, target))),
                    settings::Token::ClientCredentials(token) => Some(Made::Own(index_of(&mut client_tokens, token))),
                    _ => None,
                },
                identity_headers: route
                    .identity_headers
                    .iter()
                    .map(|(header, claim)| (header.clone(), index_of(&mut claim_paths, claim)))
                    .collect(),
                context: route.context,
                max_body: route.max_body,
                csrf: route.csrf,
                // An upstream that refuses a proxy token has nothing to gain from a new access token.
                retry_unauthorized: route.retry_unauthorized && route.token != settings::Token::Proxy,
                step_up: route.step_up,
                response_headers: changes(&route.response_headers),
                cors: route.cors.as_ref().map(|cors| Box::new(Cors::new(cors))),
                timeouts: route.timeouts,
                rates: Rates::new(&route.rate_limits, before.and_then(|before| before.rates_of(route))),
            });
            match routes.get_mut(route.path.as_str()) {
                Some(slot) => slot.add(compiled),
                None => {
                    routes.insert(route.path.as_str().into(), Slot::new(compiled));
                }
            }
        }
        Ok(Self {
            index,
            name: Arc::clone(&settings.name),
            providers: settings.providers.clone(),
            auth_path: settings.auth_path.clone(),
            aliases: settings.aliases.clone(),
            origins: settings.origins.clone(),
            claim_paths,
            conditions,
            exchanges,
            client_tokens,
            context_claims: settings
                .routes
                .iter()
                .any(|route| route.context != ContextAccess::None)
                .then(|| settings.context_claims.clone()),
            reserved_headers,
            security_headers: SecurityHeaders::new(&settings.security_headers),
            own: Arc::new(metrics.route(&settings.name, OWN)),
            depth: settings.routes.iter().map(|route| route.path.depth()).max().unwrap_or(0),
            routes,
        })
    }

    /// What the routes with the longest path that covers a canonical path (see [`crate::primitives::path::canonical`])
    /// say to a request. [`Choice::Elsewhere`] if no path does.
    #[must_use]
    pub fn route(&self, path: &str, asked: &Asked<'_>) -> Choice<'_> {
        let mut prefix = first_segments(path, self.depth);
        loop {
            if let Some(slot) = self.routes.get(prefix) {
                match slot.choose(asked) {
                    Choice::Elsewhere => {}
                    choice => return choice,
                }
            }
            // The empty prefix is the root route; behind it there is nothing.
            let Some(shorter) = prefix.rfind('/').and_then(|end| prefix.get(..end)) else { return Choice::Elsewhere };
            prefix = shorter;
        }
    }

    /// What limits the same route here.
    fn rates_of(&self, route: &settings::Route) -> Option<&Rates> {
        let slot = self.routes.get(route.path.as_str()).filter(|_| !route.rate_limits.is_empty())?;
        let same = |known: &&Arc<Route>| match &known.when {
            Some(when) => **when == route.when,
            None => route.when.is_empty(),
        };
        slot.routes().find(same)?.rates.as_deref()
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values().flat_map(Slot::routes)
    }
}

fn action(site: &Arc<str>, route: &settings::Route, upstreams: &Upstreams) -> Result<Action, TableError> {
    Ok(match &route.action {
        settings::Action::Upstream(forward) => {
            let upstream = upstreams.get(&forward.upstream).ok_or_else(|| TableError::UnknownUpstream {
                site: Arc::clone(site),
                route: route.path.to_string(),
                upstream: Arc::clone(&forward.upstream),
            })?;
            Action::Upstream(Forward {
                upstream: Arc::clone(upstream),
                rewrite: forward.rewrite.clone(),
                host: forward.host.clone(),
                request_headers: changes(&forward.request_headers),
                compress: forward.compress.clone().into(),
            })
        }
        settings::Action::Redirect(redirect) => Action::Redirect(Box::new(redirect.clone())),
        settings::Action::Respond(respond) => Action::Respond(Box::new(respond.clone())),
        settings::Action::Files(files) => {
            Action::Files(Box::new(Files::new(files, route.access == settings::Access::Public)))
        }
    })
}

/// At most the first `count` segments of a path, each with its leading slash.
fn first_segments(path: &str, count: usize) -> &str {
    let end = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(count);
    end.and_then(|(end, _)| path.get(..end)).unwrap_or(path)
}

fn index_of<T: Clone + PartialEq>(known: &mut Vec<T>, item: &T) -> usize {
    known.iter().position(|one| one == item).unwrap_or_else(|| {
        known.push(item.clone());
        known.len() - 1
    })
}

fn reserved_headers(sites: &[settings::Site]) -> Arc<[HeaderName]> {
    let mut names: Vec<HeaderName> = sites
        .iter()
        .flat_map(|site| &site.routes)
        .flat_map(|route| route.identity_headers.iter().map(|(name, _)| name).chain(&route.level_header))
        .cloned()
        .collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names.into()
}

#[cfg(test)]
mod tests;
