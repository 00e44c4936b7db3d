//! Users whose session is over and who are still recognised.

use std::sync::Arc;
use std::time::Duration;

use super::{SessionError, Sessions};
use crate::config::settings::{Level, ReturningTokens};
use crate::session::model::Secrets;
use crate::session::open::Open;
use crate::session::profile::Profile;
use crate::session::ticket::SessionId;
use crate::store::{Announce, Swap};

/// How long a use may be on its way to the store, beside the step in which uses are told.
const ON_THE_WAY: Duration = Duration::from_secs(5);

impl Sessions {
    /// The session that a ticket of this site opens, if its user is known well enough. Counts as no use.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say; that is not "no session".
    pub async fn at_level(
        &self,
        id: &SessionId,
        profile: &Arc<Profile>,
        level: Level,
    ) -> Result<Option<Arc<Open>>, SessionError> {
        let now = self.clock.now();
        let found = self.find(id, profile, now).await?;
        Ok(found.filter(|open| !open.is_over(now) || level == Level::Returning && open.is_known(now)))
    }

    /// Whether there are tokens in a session that have no use any more. Not before every replica must know that it is over:
    /// a use of it may still be on its way to the store.
    #[must_use]
    pub fn has_useless_tokens(&self, open: &Open) -> bool {
        self.returning_tokens == ReturningTokens::Drop
            && open.holds_tokens()
            && open.is_over(self.clock.now().minus(self.touch_step + ON_THE_WAY))
    }

    /// Takes access and refresh token out of a session that is over, and answers with what it held. `None` if there is
    /// nothing to be done, or not now. The session cannot come back to life after that, whatever use of it is still told.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it.
    pub async fn drop_tokens(&self, open: &Open) -> Result<Option<Secrets>, SessionError> {
        let Some((read, secrets)) = self.read(open.key()).await? else { return Ok(None) };
        let now = self.clock.now();
        let settled = now.minus(self.touch_step + ON_THE_WAY);
        if !read.is_over(settled) || read.intent.is_some() || !secrets.has_tokens() {
            return Ok(None);
        }
        let mut record = read.clone();
        record.version += 1;
        record.generation += 1;
        record.absolute_end = record.absolute_end.min(now);
        (record.refresh_in_doubt, record.retry_at, record.due) = (None, None, None);
        self.ring.newest_id().clone_into(&mut record.sealing_key);
        record.sealed = self.seal(open.key(), &record, &secrets.without_tokens())?;
        match self.store.replace(open.key(), read.version, &record, Announce::Everyone).await? {
            Swap::Stored => Ok(Some(secrets)),
            Swap::Conflict | Swap::Gone => Ok(None),
        }
    }
}
