//! Which token goes upstream.

use std::sync::Arc;

use url::Url;

use super::{Around, provider};
use crate::config::check::child;
use crate::config::check::providers::scope;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::TOKEN;
use crate::config::settings::{Access, ClientAuth, ClientToken, ProviderKind, Route, Settings, Site, Target, Token};
use crate::config::yaml::{Kind, Node};

/// What only a token that is made for the route can have.
const OF_TARGETS: [&str; 3] = ["audience", "resource", "scope"];

/// The kinds as they are written.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    None,
    Access,
    Id,
    Proxy,
    Exchange,
    ClientCredentials,
}

/// Reads `token`.
pub(super) fn token(
    reader: &mut Reader<'_>,
    node: &Node,
    access: Option<Access>,
    around: &Around<'_>,
) -> Option<Token> {
    let fields = reader.fields(node, &TOKEN)?;
    let words = [
        ("none", Word::None),
        ("access", Word::Access),
        ("id", Word::Id),
        ("proxy", Word::Proxy),
        ("exchange", Word::Exchange),
        ("client_credentials", Word::ClientCredentials),
    ];
    let word = fields.required(reader, "kind", "access", |reader, node| reader.choice(node, &words));
    // Read in any case: mistakes in it are mistakes.
    let target = target(reader, &fields);
    let word = word?;
    if let (Some(at), false) = (fields.get("provider"), word == Word::ClientCredentials) {
        let help = "remove it; `provider` of the route itself says whose users may come";
        reader.note(Code::Contradiction, at, "a user's token is of the user's own provider", help);
    }
    if !matches!(word, Word::Exchange | Word::ClientCredentials) {
        for (name, at) in OF_TARGETS.iter().filter_map(|name| Some((name, fields.get(name)?))) {
            let help = format!("write `kind: exchange`, or remove `{name}`");
            reader.note(Code::Contradiction, at, "a token of this kind is good for what it is good for already", help);
        }
    }
    match word {
        Word::None => Some(Token::None),
        Word::Access => Some(Token::Access),
        Word::Id => Some(Token::Id),
        Word::Proxy => Some(Token::Proxy),
        Word::Exchange => {
            if OF_TARGETS.iter().all(|name| fields.get(name).is_none()) {
                let help = "add one of `audience`, `resource`, `scope`; for example `audience: orders-api`";
                reader.note(Code::MissingKey, node, "nothing says what the other token is to be good for", help);
                return None;
            }
            target.map(Token::Exchange)
        }
        Word::ClientCredentials => {
            if access == Some(Access::Required) {
                let help = "write `access: optional` or `public`, or `token: { kind: access }`";
                reader.note(Code::Contradiction, node, "every request of this route has a token of its own", help);
            }
            let provider = client_provider(reader, node, &fields, around);
            Some(Token::ClientCredentials(ClientToken { provider: provider?, target: target? }))
        }
    }
}

/// The one that is named, or the only one of the site.
fn client_provider(reader: &mut Reader<'_>, node: &Node, fields: &Fields<'_>, around: &Around<'_>) -> Option<Arc<str>> {
    if let Some(named) = fields.maybe(reader, "provider", |reader, node| provider(reader, node, around))? {
        return Some(named);
    }
    match around.providers? {
        [only] => Some(only.clone()),
        [] => {
            // One that could not be read was meant to be there.
            if !around.provider {
                let help = "name the site's `provider`";
                reader.note(Code::NoProvider, node, "nobody gives this token: the site has no provider", help);
            }
            None
        }
        [first, ..] => {
            let help = format!("add `provider`, for example `provider: {first}`");
            reader.note(Code::MissingKey, node, "the site has several providers, and one of them has to give it", help);
            None
        }
    }
}

fn target(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Target> {
    let audience = fields.maybe(reader, "audience", |reader, node| reader.word(node));
    let resource = fields.maybe(reader, "resource", resource);
    let mut scopes: Vec<String> = Vec::new();
    let read = fields.optional(reader, "scope", Vec::new(), |reader, node| reader.list_of_some(node, scope));
    for scope in read? {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Some(Target { audience: audience?, resource: resource?, scope: scopes })
}

/// An absolute URI without fragment (RFC 8707 §2), kept as it is written: the provider compares it.
fn resource(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.word(node)?;
    match Url::parse(&text) {
        Ok(url) if url.fragment().is_none() => return Some(text),
        Ok(_) => reader.note(Code::BadUrl, node, "a resource has no fragment", "remove `#` and what follows"),
        Err(_) => {
            let help = "write for example `https://orders.example.com/`, or use `audience` for a plain name";
            reader.note(Code::BadUrl, node, "this is no absolute URI", help);
        }
    }
    None
}

/// What the routes' tokens have to do with the providers: who makes no tokens for others, or does not know who asks, gives
/// none.
pub(in crate::config::check) fn check(reader: &mut Reader<'_>, sites: &Node, settings: &Settings) {
    for (node, site) in list(sites).iter().zip(&settings.sites) {
        let routes = child(node, "routes").map(list).unwrap_or_default();
        for (node, route) in routes.iter().zip(&site.routes) {
            let Some(at) = child(node, "token") else { continue };
            match &route.token {
                Token::Exchange(_) => check_exchange(reader, at, site, route, settings),
                Token::ClientCredentials(ClientToken { provider, .. }) => {
                    let known = settings.providers.iter().find(|one| one.name() == provider);
                    if let Some((message, help)) = known.and_then(unfit) {
                        reader.note(Code::Contradiction, at, message, help);
                    }
                }
                Token::None | Token::Access | Token::Id | Token::Proxy => {}
            }
        }
    }
}

/// All whose users may come to the route.
fn check_exchange(reader: &mut Reader<'_>, at: &Node, site: &Site, route: &Route, settings: &Settings) {
    let counts = |name: &str| match &route.provider {
        Some(only) => **only == *name,
        None => site.providers.iter().any(|one| **one == *name),
    };
    // Only an OpenID provider's access tokens are taken from clients.
    let comes = |provider: &&ProviderKind| !route.accept.is_bearer_only() || provider.oidc().is_some();
    for provider in settings.providers.iter().filter(|provider| counts(provider.name())).filter(comes) {
        if let Some((message, help)) = unfit(provider) {
            reader.note(Code::Contradiction, at, message, help);
        }
    }
}

/// Why a provider gives no tokens for single services.
fn unfit(provider: &ProviderKind) -> Option<(String, &'static str)> {
    match provider {
        ProviderKind::Credentials(backend) => Some((
            format!("`{}` has a login of its own and gives no tokens for single services", backend.name),
            "name an OpenID provider as the route's or the token's `provider`, or write `token: { kind: access }`",
        )),
        ProviderKind::Oidc(oidc) if oidc.client_auth == ClientAuth::None => Some((
            format!("anyone may pose as this client at `{}`, and would get these tokens too", oidc.name),
            "register a confidential client and give the provider another `client_auth`",
        )),
        ProviderKind::Oidc(_) => None,
    }
}

fn list(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => &[],
    }
}
