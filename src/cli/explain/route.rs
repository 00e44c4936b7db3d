//! What a route does with a request, in words.

use std::time::Duration;

use http::HeaderName;
use serde_json::{Map, Value, json};

use super::question::Question;
use crate::config::settings::{
    Accept, Access, Action, ClaimPath, ClaimTest, ClaimValue, Conditions, ContextAccess, Cors, CorsOrigins, CsrfMode,
    Forward, HeaderChanges, HeaderMatch, HostPattern, OnMissing, RateBy, Route, RouteTimeouts, Rule, Settings, Target,
    Token,
};
use crate::routing::route::{redirect_target, rewritten};
use crate::session::csrf;

/// The facts about a route of the site with this index.
pub(super) fn facts(settings: &Settings, site: usize, route: &Route, question: &Question, path: &str) -> Value {
    let providers = settings.sites.get(site).map(|site| site.providers.as_slice()).unwrap_or_default();
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("path", route.path.to_string().into());
    put("when", if route.when.is_empty() { Value::Null } else { conditions(&route.when).into() });
    put("access", access(route.access).into());
    if route.access != Access::Public {
        put("accept", accept(route.accept).into());
        put("scopes", route.scopes.clone().into());
        put("level", route.level.as_str().into());
        let provider = route.provider.as_deref().map(str::to_owned);
        let any = || providers.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
        put("provider", provider.unwrap_or_else(any).into());
        put("rules", route.allow.iter().map(rule).collect());
        put("on_missing", on_missing(route).into());
        put("csrf", csrf_check(settings, route, question).into());
    }
    put("action", action(route, question, path));
    put("token", token(&route.token).into());
    let headers = route.identity_headers.iter().map(|(name, claim)| format!("{name}: {}", dotted(claim)));
    put("identity_headers", headers.collect());
    put("level_header", route.level_header.as_ref().map(HeaderName::as_str).into());
    if route.context != ContextAccess::None {
        put("context", if route.context == ContextAccess::Read { "read" } else { "read_write" }.into());
    }
    put("response_headers", changes(&route.response_headers));
    put("cors", route.cors.as_ref().map(cors).into());
    let limit = |by| if by == RateBy::Address { "address" } else { "session" };
    let rates = route.rate_limits.iter();
    put(
        "rate_limits",
        rates.map(|one| format!("{} in {} by {}", one.requests, time(one.per), limit(one.by))).collect(),
    );
    put("max_body", bytesize::ByteSize(route.max_body).to_string().into());
    if let Action::Upstream(forward) = &route.action {
        put("timeouts", timeouts(settings, forward, route.timeouts.unwrap_or_default()).into());
        put("retry_unauthorized", route.retry_unauthorized.into());
        put("step_up", route.step_up.into());
    }
    Value::Object(out)
}

/// `hosts a, b; methods GET; headers x-a`
pub(super) fn conditions(when: &Conditions) -> String {
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
        HostPattern::Any => "*".to_owned(),
    };
    let header = |(name, wanted): &(HeaderName, HeaderMatch)| match wanted {
        HeaderMatch::Present => name.to_string(),
        // The value may come from a variable, and be a secret.
        HeaderMatch::Exact(_) => format!("{name} with a value"),
    };
    let part = |what: &str, items: Vec<String>| (!items.is_empty()).then(|| format!("{what} {}", items.join(", ")));
    let parts = [
        part("hosts", when.hosts.iter().map(host).collect()),
        part("methods", when.methods.iter().map(ToString::to_string).collect()),
        part("headers", when.headers.iter().map(header).collect()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Optional => "optional",
        Access::Required => "required",
    }
}

fn accept(accept: Accept) -> Vec<&'static str> {
    let all = [(accept.session, "session"), (accept.bearer, "bearer"), (accept.proxy_token, "proxy_token")];
    all.into_iter().filter(|(taken, _)| *taken).map(|(_, word)| word).collect()
}

fn on_missing(route: &Route) -> &'static str {
    match (route.access, route.on_missing) {
        (Access::Required, OnMissing::Auto) => "auto: navigations go to login, everything else gets 401",
        (Access::Required, OnMissing::Redirect) => "redirect: whatever may be a navigation goes to login",
        (Access::Required, OnMissing::Unauthorized) => "unauthorized: 401",
        _ => "the request goes on without one",
    }
}

/// As [`crate::gate`] has it for requests with a session cookie.
fn csrf_check(settings: &Settings, route: &Route, question: &Question) -> String {
    let shared = route.cors.as_ref().is_some_and(|cors| cors.credentials);
    let header = &settings.session.csrf.header;
    match settings.session.csrf.mode {
        _ if !route.accept.session => "not checked: no cookie counts here".to_owned(),
        _ if csrf::is_safe(&question.method) => format!("not checked: {} only reads", question.method),
        CsrfMode::Off => "not checked: `session.csrf.mode` is `off`".to_owned(),
        CsrfMode::Report if route.csrf => format!("`{header}` and origin are looked at, and only counted and logged"),
        CsrfMode::Enforce if route.csrf => format!("`{header}` and the origin must be right, for sessions by cookie"),
        _ if shared => "the origin alone must be right: `csrf: false`, and `cors` with credentials".to_owned(),
        _ => "not checked: `csrf: false`".to_owned(),
    }
}

