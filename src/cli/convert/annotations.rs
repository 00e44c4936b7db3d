//! The annotations of ingress-nginx on one Ingress.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::auth_url;
use super::draft::{Draft, list, map, seconds};
use super::source::Source;

pub(super) const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Annotations that ask for what is so in any case.
const NEEDLESS: [&str; 16] = [
    "ssl-redirect",
    "force-ssl-redirect",
    "use-regex",
    "proxy-buffering",
    "proxy-buffer-size",
    "proxy-buffers-number",
    "proxy-request-buffering",
    "proxy-http-version",
    "client-body-buffer-size",
    "auth-signin-redirect-param",
    "auth-cache-key",
    "auth-cache-duration",
    "auth-method",
    "auth-proxy-set-headers",
    "auth-always-set-cookie",
    "websocket-services",
];

/// Annotations that keep somebody out, beside `auth-url`.
const GUARDS: [&str; 12] = [
    "auth-url",
    "auth-type",
    "auth-secret",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "whitelist-source-range",
    "allowlist-source-range",
    "denylist-source-range",
    "auth-snippet",
    "configuration-snippet",
    "server-snippet",
    "enable-global-auth",
];

/// Those of them that hold for all of a host.
const OF_HOST: [&str; 3] = ["auth-tls-secret", "auth-tls-verify-client", "server-snippet"];

/// What an Ingress says of all its paths.
#[derive(Debug, Default)]
pub(super) struct Annotated {
    /// Whether somebody else was asked who the user is.
    pub(super) login: bool,
    /// Whether its routes are for some people only, for that or another reason.
    pub(super) closed: bool,
    /// Why all other routes of its hosts are, too.
    pub(super) of_host: Option<&'static str>,
    /// Whether nothing is made of it; the draft says why.
    pub(super) left_out: bool,
    /// Keys of its routes.
    pub(super) route: Mapping,
    /// Keys of its upstreams.
    pub(super) upstream: Mapping,
    /// Whether TLS is spoken with them.
    pub(super) tls: bool,
    /// In place of an upstream.
    pub(super) redirect: Option<Value>,
    /// More hosts.
    pub(super) aliases: Vec<String>,
    rewrite: Option<String>,
}

impl Annotated {
    pub(super) fn read(draft: &mut Draft, label: &str, annotations: &Value) -> Self {
        let entries = annotations.as_mapping().into_iter().flatten();
        let own = entries.filter_map(|(key, value)| {
            let name = key.as_str()?.strip_prefix(PREFIX)?;
            Some((name.to_owned(), serde_json::to_value(value).ok()?))
        });
        let mut source = Source::new(own.collect::<BTreeMap<_, _>>());
        let says = |name: &str| {
            let value = annotations.get(format!("{PREFIX}{name}"));
            value.is_some_and(|value| name != "enable-global-auth" || !(value == "false" || *value == false))
        };
        let guards: Vec<&'static str> = GUARDS.into_iter().filter(|name| says(name)).collect();
        source.take("enable-global-auth");
        let of_host = guards.iter().copied().find(|name| OF_HOST.contains(name));
        let mut out = Self { closed: !guards.is_empty(), of_host, left_out: true, ..Self::default() };
        if source.flag("canary") == Some(true) {
            draft.leave(format!(
                "{label}: a canary was left out; weights of `endpoints` or `when.headers` of a route do the like"
            ));
            return out;
        }
        if source.flag("ssl-passthrough") == Some(true) {
            draft.leave(format!("{label}: left out: TLS that is passed through cannot be looked into"));
            return out;
        }
        out.left_out = false;
        out.rewrite = source.text("rewrite-target");
        out.login(draft, label, &mut source, &guards);
        out.limits(draft, label, &mut source);
        out.cors(draft, label, &mut source);
        out.backend(draft, label, &mut source);
        let redirect =
            [("permanent-redirect", 301), ("temporal-redirect", 302)].into_iter().find_map(|(name, status)| {
                let to = source.text(name)?;
                let status = source.text(&format!("{name}-code")).and_then(|code| code.parse().ok()).unwrap_or(status);
                Some(map([("to", to.into()), ("status", status.into())]))
            });
        out.redirect = redirect;
        out.aliases = source.list("server-alias").into_iter().filter(|alias| !alias.starts_with('~')).collect();
        for (name, _) in source.rest().filter(|(name, _)| !NEEDLESS.contains(&name.as_str())) {
            draft.leave(format!("{label}: `{name}`: {}", advice(&name)));
        }
        out
    }

