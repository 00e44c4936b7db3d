//! Whether what the settings name is there: providers, store, upstreams, certificates. Each is looked at once, in the way
//! of a running server, and nothing is changed by it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, StreamExt as _};
use rustls::pki_types::CertificateDer;
use url::Url;
use x509_parser::parse_x509_certificate;

use super::{StartError, assembly};
use crate::config::settings::{Certificate, ClientAuth, HealthCheck, ProviderKind, Settings, Store};
use crate::listener::end_of_certificate;
use crate::listener::tls::install_crypto_provider;
use crate::primitives::clock::Clock;
use crate::provider::Provider;
use crate::routing::discovery::system_lookup;
use crate::routing::upstream::{Upstream, Upstreams};
use crate::store::SessionStore;
use crate::store::postgres::PostgresStore;
use crate::telemetry::Metrics;

/// So many are looked at at a time.
const AT_A_TIME: usize = 8;
/// Longest wait for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a store: it connects in the background.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
const STORE_PAUSE: Duration = Duration::from_millis(100);
/// A certificate that ends sooner is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// How it stands with one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be used.
    Good,
    /// It can be used, but not as it should be, or not for long.
    Warning,
    /// It cannot be used.
    Failed,
}

/// What came of one look.
#[derive(Clone, Debug)]
pub struct Probed {
    /// `certificate`, `store`, `provider` or `upstream`.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// What was seen.
    pub text: String,
    /// What to do; empty if nothing.
    pub help: &'static str,
}

impl Probed {
    fn new(kind: &'static str, name: impl Into<String>, outcome: Result<String, String>, help: &'static str) -> Self {
        let (standing, text) = match outcome {
            Ok(text) => (Standing::Good, text),
            Err(text) => (Standing::Failed, text),
        };
        let help = if standing == Standing::Good { "" } else { help };
        Self { kind, name: name.into(), standing, text, help }
    }

    fn warning(mut self, help: &'static str) -> Self {
        (self.standing, self.help) = (Standing::Warning, help);
        self
    }
}

/// One look, to come.
type Look = BoxFuture<'static, Vec<Probed>>;

/// Looks at all of them, some at a time; `done` hears how many have been looked at, of how many.
///
/// # Errors
/// [`StartError`] where the settings cannot be used at all.
pub async fn probe(
    settings: &Settings,
    clock: &Clock,
    mut done: impl FnMut(usize, usize),
) -> Result<Vec<Probed>, StartError> {
    install_crypto_provider();
    let metrics = Arc::new(Metrics::new()?);
    let mut looks: Vec<Look> = vec![certificates(settings, clock)];
    looks.push(store(&settings.store, clock, &metrics)?);
    let providers = assembly::providers(settings, clock, &metrics)?;
    for one in &settings.providers {
        let login = match one {
            ProviderKind::Credentials(backend) => Some(backend.login_url.clone()),
            ProviderKind::Oidc(_) => None,
        };
        if let Some(provider) = providers.get(one.name()) {
            looks.push(look_at_provider(one.name().to_string(), provider.clone(), login).boxed());
        }
    }
    let upstreams = Upstreams::new(&settings.upstreams, &system_lookup(), &metrics);
    upstreams.find_first().await;
    for one in &settings.upstreams {
        let Some(upstream) = upstreams.get(&one.name) else { continue };
        let (upstream, check) = (upstream.clone(), one.health_check.clone());
        looks.push(async move { look_at_upstream(&upstream, check.as_ref()).await }.boxed());
    }
    let all = looks.len();
    done(0, all);
    let mut seen = Vec::new();
    let mut results = stream::iter(looks.into_iter().enumerate().map(|(at, look)| look.map(move |seen| (at, seen))))
        .buffer_unordered(AT_A_TIME);
    while let Some(result) = results.next().await {
        seen.push(result);
        done(seen.len(), all);
    }
    seen.sort_by_key(|(at, _)| *at);
    Ok(seen.into_iter().flat_map(|(_, seen)| seen).collect())
}

fn certificates(settings: &Settings, clock: &Clock) -> Look {
    let now = clock.now().as_secs();
    let listeners = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let mut seen: Vec<Probed> = listeners.flat_map(|tls| &tls.certificates).map(|files| served(files, now)).collect();
    let upstreams = settings.upstreams.iter().filter_map(|upstream| {
        let shown = upstream.tls.as_ref()?.client_certificate.as_ref()?;
        Some((format!("shown to the upstream {}", upstream.name), shown.chain.first()?))
    });
    let providers = settings.providers.iter().filter_map(ProviderKind::oidc).filter_map(|provider| {
        let ClientAuth::Tls(shown) = &provider.client_auth else { return None };
        Some((format!("shown to the provider {}", provider.name), shown.chain.first()?))
    });
    seen.extend(upstreams.chain(providers).map(|(name, leaf)| lasting(name, end_of(leaf), now)));
    futures::future::ready(seen).boxed()
}

fn served(files: &Certificate, now: u64) -> Probed {
    lasting(files.certificate.display().to_string(), end_of_certificate(files).map_err(|error| error.to_string()), now)
}

fn end_of(leaf: &CertificateDer<'_>) -> Result<u64, String> {
    let (_, parsed) = parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    Ok(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0))
}

