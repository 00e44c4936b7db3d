//! `cloakroom config` and `cloakroom schema`: what settings there are, and what those of a file come to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::check::print_diagnostics;
use super::{FAILED, print};
use crate::config::{self, Env};

/// What `config` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the settings, variables replaced and secrets hidden
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The settings file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Fill in the defaults of what the file does not say
    #[arg(long)]
    effective: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// As a settings file
    Yaml,
    /// For programs
    Json,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let What::Show(args) = &args.what;
    match config::effective(&args.config, &Env::process(), args.effective) {
        Ok(effective) => {
            match args.format {
                Format::Yaml => print(effective.yaml().trim_end()),
                Format::Json => print(&pretty(&effective.settings)),
            }
            ExitCode::SUCCESS
        }
        Err(found) => {
            print_diagnostics(&found);
            eprintln!("{} mistakes in {}: mend them first", found.errors(), found.file());
            ExitCode::from(FAILED)
        }
    }
}

pub(super) fn schema() -> ExitCode {
    print(&pretty(&config::json_schema()));
    ExitCode::SUCCESS
}

/// What was built here can be written: its keys are texts.
fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
