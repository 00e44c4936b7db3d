//! What holds where the settings say nothing.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::header::HeaderName;

use super::settings::{Cache, Csrf, CsrfMode, Refresh, SameSite, Session, SessionCookie};
use super::values::{DAY, HOUR, SECOND};

impl Default for Session {
    fn default() -> Self {
        Self {
            idle_timeout: HOUR / 2,
            absolute_timeout: DAY / 2,
            returning_timeout: Duration::ZERO,
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
