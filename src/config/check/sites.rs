//! Sites: hosts, auth path, aliases, origins.

use std::sync::Arc;

use super::routes::{self, Around};
use super::{Names, bearer, duplicate, security};
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{ALIASES, SITE, USER_CONTEXT};
use crate::config::settings::{Access, Aliases, ClaimPath, HostPattern, Origin, SecurityHeaders, Site, Token};
use crate::config::source::Span;
use crate::config::values;
use crate::config::yaml::{Kind, Node};
use crate::primitives::path::PathPrefix;

/// At least one; no host in two of them.
pub(super) fn sites(
    reader: &mut Reader<'_>,
    node: &Node,
    providers: &mut Names,
    upstreams: &mut Names,
    proxy_tokens: bool,
) -> Option<Vec<Site>> {
    let mut hosts: Vec<(HostPattern, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| site(reader, item, providers, upstreams, proxy_tokens, &mut hosts))
}

fn site(
    reader: &mut Reader<'_>,
    node: &Node,
    providers: &mut Names,
    upstreams: &mut Names,
    proxy_tokens: bool,
    taken: &mut Vec<(HostPattern, Span)>,
) -> Option<Site> {
    let fields = reader.fields(node, &SITE)?;
    let hosts = fields.required(reader, "hosts", "[app.example.com]", |reader, node| {
        reader.list_of_some(node, |reader, item| host(reader, item, taken))
    });
    let providers = site_providers(reader, &fields, providers);
    let auth_path = match PathPrefix::parse("/auth") {
        Ok(default) => fields.optional(reader, "auth_path", default, auth_path),
        Err(_) => None,
    };
    let aliases =
        fields.optional(reader, "aliases", Vec::new(), |reader, node| aliases(reader, node, auth_path.as_ref()));
    let context_claims = fields.optional(reader, "user_context", Vec::new(), user_context);
    let origins = fields.optional(reader, "origins", Vec::new(), |reader, node| {
        reader.list(node, |reader, item| origin(reader, item, hosts.as_deref()))
    });
    if let (Some(node), Some(hosts), Some(origins)) = (fields.get("hosts"), &hosts, &origins) {
        note_hosts_without_origin(reader, node, hosts, origins);
    }
    let bearer = fields.maybe(reader, "bearer", bearer::bearer);
    let security_headers =
        fields.optional(reader, "security_headers", SecurityHeaders::default(), security::security_headers);
    let around = Around {
        hosts: hosts.as_deref(),
        // A provider that is named wrongly was meant to be there.
        provider: fields.get("provider").or(fields.get("providers")).is_some(),
        providers: providers.as_deref(),
        bearer: fields.get("bearer").is_some(),
        auth_path: auth_path.as_ref(),
        aliases: aliases.as_deref().unwrap_or_default(),
        proxy_tokens,
    };
    let routes = fields.required(reader, "routes", "[{ path: /, upstream: app }]", |reader, node| {
        routes::routes(reader, node, upstreams, &around)
    });
    if let (Some(node), Some(routes)) = (fields.get("provider").or(fields.get("providers")), &routes)
        && providers.is_some()
        && routes.iter().all(|route| route.access == Access::Public)
        // It may be there for a token of our own.
        && !routes.iter().any(|route| matches!(route.token, Token::ClientCredentials(_)))
        // A route that could not be read may be the one that is not public.
        && matches!(fields.get("routes").map(|node| &node.kind), Some(Kind::List(items)) if items.len() == routes.len())
    {
        let help = "set `access: optional` or `required` on the routes that need to know the user";
        reader.note(Code::NoEffect, node, "users may log in, but every route is public", help);
    }
    if let (Some(node), Some(routes)) = (fields.get("bearer"), &routes)
        && !routes.iter().any(|route| route.accept.bearer)
        && matches!(fields.get("routes").map(|node| &node.kind), Some(Kind::List(items)) if items.len() == routes.len())
    {
        let help = "write `accept: [session, bearer]` on the routes that clients call with a token of their own";
        reader.note(Code::NoEffect, node, "no route takes access tokens from clients", help);
    }
    let hosts = hosts?;
    let name = hosts.first().map(|host| Arc::<str>::from(display(host)))?;
    let mut paths = aliases?;
    let mut alias = |key: &str| {
        let index = paths.iter().position(|alias| alias.key == key)?;
        Some(paths.swap_remove(index).path)
    };
    Some(Site {
        name,
        hosts,
        providers: providers?,
        auth_path: auth_path?,
        aliases: Aliases { login: alias("login"), logout: alias("logout"), userinfo: alias("userinfo") },
        context_claims: context_claims?,
        origins: origins?,
        bearer: bearer?,
        security_headers: security_headers?,
        routes: routes?,
    })
}

