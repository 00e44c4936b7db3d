//! Spans are sent for as long as the runtime lives: requests go on during the grace of a stop.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use crate::telemetry::traces::Exporter;

/// Sends spans in the background.
pub(super) struct Spans(pub(super) Arc<Exporter>);

#[async_trait]
impl BackgroundService for Spans {
    async fn start(&self, _: ShutdownWatch) {
        let exporter = self.0.clone();
        tokio::spawn(async move { exporter.run().await });
    }
}
