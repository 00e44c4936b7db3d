//! What applications keep of a user.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{SessionError, Sessions};
use crate::session::context::{LARGEST, merge};
use crate::session::open::Open;
use crate::store::record::{Record, SessionKey};
use crate::store::{Announce, Swap};

/// Attempts at one change, and the pause between them: others may change the session in the same moment.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(5);

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in the store.
    Stored,
    /// It changes nothing.
    Unchanged,
    /// There would be more than there may be.
    TooLarge,
    /// Others change the session all the time.
    Busy,
    /// The session has ended.
    Ended,
}

impl Sessions {
    /// Changes what applications keep of the user of a session, by compare-and-swap. A refresh that is under way is not
    /// disturbed: the generation stays, and it takes the change over.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it, or does not say whether it did.
    pub async fn change_context(&self, open: &Open, patch: &Map<String, Value>) -> Result<Change, SessionError> {
        for attempt in 0..ATTEMPTS {
            let Some((read, mut secrets)) = self.read(open.key()).await? else { return Ok(Change::Ended) };
            let before = secrets.context.clone();
            merge(&mut secrets.context, patch);
            if secrets.context == before {
                return Ok(Change::Unchanged);
            }
            if serde_json::to_vec(&secrets.context)?.len() > LARGEST {
                return Ok(Change::TooLarge);
            }
            let mut record = read.clone();
            record.version += 1;
            self.ring.newest_id().clone_into(&mut record.sealing_key);
            record.sealed = self.seal(open.key(), &record, &secrets)?;
            match self.store.replace(open.key(), read.version, &record, Announce::Everyone).await? {
                Swap::Stored => {
                    self.remember(&record, &secrets, open.profile());
                    return Ok(Change::Stored);
                }
                Swap::Gone => return Ok(Change::Ended),
                Swap::Conflict => tokio::time::sleep(PAUSE * attempt).await,
            }
        }
        Ok(Change::Busy)
    }

    /// What applications keep, according to a record; `None` if it cannot be opened.
    #[must_use]
    pub fn context_of(&self, key: &SessionKey, record: &Record) -> Option<Map<String, Value>> {
        self.unseal(key, record).map(|secrets| secrets.context)
    }
}
