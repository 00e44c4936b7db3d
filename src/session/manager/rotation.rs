//! New tickets in time.

use std::sync::Arc;

use super::{SessionError, Sessions};
use crate::session::open::Open;
use crate::store::record::Record;
use crate::store::{Announce, Swap};

impl Sessions {
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

    pub(super) async fn rotated(&self, open: &Open) -> Result<Option<Arc<Open>>, SessionError> {
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
}
