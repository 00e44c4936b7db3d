//! When the server stops.

use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::readiness::Readiness;

/// Time for load balancers to notice that we are not ready any more, while requests are still taken.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// SIGTERM: not ready at once, then a graceful stop. SIGINT (Ctrl-C): stop at once.
pub(super) struct Signals {
    readiness: Readiness,
}

impl Signals {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self { readiness }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            tracing::error!("signals cannot be watched; stop the process by SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
            _ = terminate.recv() => {}
        }
        self.readiness.drain();
        tracing::info!(seconds = LAME_DUCK.as_secs(), "SIGTERM: not ready any more, still serving");
        tokio::select! {
            _ = interrupt.recv() => ShutdownSignal::FastShutdown,
            () = tokio::time::sleep(LAME_DUCK) => ShutdownSignal::GracefulTerminate,
        }
    }
}
