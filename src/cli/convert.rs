//! `cloakroom convert`: settings of other programs as settings of Cloakroom, as far as they say the same.

mod annotations;
mod auth_url;
mod closing;
mod draft;
mod ingress;
mod leftover;
mod model;
mod oauth2_alpha;
mod oauth2_proxy;
mod provider;
mod restrictions;
mod source;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::{FAILED, print};

/// Largest file that is read.
const LARGEST: u64 = 16 << 20;

/// What `convert` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Settings of oauth2-proxy: its file of options, or its YAML ("alpha") one
    #[command(name = "oauth2-proxy")]
    Oauth2Proxy(From),
    /// Ingress resources with annotations of ingress-nginx
    IngressNginx(From),
}

#[derive(Debug, clap::Args)]
struct From {
    /// The file; `-` is standard input
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let outcome = match &args.what {
        What::Oauth2Proxy(from) => read(&from.file).and_then(|text| oauth2_proxy::converted(&name(&from.file), &text)),
        What::IngressNginx(from) => read(&from.file).and_then(|text| ingress::converted(&name(&from.file), &text)),
    };
    match outcome {
        Ok(draft) => {
            print(draft.yaml().trim_end());
            eprint!("{}", draft.report());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(LARGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LARGEST).read_to_string(&mut text))
    };
    read.with_context(|| format!("{} cannot be read; check path and rights", name(file)))?;
    Ok(text)
}

#[cfg(test)]
mod closed_tests;
#[cfg(test)]
mod tests;
