//! The composition root: settings -> parts -> services -> a running server.

mod assembly;
mod housekeeping;
mod memory;
pub mod probe;
pub mod reload;
mod settings_file;
mod spans;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use pingora::prelude::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{ExecutionPhase, RunArgs, ShutdownSignalWatch};
use pingora::services::background::background_service;
use pingora_proxy::http_proxy;
use sd_notify::NotifyState;
use tokio::sync::{broadcast, watch};

pub use self::assembly::lone_gate;

use self::assembly::Assembly;
use self::housekeeping::Housekeeping;
use self::reload::Reloader;
use crate::admin;
use crate::admin::readiness::Readiness;
use crate::config::Env;
use crate::config::settings::{self, Settings, Store};
use crate::listener::tls::{TlsError, install_crypto_provider};
use crate::listener::{Edge, Overload, Sockets, SocketsError, Trusted, overload};
use crate::oidc::SetupError;
use crate::oidc::http::BuildError;
use crate::primitives::clock::Clock;
use crate::proxy::Proxy;
use crate::refresh::background::Background;
use crate::refresh::{Refresher, Unsettled};
use crate::routing::table::TableError;
use crate::routing::upstream::Upstreams;
use crate::session::key_ring::KeyRingError;
use crate::session::proxy_token::BadKey;
use crate::session::upkeep::Conflicts;
use crate::store::SessionStore;
use crate::store::file::{FileStore, FileStoreError};
use crate::store::memory::MemoryStore;
use crate::store::metered::Metered;
use crate::store::postgres::{PostgresAddressError, PostgresStore};
use crate::store::redis::{AddressError, RedisStore};
use crate::telemetry::traces::{Exporter, Target};
use crate::telemetry::{Metrics, Telemetry};

/// Attempts of one request at an upstream: as many as its settings may ask for, one more with a newer token, and one
/// with the upstream's nonce in the proof.
const ATTEMPTS: usize = settings::MOST_ATTEMPTS + 2;
/// Idle connections to upstreams, a thread, where the settings say nothing.
const IDLE: usize = 1024;
/// How long Pingora waits for threads to end after that; ours have nothing to wait for.
const THREADS_SECONDS: u64 = 5;

