//! Keeps a provider's metadata and keys fresh, in a background task.

use std::time::Duration;

use super::Provider;
use crate::primitives::random;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const REFRESH_EVERY: Duration = Duration::from_secs(3600);

impl Provider {
    /// Reads metadata and keys once.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub async fn try_out(&self) -> Result<(), String> {
        self.discover().await
    }

    /// Runs for ever: discovery until it succeeds, with exponential back-off, and again about every hour. A failure
    /// keeps what was read before.
    pub async fn maintain(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            match self.discover().await {
                Ok(()) => {
                    tracing::info!(provider = %self.name(), "metadata and keys are read");
                    wait = FIRST_WAIT;
                    tokio::time::sleep(random::jittered(REFRESH_EVERY)).await;
                }
                Err(error) => {
                    tracing::warn!(provider = %self.name(), error, ready = self.is_ready(), "discovery failed");
                    tokio::time::sleep(random::jittered(wait)).await;
                    wait = LONGEST_WAIT.min(wait * 2);
                }
            }
        }
    }
}
