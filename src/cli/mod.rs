//! The command line: one file a subcommand. Exit codes: 0 good, 1 mistakes found or failed, 2 wrong usage.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks through its output")]

mod check;
mod demo;
mod keygen;
mod log;
mod run;
mod sessions;
mod signals;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Something is wrong with what was looked at.
const FAILED: u8 = 1;
/// Something is wrong with how the command was called.
const WRONG_USAGE: u8 = 2;

/// The edge proxy that keeps OAuth tokens out of the browser.
#[derive(Debug, Parser)]
#[command(name = "cloakroom", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine to see it work: provider, API, page and proxy
    Demo(demo::Args),
    /// Start the server
    Run(run::Args),
    /// Look a settings file over and tell every mistake in it
    Check(check::Args),
    /// Print a fresh key for `keys`
    Keygen,
    /// Show or end sessions of a running server
    Sessions(Box<sessions::Args>),
}

/// Runs the command of this process's command line.
#[must_use]
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version come this way too; a closed pipe is nobody's mistake.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match line.command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Keygen => keygen::run(),
        Command::Sessions(args) => sessions::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
        assert!(CommandLine::try_parse_from(["cloakroom", "check", "-c", "x.yaml", "--format", "json"]).is_ok());
        assert!(CommandLine::try_parse_from(["cloakroom", "check"]).is_err());
        assert!(CommandLine::try_parse_from(["cloakroom", "keygen", "extra"]).is_err());
        let sessions = |line: &str| CommandLine::try_parse_from(format!("cloakroom sessions {line}").split(' '));
        for good in [
            "list --user u -c f",
            "revoke --provider-session s --provider p --admin http://x:1 --json",
            "revoke --id k --admin http://x:1 --token-file t",
            "list --user u --admin http://x:1 --token-env T",
        ] {
            assert!(sessions(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "list",
            "revoke -c f",
            "revoke --user u",
            "revoke --user u --id k -c f",
            "list --user u -c f --admin http://x",
            "list --id k --provider p -c f",
            "list --user u -c f --token-env T",
        ] {
            assert!(sessions(wrong).is_err(), "{wrong}");
        }
    }
}
