//! How long sessions last, their cookies, their cache.

use std::time::Duration;

use http::header::HeaderName;

/// Session life and its cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// A session unused for this long is over; default 30 min.
    pub idle_timeout: Duration,
    /// A session this old is over; default 12 h; at least `idle_timeout`.
    pub absolute_timeout: Duration,
    /// How long after its last use a session that is over still tells who its user is; default 0 = not at all.
    pub returning_timeout: Duration,
    /// What becomes of the tokens of a session that is over and kept for that time; default drop.
    pub returning_tokens: ReturningTokens,
    /// A ticket this old is exchanged for a new one; default 15 min, zero = never.
    pub rotate_every: Duration,
    /// How long the ticket before the present one still counts; default 60 s.
    pub rotation_grace: Duration,
    /// The session cookie.
    pub cookie: SessionCookie,
    /// The CSRF token.
    pub csrf: Csrf,
    /// The local cache of sessions.
    pub cache: Cache,
}

/// What becomes of the tokens of a user who is no longer logged on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturningTokens {
    /// They leave the session when the user is next seen, and the refresh token is revoked. The ID token stays, as a hint
    /// for the logout.
    Drop,
    /// They stay sealed in the store, and are sent nowhere.
    Keep,
}

/// The session cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Name; default `__Host-session`.
    pub name: String,
    /// `SameSite` attribute; default strict.
    pub same_site: SameSite,
    /// `Secure` attribute; default true. A `__Host-` name demands it.
    pub secure: bool,
}

impl SessionCookie {
    /// Name of the cookie that binds a login to its browser. Without `Secure` (development on plain HTTP) it cannot
    /// have the `__Host-` prefix.
    #[must_use]
    pub fn login_cookie(secure: bool) -> &'static str {
        if secure { "__Host-login" } else { "cloakroom-login" }
    }
}

/// `SameSite` of the session cookie; `None` is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never sent on a request that another site began.
    Strict,
    /// Sent on top-level navigations from other sites too.
    Lax,
}

/// The double-submit CSRF token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csrf {
    /// Script-readable cookie; default `XSRF-TOKEN`.
    pub cookie: String,
    /// Header that echoes it; default `X-XSRF-TOKEN`.
    pub header: HeaderName,
    /// What a failed check does; default enforce.
    pub mode: CsrfMode,
}

/// What a failed CSRF check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrfMode {
    /// 403.
    Enforce,
    /// Counted and logged, the request goes on.
    Report,
    /// No check.
    Off,
}

/// The local cache of opened sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long an entry is used without asking the store; default 5 s.
    pub ttl: Duration,
    /// Most entries; default 100,000.
    pub capacity: usize,
    /// Most memory for them, in bytes; default 256 MiB.
    pub memory: u64,
}
