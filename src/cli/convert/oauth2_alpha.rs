//! The YAML file of oauth2-proxy ("alpha configuration").

use serde_yaml::{Mapping, Value};

use super::draft::{Draft, from_variable, list, map};
use super::model::{Place, Site, Target, literal};
use super::oauth2_proxy::{IDENTITY, host_of, sealing, socket};
use super::provider::{Named, write_provider};
use super::restrictions::{closed, roles, unverified};

/// Its keys of the top level, in the spelling of its versions.
const KEYS: [&str; 7] = [
    "upstreamConfig",
    "upstreams",
    "injectRequestHeaders",
    "injectResponseHeaders",
    "server",
    "metricsServer",
    "providers",
];

/// The document, if it is one.
pub(super) fn recognised(text: &str) -> Option<Mapping> {
    let Ok(Value::Mapping(document)) = serde_yaml::from_str(text) else { return None };
    document.keys().any(|key| key.as_str().is_some_and(|key| KEYS.contains(&key))).then_some(document)
}

pub(super) fn converted(name: &str, mut document: Mapping) -> Draft {
    let mut draft = Draft::new(name);
    draft.leave("this is one of the two files of oauth2-proxy: convert the other one too, and put both together");
    draft.leave("`email_domains` and `authenticated_emails_file` are in the other file: put the `allow` that comes of it on each route here");
    listeners(&mut draft, document.remove("server"));
    if let Some(address) = document.remove("metricsServer").as_ref().and_then(|server| text(server, "bindAddress")) {
        match socket(address).filter(|_| address != "-") {
            Some(address) => draft.set("admin", map([("address", address.into())])),
            None => draft.leave("`metricsServer.bindAddress` is no IP address and port: write `admin.address`"),
        }
    }
    sealing(&mut draft);
    let rules = providers(&mut draft, document.remove("providers"));
    let mut site = Site { auth_path: "/oauth2".to_owned(), rules, token: "none", ..Site::default() };
    site.hosts = host_of(&mut draft, None, &site.auth_path);
    let upstreams = document.remove("upstreamConfig").and_then(|config| config.get("upstreams").cloned());
    for upstream in items(upstreams.or_else(|| document.remove("upstreams"))) {
        site.places.extend(place(&mut draft, &upstream));
    }
    for header in items(document.remove("injectRequestHeaders")) {
        inject(&mut draft, &header, &mut site);
    }
    for header in items(document.remove("injectResponseHeaders")) {
        let name = text(&header, "name").unwrap_or("?");
        draft.leave(format!(
            "the response header `{name}`: for a proxy in front that asks, see docs/how-to/forward-auth.md"
        ));
    }
    for key in document.keys().filter_map(Value::as_str) {
        draft.leave(format!("`{key}` has no counterpart that this command knows"));
    }
    site.write(&mut draft);
    draft
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Sequence(items)) => items,
        _ => Vec::new(),
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str().filter(|text| !text.is_empty())
}

fn listeners(draft: &mut Draft, server: Option<Value>) {
    let server = server.unwrap_or_default();
    let address = |key| text(&server, key).filter(|address| *address != "-").and_then(socket);
    let file = |key: &str| server.get("tls").and_then(|tls| tls.get(key)).and_then(|from| text(from, "fromFile"));
    let mut all = Vec::new();
    if let (Some(address), Some(certificate), Some(key)) = (address("secureBindAddress"), file("cert"), file("key")) {
        let pair = map([("certificate", certificate.into()), ("key", key.into())]);
        all.push(map([("address", address.into()), ("tls", map([("certificates", vec![pair].into())]))]));
    }
    if let Some(address) = address("bindAddress") {
        all.push(map([("address", address.into())]));
    }
    if all.is_empty() {
        draft.leave("`server`: the usual address of oauth2-proxy was taken");
        all.push(map([("address", "127.0.0.1:4180".into())]));
    }
    draft.set("listeners", all);
}

