//! A user who is no longer logged on is seen again.

use std::sync::Arc;

use super::{Logins, SiteAuth};
use crate::session::model::Secrets;
use crate::session::open::Open;

impl Logins {
    /// Takes the tokens out of a session that is over, if the settings want it, and revokes the refresh token. Nobody waits
    /// for it: they are sent nowhere in any case.
    pub fn part_with_tokens(&self, site: &SiteAuth, open: &Arc<Open>) {
        if !self.sessions.has_useless_tokens(open) || !open.claim_parting() {
            return;
        }
        let provider = site.named(open.provider()).cloned();
        let (sessions, open) = (self.sessions.clone(), open.clone());
        tokio::spawn(async move {
            match sessions.drop_tokens(&open).await {
                Ok(Some(Secrets { refresh_token: Some(token), offline: false, .. })) => {
                    if let Some(provider) = provider {
                        provider.revoke_patiently(token).await;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => open.release_parting(),
                Err(error) => {
                    tracing::debug!(%error, "tokens of a session that is over could not be dropped yet");
                    open.release_parting();
                }
            }
        });
    }
}