/// Times are seconds since 1970.
fn lasting(name: String, end: Result<u64, String>, now: u64) -> Probed {
    const RENEW: &str = "renew it: clients refuse it from its last day on";
    let left = end.map(|end| end.checked_sub(now));
    let text = match &left {
        Ok(Some(left)) => Ok(format!("good for {} days, and its key belongs to it", left / (24 * 3600))),
        Ok(None) => Err("it has ended".to_owned()),
        Err(problem) => Err(problem.clone()),
    };
    let probed = Probed::new("certificate", name, text, RENEW);
    match left {
        Ok(Some(left)) if left < SOON.as_secs() => probed.warning(RENEW),
        _ => probed,
    }
}

fn store(settings: &Store, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Look, StartError> {
    let (name, help) = match settings {
        Store::Memory => {
            let text = "in this process: nothing to reach".to_owned();
            return Ok(futures::future::ready(vec![Probed::new("store", "memory", Ok(text), "")]).boxed());
        }
        // A server may have it open, and then nobody else may open it.
        Store::File(file) => return Ok(futures::future::ready(vec![folder_of(&file.path)]).boxed()),
        Store::Redis(_) => {
            ("redis", "does the Redis of `store.url` run, and does it take user and password from here?")
        }
        // Not by a store: one that is used makes its tables.
        Store::Postgres(postgres) => {
            let postgres = postgres.clone();
            let help = "does the PostgreSQL of `store.url` run, and does it take user and password from here?";
            return Ok(async move {
                let answer = PostgresStore::reach(&postgres).await.map(|()| "it answers".to_owned());
                vec![Probed::new("store", "postgres", answer, help)]
            }
            .boxed());
        }
    };
    let store = super::store(settings, clock, metrics)?;
    Ok(async move { look_at_store(&*store, name, help).await }.boxed())
}

async fn look_at_store(store: &dyn SessionStore, name: &'static str, help: &'static str) -> Vec<Probed> {
    let deadline = tokio::time::Instant::now() + STORE_PATIENCE;
    let answer = loop {
        match store.ping().await {
            Ok(()) => break Ok("it answers".to_owned()),
            Err(error) if tokio::time::Instant::now() > deadline => break Err(error.to_string()),
            Err(_) => tokio::time::sleep(STORE_PAUSE).await,
        }
    };
    let reached = answer.is_ok();
    let mut seen = vec![Probed::new("store", name, answer, help)];
    if reached {
        let warnings = tokio::time::timeout(PATIENCE, store.warnings()).await.unwrap_or_default();
        let warn = |text| Probed::new("store", name, Ok(text), "").warning("see docs/how-to/choose-a-store.md");
        seen.extend(warnings.into_iter().map(warn));
    }
    seen
}

fn folder_of(file: &Path) -> Probed {
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let outcome = match std::fs::metadata(folder) {
        Ok(data) if data.is_dir() && file.exists() => Ok(format!("{} is there", file.display())),
        Ok(data) if data.is_dir() => Ok(format!("{} will be made in a folder that is there", file.display())),
        Ok(_) => Err(format!("{} is no folder", folder.display())),
        Err(error) => Err(format!("{}: {error}", folder.display())),
    };
    Probed::new("store", "file", outcome, "make the folder, writable for the user of Cloakroom alone")
}

async fn look_at_provider(name: String, provider: Arc<Provider>, login: Option<Url>) -> Vec<Probed> {
    let outcome = match (provider.oidc(), login) {
        (Some(oidc), _) => match tokio::time::timeout(PATIENCE, oidc.try_out()).await {
            Ok(outcome) => outcome.map(|()| "metadata and keys are there".to_owned()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        },
        (None, Some(url)) => is_answered(url).await,
        (None, None) => Ok("nothing to reach".to_owned()),
    };
    let help = "compare `issuer` with what the provider says of itself, and try its address from this machine; behind an \
                authority of your own set `ca`";
    vec![Probed::new("provider", name, outcome, help)]
}

/// Any answer will do: a form is not to be sent for a try.
async fn is_answered(url: Url) -> Result<String, String> {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
    let client = client.build().map_err(|error| error.to_string())?;
    match client.head(url).send().await.map_err(reqwest::Error::without_url) {
        Ok(answer) => Ok(format!("its login address answers (status {})", answer.status().as_u16())),
        Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
    }
}

async fn look_at_upstream(upstream: &Arc<Upstream>, check: Option<&HealthCheck>) -> Vec<Probed> {
    const HELP: &str = "does it run there, and may this machine reach it? TLS asks for the name in `endpoints` or \
                        `tls.server_name`, and for an authority of the system's or of `tls.ca`";
    let addresses = upstream.try_out(check).await;
    if addresses.is_empty() {
        let text = "no name of its endpoints is known to the name service".to_owned();
        return vec![Probed::new("upstream", &**upstream.name(), Err(text), "look for a mistake in `endpoints`")];
    }
    let good = match check.and_then(|check| check.path.as_deref()) {
        Some(path) => format!("{path} answers as it should"),
        None if upstream.speaks_tls() => "it takes connections over TLS".to_owned(),
        None => "it takes connections".to_owned(),
    };
    let one = |(address, outcome): (SocketAddr, Result<(), String>)| {
        let name = format!("{} at {address}", upstream.name());
        Probed::new("upstream", name, outcome.map(|()| good.clone()), HELP)
    };
    addresses.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_warned_of_before_they_end() {
        let day = 24 * 3600;
        let standing = |end| lasting("x".to_owned(), end, 100 * day).standing;
        assert_eq!(standing(Ok(200 * day)), Standing::Good);
        assert_eq!(standing(Ok(113 * day)), Standing::Warning);
        assert_eq!(standing(Ok(99 * day)), Standing::Failed);
        assert_eq!(standing(Err("unreadable".to_owned())), Standing::Failed);
    }
}
