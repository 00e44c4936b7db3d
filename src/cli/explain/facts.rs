//! What the gate of a server with these settings says to a request, and the way to it.
//!
//! The gate is the real one, so that it cannot say anything else here than there. Only what it would ask others about is kept
//! from it: who has no session is told so rather than sent to a provider, and a route's own token is not fetched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use http::header::{ALLOW, AUTHORIZATION, LOCATION};
use serde_json::{Map, Value, json};

use super::question::Question;
use super::route;
use crate::answer::ERROR_HEADER;
use crate::app::lone_gate;
use crate::config::settings::{self, Accept, Access, Listener, OnMissing, Settings, Token};
use crate::gate::{Client, Connection, Gate, Request, Verdict, goes_to_login};
use crate::primitives::clock::Clock;
use crate::primitives::path::canonical;
use crate::routing::host::Authority;
use crate::routing::route::{Asked, Choice, Misfit, Route, rewritten};
use crate::routing::table::Site;

/// An address of nobody's (RFC 5737).
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Everything that can be said of it.
pub(super) fn found(settings: &Settings, question: &Question, listener: Option<SocketAddr>) -> anyhow::Result<Value> {
    let mut notes = question.notes.clone();
    let listener = chosen(settings, question, listener, &mut notes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    let gate = lone_gate(&kept_to_itself(settings, question), &Clock::system())?;
    let connection = Connection {
        peer: SOMEBODY,
        nameless: false,
        tls: question.tls,
        redirect_to_https: listener.redirect_to_https,
        only_for: None,
        forward_auth: None,
    };
    let request = Request {
        method: &question.method,
        uri: &question.uri,
        raw_path: &question.raw_path,
        headers: &question.headers,
        connection,
    };
    let verdict = runtime.block_on(gate.admit(request));
    let mut facts = Map::new();
    facts.insert("request".into(), format!("{} {}", question.method, question.url).into());
    facts.insert("listener".into(), listener.address.to_string().into());
    let way = Way { settings, gate: &gate, question, request };
    way.tell(&verdict, &mut facts);
    facts.insert("notes".into(), notes.into());
    Ok(Value::Object(facts))
}

/// The settings as the gate gets them, so that it decides by itself.
fn kept_to_itself(settings: &Settings, question: &Question) -> Settings {
    let brings_token = question.headers.contains_key(AUTHORIZATION);
    let mut settings = settings.clone();
    for route in settings.sites.iter_mut().flat_map(|site| &mut site.routes) {
        route.on_missing = OnMissing::Unauthorized;
        if matches!(route.token, Token::ClientCredentials(_)) {
            route.token = Token::None;
        }
        if brings_token {
            route.accept = Accept::default();
        }
    }
    settings
}

/// The listener that the request comes to.
fn chosen<'s>(
    settings: &'s Settings,
    question: &Question,
    asked: Option<SocketAddr>,
    notes: &mut Vec<String>,
) -> anyhow::Result<&'s Listener> {
    let listeners = || settings.listeners.iter().filter(|listener| listener.forward_auth.is_none());
    let listener = match asked {
        Some(address) => {
            let mut named = settings.listeners.iter().filter(|listener| listener.address == address);
            named.next().with_context(|| format!("no listener of these settings has the address {address}"))?
        }
        None => {
            let fits = |listener: &&Listener| listener.tls.is_some() == question.tls;
            let same = |listener: &&Listener| fits(listener) && listener.address.port() == question.port;
            let plain = |listener: &&Listener| listener.tls.is_none();
            let mut any = listeners().find(same).or_else(|| listeners().find(fits));
            any = any.or_else(|| listeners().find(plain)).or_else(|| listeners().next());
            any.or_else(|| settings.listeners.first()).context("these settings have no listener")?
        }
    };
    match (listener.tls.is_some(), question.tls) {
        (false, true) => notes
            .push(format!("{} has no TLS: it ends in front of it, at a proxy of `trusted_proxies`", listener.address)),
        (true, false) => notes.push(format!("{} speaks TLS only: nothing comes there over http://", listener.address)),
        _ => {}
    }
    if listener.forward_auth.is_some() {
        notes.push(format!(
            "{} answers questions of proxies: this is about the request that such a proxy asks about",
            listener.address
        ));
    }
    Ok(listener)
}

/// The way of one request.
struct Way<'w> {
    settings: &'w Settings,
    gate: &'w Gate,
    question: &'w Question,
    request: Request<'w>,
}

