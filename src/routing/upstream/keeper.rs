//! Keeps upstreams up to date: looks names up, and runs the health checks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::join_all;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::{BackgroundService, GenBackgroundService, background_service};
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::{Backend, Backends};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::health::Checker;
use super::{Upstream, Upstreams};
use crate::config::settings::{self, HealthCheck};
use crate::primitives::random;
use crate::routing::discovery::{self, Endpoints, Lookup};
use crate::telemetry::metrics::Metrics;

/// How often names are looked up.
const REFRESH_EVERY: Duration = Duration::from_secs(15);
/// How often names are looked up while an upstream has no address at all, or was never asked for.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How long a start or a change waits for the first answers; after that it goes on without them.
const FIRST_DEADLINE: Duration = Duration::from_secs(5);

/// An upstream with what finds and checks its addresses.
pub(super) struct Membership {
    settings: settings::Upstream,
    upstream: Arc<Upstream>,
    endpoints: Arc<Endpoints>,
    backends: Backends,
    /// Every endpoint is an address, so that looking again changes nothing.
    fixed: bool,
    /// The names were asked for, whatever came of it.
    asked: AtomicBool,
}

impl Membership {
    /// `before` had the name until now. What it knows of addresses holds until the name service has answered: it may be away
    /// just now.
    pub(super) fn new(
        settings: &settings::Upstream,
        lookup: Lookup,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let endpoints = Arc::new(Endpoints::new(settings, lookup));
        let (fixed, upstream) = (endpoints.is_fixed(), Arc::new(Upstream::new(settings, metrics)));
        if let Some(before) = before {
            endpoints.learn(&before.endpoints);
            upstream.replace(endpoints.known());
        }
        let mut backends = Backends::new(Box::new(Discovery(Arc::clone(&endpoints))));
        if let Some(check) = &settings.health_check {
            let checker = Checker { upstream: Arc::downgrade(&upstream), settings: check.clone() };
            backends.set_health_check(Box::new(checker));
        }
        let (settings, asked) = (settings.clone(), AtomicBool::new(false));
        let membership = Self { settings, upstream, endpoints, backends, fixed, asked };
        if fixed {
            // Without names the discovery never waits, so one poll completes it.
            let _ = membership.refresh().now_or_never();
        }
        Arc::new(membership)
    }

    /// Whether it is what these settings ask for. How often requests are sent again may change while all else stays.
    pub(super) fn serves(&self, settings: &settings::Upstream) -> bool {
        settings::Upstream { retries: settings.retries, ..self.settings.clone() } == *settings
    }

    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Whether it has no address yet, or only such as were known before.
    fn is_new(&self) -> bool {
        !self.asked.load(Ordering::Relaxed) || self.upstream.targets.load().list().is_empty()
    }

    /// Looks all names up once. On failure the old addresses stay.
    async fn refresh(&self) {
        let mut found = None;
        if let Err(error) = self.backends.update(|backends| found = Some(backends)).await {
            tracing::warn!(upstream = %self.upstream.name(), %error, "upstream has no new addresses");
        }
        self.asked.store(true, Ordering::Relaxed);
        let Some(found) = found else { return };
        let targets: Vec<_> = found.iter().filter_map(discovery::target).collect();
        tracing::info!(upstream = %self.upstream.name(), addresses = targets.len(), "upstream has new addresses");
        self.upstream.replace(targets);
    }

    /// Keeps it up to date for ever.
    async fn keep(&self) {
        tokio::join!(self.keep_names(), self.keep_health());
    }

    async fn keep_names(&self) {
        if self.fixed {
            return;
        }
        loop {
            tokio::time::sleep(if self.is_new() { RETRY_EVERY } else { REFRESH_EVERY }).await;
            self.refresh().await;
        }
    }

    async fn keep_health(&self) {
        let Some(HealthCheck { interval, .. }) = self.settings.health_check else { return };
        loop {
            self.backends.run_health_check(true).await;
            tokio::time::sleep(random::jittered(interval)).await;
        }
    }
}

/// The endpoints as Pingora wants them.
struct Discovery(Arc<Endpoints>);

#[async_trait]
impl ServiceDiscovery for Discovery {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        self.0.discover().await
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.upstream.fmt(f)
    }
}

impl Upstreams {
    /// Looks up every name of upstreams that are new or have no address yet, once, for at most five seconds.
    pub async fn find_first(&self) {
        let new = self.0.values().filter(|membership| membership.is_new());
        let all = join_all(new.map(|membership| membership.refresh()));
        if tokio::time::timeout(FIRST_DEADLINE, all).await.is_err() {
            tracing::warn!("going on although not all upstream names are resolved");
        }
    }

    /// The background service that keeps addresses up to date, to be added to the server; also those of upstreams that
    /// come through the channel. It is ready when each upstream was looked up once, or after five seconds. One thread
    /// serves them all; Pingora gives each background service a runtime of its own.
    #[must_use]
    pub fn service(upstreams: watch::Receiver<Self>) -> GenBackgroundService<Keeper> {
        background_service("upstream addresses", Keeper { upstreams })
    }
}

/// Keeps the addresses of upstreams up to date.
#[derive(Debug)]
pub struct Keeper {
    upstreams: watch::Receiver<Upstreams>,
}

/// The work for one upstream, which ends with this.
struct Work(Arc<Membership>, JoinHandle<()>);

impl Drop for Work {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Keeps all of them, and those that come in their place, for ever.
pub(super) async fn keep_all(mut upstreams: watch::Receiver<Upstreams>) {
    let mut work: HashMap<Arc<str>, Work> = HashMap::new();
    loop {
        let now = upstreams.borrow_and_update().clone();
        work.retain(|name, work| now.0.get(name).is_some_and(|new| Arc::ptr_eq(new, &work.0)));
        for (name, membership) in now.0 {
            work.entry(name).or_insert_with(|| {
                let kept = Arc::clone(&membership);
                Work(membership, tokio::spawn(async move { kept.keep().await }))
            });
        }
        if upstreams.changed().await.is_err() {
            // Nobody can change them any more.
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start_with_ready_notifier(&self, mut shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        let upstreams = self.upstreams.borrow().clone();
        upstreams.find_first().await;
        drop(upstreams);
        ready.notify_ready();
        tokio::select! {
            () = keep_all(self.upstreams.clone()) => {}
            _ = shutdown.wait_for(|down| *down) => {}
        }
    }
}
