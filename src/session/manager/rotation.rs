//! New tickets in time.

use std::sync::Arc;

use super::{SessionError, Sessions};
use crate::session::open::Open;
use crate::store::record::Record;
use crate::store::{Announce, Swap};

/// What came of an exchange.
enum Exchange {
    /// It has a new ticket.
    Done(Arc<Open>),
    /// Somebody else changed the session meanwhile.
    Later,
    /// It has ended.
    Gone,
}

impl Sessions {
    /// The session with a new ticket, if the present one has served its time. The old one goes on for the grace, so that
    /// parallel requests and other tabs survive (behaviour S8). A store that fails leaves everything as it is; `None` if
    /// it says that the session has ended.
    pub async fn rotate(&self, open: Arc<Open>) -> Option<Arc<Open>> {
        if !open.claim_rotation() {
            return Some(open);
        }
        match self.exchange(&open).await {
            Ok(Exchange::Done(rotated)) => Some(rotated),
            Ok(Exchange::Gone) => {
                // Its end went unheard here: this copy must not serve the next request either.
                open.end();
                None
            }
            Ok(Exchange::Later) => {
                open.release_rotation();
                Some(open)
            }
            Err(error) => {
                tracing::debug!(%error, "a ticket could not be exchanged yet");
                open.release_rotation();
                Some(open)
            }
        }
    }

    async fn exchange(&self, open: &Open) -> Result<Exchange, SessionError> {
        let Some((record, secrets)) = self.read(open.key()).await? else { return Ok(Exchange::Gone) };
        let now = self.clock.now();
        // Another replica may have been faster.
        let record = if self.open(&record, &secrets, open.profile(), now).is_rotation_due(now) {
            let amend = |record: &mut Record| {
                record.rotation = record.rotation.saturating_add(1);
                record.rotated = now;
            };
            match self.amend(open.key(), &record, Announce::Everyone, amend).await? {
                (Swap::Stored, record) => record,
                (Swap::Conflict, _) => return Ok(Exchange::Later),
                (Swap::Gone, _) => return Ok(Exchange::Gone),
            }
        } else {
            record
        };
        Ok(self.remember(&record, &secrets, open.profile()).map_or(Exchange::Gone, Exchange::Done))
    }
}