/// The program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key of `keys` is unusable.
    #[error("keys: {0}")]
    Keys(#[from] KeyRingError),
    /// A key of `proxy_token.keys` is unusable.
    #[error(transparent)]
    ProxyKeys(#[from] BadKey),
    /// `store.url` is unusable.
    #[error("store.url: {0}")]
    StoreAddress(#[from] AddressError),
    /// `store.url` or `store.schema` of a PostgreSQL is unusable.
    #[error(transparent)]
    Postgres(#[from] PostgresAddressError),
    /// The file of the sessions cannot be used.
    #[error(transparent)]
    File(#[from] FileStoreError),
    /// The HTTP client of a provider could not be made.
    #[error("provider {0}: {1}")]
    Client(Arc<str>, BuildError),
    /// A provider's settings are unusable.
    #[error("provider {0}: {1}")]
    Provider(Arc<str>, SetupError),
    /// Sites and upstreams do not fit together.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A certificate is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket cannot be opened.
    #[error("cannot listen on {0}: {1}. Is another program using the port? Choose another address in the settings.")]
    Bind(SocketAddr, std::io::Error),
    /// Sockets that are open already cannot be used.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// The client that sends traces cannot be made.
    #[error("telemetry.traces: {0}")]
    Traces(String),
    /// The thread that writes the log does not start.
    #[error("the log cannot be written: {0}")]
    Log(#[source] std::io::Error),
    /// Two metrics share a name: a defect.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Everything put together, nothing started yet.
pub struct App {
    server: Server,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    refresher: Arc<Refresher>,
    reloader: Arc<Reloader>,
    leave: watch::Sender<bool>,
}

/// Tells whether anything is under way.
#[derive(Clone)]
pub struct Activity {
    metrics: Arc<Metrics>,
    refresher: Weak<Refresher>,
    unsettled: Unsettled,
    leave: watch::Sender<bool>,
    /// Holders of the refresher while nothing is under way.
    holders: usize,
}

impl Activity {
    /// The process is about to stop, and whoever looks at the metrics should know.
    pub fn stopping(&self) {
        self.metrics.draining.set(1);
    }

    /// Clients are told not to come back on the connection they have. Whoever asks for something before the server stops moves on
    /// in good order, and is not just writing its next request when the connection ends.
    pub fn send_away(&self) {
        self.leave.send_replace(true);
    }

    /// No connection, no request, and no refresh whose tokens would be lost: each refresh runs in a task of its own,
    /// which holds the refresher until the tokens are stored. Nor one whose intent would be left behind: it passes for
    /// that of an owner that died, and its token for used up.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let no_refresh = self.refresher.strong_count() <= self.holders && self.unsettled.is_nothing();
        self.metrics.nothing_under_way() && no_refresh
    }
}

impl App {
    /// Puts everything together. Opens no connection; a store or provider that is down is no obstacle.
    ///
    /// # Errors
    /// [`StartError`] with the setting that is to blame.
    pub fn new(settings: &Settings, clock: &Clock) -> Result<Self, StartError> {
        Self::on(Sockets::Own, settings, clock, Telemetry::quiet()?)
    }

    /// The same with sockets that are open already, and with a place for its lines.
    ///
    /// # Errors
    /// As [`App::new`].
    pub fn on(sockets: Sockets, settings: &Settings, clock: &Clock, telemetry: Telemetry) -> Result<Self, StartError> {
        install_crypto_provider();
        let store = store(&settings.store, clock, &telemetry.metrics)?;
        Self::over(store, sockets, settings, clock, telemetry)
    }

    /// The same over a store of the caller's, whatever the settings say of one.
    ///
    /// # Errors
    /// As [`App::new`].
    pub fn with_store(store: impl SessionStore, settings: &Settings, clock: &Clock) -> Result<Self, StartError> {
        install_crypto_provider();
        let telemetry = Telemetry::quiet()?;
        let store = Arc::new(Metered::new(store, telemetry.metrics.clone()));
        Self::over(store, Sockets::Own, settings, clock, telemetry)
    }

    fn over(
        store: Arc<dyn SessionStore>,
        sockets: Sockets,
        settings: &Settings,
        clock: &Clock,
        Telemetry { metrics, lines }: Telemetry,
    ) -> Result<Self, StartError> {
        let readiness = Readiness::new();
        check_addresses(settings, &sockets)?;
        let Assembly { parts, upstreams, revoker, touches } =
            Assembly::new(settings, store.clone(), clock, &metrics, lines, overload::mark(settings.limits.memory))?;
        let (sessions, providers, refresher, grants, tracer) = (
            parts.sessions.clone(),
            parts.providers.clone(),
            parts.refresher.clone(),
            parts.grants.clone(),
            parts.tracer.clone(),
        );
        let gate = Arc::new(ArcSwap::from_pointee(parts.gate(settings, &upstreams, None)?));
        let (change, current) = watch::channel(upstreams);
        let shown = current.clone();
        readiness.inform("upstreams", move || shown.borrow().report());
        let running = tokio::sync::Mutex::new(settings.clone());
        let trusted: Trusted = Arc::new(ArcSwap::from_pointee(settings.trusted_proxies.clone()));
        let reloader =
            Arc::new(Reloader { parts, gate: gate.clone(), trusted: trusted.clone(), upstreams: change, running });
        settings_file::loaded(&metrics, true);

        let upgrade = matches!(sockets, Sockets::HandedOver(_));
        let options = Opt { upgrade, ..Opt::default() };
        let mut server = Server::new_with_opt_and_conf(options, server_conf(settings));
        let (limits, overload) = (&settings.limits, Overload::default());
        let proxy = Proxy::new(gate, limits.clone(), overload.clone());
        let proxy = Arc::new(http_proxy(&server.configuration, proxy));
        let (leave, leaving) = watch::channel(false);
        let (edge, upkeep) = Edge::new(proxy, &settings.listeners, &trusted, &leaving, limits, &overload, &metrics)?;
        for provider in providers.values() {
            let provider = provider.clone();
            let name = format!("provider {}", provider.name());
            readiness.inform(name, move || (provider.is_ready(), provider.status()));
        }
        let conflicts = Conflicts::default();
        let report = conflicts.clone();
        readiness.inform("keys", move || report.report());
        let housekeeping = Housekeeping {
            listeners: settings.listeners.clone(),
            listening: readiness.latch("listeners"),
            store,
            reached: readiness.latch("store"),
            sessions,
            metrics: metrics.clone(),
            providers: providers.into_values().collect(),
            touches: Mutex::new(Some(touches)),
            conflicts,
            background: Background::new(refresher.clone(), settings.refresh.active_within),
            grants,
            overload,
        };
        let listening = server.add_service(edge.into_service());
        server.add_service(background_service("upkeep of listeners", upkeep));
        server.add_service(Upstreams::service(current));
        server.add_service(background_service("housekeeping", housekeeping));
        if let (Some(tracer), Some(traces)) = (tracer, &settings.telemetry.traces) {
            let target = Target { url: traces.endpoint.clone(), service: traces.service_name.clone() };
            let exporter = Exporter::new(tracer, target, &metrics).map_err(StartError::Traces)?;
            server.add_service(background_service("traces", spans::Spans(Arc::new(exporter))));
        }
        let admin = settings.admin.as_ref().map(|admin| {
            server.add_service(admin::server::service(admin, readiness.clone(), metrics.clone(), revoker))
        });
        if let Sockets::Given(mut given) = sockets {
            for address in given.keep(&addresses(settings)) {
                let help = "add it to `listeners`, or take it out of the .socket unit";
                tracing::warn!(%address, help, "a socket was given that no listener of the settings has");
            }
            let given = server.add_service(given);
            listening.add_dependency(&given);
            if let Some(admin) = admin {
                admin.add_dependency(&given);
            }
        }
        Ok(Self { server, readiness, metrics, refresher, reloader, leave })
    }

    /// Whether traffic may come.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// All metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether anything is under way, also while the server runs.
    #[must_use]
    pub fn activity(&self) -> Activity {
        // `run` gives up the holder in `self`; the gate and what makes new ones hold it as long as the server runs.
        let holders = Arc::strong_count(&self.refresher).saturating_sub(1);
        let (refresher, unsettled) = (Arc::downgrade(&self.refresher), self.refresher.unsettled());
        Activity { metrics: self.metrics.clone(), refresher, unsettled, leave: self.leave.clone(), holders }
    }

    /// What the server is about to do.
    #[must_use]
    pub fn phases(&self) -> broadcast::Receiver<ExecutionPhase> {
        self.server.watch_execution_phase()
    }

    /// Applies new settings while the server runs.
    #[must_use]
    pub fn reloader(&self) -> Arc<Reloader> {
        self.reloader.clone()
    }

    /// Reads the settings again whenever `path` or one of `files`, from which they were completed, changes, and on SIGHUP.
    pub fn watch_settings(&mut self, path: &Path, files: &[PathBuf], env: Env) {
        let watch = settings_file::Watch {
            path: path.to_path_buf(),
            files: files.to_vec(),
            env,
            reloader: self.reloader.clone(),
            metrics: self.metrics.clone(),
        };
        self.server.add_service(background_service("settings", watch));
    }

    /// Serves until the signal comes.
    pub fn run(self, shutdown_signal: Box<dyn ShutdownSignalWatch>) {
        let Self { mut server, refresher, reloader, .. } = self;
        drop(refresher);
        // Only now: once the sockets are here, the process that had them is on its way out.
        server.bootstrap();
        server.run(RunArgs { shutdown_signal });
        // Not before: it is one of the holders that `activity` counts.
        drop(reloader);
    }
}

fn server_conf(settings: &Settings) -> ServerConf {
    ServerConf {
        threads: settings.threads.get(),
        max_retries: ATTEMPTS,
        grace_period_seconds: Some(settings.shutdown.grace.as_secs()),
        graceful_shutdown_timeout_seconds: Some(THREADS_SECONDS),
        // For each thread.
        upstream_keepalive_pool_size: settings
            .idle_connections
            .map_or(IDLE, |all| all.div_ceil(settings.threads.get())),
        upgrade_sock: settings.shutdown.upgrade_socket.to_string_lossy().into_owned(),
        ..ServerConf::default()
    }
}

/// Where the process listens.
pub(crate) fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    let public = settings.listeners.iter().map(|listener| listener.address);
    public.chain(settings.admin.as_ref().map(|admin| admin.address)).collect()
}

/// Pingora ends the process when a socket cannot be bound; this tells why before it does.
fn check_addresses(settings: &Settings, sockets: &Sockets) -> Result<(), StartError> {
    for address in addresses(settings) {
        sockets.try_out(address).map_err(|error| StartError::Bind(address, error))?;
    }
    Ok(())
}

fn store(settings: &Store, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Arc<dyn SessionStore>, StartError> {
    Ok(match settings {
        Store::Memory => Arc::new(Metered::new(MemoryStore::new(clock.clone()), metrics.clone())),
        Store::Redis(redis) => Arc::new(Metered::new(RedisStore::new(redis, clock.clone())?, metrics.clone())),
        Store::Postgres(postgres) => {
            Arc::new(Metered::new(PostgresStore::new(postgres, clock.clone())?, metrics.clone()))
        }
        Store::File(file) => Arc::new(Metered::new(FileStore::open(file, clock.clone())?, metrics.clone())),
    })
}

/// Tells systemd, if it wants to know, as sd_notify(3) has it.
pub(crate) fn tell_service_manager(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)");
    }
}