    fn login(&mut self, draft: &mut Draft, label: &str, source: &mut Source, guards: &[&str]) {
        let (url, signin) = (source.text("auth-url"), source.take("auth-signin"));
        self.login = url.is_some();
        if let Some(url) = &url {
            let rules = auth_url::rules(draft, label, url);
            if !rules.is_empty() {
                self.route.insert("allow".into(), rules.into());
            }
        } else if self.closed {
            draft.leave(format!(
                "{label}: protected there by {}, which was not translated: its routes ask for a login, see docs/how-to/authorise.md",
                guards.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ));
            self.route.insert("access".into(), "required".into());
            self.route.insert("token".into(), map([("kind", "none".into())]));
            return;
        }
        if !self.login {
            self.route.insert("access".into(), "public".into());
            if signin.is_some() {
                draft.leave(format!("{label}: `auth-signin` without `auth-url` asks nobody: its routes are public"));
            }
            return;
        }
        let mut token = "none";
        let mut headers = Mapping::new();
        for name in source.list("auth-response-headers") {
            let claim = match name.to_ascii_lowercase().as_str() {
                "authorization" => {
                    token = "access";
                    draft.leave(format!("{label}: `Authorization` now brings the access token; `token: {{ kind: id }}` if it was the ID token"));
                    continue;
                }
                "x-auth-request-user" => "sub",
                "x-auth-request-email" => "email",
                "x-auth-request-groups" => "groups",
                "x-auth-request-preferred-username" => "preferred_username",
                _ => {
                    draft.leave(format!("{label}: the header `{name}` of `auth-response-headers`: see `identity_headers` and `token` of routes"));
                    continue;
                }
            };
            headers.insert(name.into(), claim.into());
        }
        self.route.insert("token".into(), map([("kind", token.into())]));
        if !headers.is_empty() {
            self.route.insert("identity_headers".into(), headers.into());
        }
    }

    fn limits(&mut self, draft: &mut Draft, label: &str, source: &mut Source) {
        if let Some(size) = source.text("proxy-body-size") {
            match body_size(&size) {
                Some(size) => drop(self.route.insert("max_body".into(), size.into())),
                None => draft.leave(format!("{label}: `proxy-body-size` is no size: see `max_body` of routes")),
            }
        }
        let mut time = |name: &str| {
            let text = source.text(name)?;
            let number: Option<u64> = text.trim_end_matches('s').parse().ok();
            number.map(|number| Value::from(seconds(number)))
        };
        let connect = time("proxy-connect-timeout").map(|value| match value.as_str() {
            // As long as anybody may wait for a connection.
            Some(text) if text.trim_end_matches('s').parse::<u64>().is_ok_and(|number| number > 300) => "300s".into(),
            _ => value,
        });
        let timeouts = map([
            ("connect", connect.unwrap_or_default()),
            ("read", time("proxy-read-timeout").unwrap_or_default()),
            ("write", time("proxy-send-timeout").unwrap_or_default()),
        ]);
        if timeouts.as_mapping().is_some_and(|timeouts| !timeouts.is_empty()) {
            self.route.insert("timeouts".into(), timeouts);
        }
        let burst = source.text("limit-burst-multiplier").and_then(|text| text.parse().ok()).unwrap_or(5_u64);
        let mut limits = Vec::new();
        for (name, per) in [("limit-rps", 1_u64), ("limit-rpm", 60)] {
            let Some(rate) = source.text(name).and_then(|text| text.parse::<u64>().ok()).filter(|rate| *rate > 0)
            else {
                continue;
            };
            // A burst of so many times the rate was let pass: that many in so much longer a time.
            let times = burst.clamp(1, 60);
            limits.push(map([
                ("by", "address".into()),
                ("requests", rate.saturating_mul(times).clamp(1, 1_000_000).into()),
                ("per", format!("{}s", (per * times).min(3600)).into()),
            ]));
        }
        if !limits.is_empty() {
            draft.leave(format!("{label}: rate limits count by each replica; see `rate_limits` of routes"));
            self.route.insert("rate_limits".into(), limits.into());
        }
    }

