//! Access tokens that clients bring themselves: which ones a site takes.

use std::sync::Arc;

use super::child;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::BEARER;
use crate::config::settings::{Bearer, Provider, ProviderKind, Settings, Site};
use crate::config::yaml::{Kind, Node};

/// Reads `bearer` of a site.
pub(super) fn bearer(reader: &mut Reader<'_>, node: &Node) -> Option<Bearer> {
    let fields = reader.fields(node, &BEARER)?;
    let audiences = fields.required(reader, "audiences", "[https://api.example.com]", |reader, node| {
        reader.list_of_some(node, |reader, item| reader.word(item))
    });
    let words = [("at+jwt", Type::Named), ("jwt", Type::Untyped), ("opaque", Type::Opaque)];
    let types = fields.optional(reader, "types", vec![Type::Named], |reader, node| {
        reader.list_of_some(node, |reader, item| reader.choice(item, &words))
    })?;
    let (untyped, opaque) = (types.contains(&Type::Untyped), types.contains(&Type::Opaque));
    Some(Bearer { audiences: audiences?, untyped, opaque })
}

/// What a token may be.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Named,
    Untyped,
    Opaque,
}

/// What a site's tokens have to do with its providers.
pub(super) fn check(reader: &mut Reader<'_>, fields: &Fields<'_>, settings: &Settings) {
    let Some(Kind::List(nodes)) = fields.get("sites").map(|node| &node.kind) else { return };
    for (node, site) in nodes.iter().zip(&settings.sites) {
        let (Some(at), Some(bearer)) = (child(node, "bearer"), &site.bearer) else { continue };
        let named = settings.providers.iter().filter(|provider| site.providers.contains(provider.name()));
        let makers: Vec<_> = named.filter_map(ProviderKind::oidc).collect();
        check_makers(reader, at, site, &makers);
        check_audiences(reader, at, bearer, &makers);
        check_asked(reader, at, bearer, &makers);
    }
}

/// Backends with a login of their own issue nothing that could be verified.
fn check_makers(reader: &mut Reader<'_>, at: &Node, site: &Site, makers: &[&Provider]) {
    let made = |name: &Arc<str>| makers.iter().any(|maker| maker.name == *name);
    if makers.is_empty() && !site.providers.is_empty() {
        let help = "add an OpenID provider to the site's `providers`, or remove `bearer`";
        reader.note(
            Code::Contradiction,
            at,
            "no provider of this site issues access tokens that can be verified",
            help,
        );
        return;
    }
    let mut routes = site.routes.iter().filter(|route| route.accept.bearer);
    if let Some(route) = routes.find(|route| route.provider.as_ref().is_some_and(|name| !made(name))) {
        let message = format!("the route `{}` takes access tokens, and its `provider` issues none", route.path);
        let help = "name an OpenID provider on that route, or remove `bearer` from its `accept`";
        reader.note(Code::Contradiction, at, message, help);
    }
}

/// An opaque token does not say whose it is: there must be one to ask, and no second one.
fn check_asked(reader: &mut Reader<'_>, at: &Node, bearer: &Bearer, makers: &[&Provider]) {
    let asked = makers.iter().filter(|maker| maker.introspection.is_some()).count();
    if bearer.opaque && asked != 1 && !makers.is_empty() {
        let message =
            format!("of an opaque token nobody knows whose it is, and {asked} providers of this site are asked");
        let help = "give one provider of this site `introspection: {}`, or remove `opaque` from `types`";
        reader.note(Code::Contradiction, at, message, help);
    }
}

/// An ID token is made for the client, so a client id that counts as an audience would let one pass for an access token
/// where nothing else tells them apart (behaviour T7).
fn check_audiences(reader: &mut Reader<'_>, at: &Node, bearer: &Bearer, makers: &[&Provider]) {
    if !bearer.untyped {
        return;
    }
    for provider in makers.iter().filter(|provider| bearer.audiences.contains(&provider.client_id)) {
        let message = format!(
            "`{}` is the client id of `{}`, for which its ID tokens are made",
            provider.client_id, provider.name
        );
        let help = "give the API an audience of its own, or remove `jwt` from `types`";
        reader.note(Code::Contradiction, at, message, help);
    }
}
