//! One request too many.

use std::hash::Hash;

use super::admit::Gate;
use super::answers::refusal;
use super::bearer::counted;
use super::{Bearer, Client, Request};
use crate::answer::{Answer, Code};
use crate::config::settings::RateBy;
use crate::primitives::neighbour::Neighbour;
use crate::routing::table::Route;
use crate::session::open::Open;
use crate::telemetry::Throttle;

impl Gate {
    /// Counts a request of this client on a route with such a limit; the answer if there were too many. Asked before the
    /// session is looked up, so that a flood costs the store nothing.
    pub(super) fn too_many_of_client(&self, request: &Request<'_>, route: &Route, client: &Client) -> Option<Answer> {
        self.too_many(request, route, RateBy::Address, || Neighbour::from(client.ip))
    }

    /// The same of a session. Its handle stays when its ticket is exchanged.
    pub(super) fn too_many_of_session(&self, request: &Request<'_>, route: &Route, open: &Open) -> Option<Answer> {
        self.too_many(request, route, RateBy::Session, || open.id().handle())
    }

    /// The same of a client with a token of its own, by its user: whoever fetches a new token is not counted anew.
    pub(super) fn too_many_of_bearer(&self, request: &Request<'_>, route: &Route, bearer: &Bearer) -> Option<Answer> {
        self.too_many(request, route, RateBy::Session, || counted(bearer))
    }

    fn too_many<K: Hash>(
        &self,
        request: &Request<'_>,
        route: &Route,
        by: RateBy,
        key: impl FnOnce() -> K,
    ) -> Option<Answer> {
        static REFUSALS: Throttle = Throttle::new();
        let rates = route.rates.as_deref().filter(|rates| rates.has(by))?;
        let wait = rates.take(by, &key(), self.clock.now()).err()?;
        let reason = match by {
            RateBy::Address => "rate_address",
            RateBy::Session => "rate_session",
        };
        self.metrics.requests_rejected_total.with_label_values(&[reason]).inc();
        if let Some(held_back) = REFUSALS.pass() {
            tracing::info!(route = %route.name, reason, held_back, "requests beyond a limit of their route were refused");
        }
        let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let answer = refusal(request, Code::TooManyRequests, "Please wait a little, and try again.");
        Some(answer.retry_after(seconds))
    }
}