impl Way<'_> {
    fn tell(&self, verdict: &Verdict, facts: &mut Map<String, Value>) {
        let client = Client::of(self.request.connection, self.request.headers, &self.gate.trusted_proxies);
        let authority = match &client.host {
            Some(said) => said.to_str().ok().and_then(|said| Authority::parse(said).ok()),
            None => crate::routing::host::of_request(self.request.uri, self.request.headers).ok(),
        };
        let site = authority.as_ref().and_then(|authority| self.gate.table.site(&authority.host));
        let path = canonical(self.request.raw_path).ok();
        facts.insert("site".into(), site.map(|site| site.name.to_string()).into());
        facts.insert("path".into(), path.as_deref().into());
        let (Some(authority), Some(site), Some(path)) = (&authority, site, &path) else {
            facts.insert("answer".into(), self.answer(verdict, None, ""));
            return;
        };
        let asked = Asked { host: &authority.host, method: self.request.method, headers: self.request.headers };
        if let Verdict::Endpoint(call) = verdict {
            facts.insert("endpoint".into(), format!("{:?}", call.endpoint).into());
            facts.insert("answer".into(), self.answer(verdict, None, path));
            return;
        }
        let route = match site.route(path, &asked) {
            // What the gate refuses before it comes to the routes is none's.
            Choice::Route(route) if !is_of_no_route(verdict) => Some(route),
            _ => None,
        };
        let of_settings = route.and_then(|route| self.of_settings(site, route));
        facts.insert("routes".into(), considered(site, route.map(|route| &**route), path, &asked));
        if let Some(of_settings) = of_settings {
            facts.insert("route".into(), route::facts(self.settings, site.index, of_settings, self.question, path));
        }
        facts.insert("answer".into(), self.answer(verdict, of_settings, path));
    }

    fn of_settings(&self, site: &Site, route: &Route) -> Option<&settings::Route> {
        let routes = &self.settings.sites.get(site.index)?.routes;
        let same = |one: &&settings::Route| match &route.when {
            Some(when) => one.path == route.path && **when == one.when,
            None => one.path == route.path && one.when.is_empty(),
        };
        routes.iter().find(same)
    }

    /// What is said to a request of nobody's.
    fn answer(&self, verdict: &Verdict, route: Option<&settings::Route>, path: &str) -> Value {
        match verdict {
            Verdict::Endpoint(_) => {
                json!({ "by": "Cloakroom", "what": "one of its own endpoints; see docs/reference/endpoints.md" })
            }
            Verdict::Files(_) => json!({ "by": "Cloakroom", "what": "a file of the route's folder" }),
            Verdict::Forward(pass) => {
                let forward = pass.route.forward();
                let target = rewritten(forward.and_then(|forward| forward.rewrite.as_ref()), path);
                let query = self.question.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let upstream = pass.upstream().map(|upstream| upstream.name().to_string());
                json!({ "by": "upstream", "upstream": upstream, "request": format!("{} {target}{query}", self.question.method) })
            }
            Verdict::Answer(refused) => {
                let response = &refused.answer;
                let mut out = json!({ "by": "Cloakroom", "status": response.status().as_u16() });
                let Some(map) = out.as_object_mut() else { return out };
                let field = |name| response.field(name).and_then(|value| value.to_str().ok());
                let code = field(ERROR_HEADER);
                map.insert("code".into(), code.into());
                map.insert("location".into(), field(LOCATION).into());
                map.insert("allow".into(), field(ALLOW).into());
                let problem: Value = serde_json::from_slice(response.body()).unwrap_or_default();
                map.insert("detail".into(), problem.get("detail").cloned().unwrap_or_default());
                // The gate here knows of no sessions and logins; there it does.
                let nobody = matches!(code, Some("session_missing" | "session_expired"));
                match route.filter(|route| nobody && route.access == Access::Required) {
                    Some(route) if self.question.headers.contains_key(AUTHORIZATION) && takes_tokens(route.accept) => {
                        json!({ "by": "Cloakroom", "what": "the token is judged; with a good one the request goes on" })
                    }
                    Some(route) if goes_to_login(&self.request, route.on_missing) => {
                        json!({ "by": "Cloakroom", "what": "a login begins" })
                    }
                    _ => out,
                }
            }
        }
    }
}

fn takes_tokens(accept: Accept) -> bool {
    accept.bearer || accept.proxy_token
}

/// Whether the gate came to an end before a route was asked for.
fn is_of_no_route(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Answer(refused) => refused.dress.as_ref().is_none_or(|dress| dress.route.is_none()),
        _ => false,
    }
}

/// Every route whose path covers the request's, the longest first, and what it says to it.
fn considered(site: &Site, taken: Option<&Route>, path: &str, asked: &Asked<'_>) -> Value {
    let mut routes: Vec<_> = site.routes().filter(|route| route.path.rest(path).is_some()).collect();
    let is_taken = |route: &Route| taken.is_some_and(|taken| std::ptr::eq(taken, route));
    routes.sort_by_key(|route| (std::cmp::Reverse(route.path.as_str().len()), !is_taken(route)));
    let longest = taken.map_or(0, |taken| taken.path.as_str().len());
    let said = |route: &Route| match (taken, route.misfit(asked)) {
        _ if is_taken(route) => "takes it".to_owned(),
        (_, Some(Misfit::Host)) => "no: it is for other hosts".to_owned(),
        (Some(_), _) if route.path.as_str().len() < longest => "no: a longer path decides".to_owned(),
        (_, Some(Misfit::Header(name))) => format!("no: the header `{name}` is not as `when` wants it"),
        (_, Some(Misfit::Method)) => "no: it is for other methods".to_owned(),
        (None, None) => "no: the request was answered before".to_owned(),
        (Some(_), None) => "no: another route with this path counts more".to_owned(),
    };
    routes.iter().map(|route| json!({ "path": route.path.to_string(), "when": route.when.as_deref().map(super::route::conditions), "says": said(route) })).collect()
}
