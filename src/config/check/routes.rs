//! Routes: path, access, token, headers, limits.

use http::header::HeaderName;

use super::sites::Alias;
use super::{Names, duplicate};
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{ROUTE, TOKEN};
use crate::config::settings::{Access, ClaimPath, OnMissing, Route, Token};
use crate::config::source::Span;
use crate::config::values;
use crate::config::yaml::Node;
use crate::primitives::path::PathPrefix;

const DEFAULT_BODY: u64 = 10 << 20;
/// 1 TiB.
const LARGEST_BODY: u64 = 1 << 40;

/// What of its site a route has to respect.
pub(super) struct Around<'a> {
    pub(super) provider: bool,
    pub(super) auth_path: Option<&'a PathPrefix>,
    pub(super) aliases: &'a [Alias],
}

/// At least one; no path twice.
pub(super) fn routes(
    reader: &mut Reader<'_>,
    node: &Node,
    upstreams: &mut Names,
    around: &Around<'_>,
) -> Option<Vec<Route>> {
    let mut seen: Vec<(PathPrefix, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| {
        let fields = reader.fields(item, &ROUTE)?;
        let path = fields.required(reader, "path", "/", |reader, node| {
            let path = values::path(reader, node)?;
            check_path(reader, node, &path, &seen, around);
            seen.push((path.clone(), node.label()));
            Some(path)
        });
        route(reader, item, &fields, path, upstreams, around)
    })
}

fn check_path(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &PathPrefix,
    seen: &[(PathPrefix, Span)],
    around: &Around<'_>,
) {
    if let Some((_, first)) = seen.iter().find(|(other, _)| other == path) {
        let message = format!("`{path}` has a route already (a final slash makes no difference)");
        duplicate(reader, node, &message, *first);
    }
    if around.auth_path.is_some_and(|auth| auth.rest(path.as_str()).is_some()) {
        let help = "choose another path, or move the auth endpoints with `auth_path`";
        reader.note(
            Code::InsideAuthPath,
            node,
            "this path lies below `auth_path`: the route would get no request",
            help,
        );
    }
    if let Some(alias) = around.aliases.iter().find(|alias| alias.path == *path) {
        let message = format!("`{path}` is the alias of `{}`", alias.key);
        duplicate(reader, node, &message, alias.at);
    }
}

fn route(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &Fields<'_>,
    path: Option<PathPrefix>,
    upstreams: &mut Names,
    around: &Around<'_>,
) -> Option<Route> {
    let upstream = fields.required(reader, "upstream", "app", |reader, node| upstreams.refer(reader, node));
    let strip_prefix = fields.maybe(reader, "strip_prefix", |reader, node| strip_prefix(reader, node, path.as_ref()));
    let words = [("public", Access::Public), ("optional", Access::Optional), ("required", Access::Required)];
    let access = fields.optional(reader, "access", Access::Required, |r, n| r.choice(n, &words));
    if access.is_some_and(|access| access != Access::Public) && !around.provider {
        let at = fields.get("access").unwrap_or(node);
        let help = "name the site's `provider`, or write `access: public`";
        reader.note(Code::NoProvider, at, "this route needs a login, and its site has no provider", help);
    }
    let words =
        [("auto", OnMissing::Auto), ("redirect", OnMissing::Redirect), ("unauthorized", OnMissing::Unauthorized)];
    let on_missing = fields.optional(reader, "on_missing", OnMissing::Auto, |r, n| r.choice(n, &words));
    if let (Some(at), Some(Access::Public | Access::Optional)) = (fields.get("on_missing"), access) {
        reader.note(
            Code::NoEffect,
            at,
            "this route lets requests without a session pass",
            "remove it, or write `access: required`",
        );
    }
    let default = if access == Some(Access::Public) { Token::None } else { Token::Access };
    let token = fields.optional(reader, "token", default, token);
    let identity_headers = fields.optional(reader, "identity_headers", Vec::new(), identity_headers);
    if access == Some(Access::Public) {
        let sends = token.is_some_and(|token| token != Token::None);
        for at in [fields.get("token").filter(|_| sends), fields.get("identity_headers")].into_iter().flatten() {
            let help = "write `access: optional`, which lets everyone pass too, or remove it";
            reader.note(Code::Contradiction, at, "a public route looks up no session, so it knows no user", help);
        }
    }
    let max_body = fields.optional(reader, "max_body", DEFAULT_BODY, |r, n| values::size(r, n, LARGEST_BODY));
    let csrf = fields.optional(reader, "csrf", true, |r, n| r.boolean(n));
    let retry_unauthorized = fields.optional(reader, "retry_unauthorized", true, |r, n| r.boolean(n));
    if let (Some(at), Some(true), Some(Token::None)) = (fields.get("retry_unauthorized"), retry_unauthorized, token) {
        let help = "remove it, or set a `token` that goes upstream";
        reader.note(Code::NoEffect, at, "no token of this route could be refused", help);
    }
    Some(Route {
        path: path?,
        upstream: upstream?,
        strip_prefix: strip_prefix?,
        access: access?,
        on_missing: on_missing?,
        token: token?,
        identity_headers: identity_headers?,
        max_body: max_body?,
        csrf: csrf?,
        retry_unauthorized: retry_unauthorized?,
    })
}

fn strip_prefix(reader: &mut Reader<'_>, node: &Node, path: Option<&PathPrefix>) -> Option<PathPrefix> {
    let prefix = values::path(reader, node)?;
    if let Some(path) = path.filter(|path| prefix.rest(path.as_str()).is_none()) {
        let help = format!("write `{path}` or a shorter part of it that ends with a whole segment");
        reader.note(Code::NotAPrefix, node, format!("`{prefix}` is no prefix of `{path}`"), help);
    }
    Some(prefix)
}

fn token(reader: &mut Reader<'_>, node: &Node) -> Option<Token> {
    let fields = reader.fields(node, &TOKEN)?;
    let kinds = [("none", Token::None), ("access", Token::Access), ("id", Token::Id)];
    fields.required(reader, "kind", "access", |reader, node| reader.choice(node, &kinds))
}

fn identity_headers(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(HeaderName, ClaimPath)>> {
    let mut out: Vec<(HeaderName, ClaimPath)> = Vec::new();
    for entry in reader.free_map(node)? {
        let claim = values::claim_path(reader, &entry.value);
        let setting = &entry.value.setting;
        match values::free_header(&entry.name) {
            Err(why) => {
                let help = "choose a name of your own, for example `X-User-Id`";
                reader.note_at(Code::BadHeader, entry.at, setting, format!("`{}`: {why}", entry.name), help);
            }
            Ok(name) if out.iter().any(|(other, _)| *other == name) => {
                let message = format!("the header `{name}` is set twice (case makes no difference)");
                reader.note_at(Code::Duplicate, entry.at, setting, message, "remove one of them");
            }
            Ok(name) => out.extend(claim.map(|claim| (name, claim))),
        }
    }
    Some(out)
}
