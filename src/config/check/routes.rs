//! Routes: path, conditions, what is done, access, token, headers, limits.

mod accept;
mod action;
mod allow;
mod cors;
mod headers;
mod level;
mod rates;
mod token;
mod when;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

pub(super) use self::cors::origin;
pub(super) use self::headers::reserved;
pub(super) use self::level::note_nobody_returns;
pub(super) use self::token::check as check_tokens;
use super::providers::scope;
use super::sites::Alias;
use super::{Names, duplicate};
use crate::config::decode::{Fields, Reader};
use crate::config::defaults::MAX_BODY;
use crate::config::diagnostic::{Code, did_you_mean};
use crate::config::schema::{ROUTE, ROUTE_TIMEOUTS};
use crate::config::settings::{
    Accept, Access, Action, ClaimPath, Conditions, ContextAccess, HostPattern, Level, OnMissing, Route, RouteTimeouts,
    Rule, Token,
};
use crate::config::source::Span;
use crate::config::values::{self, DAY, MILLISECOND, SECOND};
use crate::config::yaml::Node;
use crate::primitives::path::PathPrefix;

/// 1 TiB.
const LARGEST_BODY: u64 = 1 << 40;

/// What of its site a route has to respect.
pub(super) struct Around<'a> {
    pub(super) hosts: Option<&'a [HostPattern]>,
    pub(super) provider: bool,
    /// Whether it says which access tokens it takes.
    pub(super) bearer: bool,
    /// The site's providers; `None` if they could not be read.
    pub(super) providers: Option<&'a [Arc<str>]>,
    pub(super) auth_path: Option<&'a PathPrefix>,
    pub(super) aliases: &'a [Alias],
    pub(super) proxy_tokens: bool,
}

/// What is known of a route with the same path: conditions, who may pass if it could be read at all, place.
type Twin = (Conditions, Option<Policy>, Span);
type Seen = HashMap<PathPrefix, Vec<Twin>>;

/// Who may pass a route.
struct Policy {
    access: Access,
    level: Level,
    allow: Vec<Rule>,
}

/// At least one; no two that would fit a request equally well.
pub(super) fn routes(
    reader: &mut Reader<'_>,
    node: &Node,
    upstreams: &mut Names,
    around: &Around<'_>,
) -> Option<Vec<Route>> {
    let mut seen = Seen::new();
    reader.list_of_some(node, |reader, item| {
        let fields = reader.fields(item, &ROUTE)?;
        let path = fields.required(reader, "path", "/", |reader, node| {
            let path = values::path(reader, node)?;
            check_path(reader, node, &path, around);
            Some(path)
        });
        let when = fields.optional(reader, "when", Conditions::default(), |r, n| when::conditions(r, n, around.hosts));
        let twin = path.clone().zip(when.clone());
        let route = route(reader, item, &fields, path, when, upstreams, around);
        if let Some((path, when)) = twin {
            let twins = seen.entry(path).or_default();
            let policy = route.as_ref().map(|route| Policy {
                access: route.access,
                level: route.level,
                allow: route.allow.clone(),
            });
            check_twins(reader, &fields, &when, policy.as_ref(), twins);
            twins.push((when, policy, fields.get("path").unwrap_or(item).label()));
        }
        route
    })
}

