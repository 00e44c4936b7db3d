//! Records made, read, written, sealed and opened.

use std::sync::Arc;

use super::{NewSession, SessionError, Sessions, entry_of};
use crate::primitives::clock::Timestamp;
use crate::primitives::failpoint::fail_point;
use crate::session::model::Secrets;
use crate::session::open::Open;
use crate::session::profile::Profile;
use crate::session::seal::{Context, Purpose, SealError};
use crate::store::record::{Record, SessionKey};
use crate::store::{Announce, StoreError, Swap};
use crate::telemetry::audit::Entry;

impl Sessions {
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
    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Record>, StoreError> {
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
    /// in the record is done with. `retry_at`: there is to be no refresh before that time.
    ///
    /// # Errors
    /// [`SessionError`]; the caller holds the secrets and tries again (behaviour R4).
    pub async fn write(
        &self,
        key: &SessionKey,
        read: &Record,
        secrets: &Secrets,
        retry_at: Option<Timestamp>,
    ) -> Result<(Swap, Record), SessionError> {
        let mut record = read.clone();
        record.version += 1;
        record.generation += 1;
        record.absolute_end = self.absolute_end(record.created, secrets);
        record.intent = None;
        record.refresh_in_doubt = None;
        record.retry_at = retry_at;
        record.due = self.plan.due(secrets).map(|due| retry_at.map_or(due, |at| at.max(due)));
        self.ring.newest_id().clone_into(&mut record.sealing_key);
        record.sealed = self.seal(key, &record, secrets)?;
        fail_point!("refresh::before_store");
        let swap = self.store.replace(key, read.version, &record, Announce::Everyone).await?;
        Ok((swap, record))
    }

    /// Seals secrets anew whose tokens are those of the record, if that still has the version it was read with. Nothing else
    /// changes: the generation stays, and with it a refresh that is under way.
    pub(super) async fn reseal(
        &self,
        key: &SessionKey,
        read: &Record,
        secrets: &Secrets,
    ) -> Result<(Swap, Record), SessionError> {
        let mut record = read.clone();
        record.version += 1;
        self.ring.newest_id().clone_into(&mut record.sealing_key);
        record.sealed = self.seal(key, &record, secrets)?;
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

    /// When a session is over in any case; the refresh token's end bounds it (behaviour S9).
    #[must_use]
    pub fn absolute_end(&self, created: Timestamp, secrets: &Secrets) -> Timestamp {
        let end = created.plus(self.absolute_timeout);
        secrets.refresh_expires.map_or(end, |dead| end.min(dead))
    }

    pub(super) fn seal(&self, key: &SessionKey, record: &Record, secrets: &Secrets) -> Result<Vec<u8>, SessionError> {
        Ok(self.ring.seal(&context(key, record), &secrets.to_plaintext()?)?)
    }

    /// A record that does not open is no session: it was damaged, swapped, or its key has left the ring.
    pub(crate) fn unseal(&self, key: &SessionKey, record: &Record) -> Option<Secrets> {
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

    pub(super) fn tell_unreadable(&self, reason: &str, key: &SessionKey, record: &Record) {
        self.audit.unreadable(&entry_of(key, record, reason));
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
