//! `cloakroom explain`: what would become of a request, and why. Nothing is sent anywhere.

mod facts;
mod question;
mod route;
mod text;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use self::question::Question;
use super::check::{Format, print_diagnostics};
use super::{FAILED, WRONG_USAGE, print};
use crate::config::{self, Env};

/// What `explain` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The settings file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Method of the request, for example GET
    method: String,
    /// Its address, for example https://app.example.com/api/orders
    url: String,
    /// A header field of it, for example "Accept: text/html"; as often as needed
    #[arg(short = 'H', long, value_name = "NAME:VALUE")]
    header: Vec<String>,
    /// The listener that it comes to; without it the one that fits the address
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<SocketAddr>,
    /// How to tell
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let question = match Question::parse(&args.method, &args.url, &args.header) {
        Ok(question) => question,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let loaded = match config::load(&args.config, &Env::process()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_diagnostics(&mistakes);
            eprintln!("{} mistakes in {}: mend them first", mistakes.errors(), mistakes.file());
            return ExitCode::from(FAILED);
        }
    };
    match facts::found(&loaded.settings, &question, args.listener) {
        Ok(facts) => {
            match args.format {
                Format::Text => print(&text::told(&facts)),
                Format::Json => print(&facts.to_string()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests;
