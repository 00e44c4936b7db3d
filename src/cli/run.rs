//! `cloakroom run`: the server.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::check::print_diagnostics;
use super::log::ToLines;
use super::signals::{Signals, write_out};
use super::{FAILED, log};
use crate::app::{App, StartError, addresses};
use crate::config::settings::Settings;
use crate::config::{self, Env};
use crate::listener::Sockets;
use crate::listener::sockets::HAND_OVER_SECONDS;
use crate::primitives::clock::Clock;
use crate::telemetry::{Lines, Metrics, Telemetry};

/// What `run` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The settings file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Take the listening sockets of the running process, which hands them over on SIGQUIT
    #[arg(long)]
    upgrade: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let env = Env::process();
    let loaded = match config::load(&args.config, &env) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_diagnostics(&mistakes);
            eprintln!("{} mistakes in {}; nothing was started", mistakes.errors(), mistakes.file());
            return ExitCode::from(FAILED);
        }
    };
    print_diagnostics(&loaded.warnings);
    let telemetry = match telemetry() {
        Ok(telemetry) => telemetry,
        Err(error) => return cannot_start(&error),
    };
    let lines = telemetry.lines.clone();
    #[cfg(feature = "failpoints")]
    crate::primitives::failpoint::obey_environment();
    let settings = &loaded.settings;
    match sockets(args, settings).and_then(|sockets| App::on(sockets, settings, &Clock::system(), telemetry)) {
        Ok(mut app) => {
            app.watch_settings(&args.config, &loaded.files, env);
            let signals = Signals::new(&app, settings, lines.clone());
            if args.upgrade {
                let socket = settings.shutdown.upgrade_socket.display();
                tracing::info!(%socket, seconds = HAND_OVER_SECONDS, "waiting for the sockets: send the running process SIGQUIT");
            }
            for listener in &settings.listeners {
                tracing::info!(address = %listener.address, tls = listener.tls.is_some(), "listening");
            }
            app.run(Box::new(signals));
            write_out(lines.as_ref());
            ExitCode::SUCCESS
        }
        Err(error) => {
            write_out(lines.as_ref());
            cannot_start(&error)
        }
    }
}

fn cannot_start(error: &StartError) -> ExitCode {
    eprintln!("cloakroom cannot start: {error}");
    ExitCode::from(FAILED)
}

fn sockets(args: &Args, settings: &Settings) -> Result<Sockets, StartError> {
    Ok(if args.upgrade {
        Sockets::handed_over(&settings.shutdown.upgrade_socket, addresses(settings).len())?
    } else {
        Sockets::of_environment()?
    })
}

/// Without `RUST_LOG`: our own news, and of the libraries below only what is wrong.
const FILTER: &str =
    "info,pingora=warn,pingora_core=warn,pingora_proxy=warn,pingora_load_balancing=error,fred=warn,log=warn";

/// JSON lines on standard output; `RUST_LOG` chooses the level.
fn telemetry() -> Result<Telemetry, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let lines = Lines::to(io::stdout(), &metrics).map_err(StartError::Log)?;
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let layer = layer.with_writer(ToLines(lines.clone())).with_filter(log::filter_with_audit(FILTER));
    // A second subscriber is refused, and the first one goes on: nothing to do.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(Telemetry { metrics, lines: Some(lines) })
}
