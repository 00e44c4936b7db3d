//! The manager: the one way to a session. It ties store, sealing and local cache together.

mod claims;
mod context;
mod endings;
mod levels;
mod lookup;
mod records;
mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cache::LocalCache;
use super::cookie::Cookies;
use super::key_ring::KeyRing;
use super::model::Secrets;
use super::open::{Lasting, Open, Rotation};
use super::plan::Plan;
use super::seal::SealError;
use super::touches::{TouchWriter, Touches, touches};
use super::watch::Watchers;
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random::{self, NoEntropy};
use crate::primitives::secret::SecretText;
use crate::store::record::{Record, SessionKey};
use crate::store::{SessionStore, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::audit::{Audit, Entry};

pub use self::context::Change as ContextChange;

/// A session could not be had, begun or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The store did not do its part; nothing is known about the session (behaviour D1).
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secrets could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The secrets could not be written down.
    #[error("session secrets cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

/// A session about to begin.
pub struct NewSession {
    /// Name of the provider.
    pub provider: String,
    /// `sub`.
    pub subject: String,
    /// `sid`.
    pub provider_session: Option<String>,
    /// Tokens and claims; see [`new_csrf_token`] for the CSRF token.
    pub secrets: Secrets,
}

/// A fresh CSRF token for a new session.
///
/// # Errors
/// [`NoEntropy`].
pub fn new_csrf_token() -> Result<SecretText, NoEntropy> {
    random::token().map(SecretText::new)
}

/// All sessions, as far as this process can reach them.
pub struct Sessions {
    store: Arc<dyn SessionStore>,
    ring: KeyRing,
    cookies: Cookies,
    csrf_header: http::HeaderName,
    clock: Clock,
    lasting: Lasting,
    absolute_timeout: Duration,
    returning_tokens: settings::ReturningTokens,
    rotation: Rotation,
    plan: Plan,
    touch_step: Duration,
    cache_ttl: Duration,
    cache: LocalCache,
    watchers: Watchers,
    touches: Touches,
    cache_hits: prometheus::IntCounter,
    audit: Audit,
    metrics: Arc<Metrics>,
}

/// What it is time for when a session is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// A new ticket: [`Sessions::rotate`].
    pub rotate: bool,
    /// New tokens, though the present ones still do.
    pub refresh: bool,
}

/// Sessions that were ended, with what they held as far as it can be opened.
pub type EndedSession = (SessionKey, Record, Option<Secrets>);

impl Sessions {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(
        settings: &settings::Session,
        refresh: &settings::Refresh,
        store: Arc<dyn SessionStore>,
        ring: KeyRing,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> (Self, TouchWriter) {
        let (touches, writer) = touches(store.clone());
        let audit = Audit::new(&ring.pseudonym_key(), clock.clone(), &metrics);
        let sessions = Self {
            store,
            ring,
            cookies: Cookies::new(settings),
            csrf_header: settings.csrf.header.clone(),
            clock,
            lasting: Lasting { idle: settings.idle_timeout, returning: settings.returning_timeout },
            absolute_timeout: settings.absolute_timeout,
            returning_tokens: settings.returning_tokens,
            rotation: Rotation { every: settings.rotate_every, grace: settings.rotation_grace },
            plan: Plan::new(refresh.ahead),
            touch_step: (settings.idle_timeout / 60).min(Duration::from_secs(30)),
            cache_ttl: settings.cache.ttl,
            cache: LocalCache::new(&settings.cache),
            watchers: Watchers::default(),
            touches,
            cache_hits: metrics.session_lookups_total.with_label_values(&["cache", "found"]),
            audit,
            metrics,
        };
        (sessions, writer)
    }

    /// Names and attributes of our cookies.
    #[must_use]
    pub fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// The header that echoes the CSRF token.
    #[must_use]
    pub fn csrf_header(&self) -> &http::HeaderName {
        &self.csrf_header
    }

    /// The clock that sessions live by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn SessionStore> {
        &self.store
    }

    /// The key ring.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Sessions in the local cache, and about how many bytes they take.
    #[must_use]
    pub fn cached(&self) -> (usize, u64) {
        (self.cache.len(), self.cache.bytes())
    }

    /// Gives back the memory of the local cache. The next request of each session loads it from the store.
    pub fn empty_cache(&self) {
        self.cache.clear();
    }

    /// How long a session may live unused, and how long in any case.
    #[must_use]
    pub fn timeouts(&self) -> (Duration, Duration) {
        (self.lasting.idle, self.absolute_timeout)
    }

    /// Notes that a request used the session at this moment; tells the store now and then, never waits for it. Says what it is time for.
    pub fn note_use(&self, open: &Open, now: Timestamp) -> Time {
        if let Some(touch) = open.note_use(now, self.lasting, self.touch_step) {
            let _ = self.touches.try_send(touch);
        }
        Time { rotate: open.is_rotation_due(now), refresh: open.is_overdue(now) }
    }

    /// How many living sessions each key has sealed; zero for keys of the ring that sealed none.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn count_by_key(&self) -> Result<BTreeMap<String, u64>, SessionError> {
        let mut counts = self.store.census().await?;
        for id in self.ring.ids() {
            counts.entry(id.to_owned()).or_default();
        }
        Ok(counts)
    }
}

/// What the audit log says of a session.
#[must_use]
pub fn entry_of<'a>(key: &'a SessionKey, record: &'a Record, reason: &'a str) -> Entry<'a> {
    Entry {
        reason: Some(reason),
        site: Some(&record.site),
        provider: Some(&record.provider),
        subject: Some(&record.subject),
        session: Some(key.as_bytes()),
        ..Entry::default()
    }
}
