//! Work in the background for the public listeners: certificates that change, memory that runs out.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::certificates::Expiry;
use super::overload::Watch;
use super::tls::Tls;
use crate::telemetry::metrics::Metrics;

/// Pause between two looks at certificate files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that ends so soon is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// The background work; ends with the server.
pub struct Upkeep {
    sockets: Vec<(String, Arc<Tls>)>,
    memory: std::sync::Mutex<Option<Watch>>,
    metrics: Arc<Metrics>,
}

impl Upkeep {
    /// `sockets` are named as in metrics.
    pub(super) fn new(sockets: Vec<(String, Arc<Tls>)>, memory: Watch, metrics: Arc<Metrics>) -> Self {
        Self { sockets, memory: std::sync::Mutex::new(Some(memory)), metrics }
    }

    /// Looks at the certificates of every listener.
    async fn certificates(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (listener, tls) in &self.sockets {
                let counted =
                    |result: &str| self.metrics.tls_reloads_total.with_label_values(&[&**listener, result]).inc();
                match tls.reload() {
                    None => {}
                    Some(Ok(expiries)) => {
                        counted("ok");
                        tracing::info!(listener, "changed certificates are in use for new connections");
                        tell(&expiries, &self.metrics);
                    }
                    Some(Err(error)) => {
                        counted("error");
                        tracing::error!(listener, %error, "changed certificates cannot be used; the old ones stay");
                    }
                }
            }
        }
    }
}

/// Puts the ends of certificates into the metrics, and into the log if they are near.
pub(super) fn tell(expiries: &[Expiry], metrics: &Metrics) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for Expiry { file, not_after } in expiries {
        let seconds = i64::try_from(*not_after).unwrap_or(i64::MAX);
        metrics.tls_certificate_not_after_timestamp_seconds.with_label_values(&[&*name(file)]).set(seconds);
        if Duration::from_secs(*not_after) < now + SOON {
            let days = not_after.saturating_sub(now.as_secs()) / (24 * 3600);
            tracing::warn!(file = %file.display(), days, "a certificate ends soon or has ended; renew it");
        }
    }
}

fn name(file: &Path) -> std::borrow::Cow<'_, str> {
    file.to_string_lossy()
}

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let memory = self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let memory = async {
            if let Some(watch) = memory {
                watch.run(&self.metrics).await;
            }
        };
        let work = async { tokio::join!(self.certificates(), memory) };
        tokio::select! {
            _ = work => {}
            _ = shutdown.wait_for(|down| *down) => {}
        }
    }
}
