//! One site before the pages of its own are public and all others are not: what both kinds of files of oauth2-proxy say.

use http::Uri;
use serde_yaml::{Mapping, Value};

use super::draft::{Draft, list, map};
use crate::primitives::path::PathPrefix;

/// A place that requests go to.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) target: Target,
    /// Off the path, before it goes there.
    pub(super) strip: bool,
    /// Whether `Host` stays the client's.
    pub(super) keeps_host: bool,
    /// For example `30s`.
    pub(super) read_timeout: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    /// `http://host:port` or `https://host:port`
    Server(String),
    Files(String),
    Status(u16),
}

impl Target {
    /// What a URL of an upstream names; with the path behind it.
    pub(super) fn parse(text: &str) -> Option<(Self, String)> {
        if let Some(code) = text.strip_prefix("static://") {
            return Some((Self::Status(code.trim_end_matches('/').parse().ok()?), "/".to_owned()));
        }
        if let Some(file) = text.strip_prefix("file://") {
            let (folder, path) = file.split_once('#').unwrap_or((file, "/"));
            return Some((Self::Files(folder.to_owned()), path.to_owned()));
        }
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((Self::Server(format!("{scheme}://{}:{port}", uri.host()?)), uri.path().to_owned()))
    }
}

/// Everything that the routes of the site have in common.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) hosts: Vec<String>,
    pub(super) auth_path: String,
    pub(super) places: Vec<Place>,
    /// Methods and path of what needs no login.
    pub(super) public: Vec<(Vec<String>, String)>,
    pub(super) rules: Vec<Value>,
    pub(super) identity_headers: Mapping,
    /// `none`, `access` or `id`.
    pub(super) token: &'static str,
}

impl Site {
    /// Writes upstreams and the site.
    pub(super) fn write(mut self, draft: &mut Draft) {
        if self.places.is_empty() {
            draft.leave("no upstream was found: the address in `upstreams` is made up");
            self.places.push(Place {
                path: "/".to_owned(),
                target: Target::Server("http://app.internal:8080".to_owned()),
                strip: false,
                keeps_host: true,
                read_timeout: None,
            });
        }
        let mut upstreams: Vec<Value> = Vec::new();
        let mut servers: Vec<(String, Option<String>)> = Vec::new();
        for place in &self.places {
            let Target::Server(server) = &place.target else { continue };
            let one = (server.clone(), place.read_timeout.clone());
            if servers.contains(&one) {
                continue;
            }
            let timeouts = place.read_timeout.as_ref().map(|time| map([("read", time.as_str().into())]));
            let name = format!("app-{}", servers.len() + 1);
            upstreams.push(map([
                ("name", name.into()),
                ("endpoints", list([server.as_str()])),
                ("timeouts", timeouts.unwrap_or_default()),
            ]));
            if server.starts_with("https://") {
                draft.leave(format!(
                    "{server}: certificate and name are verified; give an authority of your own in `upstreams[].tls.ca`"
                ));
            }
            servers.push(one);
        }
        let name = |place: &Place| {
            let Target::Server(server) = &place.target else { return None };
            let at = servers.iter().position(|one| *one == (server.clone(), place.read_timeout.clone()))?;
            Some(format!("app-{}", at + 1))
        };
        let mut routes: Vec<(String, Value)> = Vec::new();
        let mut add = |draft: &mut Draft, path: &str, methods: &[String], place: &Place, public: bool| {
            let Some(clean) = cleaned(path, &self.auth_path) else {
                draft.leave(format!("the path `{path}` is none that a route can have: write the route by hand"));
                return;
            };
            let key = format!("{clean} {}", methods.join(","));
            if routes.iter().any(|(known, _)| *known == key) {
                return;
            }
            let mut route = Mapping::new();
            route.insert("path".into(), clean.as_str().into());
            if !methods.is_empty() {
                route.insert("when".into(), map([("methods", list(methods.iter().map(String::as_str)))]));
            }
            self.do_as(&mut route, place, name(place), &clean);
            self.protect(&mut route, place, public);
            routes.push((key, Value::Mapping(route)));
        };
        for (methods, path) in &self.public {
            let covers = |place: &&Place| {
                let prefix = PathPrefix::parse(place.path.trim_end_matches('/')).ok();
                place.path == "/" || prefix.is_some_and(|prefix| prefix.rest(path).is_some())
            };
            let Some(place) = self.places.iter().filter(covers).max_by_key(|place| place.path.len()) else { continue };
            let place = place.clone();
            add(draft, path, methods, &place, true);
            if !methods.is_empty() {
                // Else other methods would get 405 there.
                add(draft, path, &[], &place, false);
            }
        }
        for place in &self.places {
            add(draft, &place.path, &[], place, false);
        }
        if !upstreams.is_empty() {
            draft.set("upstreams", upstreams);
        }
        let site = map([
            ("hosts", list(self.hosts.iter().map(String::as_str))),
            ("provider", "main".into()),
            ("auth_path", self.auth_path.as_str().into()),
            ("routes", Value::Sequence(routes.into_iter().map(|(_, route)| route).collect())),
        ]);
        draft.set("sites", vec![site]);
    }

