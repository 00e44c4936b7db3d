//! Upstreams: a balanced set of addresses, kept up to date in the background.
//!
//! The load balancer of Pingora owns membership and health; picking reads a snapshot of it, because the balancer's own
//! selection allocates and clones for every request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::join_all;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::{BackgroundService, GenBackgroundService, background_service};
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, LoadBalancer};
use tokio::sync::oneshot;

use super::discovery::{Endpoints, Lookup};
use super::retries::Retries;
use super::tunnel::{self, CloseCode};
use crate::config::settings::{self, UpstreamTimeouts};
use crate::telemetry::handles::UpstreamMetrics;
use crate::telemetry::metrics::Metrics;

/// How often names are looked up.
const REFRESH_EVERY: Duration = Duration::from_secs(15);

/// How often names are looked up while an upstream has no address at all.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// How long the start waits for the first answers; after that the proxy starts without them.
const FIRST_DEADLINE: Duration = Duration::from_secs(5);

/// Longest silence of an upstream in a tunnel.
const TUNNEL_SILENCE: Duration = Duration::from_secs(3600);
/// Part of the group key of tunnels: they take no pooled connection.
const TUNNELS: u64 = 1 << 63;

/// One address that may be picked.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    /// The same as the balancer knows it; asking for its health needs the whole value.
    backend: Backend,
}

/// A named group of endpoints that serve the same thing.
pub struct Upstream {
    name: Arc<str>,
    timeouts: UpstreamTimeouts,
    /// Two upstreams with an address in common share no connections: their timeouts may differ.
    group_key: u64,
    fixed: bool,
    balancer: LoadBalancer<RoundRobin>,
    targets: ArcSwap<Vec<Target>>,
    next: AtomicUsize,
    metrics: UpstreamMetrics,
    retries: Retries,
}

impl Upstream {
    /// Compiles an upstream. Endpoints that are addresses can be picked at once; names only after a [`Resolver`] has
    /// found them. `index` tells upstreams apart.
    #[must_use]
    pub fn new(settings: &settings::Upstream, index: usize, lookup: Lookup, metrics: &Metrics) -> Self {
        let endpoints = Endpoints::new(Arc::clone(&settings.name), &settings.endpoints, lookup);
        let fixed = endpoints.is_fixed();
        let upstream = Self {
            name: Arc::clone(&settings.name),
            timeouts: settings.timeouts,
            group_key: u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1),
            fixed,
            balancer: LoadBalancer::from_backends(Backends::new(Box::new(endpoints))),
            targets: ArcSwap::default(),
            next: AtomicUsize::new(0),
            metrics: metrics.upstream(&settings.name),
            retries: Retries::new(settings.retries),
        };
        if fixed {
            // Without names the discovery never waits, so one poll completes it.
            let _ = upstream.refresh().now_or_never();
        }
        upstream
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

    /// The next address in turn; `None` only while no address is known.
    #[must_use]
    pub fn pick(&self) -> Option<SocketAddr> {
        self.pick_except(&[])
    }

    /// The next address in turn that is none of those that just failed. Addresses that are not healthy, and at last the
    /// failed ones, are taken when there is nothing better: a request that may succeed is better than one that cannot.
    #[must_use]
    pub fn pick_except(&self, failed: &[SocketAddr]) -> Option<SocketAddr> {
        let targets = self.targets.load();
        if let [only] = targets.as_slice() {
            // Neither its health nor what just happened would change anything.
            return Some(only.address);
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % targets.len().max(1);
        let mut second_best = None;
        let mut last_resort = None;
        for target in targets.iter().cycle().skip(start).take(targets.len()) {
            if failed.contains(&target.address) {
                last_resort = last_resort.or(Some(target.address));
            } else if self.balancer.backends().ready(&target.backend) {
                return Some(target.address);
            } else {
                second_best = second_best.or(Some(target.address));
            }
        }
        second_best.or(last_resort)
    }

    /// How to talk to one of its addresses: HTTP/1.1 in the clear, every step under a time limit.
    #[must_use]
    pub fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.group_key = self.group_key;
        peer.options.connection_timeout = Some(self.timeouts.connect);
        peer.options.total_connection_timeout = Some(self.timeouts.connect.saturating_mul(2));
        peer.options.read_timeout = Some(self.timeouts.read);
        peer.options.write_timeout = Some(self.timeouts.write);
        peer.options.idle_timeout = Some(self.timeouts.idle);
        peer
    }

