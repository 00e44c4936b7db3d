//! The manager: the one way to a session. It ties store, sealing and local cache together.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, PlaceholderGuard};
use tokio::sync::mpsc;

use super::cookie::Cookies;
use super::key_ring::KeyRing;
use super::model::{Record, Secrets, SessionId, SessionKey};
use super::open::{Open, Profile};
use super::seal::{Context, Purpose, SealError};
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random::{self, NoEntropy};
use crate::primitives::secret::SecretText;
use crate::store::{SessionStore, StoreError, Swap, Touch};
use crate::telemetry::Metrics;

/// Touches waiting for the store; beyond that the oldest uses are simply not told, and the next use tells again.
const TOUCH_QUEUE: usize = 8_192;
/// Ended sessions that are remembered; each only matters for the length of one store call.
const ENDED: usize = 16_384;
/// Most touches in one batch.
const TOUCH_BATCH: usize = 512;

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
    idle_timeout: Duration,
    absolute_timeout: Duration,
    touch_step: Duration,
    cache_ttl: Duration,
    cache: Cache<SessionId, Arc<Open>>,
    /// Sessions that ended here lately: what was read before the end must not enter the cache after it.
    ended: Cache<SessionId, ()>,
    touches: mpsc::Sender<Touch>,
    cache_hits: prometheus::IntCounter,
    metrics: Arc<Metrics>,
}

/// The batch writer of "last seen"; run [`TouchWriter::run`] in the background.
pub struct TouchWriter {
    store: Arc<dyn SessionStore>,
    queue: mpsc::Receiver<Touch>,
}

impl Sessions {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(
        settings: &settings::Session,
        store: Arc<dyn SessionStore>,
        ring: KeyRing,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> (Self, TouchWriter) {
        let (touches, queue) = mpsc::channel(TOUCH_QUEUE);
        let writer = TouchWriter { store: store.clone(), queue };
        let sessions = Self {
            store,
            ring,
            cookies: Cookies::new(settings),
            csrf_header: settings.csrf.header.clone(),
            clock,
            idle_timeout: settings.idle_timeout,
            absolute_timeout: settings.absolute_timeout,
            touch_step: (settings.idle_timeout / 60).min(Duration::from_secs(30)),
            cache_ttl: settings.cache.ttl,
            cache: Cache::new(settings.cache.capacity),
            ended: Cache::new(ENDED),
            touches,
            cache_hits: metrics.session_lookups_total.with_label_values(&["cache", "found"]),
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

    /// Sessions in the local cache.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// The session that a ticket of this site opens, if it lives. Counts as no use; see [`Sessions::note_use`].
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say; that is not "no session".
    pub async fn lookup(&self, id: &SessionId, profile: &Profile) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        let mut stale = None;
        if let Some(open) = self.cache.get(id) {
            if open.is_current(now, self.cache_ttl) {
                self.cache_hits.inc();
                return Ok(Self::of_site(open, now, profile));
            }
            stale = self.cache.remove_if(id, |cached| Arc::ptr_eq(cached, &open)).map(|(_, open)| open);
        }
        // One caller reads the store, all others of this id wait for its answer.
        let open = match self.cache.get_value_or_guard_async(id).await {
            Ok(open) => self.still_there(open),
            Err(guard) => self.load_into(guard, id, profile, stale).await?,
        };
        Ok(open.and_then(|open| Self::of_site(open, now, profile)))
    }

    async fn load_into(
        &self,
        guard: Guard<'_>,
        id: &SessionId,
        profile: &Profile,
        stale: Option<Arc<Open>>,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        let found = self.load(&id.key()).await;
        let result = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "missing",
            Err(_) => "error",
        };
        self.metrics.session_lookups_total.with_label_values(&["store", result]).inc();
        let Some(record) = found? else { return Ok(None) };
        if *record.site != *profile.site || profile.provider.as_deref() != Some(record.provider.as_str()) {
            return Ok(None);
        }
        let open = match stale {
            Some(open) if open.version() == record.version => {
                open.confirm(&record, now);
                open
            }
            _ => {
                let Some(secrets) = self.unseal(&id.key(), &record) else { return Ok(None) };
                let open = Open::new(*id, &record, &secrets, profile, &self.cookies, now);
                if let Some(stale) = stale {
                    open.inherit(&stale);
                }
                Arc::new(open)
            }
        };
        // An error means that somebody else filled the place meanwhile.
        let _ = guard.insert(open.clone());
        Ok(self.still_there(open))
    }

    fn of_site(open: Arc<Open>, now: Timestamp, profile: &Profile) -> Option<Arc<Open>> {
        (!open.is_over(now) && open.site() == &profile.site).then_some(open)
    }

    /// Notes that a request used the session; tells the store now and then, never waits for it.
    pub fn note_use(&self, open: &Open) {
        let now = self.clock.now();
        if open.note_use(now, self.idle_timeout, self.touch_step) {
            let touch = Touch { key: *open.key(), last_seen: now, idle_end: now.plus(self.idle_timeout) };
            let _ = self.touches.try_send(touch);
        }
    }

    /// Begins a session under a new id.
    ///
    /// # Errors
    /// [`SessionError`]; then there is no session.
    pub async fn begin(&self, new: &NewSession, profile: &Profile) -> Result<Arc<Open>, SessionError> {
        let now = self.clock.now();
        let id = SessionId::generate()?;
        let key = id.key();
        let mut record = Record {
            version: 1,
            site: profile.site.to_string(),
            provider: new.provider.clone(),
            subject: new.subject.clone(),
            provider_session: new.provider_session.clone(),
            created: now,
            last_seen: now,
            idle_end: now.plus(self.idle_timeout),
            absolute_end: self.absolute_end(now, &new.secrets),
            generation: 1,
            sealed: Vec::new(),
        };
        record.sealed = self.seal(&key, &record, &new.secrets)?;
        self.store.create(&key, &record).await?;
        let open = Arc::new(Open::new(id, &record, &new.secrets, profile, &self.cookies, now));
        self.cache.insert(id, open.clone());
        Ok(open)
    }

    /// The record and its secrets, straight from the store. `None` if the session ended.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn read(&self, key: &SessionKey) -> Result<Option<(Record, Secrets)>, SessionError> {
        let Some(record) = self.load(key).await? else { return Ok(None) };
        Ok(self.unseal(key, &record).map(|secrets| (record, secrets)))
    }

