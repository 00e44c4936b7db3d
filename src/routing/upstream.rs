//! Upstreams: a balanced set of addresses, kept up to date in the background.
//!
//! Pingora's load balancing owns membership and health checks ([`keeper`]); picking reads a snapshot of them ([`balance`]),
//! because the balancer's own selection allocates and clones for every request.

mod balance;
mod health;
mod keeper;
mod target;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::StatusCode;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::oneshot;

use self::balance::{Tally, Targets};
use self::keeper::Membership;
use self::wire::Wire;
use super::discovery::Lookup;
use super::retries::Retries;
use super::tunnel::CloseCode;
use crate::config::settings::{self, Balance, Ejection, HashOn};
use crate::primitives::dpop::Nonce;
use crate::telemetry::Throttle;
use crate::telemetry::handles::UpstreamMetrics;
use crate::telemetry::metrics::Metrics;

pub use keeper::Keeper;
pub use target::{Target, UnderWay};

/// Tells upstreams apart for as long as the process lives; see [`Wire`].
static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);

/// A named group of endpoints that serve the same thing.
pub struct Upstream {
    name: Arc<str>,
    balance: Balance,
    ejection: Option<Ejection>,
    wire: Wire,
    targets: ArcSwap<Targets>,
    next: AtomicUsize,
    /// Most requests at a time.
    most: usize,
    under_way: Arc<AtomicUsize>,
    /// Counted last; also keeps two counts from overtaking each other.
    tally: Mutex<Tally>,
    /// Brakes the lines on connections that fail.
    refused: Throttle,
    metrics: UpstreamMetrics,
    retries: Retries,
    nonce: Nonce,
}

impl Upstream {
    fn new(settings: &settings::Upstream, metrics: &Metrics) -> Self {
        Self {
            name: Arc::clone(&settings.name),
            balance: settings.balance.clone(),
            ejection: settings.ejection.clone(),
            wire: Wire::new(settings, NEXT_GROUP.fetch_add(1, Ordering::Relaxed)),
            targets: ArcSwap::from_pointee(Targets::new(Vec::new(), &settings.balance)),
            next: AtomicUsize::new(0),
            most: settings.max_requests.unwrap_or(usize::MAX),
            under_way: Arc::default(),
            tally: Mutex::default(),
            refused: Throttle::new(),
            metrics: metrics.upstream(&settings.name),
            retries: Retries::new(settings.retries),
            nonce: Nonce::default(),
        }
    }

