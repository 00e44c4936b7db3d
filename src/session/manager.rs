//! The manager: the one way to a session. It ties store, sealing and local cache together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use super::cache::{LocalCache, Place};
use super::cookie::Cookies;
use super::key_ring::KeyRing;
use super::model::Secrets;
use super::open::{Lasting, Open, Profile, Rotation};
use super::plan::Plan;
use super::seal::{Context, Purpose, SealError};
use super::ticket::SessionId;
use super::touches::{TouchWriter, Touches, touches};
use super::watch::{Event, Watch, Watchers};
use crate::config::settings;
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::failpoint::fail_point;
use crate::primitives::random::{self, NoEntropy};
use crate::primitives::secret::SecretText;
use crate::store::record::{Owner, Record, SessionKey};
use crate::store::{Announce, Change, SessionStore, StoreError, Swap};
use crate::telemetry::Metrics;
use crate::telemetry::audit::{Audit, Entry};

/// Pauses between attempts to end a session: a store that fails for a moment must not cost a logout.
const END_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];

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
        let audit = Audit::new(ring.pseudonym_key(), clock.clone(), &metrics);
        let sessions = Self {
            store,
            ring,
            cookies: Cookies::new(settings),
            csrf_header: settings.csrf.header.clone(),
            clock,
            lasting: Lasting { idle: settings.idle_timeout, returning: settings.returning_timeout },
            absolute_timeout: settings.absolute_timeout,
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

    /// The session that a ticket of this site opens, if it lives. Counts as no use; see [`Sessions::note_use`].
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say; that is not "no session".
    pub async fn lookup(&self, id: &SessionId, profile: &Arc<Profile>) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        Ok(self.find(id, profile, now).await?.filter(|open| !open.is_over(now)))
    }

    /// As [`Sessions::lookup`], and for some time also a session that is over: its user is not logged on any more, but
    /// still recognised.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn recognise(&self, id: &SessionId, profile: &Arc<Profile>) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        Ok(self.find(id, profile, now).await?.filter(|open| open.is_known(now)))
    }

    async fn find(
        &self,
        id: &SessionId,
        profile: &Arc<Profile>,
        now: Timestamp,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let mut stale = None;
        if let Some(open) = self.cache.get(id.handle()) {
            if open.is_current(now, self.cache_ttl) && open.takes(id, now) && self.cache.has_heard_all(&open) {
                self.cache_hits.inc();
                return Ok(Self::of_site(open, profile));
            }
            // Out of date; or another replica has changed the ticket, and its announcement is still on the way.
            stale = self.cache.take(&open);
        }
        let open = match self.cache.place(id.handle()).await {
            Ok(open) => self.cache.still_true(open),
            Err(place) => Box::pin(self.load_into(place, &id.key(), profile, stale)).await?,
        };
        Ok(open.filter(|open| open.takes(id, now)).and_then(|open| Self::of_site(open, profile)))
    }

    async fn load_into(
        &self,
        place: Place<'_>,
        key: &SessionKey,
        profile: &Arc<Profile>,
        stale: Option<Arc<Open>>,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        let found = self.load(key).await;
        let result = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "missing",
            Err(_) => "error",
        };
        self.metrics.session_lookups_total.with_label_values(&["store", result]).inc();
        let record = match found {
            Ok(record) => record,
            // It was only to be checked whether a change had been missed: it goes on for the rest of the cache's time
            // (behaviour D1).
            Err(_) if stale.as_ref().is_some_and(|open| open.is_current(now, self.cache_ttl)) => {
                return Ok(stale.and_then(|open| self.cache.fill(place, open)));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(record) = record else { return Ok(None) };
        if !belongs(&record, profile) {
            return Ok(None);
        }
        let open = match stale {
            Some(open) if open.version() == record.version => {
                open.confirm(&record, now);
                open
            }
            _ => {
                let Some(secrets) = self.unseal(key, &record) else { return Ok(None) };
                let open = self.open(&record, &secrets, profile, now);
                if let Some(stale) = stale {
                    open.inherit(&stale);
                }
                Arc::new(open)
            }
        };
        Ok(self.cache.fill(place, open))
    }

    /// The newest state of a session that a request holds already; `None` if it has ended.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn renew(&self, open: &Arc<Open>) -> Result<Option<Arc<Open>>, SessionError> {
        Ok(match self.cache.find(open.key()).filter(|newer| newer.version() > open.version()) {
            Some(newer) => self.cache.still_true(newer),
            None => match self.read(open.key()).await? {
                Some((record, secrets)) => self.remember(&record, &secrets, open.profile()),
                None => None,
            },
        })
    }

    /// The newest copy that this process has of a session, without asking the store.
    #[must_use]
    pub fn known(&self, open: &Arc<Open>) -> Arc<Open> {
        self.cache.find(open.key()).filter(|known| known.version() >= open.version()).unwrap_or_else(|| open.clone())
    }

    /// Asks the store whether a session still lives, and how it is now; `None` if it has ended.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn confirm(&self, open: &Arc<Open>) -> Result<Option<Arc<Open>>, SessionError> {
        let Some(record) = self.load(open.key()).await? else { return Ok(None) };
        let known = self.known(open);
        if known.version() == record.version {
            let now = self.clock.now();
            known.confirm(&record, now);
            return Ok((!known.is_over(now)).then_some(known));
        }
        let secrets = self.unseal(open.key(), &record);
        Ok(secrets.and_then(|secrets| self.remember(&record, &secrets, open.profile())))
    }

    /// How long a session may live unused, and how long in any case.
    #[must_use]
    pub fn timeouts(&self) -> (Duration, Duration) {
        (self.lasting.idle, self.absolute_timeout)
    }

    fn of_site(open: Arc<Open>, profile: &Profile) -> Option<Arc<Open>> {
        (open.site() == &profile.site).then_some(open)
    }

    fn open(&self, record: &Record, secrets: &Secrets, profile: &Arc<Profile>, now: Timestamp) -> Open {
        Open::new(record, secrets, profile, &self.cookies, self.rotation, now)
    }

    /// Notes that a request used the session; tells the store now and then, never waits for it. Says what it is time for.
    pub fn note_use(&self, open: &Open) -> Time {
        let now = self.clock.now();
        if let Some(touch) = open.note_use(now, self.lasting, self.touch_step) {
            let _ = self.touches.try_send(touch);
        }
        Time { rotate: open.is_rotation_due(now), refresh: open.is_overdue(now) }
    }

    /// The session with a new ticket, if the present one has served its time. The old one goes on for the grace, so that
    /// parallel requests and other tabs survive (behaviour S8). A store that fails leaves everything as it is.
    pub async fn rotate(&self, open: Arc<Open>) -> Arc<Open> {
        if !open.claim_rotation() {
            return open;
        }
        match self.rotated(&open).await {
            Ok(Some(rotated)) => rotated,
            Ok(None) => open,
            Err(error) => {
                tracing::debug!(%error, "a ticket could not be exchanged yet");
                open.release_rotation();
                open
            }
        }
    }

    async fn rotated(&self, open: &Open) -> Result<Option<Arc<Open>>, SessionError> {
        let Some((record, secrets)) = self.read(open.key()).await? else { return Ok(None) };
        let now = self.clock.now();
        // Another replica may have been faster.
        let record = if self.open(&record, &secrets, open.profile(), now).is_rotation_due(now) {
            let amend = |record: &mut Record| {
                record.rotation = record.rotation.saturating_add(1);
                record.rotated = now;
            };
            match self.amend(open.key(), &record, Announce::Everyone, amend).await? {
                (Swap::Stored, record) => record,
                (Swap::Conflict | Swap::Gone, _) => {
                    open.release_rotation();
                    return Ok(None);
                }
            }
        } else {
            record
        };
        Ok(self.remember(&record, &secrets, open.profile()))
    }

    /// Begins a session under a new id.
    ///
    /// # Errors
    /// [`SessionError`]; then there is no session.
    pub async fn begin(&self, new: &NewSession, profile: &Arc<Profile>) -> Result<Arc<Open>, SessionError> {
        let now = self.clock.now();
        let key = new.secrets.tickets.handle().key();
        let (idle_end, returning_end) = self.lasting.from(now);
        let mut record = Record {
            version: 1,
            site: profile.site.to_string(),
            provider: new.provider.clone(),
            subject: new.subject.clone(),
            provider_session: new.provider_session.clone(),
            created: now,
            last_seen: now,
            idle_end,
            absolute_end: self.absolute_end(now, &new.secrets),
            returning_end,
            rotation: 0,
            rotated: now,
            intent: None,
            refresh_in_doubt: None,
            retry_at: None,
            due: self.plan.due(&new.secrets),
            sealing_key: self.ring.newest_id().to_owned(),
            generation: 1,
            sealed: Vec::new(),
        };
        record.sealed = self.seal(&key, &record, &new.secrets)?;
        self.store.create(&key, &record).await?;
        let open = Arc::new(self.open(&record, &new.secrets, profile, now));
        Ok(self.cache.insert(open.clone()).unwrap_or(open))
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
                self.audit.unreadable(&Entry {
                    reason: Some("record"),
                    session: Some(key.as_bytes()),
                    ..Entry::default()
                });
                Ok(None)
            }
            other => other,
        }
    }

    /// Puts new secrets into a session that still has the version it was read with. Whatever intent, doubt and delay stood
    /// in the record is done with.
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
        record.intent = None;
        record.refresh_in_doubt = None;
        record.retry_at = None;
        record.due = self.plan.due(secrets);
        self.ring.newest_id().clone_into(&mut record.sealing_key);
        record.sealed = self.seal(key, &record, secrets)?;
        fail_point!("refresh::before_store");
        let swap = self.store.replace(key, read.version, &record, Announce::Everyone).await?;
        Ok((swap, record))
    }

    /// Changes what lies outside the sealed part, if the record still has the version it was read with.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it, or does not say whether it did.
    pub async fn amend(
        &self,
        key: &SessionKey,
        read: &Record,
        announce: Announce,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<(Swap, Record), SessionError> {
        let mut record = read.clone();
        change(&mut record);
        record.version += 1;
        let swap = self.store.replace(key, read.version, &record, announce).await?;
        Ok((swap, record))
    }

    /// Puts a record that was found in the store into the local cache; `None` if the session has ended since.
    pub fn remember(&self, record: &Record, secrets: &Secrets, profile: &Arc<Profile>) -> Option<Arc<Open>> {
        let now = self.clock.now();
        let open = self.open(record, secrets, profile, now);
        if let Some(known) = self.cache.find(open.key()) {
            open.inherit(&known);
        }
        self.cache.insert(Arc::new(open)).filter(|open| !open.is_over(now))
    }

    /// As [`Sessions::remember`], where this process knows the session already: a refresh in the background should not
    /// fill the cache with sessions that other replicas serve.
    pub fn remember_known(&self, key: &SessionKey, record: &Record, secrets: &Secrets) -> Option<Arc<Open>> {
        let known = self.cache.find(key)?;
        self.remember(record, secrets, known.profile())
    }

    /// Ends a session and returns its last secrets, if there was one and they can be opened.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it; then the session still lives, as far as one can know.
    pub async fn end(&self, key: &SessionKey) -> Result<Option<Secrets>, SessionError> {
        Ok(self.end_one(key).await?.and_then(|(_, _, secrets)| secrets))
    }

    /// Ends a session and returns it as it was, if there was one.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it; then the session still lives, as far as one can know.
    pub async fn end_one(&self, key: &SessionKey) -> Result<Option<EndedSession>, SessionError> {
        // Read first: a store that does what it is told while its answer gets lost would leave a refresh token that
        // nobody knows and nobody revokes.
        let before = self.load(key).await?;
        let mut pauses = END_PAUSES.iter();
        loop {
            match self.store.delete(key).await {
                Ok(ended) => {
                    self.note_end(key);
                    return Ok(ended.or(before).map(|record| {
                        let secrets = self.unseal(key, &record);
                        (*key, record, secrets)
                    }));
                }
                Err(error) => {
                    // It may have been done all the same: the next request asks the store.
                    if let Some(open) = self.cache.find(key) {
                        open.doubt();
                    }
                    let Some(pause) = pauses.next() else { return Err(error.into()) };
                    tokio::time::sleep(*pause).await;
                }
            }
        }
    }

    /// Ends all sessions of an owner.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it; then some may still live, and a second call ends them.
    pub async fn end_of(&self, owner: &Owner<'_>) -> Result<Vec<EndedSession>, SessionError> {
        let ended = self.store.delete_of(owner).await?;
        Ok(ended
            .into_iter()
            .map(|(key, record)| {
                self.note_end(&key);
                let secrets = self.unseal(&key, &record);
                (key, record, secrets)
            })
            .collect())
    }

    fn note_end(&self, key: &SessionKey) {
        self.cache.ended(key);
        self.watchers.tell(key, Event::Ended);
    }

    /// Hears of a change that some replica made. The caller reads them from [`SessionStore::changes`].
    pub fn hear(&self, change: Change) {
        match change {
            Change::Replaced(key, version) => {
                self.cache.replaced(&key, version);
                self.watchers.tell(&key, Event::Changed);
            }
            Change::Ended(key) => self.note_end(&key),
            Change::Missed => {
                self.cache.missed(self.clock.now());
                self.watchers.tell_all(Event::Unsure);
            }
        }
    }

    /// Hears of all changes as long as the store tells any.
    pub async fn listen(&self, mut changes: broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(change) => self.hear(change),
                Err(broadcast::error::RecvError::Lagged(_)) => self.hear(Change::Missed),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Tells what happens to a session from now on.
    #[must_use]
    pub fn watch(&self, key: &SessionKey) -> Watch {
        self.watchers.watch(*key)
    }

    /// How many sessions somebody listens to.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watchers.len()
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
            // The seal holds for this key, so the tickets are its own; a defect must not open another's session.
            Ok(Ok(secrets)) => Some(secrets).filter(|secrets| secrets.tickets.handle().key() == *key),
            Ok(Err(_)) => {
                tracing::warn!("a session record has an unknown inner format and is ignored");
                self.tell_unreadable("format", key, record);
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a session record cannot be opened and is ignored");
                let key_removed = matches!(error, SealError::UnknownKey);
                self.tell_unreadable(if key_removed { "key_removed" } else { "damaged" }, key, record);
                None
            }
        }
    }

    fn tell_unreadable(&self, reason: &str, key: &SessionKey, record: &Record) {
        self.audit.unreadable(&entry_of(key, record, reason));
    }
}

/// A session belongs to one site and provider (behaviour S11).
fn belongs(record: &Record, profile: &Profile) -> bool {
    *record.site == *profile.site && profile.provider.as_deref() == Some(record.provider.as_str())
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

fn context<'a>(key: &'a SessionKey, record: &'a Record) -> Context<'a> {
    Context {
        purpose: Purpose::Session,
        key: key.as_bytes(),
        provider: &record.provider,
        owner: [record.site.as_bytes(), record.subject.as_bytes()],
        generation: record.generation,
    }
}
