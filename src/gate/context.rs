//! An upstream changes the user context.

use std::time::Duration;

use http::HeaderMap;

use super::Pass;
use super::admit::Gate;
use crate::config::settings::ContextAccess;
use crate::session::context::{UPDATE, parse_update};
use crate::session::manager::ContextChange;
use crate::telemetry::Throttle;

/// How long an answer waits for its change to be stored. A store that takes longer may still do it.
const PATIENCE: Duration = Duration::from_secs(2);

impl Gate {
    /// Keeps what the answer to a request of `pass` says of its user, as far as the route allows it. The answer waits for
    /// the store, so that the next request finds the change.
    pub async fn take_context(&self, pass: &Pass, answer: &HeaderMap) {
        static REFUSALS: Throttle = Throttle::new();
        let result = self.keep_context(pass, answer).await;
        self.metrics.user_context_updates_total.with_label_values(&[result]).inc();
        let done = matches!(result, "stored" | "unchanged" | "ended");
        if let Some(held_back) = (!done).then(|| REFUSALS.pass()).flatten() {
            let (site, route) = (&pass.site.name, &pass.route.name);
            tracing::warn!(%site, %route, result, held_back, "an upstream's change of the user context was not stored");
        }
    }

    async fn keep_context(&self, pass: &Pass, answer: &HeaderMap) -> &'static str {
        let mut values = answer.get_all(UPDATE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return "malformed" };
        if pass.route.context != ContextAccess::ReadWrite {
            return "not_allowed";
        }
        let Some(open) = &pass.session else { return "no_session" };
        let patch = match parse_update(value) {
            Ok(patch) => patch,
            Err(reason) => return reason,
        };
        match tokio::time::timeout(PATIENCE, self.sessions.change_context(open, &patch)).await {
            Ok(Ok(ContextChange::Stored)) => "stored",
            Ok(Ok(ContextChange::Unchanged)) => "unchanged",
            Ok(Ok(ContextChange::TooLarge)) => "too_large",
            Ok(Ok(ContextChange::Busy)) => "busy",
            Ok(Ok(ContextChange::Ended)) => "ended",
            Err(_) => "timeout",
            Ok(Err(error)) => {
                tracing::debug!(%error, "a change of the user context could not be stored");
                "store"
            }
        }
    }
}