    /// Its name in the settings.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// How often its requests may be sent again.
    #[must_use]
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// What it wants in the next DPoP proof.
    #[must_use]
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Whether its requests go over TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.wire.speaks_tls()
    }

    /// What [`Upstream::pick`] wants as its key; `None` = nothing.
    #[must_use]
    pub fn hash_on(&self) -> Option<&HashOn> {
        match &self.balance {
            Balance::ConsistentHash(on) => Some(on),
            _ => None,
        }
    }

    /// An address for a request, none of those that just failed. Addresses out of service, and at last the failed ones,
    /// are taken when there is nothing better. `None` only while no address is known.
    #[must_use]
    pub fn pick(&self, key: &[u8], failed: &[SocketAddr]) -> Option<Arc<Target>> {
        let targets = self.targets.load();
        targets.pick(&self.balance, &self.next, key, failed).cloned()
    }

    /// Counts a request under way at `target`, where balance or settings ask for it.
    ///
    /// # Errors
    /// [`Full`] if there are as many as may be already.
    pub fn enter(&self, target: &Arc<Target>) -> Result<UnderWay, Full> {
        let all = (self.most != usize::MAX).then_some(&self.under_way);
        if all.is_some_and(|all| all.fetch_add(1, Ordering::Relaxed) >= self.most) {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        let there = (self.balance == Balance::LeastRequests).then_some(target);
        Ok(UnderWay::new(there.cloned(), all.cloned()))
    }

    /// How to talk to one of its addresses, every step under a time limit.
    #[must_use]
    pub fn peer(&self, target: &Target) -> Box<HttpPeer> {
        self.wire.peer(target)
    }

    /// How to talk to one of its addresses through a tunnel. `ending` tells the tunnel to end.
    ///
    /// # Errors
    /// Why no TLS can be spoken there.
    pub fn tunnel_peer(&self, target: &Target, ending: oneshot::Receiver<CloseCode>) -> Result<Box<HttpPeer>, String> {
        self.wire.tunnel_peer(target, ending)
    }

    /// An address has answered a request.
    pub fn answered(self: &Arc<Self>, target: &Arc<Target>, status: StatusCode) {
        let Some(ejection) = &self.ejection else { return };
        if ejection.on_5xx && status.is_server_error() {
            self.failed(target);
        } else {
            target.answered();
        }
    }

    /// An address could not be reached, or gave no answer. After so many times in a row it is left alone for a while.
    pub fn failed(self: &Arc<Self>, target: &Arc<Target>) {
        let Some(ejection) = &self.ejection else { return };
        let Some(pause) = target.failed(ejection) else { return };
        tracing::warn!(
            upstream = %self.name, address = %target.address(), failures = ejection.after, pause = ?pause,
            "address out of service: requests to it fail"
        );
        self.metrics.ejected();
        self.recount();
        let (upstream, target, ejection) = (Arc::downgrade(self), Arc::clone(target), ejection.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            target.readmit(&ejection);
            if let Some(upstream) = upstream.upgrade() {
                tracing::info!(upstream = %upstream.name, address = %target.address(), "address in service: on trial again");
                upstream.recount();
            }
        });
    }

    /// An address could not be reached; the log tells why, once a second.
    pub fn refused(self: &Arc<Self>, target: &Arc<Target>, reason: &str) {
        self.metrics.failed("connect");
        if let Some(held_back) = self.refused.pass() {
            let (upstream, address) = (&self.name, target.address());
            tracing::warn!(%upstream, %address, reason, held_back, "no connection to an address of an upstream");
        }
        self.failed(target);
    }

    /// How many addresses are in service, how many there are.
    #[must_use]
    pub fn in_service(&self) -> (usize, usize) {
        let tally = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        (tally.in_service, tally.all())
    }

    fn recount(&self) {
        let mut known = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = self.targets.load();
        let all_counted = targets.all_count();
        let tally = targets.recount();
        if targets.all_count() != all_counted && tally.all() > 1 {
            let (in_service, all) = (tally.in_service, tally.all());
            if all_counted {
                tracing::info!(upstream = %self.name, in_service, all, "addresses out of service are spared again");
            } else {
                tracing::warn!(upstream = %self.name, in_service, all, "too few addresses in service: all are used");
            }
        }
        self.metrics.standing(tally.in_service, tally.unhealthy, tally.ejected);
        *known = tally;
    }

    /// Puts new addresses in place of the old ones. Those that stay keep their standing.
    fn replace(&self, targets: Vec<Arc<Target>>) {
        let known = self.targets.load();
        let stay = |new: Arc<Target>| known.list().iter().find(|old| old.is_same(&new)).map_or(new, Arc::clone);
        self.targets.store(Arc::new(Targets::new(targets.into_iter().map(stay).collect(), &self.balance)));
        self.recount();
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.name)
            .field("targets", &self.targets.load().list())
            .finish_non_exhaustive()
    }
}

/// An upstream has as many requests as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream has as many requests under way as `max_requests` allows")]
pub struct Full;

/// All upstreams by name.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(HashMap<Arc<str>, Arc<Membership>>);

impl Upstreams {
    /// Compiles every upstream of the settings. Endpoints that are addresses can be picked at once; names only after a
    /// [`Keeper`] has found them.
    #[must_use]
    pub fn new(settings: &[settings::Upstream], lookup: &Lookup, metrics: &Metrics) -> Self {
        Self::default().changed_to(settings, lookup, metrics)
    }

    /// The upstreams of new settings. Those whose settings have not changed stay as they are, with all that is known of
    /// their addresses, and so do those of which `retries` alone have: [`Upstreams::set_retries`]. The others begin with the
    /// addresses that their names had.
    #[must_use]
    pub fn changed_to(&self, settings: &[settings::Upstream], lookup: &Lookup, metrics: &Metrics) -> Self {
        let make = |one: &settings::Upstream| match self.0.get(&one.name) {
            Some(known) if known.serves(one) => Arc::clone(known),
            before => Membership::new(one, Arc::clone(lookup), metrics, before.map(|before| &**before)),
        };
        Self(settings.iter().map(|one| (Arc::clone(&one.name), make(one))).collect())
    }

    /// Lets `retries` be what these settings say, once they hold.
    pub fn set_retries(&self, settings: &[settings::Upstream]) {
        for (one, upstream) in settings.iter().filter_map(|one| Some((one, self.get(&one.name)?))) {
            upstream.retries.set(one.retries);
        }
    }

    /// The upstream of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.get(name).map(|membership| membership.upstream())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.values().map(|membership| membership.upstream())
    }

    /// Whether each has an address in service, and which have not.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let mut without: Vec<_> = self
            .iter()
            .filter_map(|upstream| match upstream.in_service() {
                (0, all) => Some(format!("{}: none of {all} addresses in service", upstream.name)),
                _ => None,
            })
            .collect();
        without.sort_unstable();
        (without.is_empty(), without.join(", "))
    }
}

#[cfg(test)]
mod tests;
