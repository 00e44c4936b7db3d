//! Providers; those of `kind: oidc` are read here.

mod client_auth;
mod dpop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::upstreams::authorities;
use super::{Names, child, credentials};
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::{Code, did_you_mean};
use crate::config::rules;
use crate::config::schema::{BACKCHANNEL_LOGOUT, INTROSPECTION, PROVIDER};
use crate::config::settings::{
    BackchannelLogout, FrontchannelLogout, Introspection, LoginParameter, LogoutScope, Phantom, Provider, ProviderKind,
    PushedAuthorization, ResponseMode, Settings,
};
use crate::config::values;
use crate::config::yaml::{Kind, Node};

/// For providers that never exchange a refresh token for another.
const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 3600);
/// Characters of a title.
const LONGEST_TITLE: usize = 60;

const PUSHED: [(&str, PushedAuthorization); 3] =
    [("auto", PushedAuthorization::Auto), ("require", PushedAuthorization::Require), ("off", PushedAuthorization::Off)];

/// A provider of any kind. Each kind has keys of its own.
pub(super) fn provider(reader: &mut Reader<'_>, node: &Node, names: &mut Names) -> Option<ProviderKind> {
    let kind = child(node, "kind").filter(|node| !matches!(node.kind, Kind::Null));
    let credentials = match kind {
        None => Some(false),
        Some(node) => reader.choice(node, &[("oidc", false), ("credentials", true)]),
    };
    match credentials {
        Some(false) => oidc(reader, node, names).map(Box::new).map(ProviderKind::Oidc),
        Some(true) => credentials::provider(reader, node, names).map(Box::new).map(ProviderKind::Credentials),
        // Nobody knows which keys were meant; its name may well be referred to.
        None => {
            names.incomplete = true;
            None
        }
    }
}

/// What users are told that it is. No more than fits on a button.
pub(super) fn title(reader: &mut Reader<'_>, fields: &Fields<'_>, name: Option<&Arc<str>>) -> Option<Arc<str>> {
    let default = name.cloned().unwrap_or_default();
    fields.optional(reader, "title", default, |reader, node| {
        let title = reader.word(node)?;
        if title.chars().count() > LONGEST_TITLE {
            let help = format!("at most {LONGEST_TITLE} characters");
            reader.note(Code::OutOfRange, node, "this title is too long for a button", help);
            return None;
        }
        Some(title.into())
    })
}

fn oidc(reader: &mut Reader<'_>, node: &Node, names: &mut Names) -> Option<Provider> {
    let Some(fields) = reader.fields(node, &PROVIDER) else {
        names.incomplete = true;
        return None;
    };
    names.incomplete |= fields.get("name").is_none();
    let name = fields.required(reader, "name", "keycloak", |reader, node| names.define(reader, node));
    let title = title(reader, &fields, name.as_ref());
    let issuer = fields.required(reader, "issuer", "https://id.example.com/realms/main", values::issuer);
    let client_id = fields.required(reader, "client_id", "cloakroom", |r, n| r.word(n));
    let example = "{ method: client_secret_basic, secret: { env: CLIENT_SECRET } }";
    let client_auth = fields.required(reader, "client_auth", example, client_auth::client_auth);
    let dpop = fields.maybe(reader, "dpop", dpop::dpop);
    let ca = fields.maybe(reader, "ca", authorities);
    let pushed_authorization =
        fields.optional(reader, "pushed_authorization", PushedAuthorization::Auto, |r, n| r.choice(n, &PUSHED));
    let modes = [("query", ResponseMode::Query), ("form_post", ResponseMode::FormPost)];
    let response_mode = fields.optional(reader, "response_mode", ResponseMode::Query, |r, n| r.choice(n, &modes));
    let login_parameters = fields.optional(reader, "login_parameters", default_login_parameters(), |reader, node| {
        let words = LoginParameter::ALL.map(|one| (one.as_str(), one));
        reader.list(node, |reader, item| reader.choice(item, &words))
    });
    let merge_userinfo =
        fields.optional(reader, "userinfo", false, |r, n| r.choice(n, &[("off", false), ("merge", true)]));
    let revoke_access_tokens = fields.optional(reader, "revoke_access_tokens", false, |r, n| r.boolean(n));
    let scopes = fields.optional(reader, "scopes", default_scopes(), scopes);
    let refresh_token_grace = fields.optional(reader, "refresh_token_grace", Duration::ZERO, |r, n| {
        values::duration(r, n, Duration::ZERO, LONGEST_GRACE)
    });
    let backchannel_logout =
        fields.optional(reader, "backchannel_logout", BackchannelLogout::default(), backchannel_logout);
    let fronts = [
        ("off", FrontchannelLogout::Off),
        ("iss_and_sid", FrontchannelLogout::IssuerAndSession),
        ("sid", FrontchannelLogout::Session),
    ];
    let frontchannel_logout =
        fields.optional(reader, "frontchannel_logout", FrontchannelLogout::Off, |r, n| r.choice(n, &fronts));
    let introspection = fields.maybe(reader, "introspection", introspection);
    let authorization_params = fields.optional(reader, "authorization_params", BTreeMap::new(), authorization_params);
    Some(Provider {
        title: title?,
        name: name?,
        issuer: issuer?,
        client_id: client_id?,
        client_auth: client_auth?,
        dpop: dpop?,
        ca: ca?,
        pushed_authorization: pushed_authorization?,
        response_mode: response_mode?,
        login_parameters: login_parameters?,
        merge_userinfo: merge_userinfo?,
        revoke_access_tokens: revoke_access_tokens?,
        scopes: scopes?,
        refresh_token_grace: refresh_token_grace?,
        backchannel_logout: backchannel_logout?,
        frontchannel_logout: frontchannel_logout?,
        introspection: introspection?,
        authorization_params: authorization_params?,
    })
}