    fn do_as(&self, route: &mut Mapping, place: &Place, upstream: Option<String>, path: &str) {
        match &place.target {
            Target::Server(server) => {
                route.insert("upstream".into(), upstream.unwrap_or_default().into());
                if place.strip && path != "/" {
                    route.insert("strip_prefix".into(), place.path.trim_end_matches('/').into());
                }
                if !place.keeps_host {
                    let host = server.split_once("://").map_or(server.as_str(), |(_, host)| host);
                    route.insert("host".into(), host.into());
                }
            }
            Target::Files(folder) => drop(route.insert("files".into(), map([("root", folder.as_str().into())]))),
            Target::Status(code) => drop(route.insert("respond".into(), map([("status", (*code).into())]))),
        }
    }

    fn protect(&self, route: &mut Mapping, place: &Place, public: bool) {
        if public {
            route.insert("access".into(), "public".into());
            return;
        }
        if !self.rules.is_empty() {
            route.insert("allow".into(), self.rules.clone().into());
        }
        if matches!(place.target, Target::Server(_)) {
            route.insert("token".into(), map([("kind", self.token.into())]));
            if !self.identity_headers.is_empty() {
                route.insert("identity_headers".into(), self.identity_headers.clone().into());
            }
        }
    }
}

/// As settings want it, if a route may have it.
pub(super) fn cleaned(path: &str, auth_path: &str) -> Option<String> {
    let path = if path.is_empty() { "/" } else { path };
    let prefix = PathPrefix::parse(path).ok()?;
    let auth = PathPrefix::parse(auth_path).ok()?;
    auth.rest(prefix.as_str()).is_none().then(|| prefix.to_string())
}

/// The literal path of a regular expression that does nothing but name one, and what is below it.
pub(super) fn literal(pattern: &str) -> Option<String> {
    let bare = pattern.strip_prefix('^').unwrap_or(pattern);
    let ends = ["(/.*)?$", "(/|$)(.*)", "(/|$)", "/?(.*)", "/(.*)", "/.*", ".*$", ".*", "(.*)", "/?$", "$", "/"];
    let (bare, end) = ends.iter().find_map(|end| Some((bare.strip_suffix(end)?, *end))).unwrap_or((bare, ""));
    if bare.ends_with('/') && end.starts_with("(/") {
        // Two slashes in a row, or this path alone.
        return None;
    }
    let plain = bare.replace("\\.", ".").replace("\\-", "-").replace("\\/", "/");
    let good = plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.~-".contains(&byte));
    // A dot that was not escaped means any sign, and the sign itself is close enough.
    match (good, plain.is_empty()) {
        (true, true) => Some("/".to_owned()),
        (true, false) if plain.starts_with('/') => Some(plain),
        _ => None,
    }
}

/// Whether an expression names one path for itself, and nothing below it.
pub(super) fn alone(pattern: &str) -> bool {
    pattern.ends_with('$') && ![".*$", ".*)?$", ".*)$"].iter().any(|end| pattern.ends_with(end))
}

/// Whether a route for the [`literal`] path takes all that the expression took, but for the case of letters.
pub(super) fn bounded(pattern: &str) -> bool {
    let bare = pattern.strip_prefix('^').unwrap_or(pattern);
    let ends = ["(/.*)?$", "(/|$)(.*)", "(/|$)", "/(.*)", "/.*", "/?$", "$", "/"];
    let Some(bare) = ends.iter().find_map(|end| bare.strip_suffix(end)) else { return false };
    // Other dots mean any sign.
    let bare = bare.replace("\\.", "");
    !bare.contains(['.', '(', ')', '*', '?', '$'])
}
