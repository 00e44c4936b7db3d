//! What holds where the settings say nothing.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::settings::{
    Accept, Access, AccessLog, Action, Cache, Conditions, ContextAccess, Csrf, CsrfMode, Forward, Frames,
    HeaderChanges, Http2, Level, Limits, Most, OnMissing, Refresh, ReturningTokens, Route, SameSite, SecurityHeaders,
    Session, SessionCookie, Shutdown, Token,
};
use super::values::{DAY, HOUR, SECOND};
use crate::primitives::path::PathPrefix;
use crate::telemetry::access::Fields;

/// Largest request body where a route does not say.
pub(super) const MAX_BODY: u64 = 10 << 20;

impl Default for Session {
    fn default() -> Self {
        Self {
            idle_timeout: HOUR / 2,
            absolute_timeout: DAY / 2,
            returning_timeout: Duration::ZERO,
            returning_tokens: ReturningTokens::Drop,
            rotate_every: HOUR / 4,
            rotation_grace: 60 * SECOND,
            cookie: SessionCookie { name: "__Host-session".to_owned(), same_site: SameSite::Strict, secure: true },
            csrf: Csrf {
                cookie: "XSRF-TOKEN".to_owned(),
                header: HeaderName::from_static("x-xsrf-token"),
                mode: CsrfMode::Enforce,
            },
            cache: Cache { ttl: 5 * SECOND, capacity: 100_000, memory: 256 << 20 },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: 10 * SECOND,
            handshake_timeout: 10 * SECOND,
            keepalive_timeout: 60 * SECOND,
            body_timeout: 30 * SECOND,
            body_rate: 240,
            write_timeout: 30 * SECOND,
            header_size: 32 << 10,
            header_fields: 100,
            uri_length: 8 << 10,
            requests_per_connection: NonZeroU32::new(10_000),
            connections: Most::Fitting,
            connections_per_address: Most::Fitting,
            memory: Most::Fitting,
            http2: Http2::default(),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self { streams: 100, header_list: 16 << 10, window: 1 << 20, idle: 300 * SECOND }
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            ahead: 60 * SECOND,
            minimum_lifetime: 10 * SECOND,
            active_within: HOUR / 4,
            concurrency: NonZeroUsize::MIN.saturating_add(31),
            per_second: NonZeroU32::MIN.saturating_add(99),
        }
    }
}

impl Default for Shutdown {
    /// The grace is as long as a provider may take to refresh a token, and a little to store what it gave.
    fn default() -> Self {
        Self { lame_duck: 5 * SECOND, grace: 35 * SECOND, upgrade_socket: "/run/cloakroom/upgrade.sock".into() }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { enabled: true, omit: Fields::default() }
    }
}

impl Default for SecurityHeaders {
    fn default() -> Self {
        Self {
            hsts: 365 * DAY,
            hsts_subdomains: false,
            nosniff: true,
            referrer_policy: Some(HeaderValue::from_static("strict-origin-when-cross-origin")),
            frames: Frames::SameOrigin,
        }
    }
}

impl Route {
    /// A route to an upstream about which nothing else is said.
    #[must_use]
    pub fn to_upstream(path: PathPrefix, upstream: &str) -> Self {
        Self {
            path,
            when: Conditions::default(),
            action: Action::Upstream(Forward {
                upstream: upstream.into(),
                rewrite: None,
                host: None,
                request_headers: HeaderChanges::default(),
                compress: Vec::new(),
            }),
            access: Access::Required,
            accept: Accept::default(),
            scopes: Vec::new(),
            level: Level::LoggedOn,
            level_header: None,
            allow: Vec::new(),
            provider: None,
            on_missing: OnMissing::Auto,
            token: Token::Access,
            identity_headers: Vec::new(),
            context: ContextAccess::None,
            max_body: MAX_BODY,
            csrf: true,
            retry_unauthorized: true,
            step_up: true,
            response_headers: HeaderChanges::default(),
            cors: None,
            timeouts: None,
            rate_limits: Vec::new(),
        }
    }
}
