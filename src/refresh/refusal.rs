//! What a provider's answer means for the session when it brings no tokens (behaviour R10).

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, Outcome};
use super::engine::Failure;
use super::lease::Lease;
use crate::oidc::RefreshError;
use crate::provider::{Provider, Refreshed};
use crate::telemetry::Throttle;

/// Longest pause that a provider may ask for.
pub(super) const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// Pause after an answer that says our own settings are wrong.
pub(super) const PAUSE_MISCONFIGURED: Duration = Duration::from_secs(30);
/// How long requests are told at once that the token is in doubt; the record says so for good.
pub(super) const PAUSE_IN_DOUBT: Duration = Duration::from_secs(600);
/// Pause after a refused connection, 429, 500 or 503 that names no time itself.
pub(super) const PAUSE_UNAVAILABLE: Duration = Duration::from_secs(1);

impl Attempt {
    /// Tells what is to be told, and says when there may be another attempt.
    pub(super) async fn refused(
        &self,
        lease: Lease,
        provider: &Arc<Provider>,
        error: RefreshError,
        shown_before: bool,
    ) -> Outcome {
        let name = provider.name();
        let generation = lease.record.generation;
        let (pause, failure) = match error {
            RefreshError::Rejected(_) | RefreshError::IdentityChanged(_) => {
                let profile = self.profile.as_ref();
                let ended = self.engine.rejected(&self.key, profile, &lease.record, provider, &error).await;
                return ended.unwrap_or(Outcome::Failed(Failure::Store));
            }
            RefreshError::Misconfigured(ref code) => {
                static REFUSALS: Throttle = Throttle::new();
                if let Some(held_back) = REFUSALS.pass() {
                    let what = "the provider refuses us as a client; check its settings";
                    tracing::error!(provider = %name, code, held_back, "{what}");
                }
                (PAUSE_MISCONFIGURED, Failure::Provider(PAUSE_MISCONFIGURED))
            }
            // The old refresh token stays good (RFC 6749 §6), whoever has shown it before.
            RefreshError::Unusable { reason, .. } => {
                tell_unusable(provider, reason);
                let failure = Failure::Provider(PAUSE_MISCONFIGURED);
                self.engine.pause(&self.key, generation, PAUSE_MISCONFIGURED, failure);
                lease.give_back(Some(self.engine.now().plus(PAUSE_MISCONFIGURED)), false).await;
                return Outcome::Failed(failure);
            }
            RefreshError::Unavailable { ref reason, retry_after } => {
                let pause = retry_after.unwrap_or(PAUSE_UNAVAILABLE).clamp(PAUSE_UNAVAILABLE, PAUSE_LONGEST);
                tracing::warn!(provider = %name, reason, "the provider cannot refresh tokens now");
                (pause, Failure::Provider(pause))
            }
            RefreshError::InDoubt(ref why) => {
                tracing::warn!(provider = %name, why, "the outcome of a token refresh is unknown");
                self.tell_doubt(&lease.record, "no_answer");
                self.engine.pause(&self.key, generation, PAUSE_IN_DOUBT, Failure::InDoubt);
                lease.doubt().await;
                return Outcome::Failed(Failure::InDoubt);
            }
        };
        self.engine.pause(&self.key, generation, pause, failure);
        let retry_at = self.engine.now().plus(pause);
        lease.give_back(Some(retry_at), shown_before).await;
        Outcome::Failed(failure)
    }

    /// Counts the answer of the token endpoint.
    pub(super) fn count(&self, provider: &Provider, answer: &Result<Refreshed, RefreshError>) {
        let result = match answer {
            Ok(_) => "ok",
            Err(RefreshError::Rejected(_) | RefreshError::IdentityChanged(_)) => "invalid_grant",
            Err(RefreshError::Misconfigured(_) | RefreshError::Unusable { .. }) => "client_error",
            Err(RefreshError::Unavailable { retry_after: Some(_), .. }) => "throttled",
            Err(RefreshError::Unavailable { retry_after: None, .. }) => "error",
            Err(RefreshError::InDoubt(_)) => "timeout",
        };
        let labels = [provider.name(), self.need.mode(), result];
        self.engine.metrics.token_refreshes_total.with_label_values(&labels).inc();
    }
}

/// A line for whoever looks after the provider.
pub(super) fn tell_unusable(provider: &Provider, reason: &str) {
    static TOKENS: Throttle = Throttle::new();
    if let Some(held_back) = TOKENS.pass() {
        let what = "the provider's tokens are of no use; check what it is set up to give this client";
        tracing::error!(provider = %provider.name(), reason, held_back, "{what}");
    }
}
