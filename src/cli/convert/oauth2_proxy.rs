//! The options of oauth2-proxy (v7): TOML with a key for each option of its command line.

use std::collections::BTreeMap;

use anyhow::anyhow;
use serde_yaml::{Mapping, Value};

use super::draft::{Draft, from_variable, list, map};
use super::model::{Place, Site, Target, alone, literal};
use super::provider::{Named, write_provider};
use super::source::Source;
use super::{leftover, oauth2_alpha, restrictions};

/// Reads a file of options, or a YAML one.
pub(super) fn converted(name: &str, text: &str) -> anyhow::Result<Draft> {
    if let Some(document) = oauth2_alpha::recognised(text) {
        return Ok(oauth2_alpha::converted(name, document));
    }
    let options: BTreeMap<String, serde_json::Value> = toml::from_str(text).map_err(|error| {
        // Not as it prints itself: with the line, which may hold a secret.
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        anyhow!(
            "{name} is neither a file of options of oauth2-proxy (TOML) nor its YAML; command lines and variables are not read: \
             line {line}, column {column}: {}",
            error.message()
        )
    })?;
    let mut source = Source::new(options);
    let mut draft = Draft::new(name);
    listeners(&mut draft, &mut source);
    sealing(&mut draft);
    store(&mut draft, &mut source);
    session(&mut draft, &mut source);
    provider(&mut draft, &mut source);
    let site = site(&mut draft, &mut source);
    site.write(&mut draft);
    leftover::leave(&mut draft, source);
    Ok(draft)
}

/// Line and column of this byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// A URL without user and password.
pub(super) fn without_userinfo(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{host}{path}"),
        // A password may hold what ends an authority elsewhere.
        None => path.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("{scheme}{host}")),
    }
}

/// `host:port`, `:port`, `http://host:port`.
pub(super) fn socket(text: &str) -> Option<String> {
    let bare = text.split_once("://").map_or(text, |(_, bare)| bare);
    let (host, port) = bare.rsplit_once(':')?;
    let host = match host {
        "" => "0.0.0.0",
        "localhost" => "127.0.0.1",
        host => host,
    };
    let address = format!("{host}:{port}");
    address.parse::<std::net::SocketAddr>().ok().map(|address| address.to_string())
}

fn listeners(draft: &mut Draft, source: &mut Source) {
    let plain = source.text("http_address");
    let (secure, files) = (source.text("https_address"), (source.text("tls_cert_file"), source.text("tls_key_file")));
    let mut all = Vec::new();
    let tls = match files {
        (Some(certificate), Some(key)) => {
            let pair = map([("certificate", certificate.into()), ("key", key.into())]);
            Some(map([("certificates", vec![pair].into())]))
        }
        _ => None,
    };
    if let Some(tls) = tls {
        let address = secure.as_deref().and_then(socket).unwrap_or_else(|| "0.0.0.0:443".to_owned());
        all.push(map([("address", address.into()), ("tls", tls)]));
    }
    if all.is_empty() || plain.is_some() {
        let address = plain.as_deref().and_then(socket).unwrap_or_else(|| {
            draft.leave("`http_address`: the usual one of oauth2-proxy was taken");
            "127.0.0.1:4180".to_owned()
        });
        all.push(map([("address", address.into())]));
    }
    draft.set("listeners", all);
    let proxies = ["trusted_proxy_ips", "trusted_proxy_ip"].into_iter().flat_map(|name| source.list(name));
    let proxies: Vec<String> = proxies.collect();
    let behind = source.flag("reverse_proxy") == Some(true);
    if behind || !proxies.is_empty() {
        if proxies.is_empty() {
            draft.leave("`reverse_proxy`: name the proxies in front in `trusted_proxies`; until then only this machine is believed");
        }
        let proxies = if proxies.is_empty() { vec!["127.0.0.1".to_owned()] } else { proxies };
        draft.set("trusted_proxies", list(proxies));
    }
    if source.take("trusted_ips").is_some() {
        draft.leave("`trusted_ips`: nobody passes without a login for his address; make routes public instead");
    }
    source.take("real_client_ip_header");
    if let Some(address) = source.text("metrics_address") {
        match socket(&address) {
            Some(address) => draft.set("admin", map([("address", address.into())])),
            None => draft.leave("`metrics_address` is no IP address and port: write `admin.address`"),
        }
    }
}