    /// How to talk to one of its addresses through a tunnel, which may be silent for long. Pingora takes no other
    /// timeout once the connection is there, so this one is also that of the handshake's answer. `ending` tells the
    /// tunnel to end.
    #[must_use]
    pub fn tunnel_peer(&self, address: SocketAddr, ending: oneshot::Receiver<CloseCode>) -> HttpPeer {
        let mut peer = self.peer(address);
        peer.options.read_timeout = peer.options.read_timeout.map(|timeout| timeout.max(TUNNEL_SILENCE));
        // What has been a tunnel, or was refused to be one, serves nothing else.
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.group_key |= TUNNELS;
        peer.options.custom_l4 = Some(Arc::new(tunnel::Connector::new(self.timeouts.connect, ending)));
        peer
    }

    /// Looks all names up once. On failure the old addresses stay.
    async fn refresh(&self) {
        if let Err(error) = self.balancer.update().await {
            tracing::warn!(upstream = %self.name, %error, "upstream has no new addresses");
            return;
        }
        let found = self.balancer.backends().get_backend();
        if found.iter().eq(self.targets.load().iter().map(|target| &target.backend)) {
            return;
        }
        let targets: Vec<_> = found
            .iter()
            .filter_map(|backend| {
                backend.addr.as_inet().map(|address| Target { address: *address, backend: backend.clone() })
            })
            .collect();
        tracing::info!(upstream = %self.name, addresses = targets.len(), "upstream has new addresses");
        self.targets.store(Arc::new(targets));
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.name)
            .field("targets", &self.targets.load())
            .finish_non_exhaustive()
    }
}

/// All upstreams by name.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(HashMap<Arc<str>, Arc<Upstream>>);

impl Upstreams {
    /// Compiles every upstream of the settings.
    #[must_use]
    pub fn new(settings: &[settings::Upstream], lookup: &Lookup, metrics: &Metrics) -> Self {
        Self(
            settings
                .iter()
                .enumerate()
                .map(|(index, one)| {
                    (Arc::clone(&one.name), Arc::new(Upstream::new(one, index, Arc::clone(lookup), metrics)))
                })
                .collect(),
        )
    }

    /// The upstream of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }

    /// The background service that keeps their addresses up to date, to be added to the server. It is ready when each
    /// upstream was looked up once, or after five seconds. One thread serves them all; Pingora gives each
    /// background service a runtime of its own.
    #[must_use]
    pub fn service(&self) -> GenBackgroundService<Resolver> {
        background_service("upstream addresses", Resolver::new(self))
    }
}

/// Keeps the addresses of upstreams up to date.
#[derive(Debug)]
pub struct Resolver {
    upstreams: Vec<Arc<Upstream>>,
    every: Duration,
    retry: Duration,
}

impl Resolver {
    fn new(upstreams: &Upstreams) -> Self {
        let upstreams = upstreams.0.values().filter(|upstream| !upstream.fixed).cloned().collect();
        Self { upstreams, every: REFRESH_EVERY, retry: RETRY_EVERY }
    }

    /// Looks one upstream up for ever.
    async fn keep(&self, upstream: &Upstream) {
        loop {
            let empty = upstream.targets.load().is_empty();
            tokio::time::sleep(if empty { self.retry } else { self.every }).await;
            upstream.refresh().await;
        }
    }

    async fn first(&self) {
        let all = join_all(self.upstreams.iter().map(|upstream| upstream.refresh()));
        if tokio::time::timeout(FIRST_DEADLINE, all).await.is_err() {
            tracing::warn!("starting although not all upstream names are resolved");
        }
    }
}

