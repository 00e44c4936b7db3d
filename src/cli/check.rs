//! `cloakroom check`: every mistake of a settings file, with its place and the next step.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use super::{FAILED, connections, print};
use crate::app::probe::Probed;
use crate::config::settings::Settings;
use crate::config::{self, Diagnostics, Env, Loaded};

/// What `check` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The settings file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Also try to reach what the settings name: providers, store, upstreams; and look at certificates
    #[arg(long)]
    connect: bool,
    /// How to tell
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How to tell what was found.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs: one JSON object
    Json,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let outcome = config::load(&args.config, &Env::process());
    let looked = match &outcome {
        Ok(loaded) if args.connect => match connections::look(&loaded.settings) {
            Ok(seen) => Some(seen),
            Err(error) => {
                eprintln!("nothing could be reached for: {error:#}");
                return ExitCode::from(FAILED);
            }
        },
        _ => None,
    };
    let good = outcome.is_ok() && looked.as_deref().is_none_or(connections::are_good);
    match args.format {
        Format::Text => {
            tell(outcome);
            looked.iter().for_each(|seen| connections::tell(seen));
        }
        Format::Json => print(&tell_programs(outcome, looked.as_deref())),
    }
    if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Mistakes and warnings go to standard error, the summary to standard output.
fn tell(outcome: Result<Loaded, Diagnostics>) {
    match outcome {
        Ok(Loaded { settings, warnings, .. }) => {
            print_diagnostics(&warnings);
            let mut line = format!("{}: good: {}", warnings.file(), summary(&settings));
            if warnings.warnings() > 0 {
                line.push_str(&format!(" ({})", count(warnings.warnings(), "warning")));
            }
            print(&line);
        }
        Err(found) => {
            print_diagnostics(&found);
            let mut line = format!("{}: {}", found.file(), count(found.errors(), "mistake"));
            if found.warnings() > 0 {
                line.push_str(&format!(", {}", count(found.warnings(), "warning")));
            }
            eprintln!("{line}");
        }
    }
}

fn tell_programs(outcome: Result<Loaded, Diagnostics>, looked: Option<&[Probed]>) -> String {
    let (good, found) = match outcome {
        Ok(loaded) => (looked.is_none_or(connections::are_good), loaded.warnings),
        Err(found) => (false, found),
    };
    let mut out = json!({
        "file": found.file(), "good": good, "errors": found.errors(), "warnings": found.warnings(),
        "diagnostics": found.to_json(),
    });
    if let (Some(looked), Some(map)) = (looked, out.as_object_mut()) {
        map.insert("connections".into(), connections::to_json(looked));
    }
    out.to_string()
}

/// Whether colours are wanted on a terminal (https://no-color.org: any value that is not empty).
pub(super) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Framed and coloured on a terminal, plain lines elsewhere.
pub(super) fn print_diagnostics(found: &Diagnostics) {
    if !io::stderr().is_terminal() {
        eprint!("{}", found.plain());
        return;
    }
    let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    eprint!("{}", found.fancy(width, colours()));
}

/// `2 sites, 5 routes, …`
fn summary(settings: &Settings) -> String {
    [
        count(settings.sites.len(), "site"),
        count(settings.sites.iter().map(|site| site.routes.len()).sum(), "route"),
        count(settings.upstreams.len(), "upstream"),
        count(settings.providers.len(), "provider"),
        count(settings.listeners.len(), "listener"),
    ]
    .join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_one_object_for_good_and_bad_files() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/okta.yaml").as_ref();
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for (env, good, errors) in [
            (Env::fixed([("CLOAKROOM_KEY", key), ("CLIENT_SECRET", "x")]), true, 0),
            (Env::fixed([("", "")]), false, 2),
        ] {
            let told: serde_json::Value = serde_json::from_str(&tell_programs(config::load(file, &env), None)).unwrap();
            assert_eq!((told["good"].as_bool(), told["errors"].as_u64()), (Some(good), Some(errors)), "{told}");
            assert_eq!(told["diagnostics"].as_array().map(Vec::len), usize::try_from(errors).ok());
        }
    }

    #[test]
    fn counts_read_well() {
        assert_eq!(count(1, "site"), "1 site");
        assert_eq!(count(0, "site"), "0 sites");
    }
}
