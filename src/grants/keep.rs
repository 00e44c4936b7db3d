//! Tokens of our own, replaced before a request has to wait for them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Grants, Wish};
use crate::config::settings::ClientToken;
use crate::primitives::random;
use crate::session::issued::{Slot, Upkeep};

/// Pause between two looks at the tokens.
const LOOK_EVERY: Duration = Duration::from_millis(800);

impl Grants {
    /// Replaces tokens of our own that are in use and about to end, as long as it is polled. One that nobody has asked for
    /// within `refresh.active_within` is left to end, and is then forgotten; so is all of this where `refresh.ahead` is zero.
    ///
    /// A request that comes meanwhile and this share one call. It keeps the pace of refreshes and steps back behind them: a
    /// provider that is down, or has no place for it, is not waited for.
    pub async fn keep(self: &Arc<Self>) {
        let Some(within) = self.kept_within else { return std::future::pending().await };
        loop {
            tokio::time::sleep(random::jittered(LOOK_EVERY)).await;
            let now = self.now();
            for (token, slot) in self.places() {
                match slot.upkeep(now, self.ahead, within) {
                    Upkeep::Nothing => {}
                    Upkeep::Forget => slot.forget(),
                    Upkeep::Replace => self.replace(&token, slot),
                }
            }
        }
    }

    fn places(&self) -> Vec<(ClientToken, Arc<Slot>)> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().map(|(token, slot)| (token.clone(), slot.clone())).collect()
    }

    /// In a task of its own: one provider that is slow keeps those of the others from nothing.
    fn replace(self: &Arc<Self>, token: &ClientToken, slot: Arc<Slot>) {
        let Some(provider) = self.providers.get(&token.provider).and_then(|provider| provider.oidc()).cloned() else {
            return;
        };
        let wish = Wish { slot, provider, subject: None, target: token.target.clone(), whose: None };
        let engine = self.clone();
        tokio::spawn(async move { engine.fill(&wish, None).await });
    }
}
