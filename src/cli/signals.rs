//! When the server stops.

use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::readiness::Readiness;
use crate::app::Activity;

/// Pause between two looks at whether anything is under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So many idle looks in a row, and the process ends before its grace is over.
const IDLE_LOOKS: u32 = 10;

/// SIGTERM: not ready at once, then a graceful stop. SIGINT (Ctrl-C): stop at once. SIGHUP is left to whoever reads the
/// settings.
pub(super) struct Signals {
    readiness: Readiness,
    activity: Activity,
    /// Time for load balancers to notice that we are not ready any more, while requests are still taken.
    lame_duck: Duration,
}

impl Signals {
    pub(super) fn new(readiness: Readiness, activity: Activity, lame_duck: Duration) -> Self {
        Self { readiness, activity, lame_duck }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        // Once watched, a signal never has its usual effect again, which for a SIGHUP would be the end.
        let _hangup = signal(SignalKind::hangup());
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
        self.activity.stopping();
        tracing::info!(lame_duck = ?self.lame_duck, "SIGTERM: not ready any more, still serving");
        tokio::select! {
            _ = interrupt.recv() => ShutdownSignal::FastShutdown,
            () = tokio::time::sleep(self.lame_duck) => {
                // Pingora sleeps through its whole grace, deaf to signals; this task ends the process before that.
                tokio::spawn(end_early(self.activity.clone(), interrupt));
                ShutdownSignal::GracefulTerminate
            }
        }
    }
}

/// Ends the process when nothing has been under way for a while, or on SIGINT.
async fn end_early(activity: Activity, mut interrupt: Signal) {
    let mut idle = 0;
    while idle < IDLE_LOOKS {
        idle = if activity.is_idle() { idle + 1 } else { 0 };
        tokio::select! {
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    tracing::info!("stopped");
    std::process::exit(0);
}
