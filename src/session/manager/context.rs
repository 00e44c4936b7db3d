//! What applications keep of a user.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{SessionError, Sessions};
use crate::session::context::{LARGEST, merge};
use crate::session::open::Open;
use crate::store::Swap;

/// Attempts at one change, and the pause between them: others may change the session in the same moment.
pub(super) const ATTEMPTS: u32 = 8;
pub(super) const PAUSE: Duration = Duration::from_millis(5);

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
            match self.reseal(open.key(), &read, &secrets).await? {
                (Swap::Stored, record) => {
                    self.remember(&record, &secrets, open.profile());
                    return Ok(Change::Stored);
                }
                (Swap::Gone, _) => return Ok(Change::Ended),
                (Swap::Conflict, _) => tokio::time::sleep(PAUSE * attempt).await,
            }
        }
        Ok(Change::Busy)
    }
}