fn user_context(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<ClaimPath>> {
    let fields = reader.fields(node, &USER_CONTEXT)?;
    fields.required(reader, "claims", "[name, email]", |reader, node| reader.list(node, values::claim_path))
}

/// One, or several; none if there is neither.
fn site_providers(reader: &mut Reader<'_>, fields: &Fields<'_>, names: &mut Names) -> Option<Vec<Arc<str>>> {
    if let (Some(_), Some(node)) = (fields.get("provider"), fields.get("providers")) {
        let help = "write `providers` alone: the first one is the default";
        reader.note(Code::Contradiction, node, "the site has a `provider` already", help);
    }
    let one = fields.maybe(reader, "provider", |reader, node| names.refer(reader, node));
    let mut seen: Vec<(Arc<str>, Span)> = Vec::new();
    let several = fields.optional(reader, "providers", Vec::new(), |reader, node| {
        let mut all = true;
        let list = reader.list_of_some(node, |reader, item| {
            let name = names.refer(reader, item);
            all &= name.is_some();
            let name = name?;
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name) {
                duplicate(reader, item, &format!("the site has the provider `{name}` already"), *first);
                return None;
            }
            seen.push((name.clone(), item.label()));
            Some(name)
        });
        list.filter(|_| all)
    });
    Some(one?.into_iter().chain(several?).collect())
}

/// A host pattern as it is written.
pub(super) fn display(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(domain) => format!("*.{domain}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn host(reader: &mut Reader<'_>, node: &Node, taken: &mut Vec<(HostPattern, Span)>) -> Option<HostPattern> {
    let host = values::host_pattern(reader, node)?;
    if let Some((_, first)) = taken.iter().find(|(other, _)| *other == host) {
        duplicate(reader, node, &format!("the host `{}` is served already", display(&host)), *first);
        return Some(host);
    }
    taken.push((host.clone(), node.label()));
    Some(host)
}

fn auth_path(reader: &mut Reader<'_>, node: &Node) -> Option<PathPrefix> {
    let path = values::path(reader, node)?;
    if path.depth() == 0 {
        reader.note(Code::BadPath, node, "the auth endpoints would cover the whole site", "write for example `/auth`");
        return None;
    }
    Some(path)
}

/// An extra path of one endpoint.
pub(super) struct Alias {
    pub(super) key: &'static str,
    pub(super) path: PathPrefix,
    pub(super) at: Span,
}

fn aliases(reader: &mut Reader<'_>, node: &Node, auth_path: Option<&PathPrefix>) -> Option<Vec<Alias>> {
    let fields = reader.fields(node, &ALIASES)?;
    let mut out: Vec<Alias> = Vec::new();
    for key in ["login", "logout", "userinfo"] {
        let Some(node) = fields.get(key) else { continue };
        let Some(path) = values::path(reader, node) else { continue };
        if path.depth() == 0 {
            reader.note(
                Code::BadPath,
                node,
                "an alias cannot be the whole site",
                format!("write for example `/{key}`"),
            );
        } else if auth_path.is_some_and(|auth| auth.rest(path.as_str()).is_some()) {
            let help = "the endpoints below `auth_path` are there anyway; choose a path outside";
            reader.note(Code::InsideAuthPath, node, "this alias lies below `auth_path`", help);
        } else if let Some(other) = out.iter().find(|other| other.path == path) {
            let message = format!("`{path}` is the alias of `{}` already", other.key);
            duplicate(reader, node, &message, other.at);
        } else {
            out.push(Alias { key, path, at: node.label() });
        }
    }
    Some(out)
}

fn origin(reader: &mut Reader<'_>, node: &Node, hosts: Option<&[HostPattern]>) -> Option<Origin> {
    let origin = values::origin(reader, node)?;
    let host = origin.0.host_str().unwrap_or_default();
    if hosts.is_some_and(|hosts| !hosts.iter().any(|pattern| covers(pattern, host))) {
        let help = "logins end at the first origin: add its host to `hosts`, unless a proxy in front rewrites `Host`";
        reader.note(Code::OriginNotServed, node, format!("this site does not serve `{host}`"), help);
    }
    Some(origin)
}

pub(super) fn covers(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(exact) => exact == host,
        HostPattern::Wildcard(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
    }
}

/// A site of one host may well be known under another name outside; one of several hosts has forgotten one.
fn note_hosts_without_origin(reader: &mut Reader<'_>, node: &Node, hosts: &[HostPattern], origins: &[Origin]) {
    let (Kind::List(items), Some(first)) = (&node.kind, origins.first()) else { return };
    // Otherwise one of them could not be read, and nodes and hosts do not fit each other.
    if hosts.len() < 2 || items.len() != hosts.len() {
        return;
    }
    let first = first.0.origin().ascii_serialization();
    for (node, host) in items.iter().zip(hosts) {
        if !origins.iter().any(|origin| origin.0.host_str().is_some_and(|name| covers(host, name))) {
            let message = format!("no origin names `{}`", display(host));
            let help = format!("a login there would come back to `{first}`: add this host's origin to `origins`");
            reader.note(Code::HostWithoutOrigin, node, message, help);
        }
    }
}
