//! All sites and routes compiled into one lookup table: host to site, path to route, no allocation on the way.

use std::collections::HashMap;
use std::sync::Arc;

// The keys of these tables stand in the settings; strangers only ask for them. So a fast hash will do.
use foldhash::fast::RandomState;
use http::header::HeaderName;

use super::upstream::{Upstream, Upstreams};
use crate::config::settings::{self, Access, Aliases, ClaimPath, HostPattern, OnMissing, Origin, Settings, Token};
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
    /// Provider of its logins.
    pub provider: Option<Arc<str>>,
    /// The auth endpoints live below it.
    pub auth_path: PathPrefix,
    /// Extra paths of single endpoints.
    pub aliases: Aliases,
    /// Public origins beside the one the request itself shows.
    pub origins: Vec<Origin>,
    /// Every claim that a route of this site sends upstream, once; [`Route::identity_headers`] points into it.
    pub claim_paths: Vec<ClaimPath>,
    /// Every identity header of *any* site: no client may send one of them to any upstream, for two sites may share
    /// an upstream that trusts it.
    pub reserved_headers: Arc<[HeaderName]>,
    /// Counts requests that no route serves: our own endpoints, and paths that lead nowhere.
    pub own: Arc<RouteMetrics>,
    /// By prefix, as [`PathPrefix::as_str`] writes it.
    routes: HashMap<Box<str>, Arc<Route>, RandomState>,
    /// Segments of the deepest route: no lookup needs to begin below.
    depth: usize,
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs and metrics: the path as configured.
    pub name: Arc<str>,
    /// Matches this path and all below it.
    pub path: PathPrefix,
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// Taken off the front of the path before forwarding.
    pub strip_prefix: Option<PathPrefix>,
    /// Who may pass.
    pub access: Access,
    /// What a request without a session gets.
    pub on_missing: OnMissing,
    /// Which token goes upstream.
    pub token: Token,
    /// Name of a header and the index of its claim in [`Site::claim_paths`].
    pub identity_headers: Vec<(HeaderName, usize)>,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Whether unsafe methods need the CSRF token.
    pub csrf: bool,
    /// Whether a request whose token the upstream refuses is sent again with a newer one.
    pub retry_unauthorized: bool,
    /// Counts its requests.
    pub metrics: Arc<RouteMetrics>,
}

impl Table {
    /// Compiles the sites of the settings.
    ///
    /// # Errors
    /// [`TableError`] if a route names an upstream that is not in `upstreams`.
    pub fn new(settings: &Settings, upstreams: &Upstreams, metrics: &Metrics) -> Result<Self, TableError> {
        let reserved = reserved_headers(&settings.sites);
        let mut table = Self::default();
        for (index, site_settings) in settings.sites.iter().enumerate() {
            let site = Arc::new(Site::new(index, site_settings, Arc::clone(&reserved), upstreams, metrics)?);
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
        metrics: &Metrics,
    ) -> Result<Self, TableError> {
        let mut claim_paths = Vec::new();
        let mut routes = HashMap::with_capacity_and_hasher(settings.routes.len(), RandomState::default());
        for route in &settings.routes {
            let upstream = upstreams.get(&route.upstream).ok_or_else(|| TableError::UnknownUpstream {
                site: Arc::clone(&settings.name),
                route: route.path.to_string(),
                upstream: Arc::clone(&route.upstream),
            })?;
            let name: Arc<str> = route.path.to_string().into();
            let compiled = Route {
                metrics: Arc::new(metrics.route(&settings.name, &name)),
                name,
                path: route.path.clone(),
                upstream: Arc::clone(upstream),
                strip_prefix: route.strip_prefix.clone(),
                access: route.access,
                on_missing: route.on_missing,
                token: route.token,
                identity_headers: route
                    .identity_headers
                    .iter()
                    .map(|(header, claim)| (header.clone(), claim_index(&mut claim_paths, claim)))
                    .collect(),
                max_body: route.max_body,
                csrf: route.csrf,
                retry_unauthorized: route.retry_unauthorized,
            };
            routes.insert(route.path.as_str().into(), Arc::new(compiled));
        }
        Ok(Self {
            index,
            name: Arc::clone(&settings.name),
            provider: settings.provider.clone(),
            auth_path: settings.auth_path.clone(),
            aliases: settings.aliases.clone(),
            origins: settings.origins.clone(),
            claim_paths,
            reserved_headers,
            own: Arc::new(metrics.route(&settings.name, OWN)),
            depth: settings.routes.iter().map(|route| route.path.depth()).max().unwrap_or(0),
            routes,
        })
    }

    /// The route with the longest path that covers a canonical path (see [`crate::primitives::path::canonical`]).
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        let mut prefix = first_segments(path, self.depth);
        loop {
            if let Some(route) = self.routes.get(prefix) {
                return Some(route);
            }
            // The empty prefix is the root route; behind it there is nothing.
            let end = prefix.rfind('/')?;
            prefix = prefix.get(..end)?;
        }
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }
}

/// At most the first `count` segments of a path, each with its leading slash.
fn first_segments(path: &str, count: usize) -> &str {
    let end = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(count);
    end.and_then(|(end, _)| path.get(..end)).unwrap_or(path)
}

fn claim_index(known: &mut Vec<ClaimPath>, claim: &ClaimPath) -> usize {
    known.iter().position(|one| one == claim).unwrap_or_else(|| {
        known.push(claim.clone());
        known.len() - 1
    })
}

fn reserved_headers(sites: &[settings::Site]) -> Arc<[HeaderName]> {
    let mut names: Vec<HeaderName> = sites
        .iter()
        .flat_map(|site| &site.routes)
        .flat_map(|route| &route.identity_headers)
        .map(|(name, _)| name.clone())
        .collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names.into()
}

#[cfg(test)]
mod tests;