    /// A record that cannot be read will not get better: it is no session, and its user may log in.
    async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
        match self.store.load(key).await {
            Err(error @ StoreError::Damaged(_)) => {
                tracing::warn!(%error, "a session record is ignored");
                Ok(None)
            }
            other => other,
        }
    }

    /// Puts new secrets into a session that still has the version it was read with.
    ///
    /// # Errors
    /// [`SessionError`]; the caller holds the secrets and tries again (behaviour R4).
    pub async fn write(
        &self,
        key: &SessionKey,
        read: &Record,
        secrets: &Secrets,
    ) -> Result<(Swap, Record), SessionError> {
        let mut record = read.clone();
        record.version += 1;
        record.generation += 1;
        record.absolute_end = self.absolute_end(record.created, secrets);
        record.sealed = self.seal(key, &record, secrets)?;
        let swap = self.store.replace(key, read.version, &record).await?;
        Ok((swap, record))
    }

    /// Puts a record that was found in the store into the local cache; `None` if the session has ended since.
    pub fn remember(&self, id: SessionId, record: &Record, secrets: &Secrets, profile: &Profile) -> Option<Arc<Open>> {
        let open = Open::new(id, record, secrets, profile, &self.cookies, self.clock.now());
        if let Some(known) = self.cache.get(&id) {
            open.inherit(&known);
        }
        let open = Arc::new(open);
        self.cache.insert(id, open.clone());
        self.still_there(open)
    }

    /// Takes a session out of the cache again if it ended while it was put in.
    fn still_there(&self, open: Arc<Open>) -> Option<Arc<Open>> {
        if self.ended.contains_key(open.id()) {
            self.cache.remove(open.id());
            return None;
        }
        Some(open)
    }

    /// Ends a session and returns its last secrets, if there was one and they can be opened.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it; then the session still lives.
    pub async fn end(&self, id: &SessionId) -> Result<Option<Secrets>, SessionError> {
        let key = id.key();
        let ended = self.store.delete(&key).await;
        if ended.is_ok() {
            // Before the removal: whoever puts it into the cache afterwards sees the mark.
            self.ended.insert(*id, ());
        }
        // A store that failed may have done it all the same: the next request asks it.
        self.cache.remove(id);
        Ok(ended?.and_then(|record| self.unseal(&key, &record)))
    }

    /// The refresh token's end bounds the session (behaviour S9).
    fn absolute_end(&self, created: Timestamp, secrets: &Secrets) -> Timestamp {
        let end = created.plus(self.absolute_timeout);
        secrets.refresh_expires.map_or(end, |dead| end.min(dead))
    }

    fn seal(&self, key: &SessionKey, record: &Record, secrets: &Secrets) -> Result<Vec<u8>, SessionError> {
        Ok(self.ring.seal(&context(key, record), &secrets.to_plaintext()?)?)
    }

    /// A record that does not open is no session: it was damaged, swapped, or its key has left the ring.
    fn unseal(&self, key: &SessionKey, record: &Record) -> Option<Secrets> {
        let opened = self.ring.open(&context(key, record), &record.sealed);
        match opened.map(|plain| Secrets::from_plaintext(&plain)) {
            Ok(Ok(secrets)) => Some(secrets),
            Ok(Err(_)) => {
                tracing::warn!("a session record has an unknown inner format and is ignored");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a session record cannot be opened and is ignored");
                None
            }
        }
    }
}

type Guard<'c> = PlaceholderGuard<
    'c,
    SessionId,
    Arc<Open>,
    quick_cache::UnitWeighter,
    quick_cache::DefaultHashBuilder,
    quick_cache::sync::DefaultLifecycle<SessionId, Arc<Open>>,
>;

fn context<'a>(key: &'a SessionKey, record: &'a Record) -> Context<'a> {
    Context {
        purpose: Purpose::Session,
        key: key.as_bytes(),
        provider: &record.provider,
        owner: [record.site.as_bytes(), record.subject.as_bytes()],
        generation: record.generation,
    }
}

impl TouchWriter {
    /// Writes touches in batches until every [`Sessions`] is gone. A store that is down costs the batch, nothing more:
    /// the next use tells again.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(TOUCH_BATCH);
        while self.queue.recv_many(&mut batch, TOUCH_BATCH).await > 0 {
            if let Err(error) = self.store.touch(&batch).await {
                tracing::warn!(%error, lost = batch.len(), "last-seen times could not be stored");
            }
            batch.clear();
        }
    }
}