/// What seals the sessions.
pub(super) fn sealing(draft: &mut Draft) {
    draft.set("keys", vec![map([("id", "1".into()), ("secret", from_variable("CLOAKROOM_KEY"))])]);
    draft.leave("set the variable CLOAKROOM_KEY to what `cloakroom keygen` prints");
}

fn store(draft: &mut Draft, source: &mut Source) {
    let kind = source.text("session_store_type");
    let url = source.text("redis_connection_url");
    let grouped = [source.flag("redis_use_sentinel"), source.flag("redis_use_cluster")].contains(&Some(true));
    let password = source.take("redis_password").is_some() || source.take("redis_username").is_some();
    let ca = source.text("redis_ca_path");
    for name in ["redis_sentinel_master_name", "redis_sentinel_connection_urls", "redis_sentinel_password"] {
        source.take(name);
    }
    source.take("redis_cluster_connection_urls");
    source.take("redis_connection_idle_timeout");
    if kind.as_deref() != Some("redis") {
        draft.set("store", map([("kind", "memory".into())]));
        draft.leave("sessions were in cookies: here they are in memory and end with the process; see docs/how-to/choose-a-store.md");
        return;
    }
    let bare = url.filter(|url| !grouped && !password && !url.contains('@'));
    let url = bare.map_or_else(|| from_variable("REDIS_URL"), Value::from);
    if grouped {
        draft.leave(
            "set the variable REDIS_URL to `redis-sentinel://…` or `redis-cluster://…`; see docs/how-to/redis.md",
        );
    } else if url.is_mapping() {
        draft.leave("set the variable REDIS_URL to the address of the Redis, with user and password");
    }
    draft.set("store", map([("kind", "redis".into()), ("url", url), ("ca", ca.map(Value::from).unwrap_or_default())]));
}

fn session(draft: &mut Draft, source: &mut Source) {
    let expire = source.text("cookie_expire").unwrap_or_else(|| "168h".to_owned());
    let absolute = humantime::parse_duration(&expire).ok().filter(|time| time.as_secs() > 0);
    let absolute = absolute.map_or_else(|| "168h".to_owned(), |time| humantime::format_duration(time).to_string());
    draft.leave(format!(
        "sessions last {absolute}, as the cookie did; `session.idle_timeout` may end unused ones sooner"
    ));
    let secure = source.flag("cookie_secure") != Some(false);
    let cookie = if secure {
        Value::Null
    } else {
        draft.leave("`cookie_secure = false`: cookies over plain HTTP are for a machine of your own only");
        map([("name", "session".into()), ("secure", false.into())])
    };
    if source.take("cookie_name").is_some() {
        draft.leave("`cookie_name`: the session cookie has a name of its own, for nobody else has to read it");
    }
    let session = [
        ("idle_timeout", absolute.as_str().into()),
        ("absolute_timeout", absolute.as_str().into()),
        ("cookie", cookie),
    ];
    draft.set("session", map(session));
}

fn provider(draft: &mut Draft, source: &mut Source) {
    let kind = source.text("provider").unwrap_or_else(|| "google".to_owned());
    let tenant = source.text("azure_tenant").unwrap_or_else(|| "common".to_owned());
    let issuer = source.text("oidc_issuer_url");
    let scopes = source.text("scope");
    let parameters = ["prompt", "acr_values"].map(|name| (name, source.text(name)));
    for name in ["login_url", "redeem_url", "profile_url", "validate_url", "oidc_jwks_url", "backend_logout_url"] {
        source.take(name);
    }
    let secret = match source.text("client_secret_file") {
        Some(file) => map([("file", file.into())]),
        None => from_variable("CLIENT_SECRET"),
    };
    source.take("client_secret");
    let client = source.text("client_id");
    write_provider(draft, Named { kind, tenant, issuer, scopes, secret, client, parameters: parameters.into() });
}

