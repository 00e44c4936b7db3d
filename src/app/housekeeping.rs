//! Work in the background that no request waits for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use sd_notify::NotifyState;

use super::{memory, tell_service_manager};
use crate::admin::readiness::Latch;
use crate::config::settings;
use crate::grants::Grants;
use crate::listener::{Overload, until_listening};
use crate::provider::Provider;
use crate::refresh::background::Background;
use crate::session::manager::Sessions;
use crate::session::touches::TouchWriter;
use crate::session::upkeep::Conflicts;
use crate::store::SessionStore;
use crate::telemetry::Metrics;

/// How often values that nobody reports are read.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Pause between signs of life asked of a store that has not given one yet.
const PING_EVERY: Duration = Duration::from_millis(500);

/// Work that no request waits for.
pub(super) struct Housekeeping {
    pub(super) listeners: Vec<settings::Listener>,
    pub(super) listening: Latch,
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) reached: Latch,
    pub(super) sessions: Arc<Sessions>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) providers: Vec<Arc<Provider>>,
    pub(super) touches: Mutex<Option<TouchWriter>>,
    pub(super) conflicts: Conflicts,
    pub(super) background: Background,
    pub(super) grants: Arc<Grants>,
    pub(super) overload: Overload,
}

impl Housekeeping {
    async fn watch_start(&self) {
        let listeners = async {
            until_listening(&self.listeners).await;
            self.listening.release();
            tell_service_manager(&[NotifyState::Ready]);
        };
        let store = async {
            while let Err(error) = self.store.ping().await {
                tracing::warn!(%error, "the session store gives no sign of life yet");
                tokio::time::sleep(PING_EVERY).await;
            }
            self.reached.release();
            for warning in self.store.warnings().await {
                tracing::warn!(warning, "the session store is not set up as it should be");
            }
        };
        tokio::join!(listeners, store);
        tracing::info!("ready");
    }

    async fn sample(&self) {
        loop {
            let (entries, bytes) = self.sessions.cached();
            self.metrics.session_cache_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
            self.metrics.session_cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            for provider in &self.providers {
                let open = i64::from(provider.breaker().is_open());
                self.metrics.idp_breaker_open.with_label_values(&[&**provider.name()]).set(open);
            }
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }
}

#[async_trait]
impl BackgroundService for Housekeeping {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let touches = self.touches.lock().unwrap_or_else(PoisonError::into_inner).take();
        let write_touches = async {
            if let Some(writer) = touches {
                writer.run().await;
            }
        };
        let maintain = join_all(self.providers.iter().map(|provider| provider.maintain()));
        // As long as the runtime lives: whoever is still served during the grace may be logged out elsewhere.
        let (sessions, changes) = (self.sessions.clone(), self.store.changes());
        tokio::spawn(async move { sessions.listen(changes).await });
        let mut stop = shutdown.clone();
        let refresh = self.background.run(async move {
            // An error means that the server is gone altogether.
            let _ = stop.wait_for(|down| *down).await;
        });
        let count = self.sessions.keep_count(&self.metrics);
        let compare = self.sessions.compare_keys(&self.conflicts);
        let give_back = memory::give_back(&self.sessions, &self.overload);
        let upkeep = async { tokio::join!(self.watch_start(), self.sample(), count, compare, give_back) };
        let work = async {
            let work = async { tokio::join!(upkeep, write_touches, maintain, self.grants.keep()) };
            tokio::select! {
                _ = work => {}
                _ = shutdown.wait_for(|down| *down) => {}
            }
        };
        // The refresher ends by itself, once it has handed over what it has claimed.
        tokio::join!(work, refresh);
    }
}
