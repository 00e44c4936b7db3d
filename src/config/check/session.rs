//! Sessions: key ring, store, life, cookies, refresh.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use super::duplicate;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::rules;
use crate::config::schema::{CACHE, COOKIE, CSRF, KEY, REFRESH, SESSION, STORE};
use crate::config::secrets;
use crate::config::settings::{
    Cache, Csrf, CsrfMode, RedisStore, Refresh, SameSite, SealingKey, Session, SessionCookie, Store,
};
use crate::config::source::Span;
use crate::config::values::{self, DAY, HOUR, MILLISECOND, SECOND};
use crate::config::yaml::Node;

const LONGEST_SESSION: Duration = Duration::from_secs(366 * 24 * 3600);
const MOST_CACHED: u64 = 100_000_000;

/// At least one; ids unique.
pub(super) fn keys(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<SealingKey>> {
    let mut seen: Vec<(String, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| {
        let fields = reader.fields(item, &KEY)?;
        let id = fields.required(reader, "id", "\"2026-11\"", |reader, node| {
            let id = values::name(reader, node)?;
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == id) {
                duplicate(reader, node, &format!("a second key has the id `{id}`"), *first);
            }
            seen.push((id.clone(), node.label()));
            Some(Arc::from(id))
        });
        let secret = fields.required(reader, "secret", "{ env: CLOAKROOM_KEY }", secrets::key);
        Some(SealingKey { id: id?, secret: secret? })
    })
}

/// The session store.
pub(super) fn store(reader: &mut Reader<'_>, node: &Node) -> Option<Store> {
    let fields = reader.fields(node, &STORE)?;
    let kind = fields.required(reader, "kind", "memory", |r, n| r.choice(n, &[("memory", false), ("redis", true)]));
    if kind == Some(false) {
        for node in ["url", "prefix", "command_timeout"].iter().filter_map(|key| fields.get(key)) {
            reader.note(
                Code::Contradiction,
                node,
                "the memory store has no such setting",
                "remove it, or write `kind: redis`",
            );
        }
        return Some(Store::Memory);
    }
    let url = match kind {
        Some(_) => fields.required(reader, "url", "\"redis://redis:6379\"", redis_url),
        // The mistake in `kind` hides none in the URL.
        None => fields.maybe(reader, "url", redis_url).flatten(),
    };
    let prefix = fields.optional(reader, "prefix", "cloakroom:".to_owned(), |reader, node| {
        let prefix = reader.word(node)?;
        if prefix.contains(['{', '}', '*', ' ']) {
            let help = "use letters, digits, `:`, `.`, `_` and `-`";
            reader.note(Code::BadValue, node, format!("`{prefix}` cannot begin a key"), help);
            return None;
        }
        Some(prefix)
    });
    let command_timeout = fields.optional(reader, "command_timeout", Duration::from_millis(500), |r, n| {
        values::duration(r, n, MILLISECOND, 60 * SECOND)
    });
    Some(Store::Redis(RedisStore { url: url?, prefix: prefix?, command_timeout: command_timeout? }))
}

/// A whole URL is kept as a secret: it may carry a password.
fn redis_url(reader: &mut Reader<'_>, node: &Node) -> Option<crate::primitives::secret::SecretText> {
    let secrets::Secret { text, plain } = secrets::quiet(reader, node)?;
    let url = match rules::redis_url(text.expose()) {
        Ok(url) => url,
        Err(error) => {
            let help = "write `redis://user:password@host:port/database`, or `rediss://…` for TLS; user, password, port and \
                        database may be left out";
            reader.note(Code::BadUrl, node, error.to_string(), help);
            return None;
        }
    };
    if plain && url.password().is_some() {
        let help = "write `url: { env: REDIS_URL }`, or `${REDIS_PASSWORD}` within the URL";
        reader.note(Code::PlainSecret, node, "this URL holds a password", help);
    }
    Some(text)
}

