//! `cloakroom healthcheck`: whether the server on this machine is ready, for containers that have no other program to ask.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use url::Url;

use super::admin_listener::{checked, reachable};
use super::{FAILED, print};
use crate::config::{self, Env};
use crate::listener::tls::install_crypto_provider;

/// Longest wait for the answer. Docker gives a check 30 s by default, Kubernetes one.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `healthcheck` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// Ask whether the process lives, not whether traffic may come
    #[arg(long)]
    live: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Server {
    /// The server's settings file, for the address of its admin listener; nothing else in it is looked at
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the admin listener, for example http://127.0.0.1:9090
    #[arg(long, value_name = "URL")]
    admin: Option<Url>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match ask(args) {
        Ok(word) => {
            print(&word);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn ask(args: &Args) -> anyhow::Result<String> {
    let mut url = address(&args.server)?;
    url.set_path(if args.live { "/livez" } else { "/readyz" });
    let place = url.origin().ascii_serialization();
    install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime.block_on(async {
        // A proxy of the environment is for the way out, and a redirect is no answer.
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
        let answer = client.build()?.get(url).send().await.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| {
            format!("no answer from the admin listener at {place}; does the server run, and is `admin.address` right?")
        })?;
        Ok::<_, anyhow::Error>((answer.status(), answer.text().await.unwrap_or_default()))
    })?;
    let word = body.lines().last().unwrap_or_default().trim();
    match (status.as_u16(), word) {
        (200, "ready" | "alive") => Ok(word.to_owned()),
        (503, "not ready") => bail!("not ready; {place}/readyz?verbose says what is missing"),
        _ => bail!("{place} is no admin listener of Cloakroom (status {status}); look at `admin.address`"),
    }
}

/// Where to ask. A running server keeps its old settings when a new file has mistakes, so these are no reason to find it
/// ill.
fn address(server: &Server) -> anyhow::Result<Url> {
    if let Some(url) = &server.admin {
        return checked(url);
    }
    let file = server.config.as_ref().context("name the server with -c FILE or --admin URL")?;
    let address = config::admin_address(file, &Env::process())
        .map_err(|mistakes| anyhow::anyhow!("{}", mistakes.plain().trim_end()))?;
    let address = address.context("these settings have no `admin` section: add one, and restart")?;
    Ok(Url::parse(&format!("http://{}", reachable(address)))?)
}