fn site(draft: &mut Draft, source: &mut Source) -> Site {
    let auth_path = source.text("proxy_prefix").unwrap_or_else(|| "/oauth2".to_owned());
    let host = source.text("redirect_url").and_then(|url| url.parse::<http::Uri>().ok()?.host().map(str::to_owned));
    let hosts = host_of(draft, host, &auth_path);
    let timeout = source.text("upstream_timeout").and_then(|time| humantime::parse_duration(&time).ok());
    let timeout = timeout.filter(|time| time.as_millis() > 0).map(|time| humantime::format_duration(time).to_string());
    let keeps_host = source.flag("pass_host_header") != Some(false);
    let mut places = Vec::new();
    for text in source.list("upstreams") {
        match Target::parse(&text) {
            Some((target, path)) => {
                let read_timeout = timeout.clone().filter(|_| matches!(target, Target::Server(_)));
                places.push(Place { path, target, strip: false, keeps_host, read_timeout });
            }
            None => {
                let text = without_userinfo(&text);
                draft.leave(format!("the upstream `{text}` is none that a route can have"));
            }
        }
    }
    let mut public = Vec::new();
    let regexes = ["skip_auth_routes", "skip_auth_regex"].into_iter().flat_map(|name| source.list(name));
    for pattern in regexes.collect::<Vec<_>>() {
        public.extend(open(draft, &pattern));
    }
    let mut identity_headers = Mapping::new();
    if source.flag("pass_user_headers") != Some(false) {
        draft.leave("upstreams read `X-Auth-Request-User`, `-Email`, … in place of `X-Forwarded-User`, `-Email`, …: those are not for identities here");
        for (name, claim) in IDENTITY {
            identity_headers.insert(name.into(), claim.into());
        }
    }
    let access = source.flag("pass_access_token") == Some(true);
    let id = source.flag("pass_authorization_header") == Some(true);
    let token = match (access, id) {
        (_, true) => "id",
        (true, false) => "access",
        (false, false) => "none",
    };
    if access {
        let instead =
            if id { "the ID token was asked for, and there is room for one" } else { "in `Authorization: Bearer`" };
        draft.leave(format!(
            "`pass_access_token`: upstreams get the access token not in `X-Forwarded-Access-Token`; {instead}"
        ));
    }
    let rules = restrictions::rules(draft, source);
    Site { hosts, auth_path, places, public, rules, identity_headers, token }
}

/// Names that oauth2-proxy has for claims where it does not forward requests itself.
pub(super) const IDENTITY: [(&str, &str); 4] = [
    ("X-Auth-Request-User", "sub"),
    ("X-Auth-Request-Email", "email"),
    ("X-Auth-Request-Preferred-Username", "preferred_username"),
    ("X-Auth-Request-Groups", "groups"),
];

pub(super) fn host_of(draft: &mut Draft, host: Option<String>, auth_path: &str) -> Vec<String> {
    draft.leave(format!(
        "at the provider: allow the redirect URI `https://HOST{auth_path}/callback`, and `https://HOST{auth_path}/logged-out` after a logout; \
         links to `{auth_path}/sign_in` and `{auth_path}/sign_out` become `{auth_path}/login` and `{auth_path}/logout`"
    ));
    vec![host.unwrap_or_else(|| {
        draft.leave("`sites[0].hosts` is made up: write the names that browsers use");
        "app.example.com".to_owned()
    })]
}

/// What needs no login: `^/path`, `GET=^/path$`.
fn open(draft: &mut Draft, pattern: &str) -> Option<(Vec<String>, String)> {
    let (methods, regex) = match pattern.split_once('=') {
        Some((methods, regex)) if methods.bytes().all(|byte| byte.is_ascii_uppercase() || b"|,!".contains(&byte)) => {
            (methods, regex)
        }
        _ => ("", pattern),
    };
    let methods: Vec<String> = methods.split(['|', ',']).filter(|one| !one.is_empty()).map(str::to_owned).collect();
    // A route also takes what lies below its path. What was open for itself alone must not open that.
    let alone = alone(regex);
    // `GET!=^/path` needed no login anywhere else.
    let negated = pattern.contains("!=") || methods.iter().any(|method| method.contains('!'));
    let path = literal(regex).filter(|_| !alone && !negated);
    let Some(path) = path else {
        let below = if alone { ", if what lies below it may be open too" } else { "" };
        draft.leave(format!("`{pattern}` needed no login: write a route with `access: public` for it{below}"));
        return None;
    };
    Some((methods, path))
}