/// Writes the first one; the rules that it asks for.
fn providers(draft: &mut Draft, providers: Option<Value>) -> Vec<Value> {
    let mut providers = items(providers).into_iter();
    let first = providers.next().unwrap_or_default();
    if providers.next().is_some() {
        draft.leave("there are several `providers`: only the first was taken; see docs/how-to/several-providers.md");
    }
    let oidc = first.get("oidcConfig").cloned().unwrap_or_default();
    let secret = match text(&first, "clientSecretFile") {
        Some(file) => map([("file", file.into())]),
        None => from_variable("CLIENT_SECRET"),
    };
    let tenant = first.get("azureConfig").and_then(|azure| text(azure, "tenant")).unwrap_or("common").to_owned();
    if first.get("loginURLParameters").is_some() {
        draft.leave("`loginURLParameters`: write them as `providers[0].authorization_params`, or let pages ask, see docs/how-to/login-parameters.md");
    }
    for (key, advice) in [
        ("caFiles", "write the file as `providers[0].ca`"),
        ("backendLogoutURL", "a logout ends the session at the provider in any case"),
    ] {
        if first.get(key).is_some() {
            draft.leave(format!("`{key}`: {advice}"));
        }
    }
    write_provider(
        draft,
        Named {
            kind: text(&first, "provider").unwrap_or("oidc").to_owned(),
            tenant,
            issuer: text(&oidc, "issuerURL").map(str::to_owned),
            scopes: text(&first, "scope").map(str::to_owned),
            secret,
            client: text(&first, "clientID").map(str::to_owned),
            parameters: Vec::new(),
        },
    );
    let texts = |value: Option<&Value>| -> Vec<String> {
        items(value.cloned()).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut rules = Vec::new();
    let keycloak = first.get("keycloakConfig").cloned().unwrap_or_default();
    let mut groups = texts(first.get("allowedGroups"));
    groups.extend(texts(keycloak.get("groups")));
    if !groups.is_empty() {
        let claim = text(&oidc, "groupsClaim").unwrap_or("groups").replace('.', "\\.");
        rules.push(map([("claim", claim.into()), ("any_of", list(groups))]));
    }
    roles(draft, texts(keycloak.get("roles")), &mut rules);
    if oidc.get("insecureAllowUnverifiedEmail").and_then(Value::as_bool) != Some(true) {
        unverified(draft);
    }
    unread(draft, &first, &mut rules);
    rules
}

/// Keys of a provider that are read, or that ask for what is so in any case.
const READ: [&str; 31] = [
    "id",
    "name",
    "provider",
    "clientID",
    "clientSecret",
    "clientSecretFile",
    "scope",
    "loginURLParameters",
    "loginURL",
    "redeemURL",
    "profileURL",
    "validateURL",
    "caFiles",
    "backendLogoutURL",
    "code_challenge_method",
    "codeChallengeMethod",
    "approvalPrompt",
    "prompt",
    "allowedGroups",
    "keycloakConfig.groups",
    "keycloakConfig.roles",
    "azureConfig.tenant",
    "oidcConfig.issuerURL",
    "oidcConfig.groupsClaim",
    "oidcConfig.insecureAllowUnverifiedEmail",
    "oidcConfig.insecureSkipNonce",
    "oidcConfig.jwksURL",
    "oidcConfig.emailClaim",
    "oidcConfig.userIDClaim",
    "oidcConfig.enabledSigningAlgs",
    "oidcConfig.codeChallengeMethod",
];

/// Keys that are not read and keep nobody out.
const OPEN: [&str; 12] = [
    "skipClaimsFromProfileURL",
    "useSystemTrustStore",
    "additionalClaims",
    "oidcConfig.skipDiscovery",
    "oidcConfig.insecureSkipIssuerVerification",
    "oidcConfig.extraAudiences",
    "oidcConfig.publicKeyFiles",
    "googleConfig.adminEmail",
    "googleConfig.serviceAccountJson",
    "googleConfig.useApplicationDefaultCredentials",
    "githubConfig.token",
    "azureConfig.graphGroupField",
];

/// Lists what nothing was made of. It may have kept somebody out, so nobody passes in its place.
fn unread(draft: &mut Draft, provider: &Value, rules: &mut Vec<Value>) {
    let mut keys: Vec<(String, &Value)> = Vec::new();
    for (key, value) in provider.as_mapping().into_iter().flatten() {
        let key = key.as_str().unwrap_or("?");
        match value.as_mapping().filter(|_| key.ends_with("Config")) {
            Some(below) => {
                let below = below.iter();
                keys.extend(below.map(|(name, value)| (format!("{key}.{}", name.as_str().unwrap_or("?")), value)));
            }
            None => keys.push((key.to_owned(), value)),
        }
    }
    for (key, value) in keys {
        let items = value.as_sequence();
        let usual = key == "oidcConfig.audienceClaims"
            && items.is_some_and(|items| items.iter().all(|item| item.as_str() == Some("aud")));
        let says = !value.is_null() && value.as_str() != Some("") && value.as_bool() != Some(false);
        // A list of what are no texts was not read.
        let odd = ["allowedGroups", "keycloakConfig.groups", "keycloakConfig.roles"].contains(&key.as_str())
            && items.is_none_or(|items| !items.iter().all(Value::is_string));
        if !says || usual || items.is_some_and(Vec::is_empty) || (READ.contains(&key.as_str()) && !odd) {
            continue;
        }
        let what = format!("`providers[0].{key}` has no counterpart that this command knows");
        if OPEN.contains(&key.as_str()) {
            draft.leave(what);
        } else {
            closed(draft, rules, &what);
        }
    }
}

fn place(draft: &mut Draft, upstream: &Value) -> Option<Place> {
    let id = text(upstream, "id").unwrap_or("?").to_owned();
    let pattern = text(upstream, "path").unwrap_or("/");
    let Some(path) = literal(pattern) else {
        draft.leave(format!("the upstream `{id}` has the path `{pattern}`: write its route by hand"));
        return None;
    };
    let code = upstream.get("staticCode").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let target = match (upstream.get("static").and_then(Value::as_bool), text(upstream, "uri")) {
        (Some(true), _) => Some(Target::Status(code.unwrap_or(200))),
        (_, Some(uri)) => Target::parse(uri).map(|(target, _)| target),
        _ => None,
    };
    let Some(target) = target else {
        draft.leave(format!("the upstream `{id}` is none that a route can have"));
        return None;
    };
    let rewrite = text(upstream, "rewriteTarget");
    let strip = rewrite.is_some_and(|rewrite| rewrite.starts_with("/$"));
    if rewrite.is_some() && !strip {
        draft.leave(format!("the upstream `{id}` rewrites paths: see `replace_prefix` of routes"));
    }
    if upstream.get("insecureSkipTLSVerify").and_then(Value::as_bool) == Some(true) {
        draft.leave(format!(
            "the upstream `{id}`: certificates are always verified; give your authority in `upstreams[].tls.ca`"
        ));
    }
    let keeps_host = upstream.get("passHostHeader").and_then(Value::as_bool) != Some(false);
    let timeout = text(upstream, "timeout").and_then(|time| humantime::parse_duration(time).ok());
    let timeout = timeout.filter(|time| time.as_millis() > 0 && matches!(target, Target::Server(_)));
    let read_timeout = timeout.map(|time| humantime::format_duration(time).to_string());
    Some(Place { path, target, strip, keeps_host, read_timeout })
}

/// `{ name, values: [{ claim }] }`, or with `claimSource` around the claim.
fn inject(draft: &mut Draft, header: &Value, site: &mut Site) {
    let name = text(header, "name").unwrap_or("?");
    let value = items(header.get("values").cloned()).into_iter().next().unwrap_or_default();
    let source = value.get("claimSource").unwrap_or(&value);
    let claim = text(source, "claim");
    let prefixed = source.get("prefix").is_some() || source.get("basicAuthPassword").is_some();
    match (name.to_ascii_lowercase().as_str(), claim, prefixed) {
        ("authorization", Some("id_token"), _) => site.token = "id",
        ("authorization", Some("access_token"), _) => site.token = "access",
        (_, Some("access_token" | "id_token"), _) => {
            draft.leave(format!("`{name}`: tokens go upstream in `Authorization: Bearer` only, see `token` of routes"));
        }
        ("authorization", ..) | (_, None, _) | (_, _, true) => {
            draft.leave(format!("the request header `{name}`: see `identity_headers` and `request_headers` of routes"));
        }
        (_, Some(claim), false) => {
            let known = match claim {
                "user" => "sub",
                claim => claim,
            };
            let own = name.strip_prefix("X-Forwarded-").and_then(|rest| {
                IDENTITY.iter().map(|(name, _)| *name).find(|name| name.ends_with(&format!("Request-{rest}")))
            });
            match own {
                Some(own) => {
                    draft.leave(format!(
                        "upstreams read `{own}` in place of `{name}`, which is not for identities here"
                    ));
                }
                None if name.starts_with("X-Forwarded-") => {
                    draft.leave(format!("the request header `{name}` is not for identities here: choose another name"));
                    return;
                }
                None => {}
            }
            site.identity_headers.insert(own.unwrap_or(name).into(), known.into());
        }
    }
}
