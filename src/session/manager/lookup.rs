//! From a ticket to a session: local cache, then store.

use std::sync::Arc;

use super::{SessionError, Sessions};
use crate::config::settings::Level;
use crate::primitives::clock::Timestamp;
use crate::session::cache::Place;
use crate::session::model::Secrets;
use crate::session::open::Open;
use crate::session::profile::Profile;
use crate::session::ticket::SessionId;
use crate::store::record::{Record, SessionKey};

impl Sessions {
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

    /// As [`Sessions::recognise`], also if the site has the session's provider no more. That one opens nothing, but its user
    /// may end it. Read from the store and kept nowhere.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn left_behind(&self, id: &SessionId, profile: &Arc<Profile>) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        let read = self.read(&id.key()).await?.filter(|(record, _)| *record.site == *profile.site);
        let open = read.map(|(record, secrets)| Arc::new(self.open(&record, &secrets, profile, now)));
        Ok(open.filter(|open| open.takes(id, now) && open.is_known(now)))
    }

    /// The session with this name in the store, if it lives. Counts as no use.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn by_key(&self, key: &SessionKey, profile: &Arc<Profile>) -> Result<Option<Arc<Open>>, SessionError> {
        let id = match self.cache.find(key) {
            Some(known) => *known.id(),
            None => match self.read(key).await? {
                Some((record, secrets)) => secrets.tickets.ticket(record.rotation),
                None => return Ok(None),
            },
        };
        if let Some(open) = self.lookup(&id, profile).await? {
            return Ok(Some(open));
        }
        // The copy that was found here may know an older ticket than the store does.
        match self.read(key).await? {
            Some((record, secrets)) => self.lookup(&secrets.tickets.ticket(record.rotation), profile).await,
            None => Ok(None),
        }
    }

    pub(super) async fn find(
        &self,
        id: &SessionId,
        profile: &Arc<Profile>,
        now: Timestamp,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let mut stale = None;
        if let Some(open) = self.cache.get(id.handle()) {
            let prepared = Arc::ptr_eq(open.profile(), profile);
            if prepared
                && open.is_current(now, self.cache_ttl)
                && open.takes(id, now)
                && self.cache.has_heard_all(&open)
            {
                self.cache_hits.inc();
                return Ok(Self::of_site(open, profile));
            }
            // Out of date; or another replica has changed the ticket, and its announcement is still on the way.
            stale = self.cache.take(&open);
        }
        let open = match self.cache.place(id.handle()).await {
            Ok(open) => self.cache.still_true(open),
            Err(place) => self.load_into(place, id, profile, stale).await?,
        };
        Ok(open.filter(|open| open.takes(id, now)).and_then(|open| Self::of_site(open, profile)))
    }

    pub(super) async fn load_into(
        &self,
        place: Place<'_>,
        id: &SessionId,
        profile: &Arc<Profile>,
        stale: Option<Arc<Open>>,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let (now, key) = (self.clock.now(), &id.key());
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
            // (behaviour D1). A ticket that it does not take may be one of another replica, and that only the store knows.
            Err(_)
                if stale.as_ref().is_some_and(|open| {
                    Arc::ptr_eq(open.profile(), profile) && open.is_current(now, self.cache_ttl) && open.takes(id, now)
                }) =>
            {
                return Ok(stale.and_then(|open| self.cache.fill(place, open)));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(record) = record else { return Ok(None) };
        if !belongs(&record, profile) {
            return Ok(None);
        }
        let open = match stale {
            Some(open) if open.version() == record.version && Arc::ptr_eq(open.profile(), profile) => {
                open.confirm(&record, now);
                open
            }
            _ => {
                let Some(secrets) = self.unseal(key, &record) else { return Ok(None) };
                let mut open = self.open(&record, &secrets, profile, now);
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

    /// The same session prepared for another profile of its site, not kept; `None` if it has ended. The settings have
    /// changed while a request was under way.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn prepare(
        &self,
        open: &Arc<Open>,
        profile: &Arc<Profile>,
        level: Level,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        let read = self.read(open.key()).await?.filter(|(record, _)| belongs(record, profile));
        let prepared = read.map(|(record, secrets)| {
            let mut new = self.open(&record, &secrets, profile, now);
            new.inherit(open);
            Arc::new(new)
        });
        Ok(prepared.filter(|open| !open.is_over(now) || level == Level::Returning && open.is_known(now)))
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

    pub(super) fn of_site(open: Arc<Open>, profile: &Profile) -> Option<Arc<Open>> {
        (open.site() == &profile.site).then_some(open)
    }

    pub(super) fn open(&self, record: &Record, secrets: &Secrets, profile: &Arc<Profile>, now: Timestamp) -> Open {
        Open::new(record, secrets, profile, &self.cookies, self.rotation, now)
    }

    /// Puts a record that was found in the store into the local cache; `None` if the session has ended since.
    pub fn remember(&self, record: &Record, secrets: &Secrets, profile: &Arc<Profile>) -> Option<Arc<Open>> {
        let now = self.clock.now();
        let mut open = self.open(record, secrets, profile, now);
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
}

/// A session belongs to one site and provider (behaviour S11).
fn belongs(record: &Record, profile: &Profile) -> bool {
    *record.site == *profile.site && profile.providers.iter().any(|name| **name == *record.provider)
}
