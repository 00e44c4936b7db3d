//! Claims of a user that become known when the tokens they came with are stored already.

use serde_json::{Map, Value};

use super::context::{ATTEMPTS, PAUSE};
use super::{SessionError, Sessions};
use crate::session::model::Secrets;
use crate::store::Swap;
use crate::store::record::{Record, SessionKey};

impl Sessions {
    /// Puts new claims in the place of the old ones, by compare-and-swap, as long as the tokens of the session are those of
    /// this generation. Nothing else changes: the generation stays, and an intent, a doubt or a pause that another replica
    /// has written meanwhile stays too, or a refresh that is under way there would lose its tokens.
    ///
    /// Returns the session as it is then, with newer tokens and their claims if there are any; `None` if it has ended.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot do it, or does not say whether it did.
    pub async fn change_claims(
        &self,
        key: &SessionKey,
        generation: u64,
        claims: &Map<String, Value>,
    ) -> Result<Option<(Record, Secrets)>, SessionError> {
        for attempt in 0..ATTEMPTS {
            let Some((read, mut secrets)) = self.read(key).await? else { return Ok(None) };
            if read.generation != generation || secrets.claims == *claims {
                return Ok(Some((read, secrets)));
            }
            secrets.claims.clone_from(claims);
            match self.reseal(key, &read, &secrets).await? {
                (Swap::Stored, record) => return Ok(Some((record, secrets))),
                (Swap::Gone, _) => return Ok(None),
                (Swap::Conflict, _) => tokio::time::sleep(PAUSE * attempt).await,
            }
        }
        tracing::warn!("others change a session all the time: its claims stay as they were");
        self.read(key).await
    }
}

#[cfg(test)]
mod tests;
