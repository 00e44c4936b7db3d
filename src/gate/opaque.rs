//! Access tokens that only their provider can judge (RFC 7662; behaviour A4).
//!
//! However many requests bring one at once, the provider is asked once. What it says is remembered: of a good token as long
//! as the settings allow, of another one for [`REFUSED`], for it may be good by then.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use super::bearer::{Bearer, Bearers, Name};
use crate::oidc::{AccessTokenError, Provider};
use crate::primitives::clock::{Clock, Timestamp};
use crate::refresh::Flights;

/// How long a token that does not count is not asked about again.
const REFUSED: Duration = Duration::from_secs(5);
/// The same where the provider's answer was of no use.
const FAILED: Duration = Duration::from_secs(1);
/// Most of them that a site remembers: about 1 MiB. They have a place of their own, for anybody may send them.
const MOST: usize = 10_000;

/// What is under way and what was refused.
pub(super) struct Opaque {
    under_way: Flights<Name, Result<Arc<Bearer>, AccessTokenError>>,
    refused: Cache<Name, (AccessTokenError, Timestamp)>,
}

impl Opaque {
    pub(super) fn new() -> Self {
        Self { under_way: Flights::new(), refused: Cache::new(MOST) }
    }
}

impl Bearers {
    /// What a token is worth, by its provider.
    pub(super) async fn ask(
        self: &Arc<Self>,
        provider: &Arc<Provider>,
        name: Name,
        text: &str,
        clock: &Clock,
    ) -> Result<Arc<Bearer>, AccessTokenError> {
        if let Some((error, until)) = self.opaque.refused.get(&name)
            && clock.now() < until
        {
            return Err(error);
        }
        let work = || {
            let (bearers, provider, text, clock) = (self.clone(), provider.clone(), text.to_owned(), clock.clone());
            async move {
                // From before the question: what is said is no newer.
                let now = clock.now();
                let (audiences, untyped) = (&bearers.settings().audiences, bearers.settings().untyped);
                match provider.introspect(&text, audiences, untyped).await {
                    Ok(found) => {
                        let onward = found.phantom.as_ref().map_or(text.as_str(), |token| token.expose());
                        let bearer = bearers.remember(name, onward, &provider, found.token, now, found.life);
                        bearer.ok_or(AccessTokenError::ProviderFailed)
                    }
                    Err(error) => {
                        let pause = match error {
                            AccessTokenError::ProviderFailed => Some(FAILED),
                            error if error.is_of_provider() => None,
                            _ => Some(REFUSED),
                        };
                        if let Some(pause) = pause {
                            bearers.opaque.refused.insert(name, (error, now.plus(pause)));
                        }
                        Err(error)
                    }
                }
            }
        };
        self.opaque.under_way.join(name, work).await.unwrap_or(Err(AccessTokenError::ProviderUnavailable))
    }
}
