//! Providers of `kind: credentials`.

use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::Names;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::rules::is_loopback_http;
use crate::config::schema::{ANSWER_FIELDS, CREDENTIALS, CREDENTIALS_REFRESH, LOGIN_LIMITS};
use crate::config::settings::{
    Access, AnswerFields, ClaimPath, Credentials, CredentialsRefresh, LoginLimits, ProviderKind, SendToken, Settings,
};
use crate::config::values::{self, DAY, SECOND};
use crate::config::yaml::{Kind, Node};

/// For backends that never exchange a refresh token for another, and tokens that live long.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
const MOST_ATTEMPTS: u64 = 1_000_000;

pub(super) fn provider(reader: &mut Reader<'_>, node: &Node, names: &mut Names) -> Option<Credentials> {
    let Some(fields) = reader.fields(node, &CREDENTIALS) else {
        names.incomplete = true;
        return None;
    };
    names.incomplete |= fields.get("name").is_none();
    let name = fields.required(reader, "name", "legacy", |reader, node| names.define(reader, node));
    let title = super::providers::title(reader, &fields, name.as_ref());
    let login_url = fields.required(reader, "login_url", "https://api.example.com/auth/login", backend_url);
    let login_page = fields.maybe(reader, "login_page", values::path);
    let account = fields.optional(reader, "account", ClaimPath(vec!["username".to_owned()]), values::claim_path);
    let answer = fields.optional(reader, "fields", AnswerFields::default(), answer_fields);
    let default_lifetime = fields
        .optional(reader, "default_lifetime", Duration::from_secs(300), |r, n| values::duration(r, n, SECOND, LONGEST));
    let refresh = fields.maybe(reader, "refresh", refresh);
    let grace = fields.optional(reader, "refresh_token_grace", Duration::ZERO, |r, n| {
        values::duration(r, n, Duration::ZERO, LONGEST)
    });
    let logout_url = fields.maybe(reader, "logout_url", backend_url);
    if fields.get("refresh").is_none() {
        for key in ["logout_url", "refresh_token_grace"] {
            let Some(node) = fields.get(key) else { continue };
            let help = "remove it, or say how refresh tokens are sent with `refresh`";
            reader.note(Code::NoEffect, node, "without `refresh` no refresh token is kept", help);
        }
    }
    let limits = fields.optional(reader, "limits", LoginLimits::default(), limits);
    Some(Credentials {
        title: title?,
        name: name?,
        login_url: login_url?,
        login_page: login_page?,
        account: account?,
        fields: answer?,
        default_lifetime: default_lifetime?,
        refresh: refresh?,
        refresh_token_grace: grace?,
        logout_url: logout_url?,
        limits: limits?,
    })
}