    fn cors(&mut self, draft: &mut Draft, label: &str, source: &mut Source) {
        let enabled = source.flag("enable-cors") == Some(true);
        let (origins, methods) = (source.list("cors-allow-origin"), source.list("cors-allow-methods"));
        let (headers, expose) = (source.list("cors-allow-headers"), source.list("cors-expose-headers"));
        let credentials = source.flag("cors-allow-credentials") != Some(false);
        let age = source.text("cors-max-age").and_then(|text| text.parse::<u64>().ok()).unwrap_or(1_728_000);
        if !enabled {
            return;
        }
        let anybody = origins.is_empty() || origins.iter().any(|origin| origin == "*");
        let (known, patterns): (Vec<String>, Vec<String>) =
            origins.into_iter().partition(|origin| !origin.contains('*'));
        if !anybody && !patterns.is_empty() {
            draft.leave(format!(
                "{label}: origins with `*` ({}) cannot stand in `cors.origins`: write each of them",
                patterns.join(", ")
            ));
        }
        if !anybody && known.is_empty() {
            return;
        }
        if anybody && credentials {
            draft.leave(format!("{label}: `cors.origins: \"*\"` is without cookies, as browsers have it: list the origins that need them"));
        }
        let usual = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"].map(str::to_owned).to_vec();
        let methods = if methods.is_empty() { usual } else { methods };
        let usual = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
        let headers = if headers.is_empty() { usual.split(',').map(str::to_owned).collect() } else { headers };
        let named = |all: Vec<String>| if all.is_empty() { Value::Null } else { list(all) };
        self.route.insert(
            "cors".into(),
            map([
                ("origins", if anybody { "*".into() } else { list(known) }),
                ("methods", list(methods)),
                ("headers", named(headers.into_iter().filter(|name| name != "*").collect())),
                ("expose", named(expose.into_iter().filter(|name| name != "*").collect())),
                ("max_age", format!("{}s", age.min(24 * 3600)).into()),
                ("credentials", if !anybody && credentials { true.into() } else { Value::Null }),
            ]),
        );
    }

    fn backend(&mut self, draft: &mut Draft, label: &str, source: &mut Source) {
        let protocol = source.text("backend-protocol").unwrap_or_default().to_ascii_uppercase();
        match protocol.as_str() {
            "" | "HTTP" | "AUTO_HTTP" => {}
            "HTTPS" => self.tls = true,
            "GRPC" => drop(self.upstream.insert("protocol".into(), "h2c".into())),
            "GRPCS" => {
                self.tls = true;
                self.upstream.insert("protocol".into(), "h2".into());
            }
            _ => draft.leave(format!(
                "{label}: `backend-protocol: {protocol}` is not spoken: only HTTP, HTTPS, GRPC and GRPCS"
            )),
        }
        if self.tls {
            draft.leave(format!("{label}: nginx did not verify the certificate of its backend, Cloakroom does: give its authority in `upstreams[].tls.ca`"));
        }
        let affinity = source.text("affinity").as_deref() == Some("cookie");
        let by = source.text("upstream-hash-by");
        let on = match by.as_deref() {
            Some("$remote_addr" | "$binary_remote_addr") => Some("address"),
            None if affinity && self.login => Some("session"),
            None if affinity => Some("address"),
            _ => None,
        };
        if let Some(on) = on {
            self.upstream.insert("balance".into(), "consistent_hash".into());
            self.upstream.insert("hash_on".into(), on.into());
            draft.leave(format!("{label}: requests go to the address that their {on} leads to; give all pods in `endpoints`, for a service balances by itself"));
        } else if by.is_some() {
            draft.leave(format!("{label}: `upstream-hash-by`: see `balance` and `hash_on` of upstreams"));
        } else if source.text("load-balance").as_deref() == Some("ewma") {
            self.upstream.insert("balance".into(), "least_requests".into());
        }
        if let Some(tries) = source
            .text("proxy-next-upstream-tries")
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|tries| *tries > 0)
        {
            self.upstream.insert("retries".into(), map([("attempts", tries.min(10).into())]));
        }
        if let Some(host) = source.text("upstream-vhost") {
            self.route.insert("host".into(), host.into());
        }
        for name in [
            "affinity-mode",
            "session-cookie-name",
            "session-cookie-path",
            "session-cookie-expires",
            "session-cookie-max-age",
            "session-cookie-samesite",
            "session-cookie-change-on-failure",
            "load-balance",
        ] {
            source.take(name);
        }
    }

    /// What becomes of the path of a route, which was `written` as an expression.
    pub(super) fn rewritten(&self, draft: &mut Draft, label: &str, route: &mut Mapping, written: &str, path: &str) {
        let Some(target) = &self.rewrite else { return };
        match target.split_once('$') {
            // What a group has caught: what lies below the path.
            Some(("/", group)) if group.len() == 1 && written.contains('(') => {
                if path != "/" {
                    route.insert("strip_prefix".into(), path.into());
                }
            }
            Some((front, group)) if group.len() == 1 && written.contains('(') && front.ends_with('/') => {
                route.insert("replace_prefix".into(), front.trim_end_matches('/').into());
            }
            None if target.starts_with('/') => {
                draft.leave(format!("{label}: `rewrite-target: {target}` gave every path below `{written}` the same one; here what follows the prefix stays"));
                if target == "/" && path != "/" {
                    route.insert("strip_prefix".into(), path.into());
                } else if target != path {
                    route.insert("replace_prefix".into(), target.as_str().into());
                }
            }
            _ => draft.leave(format!(
                "{label}: `rewrite-target: {target}` for `{written}`: see `strip_prefix` and `replace_prefix` of routes"
            )),
        }
    }
}