#[async_trait]
impl BackgroundService for Resolver {
    async fn start_with_ready_notifier(&self, mut shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        self.first().await;
        ready.notify_ready();
        if self.upstreams.is_empty() {
            return;
        }
        let keep_all = join_all(self.upstreams.iter().map(|upstream| self.keep(upstream)));
        tokio::select! {
            _ = keep_all => {}
            _ = shutdown.wait_for(|down| *down) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::config::settings::Endpoint;
    use crate::routing::discovery::system_lookup;

    fn settings(endpoints: &[(&str, u16)]) -> settings::Upstream {
        let second = Duration::from_secs(1);
        settings::Upstream {
            name: "api".into(),
            endpoints: endpoints.iter().map(|(host, port)| Endpoint { host: (*host).into(), port: *port }).collect(),
            timeouts: UpstreamTimeouts { connect: second, read: second * 2, write: second * 3, idle: second * 4 },
            retries: settings::Retries::default(),
        }
    }

    fn upstream(endpoints: &[(&str, u16)]) -> Upstream {
        Upstream::new(&settings(endpoints), 0, system_lookup(), &Metrics::new().unwrap())
    }

    fn ports(upstream: &Upstream, failed: &[SocketAddr], picks: usize) -> Vec<u16> {
        (0..picks).map(|_| upstream.pick_except(failed).unwrap().port()).collect()
    }

    #[test]
    fn addresses_take_turns_without_any_service_running() {
        let upstream = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)]);
        assert_eq!(ports(&upstream, &[], 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn a_failed_address_is_avoided_unless_it_is_the_only_one() {
        let failed = &["127.0.0.1:2".parse().unwrap()];
        let pair = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2)]);
        assert_eq!(ports(&pair, failed, 3), [1, 1, 1]);
        assert_eq!(ports(&upstream(&[("127.0.0.1", 2)]), failed, 2), [2, 2]);
        let three = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)]);
        let both = ["127.0.0.1:3".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        assert_eq!(ports(&three, &both, 6), [1; 6]);
        assert_eq!(upstream(&[("name.invalid", 1)]).pick(), None);
    }

    #[test]
    fn every_step_towards_an_upstream_has_a_time_limit() {
        let peer = upstream(&[("127.0.0.1", 1)]).peer("127.0.0.1:1".parse().unwrap());
        let seconds = |duration: Option<Duration>| duration.unwrap().as_secs();
        assert_eq!(seconds(peer.options.connection_timeout), 1);
        assert_eq!(seconds(peer.options.total_connection_timeout), 2);
        assert_eq!(seconds(peer.options.read_timeout), 2);
        assert_eq!(seconds(peer.options.write_timeout), 3);
        assert_eq!(seconds(peer.options.idle_timeout), 4);
        assert_ne!(peer.group_key, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_appears_late_is_found_by_retrying() {
        let known = Arc::new(AtomicBool::new(false));
        let answer = Arc::clone(&known);
        let lookup: Lookup = Arc::new(move |_, port| {
            let found = answer.load(Ordering::SeqCst);
            Box::pin(async move {
                if found { Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]) } else { Err(std::io::Error::other("no")) }
            })
        });
        let metrics = Metrics::new().unwrap();
        let upstreams = Upstreams::new(&[settings(&[("late.internal", 7)])], &lookup, &metrics);
        let upstream = Arc::clone(upstreams.get("api").unwrap());
        let resolver = Resolver::new(&upstreams);
        resolver.first().await;
        assert_eq!(upstream.pick(), None);
        known.store(true, Ordering::SeqCst);
        let keeper = tokio::spawn(async move { resolver.keep(&upstream).await });
        let upstream = upstreams.get("api").unwrap();
        while upstream.pick().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        keeper.abort();
        assert_eq!(upstream.pick(), Some(SocketAddr::from(([10, 0, 0, 1], 7))));
    }
}
