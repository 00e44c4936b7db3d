//! The command line: one file a subcommand. Exit codes: 0 good, 1 mistakes found or failed, 2 wrong usage.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks through its output")]

mod admin_listener;
mod check;
mod connections;
mod convert;
mod demo;
mod explain;
mod healthcheck;
mod keygen;
mod log;
mod reference;
mod run;
mod sessions;
mod settings;
mod signals;

use std::io::{self, Write as _};
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
    /// Tell what would become of a request, and why
    Explain(explain::Args),
    /// Show what the settings come to
    Config(settings::Args),
    /// Print the JSON schema of the settings, for editors
    Schema,
    /// Print a fresh key for `keys`
    Keygen,
    /// Show or end sessions of a running server
    Sessions(Box<sessions::Args>),
    /// Make settings of those of another program
    Convert(convert::Args),
    /// Ask the running server whether it is ready, for containers
    Healthcheck(healthcheck::Args),
    /// Print what completes this command line in a shell
    Completions(reference::Args),
    /// Print the manual, for man(1)
    Man,
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
        Command::Explain(args) => explain::run(&args),
        Command::Config(args) => settings::run(&args),
        Command::Schema => settings::schema(),
        Command::Keygen => keygen::run(),
        Command::Sessions(args) => sessions::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Completions(args) => reference::completions(&args),
        Command::Man => reference::man(),
    }
}

/// Writes a line to standard output. A reader that has gone away is no reason to panic, as `println!` would.
fn print(line: &str) {
    writeln!(io::stdout().lock(), "{line}").ok();
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
        for (good, line) in [
            (true, "check -c x.yaml --connect"),
            (true, "convert oauth2-proxy x.cfg"),
            (true, "convert ingress-nginx -"),
            (false, "convert nginx x"),
            (true, "explain -c x.yaml GET https://a/ -H A:b --header C:d --format json"),
            (false, "explain -c x.yaml GET"),
            (true, "config show --effective -c x.yaml --format json"),
            (true, "config show -c x.yaml"),
            (false, "config"),
            (false, "config show"),
            (true, "healthcheck -c x.yaml --live"),
            (true, "healthcheck --admin http://127.0.0.1:9090"),
            (false, "healthcheck"),
            (false, "healthcheck -c x.yaml --admin http://x"),
            (true, "completions zsh"),
            (false, "completions dash"),
            (true, "man"),
        ] {
            let outcome = CommandLine::try_parse_from(format!("cloakroom {line}").split(' '));
            assert_eq!(outcome.is_ok(), good, "{line}");
        }
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
