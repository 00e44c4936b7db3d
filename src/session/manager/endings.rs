//! How sessions end, and who hears of it.

use std::time::Duration;

use tokio::sync::broadcast;

use super::{EndedSession, SessionError, Sessions};
use crate::session::model::Secrets;
use crate::session::watch::{Event, Watch};
use crate::store::Change;
use crate::store::record::{Owner, SessionKey};

/// Pauses between attempts to end a session: a store that fails for a moment must not cost a logout.
const END_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];

impl Sessions {
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
        let mut perhaps_done = false;
        loop {
            match self.store.delete(key).await {
                Ok(ended) => {
                    self.note_end(key);
                    // Nothing there at once: somebody else has ended it, and sees to the rest.
                    let ended = ended.or_else(|| before.filter(|_| perhaps_done));
                    return Ok(ended.map(|record| {
                        let secrets = self.unseal(key, &record);
                        (*key, record, secrets)
                    }));
                }
                Err(error) => {
                    perhaps_done = true;
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

    pub(super) fn note_end(&self, key: &SessionKey) {
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
}