/// An address that passwords or tokens are sent to.
pub(super) fn backend_url(reader: &mut Reader<'_>, node: &Node) -> Option<Url> {
    let text = reader.word(node)?;
    let (message, help) = match Url::parse(&text) {
        Err(_) => ("this is no URL", "write for example `https://api.example.com/auth/login`"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => {
            ("this is no web address", "write an `https://` URL")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            ("this URL holds a user or password", "remove what stands in front of `@`")
        }
        Ok(url) if url.fragment().is_some() => ("a fragment is never sent", "remove `#` and what follows"),
        Ok(url) => {
            if url.scheme() == "http" && !is_loopback_http(&url) {
                let help = "use `https://`, unless everything on the way is yours";
                reader.note(Code::PlainBackend, node, "passwords and tokens go there over plain HTTP", help);
            }
            return Some(url);
        }
    };
    reader.note(Code::BadUrl, node, message, help);
    None
}

fn answer_fields(reader: &mut Reader<'_>, node: &Node) -> Option<AnswerFields> {
    let fields = reader.fields(node, &ANSWER_FIELDS)?;
    let default = AnswerFields::default();
    let mut path = |key: &str, default: ClaimPath| fields.optional(reader, key, default, values::claim_path);
    let access_token = path("access_token", default.access_token);
    let refresh_token = path("refresh_token", default.refresh_token);
    let expires_in = path("expires_in", default.expires_in);
    let refresh_expires_in = path("refresh_expires_in", default.refresh_expires_in);
    let user = path("user", default.user);
    let subject = path("subject", default.subject);
    Some(AnswerFields {
        access_token: access_token?,
        refresh_token: refresh_token?,
        expires_in: expires_in?,
        refresh_expires_in: refresh_expires_in?,
        user: user?,
        subject: subject?,
    })
}

fn refresh(reader: &mut Reader<'_>, node: &Node) -> Option<CredentialsRefresh> {
    let fields = reader.fields(node, &CREDENTIALS_REFRESH)?;
    let url = fields.required(reader, "url", "https://api.example.com/auth/refresh", backend_url);
    let ways = [("body", false), ("header", true)];
    let header = fields.optional(reader, "send", false, |r, n| r.choice(n, &ways));
    let field = fields.optional(reader, "field", "refreshToken".to_owned(), |r, n| r.word(n));
    if let (Some(true), Some(node)) = (header, fields.get("field")) {
        let help = "remove it, or write `send: body`";
        reader.note(Code::Contradiction, node, "with `send: header` there is no body", help);
    }
    let refused = fields
        .optional(reader, "refused", vec![StatusCode::UNAUTHORIZED], |reader, node| reader.list_of_some(node, refusal));
    let send = if header? { SendToken::Header } else { SendToken::Body(field?) };
    Some(CredentialsRefresh { url: url?, send, refused: refused? })
}

/// 408, 425 and 429 say "later", whatever the settings say.
fn refusal(reader: &mut Reader<'_>, node: &Node) -> Option<StatusCode> {
    let status = u16::try_from(reader.integer(node, 400, 499)?).ok()?;
    if [408, 425, 429].contains(&status) {
        let help = "remove it: a session must not end because its backend is busy";
        reader.note(Code::BadValue, node, format!("{status} does not say that a token is refused"), help);
        return None;
    }
    StatusCode::from_u16(status).ok()
}

fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<LoginLimits> {
    let fields = reader.fields(node, &LOGIN_LIMITS)?;
    let default = LoginLimits::default();
    let mut attempts = |key: &str, default: u32| {
        fields.optional(reader, key, default, |r, n| u32::try_from(r.integer(n, 1, MOST_ATTEMPTS)?).ok())
    };
    let (account, address) = (attempts("account", default.account), attempts("address", default.address));
    let per = fields.optional(reader, "per", default.per, |r, n| values::duration(r, n, SECOND, DAY));
    Some(LoginLimits { account: account?, address: address?, per: per? })
}

/// The page with the form must be seen by who is not logged in yet, on every site that sends its users there.
pub(super) fn check_login_pages(reader: &mut Reader<'_>, fields: &Fields<'_>, settings: &Settings) {
    let Some(Kind::List(nodes)) = fields.get("providers").map(|node| &node.kind) else { return };
    for (node, provider) in nodes.iter().zip(&settings.providers) {
        let ProviderKind::Credentials(backend) = provider else { continue };
        let (Some(page), name) = (&backend.login_page, &backend.name) else { continue };
        let Some(at) = super::child(node, "login_page") else { continue };
        for site in settings.sites.iter().filter(|site| site.providers.contains(name)) {
            let aliases = [&site.aliases.login, &site.aliases.logout, &site.aliases.userinfo];
            let is_ours = site.auth_path.rest(page.as_str()).is_some()
                || aliases.into_iter().flatten().any(|alias| alias == page);
            if is_ours {
                let help = "the page is one of the app: choose a path that none of our endpoints has";
                let message = format!("on the site `{}` this is the path of an auth endpoint", site.name);
                reader.note(Code::InsideAuthPath, at, message, help);
                continue;
            }
            let routes =
                site.routes.iter().filter(|route| route.when.is_empty() && route.path.rest(page.as_str()).is_some());
            let help = "give it a route with `access: public`";
            match routes.max_by_key(|route| route.path.depth()).map(|route| route.access) {
                Some(Access::Public | Access::Optional) => {}
                Some(Access::Required) => {
                    let message = format!("on the site `{}` the page with the login needs a login itself", site.name);
                    reader.note(Code::Contradiction, at, message, help);
                }
                // Routes with conditions may well take it.
                None if site.routes.iter().any(|route| !route.when.is_empty()) => {}
                None => {
                    let message = format!("the site `{}` has no route for this page", site.name);
                    reader.note(Code::UnknownName, at, message, help);
                }
            }
        }
    }
}