fn rule(rule: &Rule) -> Value {
    let value = |value: &ClaimValue| match value {
        ClaimValue::Text(text) => text.clone(),
        ClaimValue::Integer(number) => number.to_string(),
        ClaimValue::Boolean(word) => word.to_string(),
    };
    let values = |all: &[ClaimValue]| all.iter().map(value).collect::<Vec<_>>().join(", ");
    let test = match &rule.condition.test {
        ClaimTest::AnyOf(all) => format!("any of {}", values(all)),
        ClaimTest::AllOf(all) => format!("all of {}", values(all)),
        ClaimTest::Equals(one) => format!("equals {}", value(one)),
        ClaimTest::Matches(_) => "matches its pattern".to_owned(),
    };
    format!("{}: {} {test}", rule.name, dotted(&rule.condition.claim)).into()
}

fn dotted(claim: &ClaimPath) -> String {
    claim.0.iter().map(|part| part.replace('.', "\\.")).collect::<Vec<_>>().join(".")
}

fn action(route: &Route, question: &Question, path: &str) -> Value {
    match &route.action {
        Action::Upstream(forward) => json!({
            "upstream": forward.upstream.to_string(),
            "path": rewritten(forward.rewrite.as_ref(), path),
            "host": forward.host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes())),
            "request_headers": changes(&forward.request_headers),
            "compress": forward.compress,
        }),
        Action::Redirect(redirect) => json!({
            "redirect": redirect_target(redirect, &route.path, path, question.uri.query()),
            "status": redirect.status.as_u16(),
        }),
        Action::Respond(respond) => json!({ "respond": respond.status.as_u16() }),
        Action::Files(files) => json!({ "files": files.root.display().to_string(), "fallback": files.fallback }),
    }
}

fn token(token: &Token) -> String {
    let target = |target: &Target| {
        let named = |what: &str, value: &Option<String>| value.as_ref().map(|value| format!("{what} {value}"));
        let scope = (!target.scope.is_empty()).then(|| format!("scope {}", target.scope.join(" ")));
        let all = [named("audience", &target.audience), named("resource", &target.resource), scope];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    match token {
        Token::None => "none".to_owned(),
        Token::Access => "access".to_owned(),
        Token::Id => "id".to_owned(),
        Token::Proxy => "proxy".to_owned(),
        Token::Exchange(to) => format!("exchange ({})", target(to)),
        Token::ClientCredentials(own) => {
            format!("client_credentials of {} ({})", own.provider, target(&own.target)).replace(" ()", "")
        }
    }
}

/// Names only: values may be meant for few eyes.
fn changes(changes: &HeaderChanges) -> Value {
    let mut out: Vec<String> = changes.remove.iter().map(|name| format!("remove {name}")).collect();
    out.extend(changes.set.iter().map(|(name, _)| format!("set {name}")));
    out.extend(changes.add.iter().map(|(name, _)| format!("add {name}")));
    out.into()
}

fn cors(cors: &Cors) -> String {
    let origins = match &cors.origins {
        CorsOrigins::Any => "everybody".to_owned(),
        CorsOrigins::List(all) => {
            all.iter().map(|origin| String::from_utf8_lossy(origin.as_bytes())).collect::<Vec<_>>().join(", ")
        }
    };
    let methods: Vec<&str> = cors.methods.iter().map(http::Method::as_str).collect();
    let cookies = if cors.credentials { ", with cookies" } else { "" };
    format!("{origins}: {}{cookies}", methods.join(", "))
}

fn timeouts(settings: &Settings, forward: &Forward, own: RouteTimeouts) -> String {
    let upstream = settings.upstreams.iter().find(|one| one.name == forward.upstream);
    let of = upstream.map(|one| one.timeouts).unwrap_or_default();
    let (connect, read) = (own.connect.unwrap_or(of.connect), own.read.unwrap_or(of.read));
    let write = own.write.unwrap_or(of.write);
    let whole = own.request.map(|all| format!(", request {}", time(all))).unwrap_or_default();
    format!("connect {}, read {}, write {}{whole}", time(connect), time(read), time(write))
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_headers_are_not_shown() {
        let secret = HeaderMatch::Exact(http::HeaderValue::from_static("hidden"));
        let headers = vec![(HeaderName::from_static("x-a"), secret)];
        let said = conditions(&Conditions { headers, ..Conditions::default() });
        assert_eq!(said, "headers x-a with a value");
    }
}