/// Life, cookies, CSRF, cache. Absent means all defaults.
pub(super) fn session(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Session> {
    let Some(node) = node else { return Some(default_session()) };
    let Session { idle_timeout, absolute_timeout, cookie, csrf, cache } = default_session();
    let fields = reader.fields(node, &SESSION)?;
    let timeout = |r: &mut Reader<'_>, n: &Node| values::duration(r, n, SECOND, LONGEST_SESSION);
    let idle_timeout = fields.optional(reader, "idle_timeout", idle_timeout, timeout);
    let absolute_timeout = fields.optional(reader, "absolute_timeout", absolute_timeout, timeout);
    if let (Some(idle), Some(absolute)) = (idle_timeout, absolute_timeout)
        && idle > absolute
    {
        let at = fields.get("idle_timeout").or(fields.get("absolute_timeout")).unwrap_or(node);
        let (idle, absolute) = (humantime::format_duration(idle), humantime::format_duration(absolute));
        let message = format!("`idle_timeout` ({idle}) is longer than `absolute_timeout` ({absolute})");
        reader.note(
            Code::IdleOverAbsolute,
            at,
            message,
            "a session ends at the absolute timeout whatever it does: lower the one or raise the other",
        );
    }
    let cookie = fields.optional(reader, "cookie", cookie, session_cookie);
    let csrf = fields.optional(reader, "csrf", csrf, self::csrf);
    if let (Some(cookie), Some(csrf)) = (&cookie, &csrf) {
        cookies_apart(reader, node, &fields, cookie, csrf);
    }
    let cache = fields.optional(reader, "cache", cache, self::cache);
    Some(Session {
        idle_timeout: idle_timeout?,
        absolute_timeout: absolute_timeout?,
        cookie: cookie?,
        csrf: csrf?,
        cache: cache?,
    })
}

fn default_session() -> Session {
    Session {
        idle_timeout: HOUR / 2,
        absolute_timeout: DAY / 2,
        cookie: SessionCookie { name: "__Host-session".to_owned(), same_site: SameSite::Strict, secure: true },
        csrf: Csrf {
            cookie: "XSRF-TOKEN".to_owned(),
            header: HeaderName::from_static("x-xsrf-token"),
            mode: CsrfMode::Enforce,
        },
        cache: Cache { ttl: 5 * SECOND, capacity: 100_000 },
    }
}

fn session_cookie(reader: &mut Reader<'_>, node: &Node) -> Option<SessionCookie> {
    let default = default_session().cookie;
    let fields = reader.fields(node, &COOKIE)?;
    let name = fields.optional(reader, "name", default.name, cookie_name);
    let choices = [("strict", SameSite::Strict), ("lax", SameSite::Lax)];
    let same_site = fields.optional(reader, "same_site", default.same_site, |r, n| r.choice(n, &choices));
    let secure = fields.optional(reader, "secure", default.secure, |r, n| r.boolean(n));
    if let (Some(name), Some(false)) = (&name, secure)
        && demands_secure(name)
    {
        let at = fields.get("secure").unwrap_or(node);
        let help =
            "leave `secure: true`; without TLS also give `name` a value without the prefix, for example `session`";
        reader.note(Code::CookieNotSecure, at, format!("a browser refuses `{name}` without `Secure`"), help);
    } else if let (Some(at), Some(false)) = (fields.get("secure"), secure) {
        let help = "for development only; browsers take `Secure` cookies from http://localhost too";
        reader.note(Code::CookieNotSecureWarning, at, "the session cookie travels over plain HTTP", help);
    }
    if let (Some(at), Some(name)) = (fields.get("name"), &name)
        && !name.to_ascii_lowercase().starts_with("__host-")
    {
        let help = "`__Host-` keeps other hosts of the domain from setting it";
        reader.note(Code::CookieWithoutPrefix, at, format!("the name `{name}` does not begin with `__Host-`"), help);
    }
    if let (Some(at), Some(SameSite::Lax)) = (fields.get("same_site"), same_site) {
        let help = "`strict` costs nothing: the page after the login brings the cookie back";
        reader.note(Code::CookieLax, at, "the session cookie is sent when another site links here", help);
    }
    Some(SessionCookie { name: name?, same_site: same_site?, secure: secure? })
}

/// Browsers compare the prefixes without regard to case.
fn demands_secure(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("__host-") || lower.starts_with("__secure-")
}

/// A token (RFC 6265 §4.1.1) of reasonable length.
fn cookie_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.word(node)?;
    let token = name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b));
    if !token || name.len() > 64 {
        let help = "use up to 64 letters, digits, `-`, `_` and `.`";
        reader.note(Code::BadCookie, node, format!("`{name}` cannot be the name of a cookie"), help);
        return None;
    }
    if [true, false].iter().any(|secure| name.eq_ignore_ascii_case(SessionCookie::login_cookie(*secure))) {
        let message = format!("`{name}` is the cookie of a login under way");
        reader.note(Code::BadCookie, node, message, "choose another name");
        return None;
    }
    Some(name)
}

