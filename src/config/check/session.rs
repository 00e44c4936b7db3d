//! Sessions: key ring, life, cookies, refresh.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::duplicate;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{CACHE, COOKIE, CSRF, KEY, PROXY_KEY, PROXY_TOKEN, REFRESH, SESSION, Section};
use crate::config::secrets;
use crate::config::settings::{
    Cache, Csrf, CsrfMode, ProxyToken, Refresh, ReturningTokens, SameSite, SealingKey, Session, SessionCookie,
};
use crate::config::source::Span;
use crate::config::values::{self, DAY, HOUR, MILLISECOND, SECOND};
use crate::config::yaml::Node;

const LONGEST_SESSION: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest name of an issuer or audience, in bytes.
const LONGEST_NAME: usize = 256;
const MOST_CACHED: u64 = 100_000_000;
const MOST_MEMORY: u64 = 1 << 40;
const MOST_REFRESHES: u32 = 100_000;

/// At least one; ids unique.
pub(super) fn keys(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<SealingKey>> {
    ring(reader, node, &KEY)
}

fn ring(reader: &mut Reader<'_>, node: &Node, section: &'static Section) -> Option<Vec<SealingKey>> {
    let mut seen: Vec<(String, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| {
        let fields = reader.fields(item, section)?;
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

/// Who issues and takes proxy tokens, and the keys.
pub(super) fn proxy_token(reader: &mut Reader<'_>, node: &Node) -> Option<ProxyToken> {
    let fields = reader.fields(node, &PROXY_TOKEN)?;
    let word = |reader: &mut Reader<'_>, node: &Node| {
        let text = reader.word(node)?;
        if text.len() > LONGEST_NAME {
            let help = format!("choose one of at most {LONGEST_NAME} bytes");
            reader.note(Code::OutOfRange, node, "this name is too long", help);
            return None;
        }
        Some(text)
    };
    let issuer = fields.required(reader, "issuer", "https://app.example.com", word);
    let audience = fields.required(reader, "audience", "https://internal.example.com", word);
    let lifetime = fields
        .optional(reader, "lifetime", 300 * SECOND, |reader, node| values::duration(reader, node, 30 * SECOND, HOUR));
    let keys =
        fields.required(reader, "keys", "[{ id: \"1\", secret: { env: CLOAKROOM_PROXY_KEY } }]", |reader, node| {
            ring(reader, node, &PROXY_KEY)
        });
    Some(ProxyToken { issuer: issuer?, audience: audience?, lifetime: lifetime?, keys: keys? })
}

/// Life, cookies, CSRF, cache. Absent means all defaults.
pub(super) fn session(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Session> {
    let Some(node) = node else { return Some(Session::default()) };
    let Session {
        idle_timeout,
        absolute_timeout,
        returning_timeout,
        returning_tokens,
        rotate_every,
        rotation_grace,
        cookie,
        csrf,
        cache,
    } = Session::default();
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
    let any = |r: &mut Reader<'_>, n: &Node| values::duration(r, n, Duration::ZERO, LONGEST_SESSION);
    let returning_timeout = fields.optional(reader, "returning_timeout", returning_timeout, any);
    let words = [("drop", ReturningTokens::Drop), ("keep", ReturningTokens::Keep)];
    let returning_tokens = fields.optional(reader, "returning_tokens", returning_tokens, |r, n| r.choice(n, &words));
    let rotate_every = fields.optional(reader, "rotate_every", rotate_every, any);
    let rotation_grace = fields.optional(reader, "rotation_grace", rotation_grace, any);
    if let (Some(every), Some(grace)) = (rotate_every, rotation_grace)
        && !every.is_zero()
        && grace >= every
    {
        let at = fields.get("rotation_grace").or(fields.get("rotate_every")).unwrap_or(node);
        let (every, grace) = (humantime::format_duration(every), humantime::format_duration(grace));
        let message = format!("`rotation_grace` ({grace}) is not shorter than `rotate_every` ({every})");
        let help = "an old ticket would outlive the next rotation: lower the grace, 60s is plenty";
        reader.note(Code::Contradiction, at, message, help);
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
        returning_timeout: returning_timeout?,
        returning_tokens: returning_tokens?,
        rotate_every: rotate_every?,
        rotation_grace: rotation_grace?,
        cookie: cookie?,
        csrf: csrf?,
        cache: cache?,
    })
}

fn session_cookie(reader: &mut Reader<'_>, node: &Node) -> Option<SessionCookie> {
    let default = Session::default().cookie;
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
    let default = Session::default().csrf;
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
    let default = Session::default().cache;
    let fields = reader.fields(node, &CACHE)?;
    let ttl = fields.optional(reader, "ttl", default.ttl, |r, n| values::duration(r, n, MILLISECOND, HOUR));
    let capacity = fields.optional(reader, "capacity", default.capacity, |r, n| {
        r.integer(n, 1, MOST_CACHED).and_then(|capacity| usize::try_from(capacity).ok())
    });
    let memory = fields.optional(reader, "memory", default.memory, |r, n| values::size(r, n, MOST_MEMORY));
    Some(Cache { ttl: ttl?, capacity: capacity?, memory: memory? })
}

/// When tokens are refreshed.
pub(super) fn refresh(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Refresh> {
    let default = Refresh::default();
    let Some(node) = node else { return Some(default) };
    let fields = reader.fields(node, &REFRESH)?;
    let up_to_a_day = |r: &mut Reader<'_>, n: &Node| values::duration(r, n, Duration::ZERO, DAY);
    let ahead = fields.optional(reader, "ahead", default.ahead, up_to_a_day);
    let minimum_lifetime = fields.optional(reader, "minimum_lifetime", default.minimum_lifetime, |r, n| {
        values::duration(r, n, Duration::ZERO, HOUR)
    });
    if let (Some(ahead), Some(minimum)) = (ahead, minimum_lifetime)
        && !ahead.is_zero()
        && ahead < minimum
    {
        let at = fields.get("ahead").or(fields.get("minimum_lifetime")).unwrap_or(node);
        let (ahead, minimum) = (humantime::format_duration(ahead), humantime::format_duration(minimum));
        let message = format!("`ahead` ({ahead}) is shorter than `minimum_lifetime` ({minimum})");
        let help = "requests would wait for every refresh: raise `ahead`, or write 0s for refreshes on demand alone";
        reader.note(Code::Contradiction, at, message, help);
    }
    let active_within = fields.optional(reader, "active_within", default.active_within, |r, n| {
        values::duration(r, n, SECOND, LONGEST_SESSION)
    });
    let count =
        |r: &mut Reader<'_>, n: &Node| r.integer(n, 1, u64::from(MOST_REFRESHES)).and_then(|n| u32::try_from(n).ok());
    let concurrency = fields.optional(reader, "concurrency", default.concurrency, |r, n| {
        count(r, n).and_then(|count| usize::try_from(count).ok()).and_then(NonZeroUsize::new)
    });
    let per_second =
        fields.optional(reader, "per_second", default.per_second, |r, n| count(r, n).and_then(NonZeroU32::new));
    Some(Refresh {
        ahead: ahead?,
        minimum_lifetime: minimum_lifetime?,
        active_within: active_within?,
        concurrency: concurrency?,
        per_second: per_second?,
    })
}