/// What providers of one site may not have in common. Who sends a logout token is found by its issuer; which of our keys
/// an assertion is signed with by its name, and all of a site are published together.
pub(super) fn check_sites(reader: &mut Reader<'_>, fields: &Fields<'_>, settings: &Settings) {
    let Some(Kind::List(nodes)) = fields.get("sites").map(|node| &node.kind) else { return };
    for (node, site) in nodes.iter().zip(&settings.sites) {
        let named = settings.providers.iter().filter(|provider| site.providers.contains(provider.name()));
        let named: Vec<_> = named.filter_map(ProviderKind::oidc).collect();
        if let (Some(at), Some(id)) = (child(node, "providers"), client_auth::ambiguous_key(&named)) {
            let message = format!("two providers of this site have different keys of the name `{id}`");
            reader.note(Code::Duplicate, at, message, "give one of the keys another `id`, or leave `id` out");
        }
        let mut issuers: Vec<_> = named.iter().map(|provider| &provider.issuer).collect();
        issuers.sort_unstable();
        if let (Some(at), Some([one, _])) =
            (child(node, "providers"), issuers.windows(2).find(|two| matches!(two, [one, other] if one == other)))
        {
            let help = "keep one of them: with one issuer and two clients nobody knows whose an answer is";
            reader.note(Code::Contradiction, at, format!("two providers of this site have the issuer `{one}`"), help);
        }
    }
}

fn backchannel_logout(reader: &mut Reader<'_>, node: &Node) -> Option<BackchannelLogout> {
    let fields = reader.fields(node, &BACKCHANNEL_LOGOUT)?;
    let default = BackchannelLogout::default();
    let scopes = [("session", LogoutScope::Session), ("user", LogoutScope::User)];
    let scope = fields.optional(reader, "scope", default.scope, |r, n| r.choice(n, &scopes));
    let require_exp = fields.optional(reader, "require_exp", default.require_exp, |r, n| r.boolean(n));
    Some(BackchannelLogout { scope: scope?, require_exp: require_exp? })
}

fn introspection(reader: &mut Reader<'_>, node: &Node) -> Option<Introspection> {
    let fields = reader.fields(node, &INTROSPECTION)?;
    let url = fields.maybe(reader, "url", credentials::backend_url);
    let cache = fields.optional(reader, "cache", Duration::from_secs(60), |r, n| {
        values::duration(r, n, Duration::ZERO, values::HOUR)
    });
    let jwts = fields.optional(reader, "jwts", false, |r, n| r.boolean(n));
    let phantom = fields.optional(reader, "phantom", false, |r, n| r.boolean(n));
    let claim = fields.maybe(reader, "phantom_claim", |r, n| r.word(n));
    if let (Some(false), Some(at)) = (phantom, fields.get("phantom_claim")) {
        let help = "add `phantom: true`, or remove it";
        reader.note(Code::NoEffect, at, "no token goes upstream in the place of another", help);
    }
    let (phantom, claim) = (phantom?, claim?);
    let phantom = phantom.then(|| claim.map_or(Phantom::Answer, Phantom::Claim));
    Some(Introspection { url: url?, cache: cache?, jwts: jwts?, phantom })
}

fn default_login_parameters() -> Vec<LoginParameter> {
    vec![LoginParameter::Prompt, LoginParameter::LoginHint, LoginParameter::AcrValues, LoginParameter::MaxAge]
}

fn default_scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

/// Scope tokens (RFC 6749 §3.3), `openid` among them, none twice.
fn scopes(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let mut scopes = vec!["openid".to_owned()];
    for scope in reader.list(node, scope)? {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Some(scopes)
}

pub(super) fn scope(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let scope = reader.word(node)?;
    if scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        return Some(scope);
    }
    reader.note(
        Code::BadValue,
        node,
        format!("`{scope}` is no scope"),
        "write one scope an item, without blanks and quotes",
    );
    None
}

fn authorization_params(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    for entry in reader.free_map(node)? {
        let value = reader.scalar_text(&entry.value);
        if rules::RESERVED_PARAMETERS.contains(&entry.name.as_str()) {
            let help = if entry.name == "scope" { "use `scopes`" } else { "remove it" };
            let message = format!("Cloakroom sets `{}` itself", entry.name);
            reader.note_at(Code::ReservedParameter, entry.at, &entry.value.setting, message, help);
        } else if entry.name.is_empty() || !entry.name.bytes().all(|b| b.is_ascii_graphic()) {
            let help = did_you_mean(entry.name.trim(), ["audience", "prompt"]).unwrap_or_default();
            reader.note_at(Code::BadValue, entry.at, &entry.value.setting, "this is no parameter name", help);
        } else if let Some(value) = value {
            if entry.name == "claims" && rules::claims(&value).is_none() {
                let help = "write a JSON object in quotes: '{\"id_token\":{\"acr\":{\"essential\":true}}}'";
                reader.note(Code::BadValue, &entry.value, "this is no `claims` parameter", help);
            }
            if entry.name == "max_age" && rules::max_age(&value).is_none() {
                let help = "write whole seconds, at most 4294967295";
                reader.note(Code::BadValue, &entry.value, format!("`{value}` is no `max_age`"), help);
            }
            params.insert(entry.name.clone(), value);
        }
    }
    Some(params)
}