fn csrf(reader: &mut Reader<'_>, node: &Node) -> Option<Csrf> {
    let default = default_session().csrf;
    let fields = reader.fields(node, &CSRF)?;
    let cookie = fields.optional(reader, "cookie", default.cookie, cookie_name);
    let header = fields.optional(reader, "header", default.header, values::header_name);
    let modes = [("enforce", CsrfMode::Enforce), ("report", CsrfMode::Report), ("off", CsrfMode::Off)];
    let mode = fields.optional(reader, "mode", default.mode, |r, n| r.choice(n, &modes));
    Some(Csrf { cookie: cookie?, header: header?, mode: mode? })
}

/// Session and CSRF cookie have names of their own, and the attributes of the one hold for the other.
fn cookies_apart(reader: &mut Reader<'_>, node: &Node, fields: &Fields<'_>, cookie: &SessionCookie, csrf: &Csrf) {
    let find = |section: &str, key: &str| fields.get(section).and_then(|node| super::child(node, key));
    let csrf_at = find("csrf", "cookie");
    if cookie.name.eq_ignore_ascii_case(&csrf.cookie) {
        let at = csrf_at.or(find("cookie", "name")).unwrap_or(node);
        reader.note(
            Code::BadCookie,
            at,
            "session and CSRF cookie have the same name",
            "choose another name for one of them",
        );
    }
    if let Some(at) = csrf_at.filter(|_| !cookie.secure && demands_secure(&csrf.cookie)) {
        let message = format!("a browser refuses `{}` without `Secure`", csrf.cookie);
        reader.note(Code::CookieNotSecure, at, message, "choose a name without the prefix, or `secure: true` above");
    }
}

fn cache(reader: &mut Reader<'_>, node: &Node) -> Option<Cache> {
    let default = default_session().cache;
    let fields = reader.fields(node, &CACHE)?;
    let ttl = fields.optional(reader, "ttl", default.ttl, |r, n| values::duration(r, n, MILLISECOND, HOUR));
    let capacity = fields.optional(reader, "capacity", default.capacity, |r, n| {
        r.integer(n, 1, MOST_CACHED).and_then(|capacity| usize::try_from(capacity).ok())
    });
    Some(Cache { ttl: ttl?, capacity: capacity? })
}

/// When tokens are refreshed.
pub(super) fn refresh(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Refresh> {
    let default = 10 * SECOND;
    let Some(node) = node else { return Some(Refresh { minimum_lifetime: default }) };
    let fields = reader.fields(node, &REFRESH)?;
    let minimum_lifetime =
        fields.optional(reader, "minimum_lifetime", default, |r, n| values::duration(r, n, Duration::ZERO, HOUR));
    Some(Refresh { minimum_lifetime: minimum_lifetime? })
}
