//! When the server stops.

use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::readiness::Readiness;
use crate::app::Activity;

/// Time for load balancers to notice that we are not ready any more, while requests are still taken.
const LAME_DUCK: Duration = Duration::from_secs(5);
/// Pause between two looks at whether anything is under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So many idle looks in a row, and the process ends before its grace is over.
const IDLE_LOOKS: u32 = 10;

/// SIGTERM: not ready at once, then a graceful stop. SIGINT (Ctrl-C): stop at once. SIGHUP: nothing yet.
pub(super) struct Signals {
    readiness: Readiness,
    activity: Activity,
}

impl Signals {
    pub(super) fn new(readiness: Readiness, activity: Activity) -> Self {
        Self { readiness, activity }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        // Once watched, a signal never has its usual effect again, which for a SIGHUP would be the end.
        if let Ok(hangup) = signal(SignalKind::hangup()) {
            tokio::spawn(answer_hangups(hangup));
        }
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
            () = tokio::time::sleep(LAME_DUCK) => {
                // Pingora sleeps through its whole grace, deaf to signals; this task ends the process before that.
                tokio::spawn(end_early(self.activity.clone(), interrupt));
                ShutdownSignal::GracefulTerminate
            }
        }
    }
}

async fn answer_hangups(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::warn!("SIGHUP: settings are not reloaded yet; restart to change them");
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
