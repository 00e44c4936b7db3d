//! When the server stops.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ExecutionPhase, ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;

use crate::admin::readiness::Readiness;
use crate::app::{Activity, App, addresses, tell_service_manager};
use crate::config::settings::Settings;
use crate::listener::{SocketsError, sockets};
use crate::telemetry::Lines;

/// Pause between two looks at whether anything is under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So many idle looks in a row, and the process ends before its grace is over.
const IDLE_LOOKS: u32 = 10;
/// Longest wait for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long after SIGQUIT a new process may take to ask for the sockets.
const WAIT_FOR_SUCCESSOR: Duration = Duration::from_secs(5);

/// SIGTERM: not ready at once, then a graceful stop. SIGQUIT: the same after the sockets have gone to a new process, if
/// one waits for them. SIGINT (Ctrl-C): stop at once. SIGHUP is left to whoever reads the settings.
pub(super) struct Signals {
    readiness: Readiness,
    activity: Activity,
    /// What the server is about to do.
    phases: broadcast::Receiver<ExecutionPhase>,
    /// Time for load balancers to notice that we are not ready any more, while requests are still taken. In its second half
    /// clients are sent away.
    lame_duck: Duration,
    upgrade_socket: PathBuf,
    listeners: usize,
    /// To be written out before the end.
    lines: Option<Lines>,
}

impl Signals {
    pub(super) fn new(app: &App, settings: &Settings, lines: Option<Lines>) -> Self {
        let listeners = addresses(settings).len();
        let settings = &settings.shutdown;
        Self {
            listeners,
            lines,
            readiness: app.readiness().clone(),
            activity: app.activity(),
            phases: app.phases(),
            lame_duck: settings.lame_duck,
            upgrade_socket: settings.upgrade_socket.clone(),
        }
    }

    /// Whether a process is there that can take our sockets. Pingora stops in any case once it has begun to send them.
    fn successor(&self) -> Result<(), String> {
        if self.listeners > sockets::MOST {
            return Err(SocketsError::Many(self.listeners).to_string());
        }
        sockets::is_awaited(&self.upgrade_socket)
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        // Once watched, a signal never has its usual effect again, which for a SIGHUP would be the end.
        let _hangup = signal(SignalKind::hangup());
        let watched = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)] = watched else {
            tracing::error!("signals cannot be watched; stop the process by SIGKILL");
            return std::future::pending().await;
        };
        let mut asked = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = terminate.recv() => break,
                _ = quit.recv() => asked = Some(Instant::now()),
                () = tokio::time::sleep(LOOK_EVERY), if asked.is_some() => {}
            }
            let Some(since) = asked else { continue };
            match self.successor() {
                Ok(()) => {
                    tracing::info!("SIGQUIT: the sockets go to a new process");
                    self.activity.stopping();
                    let (activity, phases) = (self.activity.clone(), self.phases.resubscribe());
                    tokio::spawn(end_after_hand_over(activity, phases, interrupt, self.lines.clone()));
                    return ShutdownSignal::GracefulUpgrade;
                }
                // It may just be starting.
                Err(_) if since.elapsed() < WAIT_FOR_SUCCESSOR => {}
                Err(problem) => {
                    asked = None;
                    tracing::error!(%problem, "SIGQUIT: serving on");
                }
            }
        }
        self.readiness.drain();
        self.activity.stopping();
        tell_service_manager(&[NotifyState::Stopping]);
        tracing::info!(lame_duck = ?self.lame_duck, "SIGTERM: not ready any more, still serving");
        let lame_duck = async {
            tokio::time::sleep(self.lame_duck / 2).await;
            self.activity.send_away();
            tokio::time::sleep(self.lame_duck / 2).await;
        };
        tokio::select! {
            _ = interrupt.recv() => ShutdownSignal::FastShutdown,
            () = lame_duck => {
                // Pingora sleeps through its whole grace, deaf to signals; this task ends the process before that.
                tokio::spawn(end_early(self.activity.clone(), interrupt, self.lines.clone()));
                ShutdownSignal::GracefulTerminate
            }
        }
    }
}

/// Until the new process has had time to begin, this one serves as before, and is never idle for good.
async fn end_after_hand_over(
    activity: Activity,
    mut phases: broadcast::Receiver<ExecutionPhase>,
    mut interrupt: Signal,
    lines: Option<Lines>,
) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => end(lines.as_ref()),
            phase = phases.recv() => match phase {
                Ok(ExecutionPhase::GracefulUpgradeCloseTimeout) => activity.send_away(),
                Ok(ExecutionPhase::ShutdownStarted) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
    end_early(activity, interrupt, lines).await;
}

/// Ends the process when nothing has been under way for a while, or on SIGINT.
async fn end_early(activity: Activity, mut interrupt: Signal, lines: Option<Lines>) {
    let mut idle = 0;
    while idle < IDLE_LOOKS {
        idle = if activity.is_idle() { idle + 1 } else { 0 };
        tokio::select! {
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    tracing::info!("stopped");
    end(lines.as_ref());
}

fn end(lines: Option<&Lines>) -> ! {
    write_out(lines);
    std::process::exit(0);
}

/// Before the end of the process: what was logged is written. Whoever reads it and has stopped does not keep us.
pub(super) fn write_out(lines: Option<&Lines>) {
    if let Some(lines) = lines {
        lines.flush(LAST_LINES);
    }
}
