//! Settings become parts, and parts a gate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reload::Parts;
use super::{StartError, memory};
use crate::config::settings::{self, Settings};
use crate::credentials::Backend;
use crate::gate::Gate;
use crate::grants::Grants;
use crate::login::Logins;
use crate::oidc::http::Client;
use crate::oidc::{self, Tls};
use crate::primitives::clock::Clock;
use crate::provider::{Provider, Providers};
use crate::refresh::Refresher;
use crate::revocation::Revoker;
use crate::routing::discovery::system_lookup;
use crate::routing::upstream::Upstreams;
use crate::session::key_ring::KeyRing;
use crate::session::manager::Sessions;
use crate::session::proxy_token::ProxyTokens;
use crate::session::touches::TouchWriter;
use crate::store::SessionStore;
use crate::store::memory::MemoryStore;
use crate::telemetry::access::AccessLog;
use crate::telemetry::traces::{self, Tracer, Value};
use crate::telemetry::{Lines, Metrics, Pseudonyms};

/// Everything that decides about requests, with nothing started yet.
pub(super) struct Assembly {
    pub(super) parts: Parts,
    pub(super) upstreams: Upstreams,
    pub(super) revoker: Arc<Revoker>,
    pub(super) touches: TouchWriter,
}

impl Assembly {
    /// `lines` takes the access log. `mark` is how much memory the process may take; `None` = any amount.
    pub(super) fn new(
        settings: &Settings,
        store: Arc<dyn SessionStore>,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        lines: Option<Lines>,
        mark: Option<u64>,
    ) -> Result<Self, StartError> {
        let ring = KeyRing::new(&settings.keys)?;
        let pseudonyms = || Pseudonyms::new(&ring.pseudonym_key());
        let logged = &settings.telemetry.access_log;
        let access_log = lines.filter(|_| logged.enabled).map(|lines| AccessLog::new(lines, logged.omit, pseudonyms()));
        let traces = settings.telemetry.traces.as_ref();
        let tracer = traces.map(|traces| Tracer::new(traces.sample, pseudonyms(), metrics));
        let cache = memory::fitting(settings.session.cache, mark);
        let session = settings::Session { cache, ..settings.session.clone() };
        let (sessions, touches) =
            Sessions::new(&session, &settings.refresh, store, ring, clock.clone(), metrics.clone());
        let sessions = Arc::new(sessions);
        let providers = providers(settings, clock, metrics)?;
        let lookup = system_lookup();
        let upstreams = Upstreams::new(&settings.upstreams, &lookup, metrics);
        let revoker = Arc::new(Revoker::new(sessions.clone(), providers.clone(), metrics.clone()));
        let refresher = Refresher::new(sessions.clone(), providers.clone(), &settings.refresh, metrics.clone());
        let proxy_tokens = settings.proxy_token.as_ref().map(ProxyTokens::new).transpose()?.map(Arc::new);
        let grants =
            Grants::new(sessions.clone(), refresher.clone(), providers.clone(), &settings.refresh, metrics.clone());
        let parts = Parts {
            sessions: sessions.clone(),
            providers,
            logins: Arc::new(Logins::new(sessions, revoker.clone(), proxy_tokens.clone(), metrics.clone())),
            proxy_tokens,
            refresher,
            grants: Arc::new(grants),
            metrics: metrics.clone(),
            access_log,
            tracer,
            lookup,
            clock: clock.clone(),
        };
        Ok(Self { parts, upstreams, revoker, touches })
    }
}

/// A gate that decides as the one of a server with these settings, over a store without sessions: to be asked about
/// requests, not to serve them. Listens nowhere and connects to nobody.
///
/// # Errors
/// As [`App::new`](super::App::new), but for what needs sockets and the store.
pub fn lone_gate(settings: &Settings, clock: &Clock) -> Result<Gate, StartError> {
    crate::listener::tls::install_crypto_provider();
    let metrics = Arc::new(Metrics::new()?);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let Assembly { parts, upstreams, .. } = Assembly::new(settings, store, clock, &metrics, None, None)?;
    Ok(parts.gate(settings, &upstreams, None)?)
}

pub(super) fn providers(settings: &Settings, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Providers, StartError> {
    let make = |one: &settings::ProviderKind| {
        let name = one.name();
        metrics.expect_provider(name);
        let observer =
            Arc::new(ProviderObserver { name: name.clone(), metrics: metrics.clone(), clock: clock.clone() });
        let tls = one.oidc().map(Tls::of).unwrap_or_default();
        let client = Client::new(tls, observer).map_err(|error| StartError::Client(name.clone(), error))?;
        let provider = match one {
            settings::ProviderKind::Oidc(one) => {
                let provider = oidc::Provider::new(one, client, clock.clone());
                Provider::Oidc(Arc::new(provider.map_err(|error| StartError::Provider(name.clone(), error))?))
            }
            settings::ProviderKind::Credentials(one) => {
                Provider::Credentials(Arc::new(Backend::new(one, client, clock.clone())))
            }
        };
        Ok((name.clone(), Arc::new(provider)))
    };
    settings.providers.iter().map(make).collect()
}

/// Counts what a provider is asked.
struct ProviderObserver {
    name: Arc<str>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl oidc::http::Observer for ProviderObserver {
    fn request(&self, endpoint: oidc::http::Endpoint, outcome: oidc::http::Outcome, took: Duration) {
        let (name, endpoint) = (&*self.name, endpoint.as_str());
        self.metrics.idp_requests_total.with_label_values(&[name, endpoint, outcome.as_str()]).inc();
        self.metrics.idp_request_duration_seconds.with_label_values(&[name, endpoint]).observe(took.as_secs_f64());
        let now = Instant::now();
        traces::child(endpoint, (now.checked_sub(took).unwrap_or(now), took), |span| {
            span.set("cloakroom.provider", Value::Name(self.name.clone()));
            if outcome != oidc::http::Outcome::Ok {
                span.fail(outcome.as_str());
            }
        });
    }

    fn key_set(&self, good: bool) {
        let result = if good { "ok" } else { "error" };
        self.metrics.jwks_refreshes_total.with_label_values(&[&*self.name, result]).inc();
        if good {
            let now = i64::try_from(self.clock.now().as_secs()).unwrap_or(i64::MAX);
            self.metrics.jwks_last_success_timestamp_seconds.with_label_values(&[&*self.name]).set(now);
        }
    }
}