/// `8m`, `1g`, `0` for any.
fn body_size(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|sign: char| sign.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let unit = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        _ if number == 0 => return Some("1TiB".to_owned()),
        "" => "B",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

fn advice(name: &str) -> &'static str {
    match name {
        "auth-type" | "auth-secret" | "auth-secret-type" | "auth-realm" => {
            "there is no login by password file: the provider logs users in"
        }
        "auth-snippet" | "configuration-snippet" | "server-snippet" | "stream-snippet" => {
            "lines of nginx are not read: see `request_headers`, `response_headers`, `redirect` and `respond` of routes"
        }
        "app-root" => "write a route with `redirect` in front of the application",
        "whitelist-source-range" | "allowlist-source-range" | "denylist-source-range" => {
            "addresses are let in by a network policy or firewall"
        }
        "limit-connections" => "see `limits.connections_per_address`, for all of the server",
        "limit-whitelist" | "limit-rate" | "limit-rate-after" => "rate limits count requests alone, of everybody",
        "auth-tls-secret"
        | "auth-tls-verify-client"
        | "auth-tls-verify-depth"
        | "auth-tls-pass-certificate-to-upstream" => "certificates of clients: see `listeners[].tls.client_ca`",
        "from-to-www-redirect" => "write a site for the other name with one route that redirects",
        "custom-headers" | "connection-proxy-header" | "x-forwarded-prefix" => {
            "see `request_headers` and `response_headers` of routes"
        }
        "custom-http-errors" | "default-backend" => "answers of upstreams pass as they are",
        "proxy-next-upstream" | "proxy-next-upstream-timeout" => {
            "see `retries` of upstreams: what may be sent twice is not a choice"
        }
        "mirror-target" | "mirror-request-body" | "mirror-host" => "requests are not mirrored",
        "satisfy" => "either login or address is not there: rules are on claims",
        _ if name.starts_with("proxy-ssl-") => {
            "see `upstreams[].tls`: authorities, name and client certificate as files"
        }
        _ if name.starts_with("auth-") => "who asks for logins is Cloakroom itself",
        _ if name.starts_with("modsecurity") || name.starts_with("enable-modsecurity") => {
            "there is no web application firewall inside"
        }
        _ if name.starts_with("enable-opentelemetry") || name.starts_with("opentelemetry") => "there are no traces yet",
        _ => "has no counterpart that this command knows",
    }
}