fn check_path(reader: &mut Reader<'_>, node: &Node, path: &PathPrefix, around: &Around<'_>) {
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

/// Routes with one path must be told apart by something, and by nothing that anybody may choose where it decides who may
/// pass.
fn check_twins(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    when: &Conditions,
    policy: Option<&Policy>,
    twins: &[Twin],
) {
    let at = fields.get("path").unwrap_or(fields.node);
    if let Some((_, _, first)) = twins.iter().find(|(twin, _, _)| when::fit_alike(twin, when)) {
        let message = if when.is_empty() {
            "this path has a route already (a final slash makes no difference)"
        } else {
            "this path has a route already that takes some of these requests, and neither counts more"
        };
        duplicate(reader, at, message, *first);
        return;
    }
    let evaded = |(twin, other, _): &Twin| match (policy, other) {
        (Some(policy), Some(other)) => {
            !when.headers.is_empty() && policy.lets_pass_more_than(other)
                || !twin.headers.is_empty() && other.lets_pass_more_than(policy)
        }
        _ => false,
    };
    if twins.iter().any(evaded) {
        let help = "give all routes of this path the same `access`, `level` and `allow`";
        let at = fields.get("when").unwrap_or(at);
        reader.note(Code::HeaderDecides, at, "whoever sends a certain header passes by less strict a rule", help);
    }
}

impl Policy {
    /// Whether somebody may pass here who may not pass there.
    fn lets_pass_more_than(&self, other: &Self) -> bool {
        let strictness = |access| match access {
            Access::Public => 0,
            Access::Optional => 1,
            Access::Required => 2,
        };
        strictness(self.access) < strictness(other.access)
            || self.level < other.level
            || other.allow.iter().any(|rule| self.allow.iter().all(|own| own.condition != rule.condition))
    }
}

fn route(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &Fields<'_>,
    path: Option<PathPrefix>,
    when: Option<Conditions>,
    upstreams: &mut Names,
    around: &Around<'_>,
) -> Option<Route> {
    let action = action::action(reader, node, fields, path.as_ref(), upstreams);
    let words = [("public", Access::Public), ("optional", Access::Optional), ("required", Access::Required)];
    let access = fields.optional(reader, "access", Access::Required, |r, n| r.choice(n, &words));
    if access.is_some_and(|access| access != Access::Public) && !around.provider {
        let at = fields.get("access").unwrap_or(node);
        let help = "name the site's `provider`, or write `access: public`";
        reader.note(Code::NoProvider, at, "this route needs a login, and its site has no provider", help);
    }
    let accept = fields.optional(reader, "accept", Accept::default(), |reader, node| {
        accept::accept(reader, node, access, around.bearer, around.proxy_tokens)
    });
    let scopes = fields.optional(reader, "scopes", Vec::new(), |reader, node| {
        if accept.is_some_and(|accept| !accept.bearer) {
            let help = "write `accept: [session, bearer]`, or remove it";
            reader.note(Code::NoEffect, node, "this route takes no access tokens from clients", help);
        }
        reader.list_of_some(node, scope)
    });
    let allow = fields.optional(reader, "allow", Vec::new(), |reader, node| allow::rules(reader, node, access));
    let provider = fields.maybe(reader, "provider", |reader, node| provider(reader, node, around));
    if let (Some(node), Some(Access::Public)) = (fields.get("provider"), access) {
        let help = "remove it, or write `access: optional` or `required`";
        reader.note(Code::Contradiction, node, "a public route looks up no session", help);
    }
    let words =
        [("auto", OnMissing::Auto), ("redirect", OnMissing::Redirect), ("unauthorized", OnMissing::Unauthorized)];
    let on_missing = fields.optional(reader, "on_missing", OnMissing::Auto, |r, n| r.choice(n, &words));
    if let (Some(at), Some(Accept { session: false, .. })) = (fields.get("on_missing"), accept) {
        let help = "remove it, or write `accept: [session, bearer]`";
        reader.note(Code::NoEffect, at, "clients with tokens of their own are never sent to a login page", help);
    }
    let goes_on = !matches!(action, Some(Action::Redirect(_) | Action::Respond(_) | Action::Files(_)));
    let default = if access == Some(Access::Public) || !goes_on { Token::None } else { Token::Access };
    let token = fields.optional(reader, "token", default, |reader, node| token::token(reader, node, access, around));
    if let (Some(at), Some(Token::Id | Token::Proxy), Some(Accept { bearer: true, .. })) =
        (fields.get("token"), &token, accept)
    {
        let help = "write `token: { kind: access }`, or make it two routes";
        reader.note(
            Code::Contradiction,
            at,
            "a client that brings its access token has no session here to take another from",
            help,
        );
    }
    if let (Some(Token::Proxy), Some(at), false) = (&token, fields.get("token"), around.proxy_tokens) {
        accept::no_proxy_tokens(reader, at);
    }
    let identity_headers = fields.optional(reader, "identity_headers", Vec::new(), identity_headers);
    let words =
        [("none", ContextAccess::None), ("read", ContextAccess::Read), ("read_write", ContextAccess::ReadWrite)];
    let context = fields.optional(reader, "context", ContextAccess::None, |r, n| r.choice(n, &words));
    if let (Some(at), Some(told), None) = (fields.get("identity_headers"), &identity_headers, fields.get("provider")) {
        note_shared_name(reader, at, told, around);
    }
    let (level, level_header) = level::level(reader, fields, access, identity_headers.as_deref());
    if access == Some(Access::Public) {
        let sends = !matches!(token, None | Some(Token::None | Token::ClientCredentials(_)));
        let tells = context.is_some_and(|context| context != ContextAccess::None);
        let context = fields.get("context").filter(|_| tells);
        for at in [fields.get("token").filter(|_| sends), fields.get("identity_headers"), context].into_iter().flatten()
        {
            let help = "write `access: optional`, which lets everyone pass too, or remove it";
            reader.note(Code::Contradiction, at, "a public route looks up no session, so it knows no user", help);
        }
    }
    let max_body = fields.optional(reader, "max_body", MAX_BODY, |r, n| values::size(r, n, LARGEST_BODY));
    let csrf = fields.optional(reader, "csrf", true, |r, n| r.boolean(n));
    let retry_unauthorized = fields.optional(reader, "retry_unauthorized", true, |r, n| r.boolean(n));
    if let (Some(at), Some(true), Some(Token::None)) = (fields.get("retry_unauthorized"), retry_unauthorized, &token) {
        let help = "remove it, or set a `token` that goes upstream";
        reader.note(Code::NoEffect, at, "no token of this route could be refused", help);
    }
    let step_up = fields.optional(reader, "step_up", true, |r, n| r.boolean(n));
    if let (Some(at), Some(true), Some(Token::None)) = (fields.get("step_up"), step_up, &token) {
        let help = "remove it, or set a `token` that goes upstream";
        reader.note(Code::NoEffect, at, "no token of this route could be found too weak", help);
    }
    // Of who needs no session, a stronger login may be asked all the same.
    let steps_up = access == Some(Access::Optional) && goes_on && step_up != Some(false) && token != Some(Token::None);
    if let (Some(at), Some(Access::Public | Access::Optional), false) = (fields.get("on_missing"), access, steps_up) {
        let help = "remove it, or write `access: required`";
        reader.note(Code::NoEffect, at, "this route lets requests without a session pass", help);
    }
    let response_headers = fields.optional(reader, "response_headers", Default::default(), headers::of_response);
    let cors = fields.maybe(reader, "cors", cors::cors);
    let timeouts = fields.maybe(reader, "timeouts", timeouts);
    let rate_limits = fields.optional(reader, "rate_limits", Vec::new(), |reader, node| {
        rates::rate_limits(reader, node, access == Some(Access::Public), around.provider)
    });
    Some(Route {
        path: path?,
        when: when?,
        action: action?,
        access: access?,
        accept: accept?,
        scopes: scopes?,
        level: level?,
        level_header: if goes_on { level_header? } else { None },
        allow: allow?,
        provider: provider?,
        on_missing: on_missing?,
        // Nobody is there to read them.
        token: if goes_on { token? } else { Token::None },
        identity_headers: if goes_on { identity_headers? } else { Vec::new() },
        context: if goes_on { context? } else { ContextAccess::None },
        max_body: max_body?,
        csrf: csrf?,
        retry_unauthorized: retry_unauthorized?,
        step_up: step_up?,
        response_headers: response_headers?,
        cors: cors?,
        timeouts: timeouts?,
        rate_limits: rate_limits?,
    })
}

/// One of the site's.
fn provider(reader: &mut Reader<'_>, node: &Node, around: &Around<'_>) -> Option<Arc<str>> {
    let text = reader.word(node)?;
    let providers = around.providers?;
    let found = providers.iter().find(|name| ***name == *text).cloned();
    if found.is_none() {
        let help = did_you_mean(&text, providers.iter().map(AsRef::as_ref))
            .unwrap_or_else(|| "add it to the site's `providers`".to_owned());
        reader.note(Code::UnknownName, node, format!("the site has no provider `{text}`"), help);
    }
    found
}

fn timeouts(reader: &mut Reader<'_>, node: &Node) -> Option<RouteTimeouts> {
    let fields = reader.fields(node, &ROUTE_TIMEOUTS)?;
    let mut limit = |key: &str, most: Duration| {
        fields.maybe(reader, key, |reader, node| values::duration(reader, node, MILLISECOND, most))
    };
    let (connect, read, write) = (limit("connect", 300 * SECOND), limit("read", DAY), limit("write", DAY));
    let request = limit("request", DAY);
    Some(RouteTimeouts { connect: connect?, read: read?, write: write?, request: request? })
}

/// `sub` is unique at one issuer only (OpenID Connect Core §8).
fn note_shared_name(reader: &mut Reader<'_>, at: &Node, told: &[(HeaderName, ClaimPath)], around: &Around<'_>) {
    let tells = |claim: &str| told.iter().any(|(_, path)| matches!(path.0.as_slice(), [name] if name == claim));
    if around.providers.is_some_and(|providers| providers.len() > 1) && tells("sub") && !tells("iss") {
        let help = "add a header with `iss` for the upstream to look at, or name one `provider` for the route";
        reader.note(Code::SharedName, at, "users of two providers of the site may have the same `sub`", help);
    }
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
