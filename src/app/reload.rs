//! New settings in the place of the old ones, whole or not at all, while requests go on.
//!
//! A request takes the gate once, when it begins, and keeps it to its end. What the gate is built from and what has state
//! lasts as long as the process ([`Parts`]); upstreams whose settings have not changed stay as they are, and so does what
//! routes have counted for their limits.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::config::settings::{self, ClientAuth, ProviderKind, Settings};
use crate::gate::{Bearers, Gate, Hygiene, Traces};
use crate::grants::Grants;
use crate::listener::Trusted;
use crate::login::{Logins, SiteAuth};
use crate::primitives::clock::Clock;
use crate::provider::Providers;
use crate::refresh::Refresher;
use crate::routing::discovery::Lookup;
use crate::routing::table::{Site, Table, TableError};
use crate::routing::upstream::Upstreams;
use crate::session::manager::Sessions;
use crate::session::profile::Profile;
use crate::session::proxy_token::ProxyTokens;
use crate::telemetry::Metrics;
use crate::telemetry::access::AccessLog;
use crate::telemetry::traces::Tracer;

/// New settings cannot be applied while the process runs.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Sites and upstreams do not fit together.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A site names a provider that this process does not know.
    #[error("site {site}: its provider {provider} is new; providers are read at the start only: restart")]
    NewProvider {
        /// Name of the site.
        site: Arc<str>,
        /// Name of the provider.
        provider: Arc<str>,
    },
}

/// What became of new settings, by section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What holds now.
    pub applied: Vec<&'static str>,
    /// What has changed in the file and holds after the next start.
    pub needs_restart: Vec<&'static str>,
}

/// What lasts whatever the settings say.
pub(super) struct Parts {
    pub(super) sessions: Arc<Sessions>,
    pub(super) providers: Providers,
    pub(super) logins: Arc<Logins>,
    pub(super) proxy_tokens: Option<Arc<ProxyTokens>>,
    pub(super) refresher: Arc<Refresher>,
    pub(super) grants: Arc<Grants>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) tracer: Option<Tracer>,
    pub(super) lookup: Lookup,
    pub(super) clock: Clock,
}

impl Parts {
    /// Compiles a gate. `before` is the one that it takes the place of.
    pub(super) fn gate(
        &self,
        settings: &Settings,
        upstreams: &Upstreams,
        before: Option<&Gate>,
    ) -> Result<Gate, TableError> {
        let table = Table::new(settings, upstreams, before.map(|gate| &gate.table), &self.metrics)?;
        let auth: Vec<Arc<SiteAuth>> =
            table.sites().iter().map(|site| Arc::new(self.site_auth(site, before))).collect();
        let bearers = settings.sites.iter().zip(&auth).map(|(site, auth)| {
            let providers = auth.oidc().map(|(_, oidc)| oidc.clone()).collect();
            Some(Arc::new(Bearers::new(providers, site.bearer.clone()?, auth.profile.clone())))
        });
        let bearers = bearers.collect();
        let places = |site: &Arc<Site>| site.client_tokens.iter().map(|token| self.grants.place_of(token)).collect();
        let client_tokens = table.sites().iter().map(places).collect();
        let reserved = table.sites().first().map(|site| site.reserved_headers.clone()).unwrap_or_default();
        Ok(Gate {
            table,
            auth,
            bearers,
            client_tokens,
            hygiene: Hygiene::new(&reserved),
            trusted_proxies: settings.trusted_proxies.clone(),
            csrf_mode: settings.session.csrf.mode,
            same_site: settings.session.cookie.same_site,
            sessions: self.sessions.clone(),
            logins: self.logins.clone(),
            proxy_tokens: self.proxy_tokens.clone(),
            refresher: self.refresher.clone(),
            grants: self.grants.clone(),
            unknown: Arc::new(self.metrics.route("none", "none")),
            metrics: self.metrics.clone(),
            access_log: self.access_log.clone(),
            traces: self.tracer.clone().zip(settings.telemetry.traces.as_ref()).map(|(tracer, traces)| Traces {
                tracer,
                trust: traces.trust,
                omit: settings.telemetry.access_log.omit,
            }),
            clock: self.clock.clone(),
        })
    }

    fn site_auth(&self, site: &Site, before: Option<&Gate>) -> SiteAuth {
        let profile = Profile {
            site: site.name.clone(),
            providers: site.providers.clone(),
            claims: site.claim_paths.clone(),
            conditions: site.conditions.clone(),
            context: site.context_claims.clone(),
            proxy_token: site.routes().any(|route| route.token == settings::Token::Proxy),
            exchanges: site.exchanges.clone(),
            id_token: site.routes().any(|route| route.token == settings::Token::Id),
        };
        // Sessions in the local cache are prepared for the very profile that they hold.
        let same = before.and_then(|gate| gate.auth.iter().find(|auth| *auth.profile == profile));
        SiteAuth {
            profile: same.map_or_else(|| Arc::new(profile), |auth| auth.profile.clone()),
            providers: site.providers.iter().filter_map(|name| self.providers.get(name)).cloned().collect(),
            auth_path: site.auth_path.clone(),
            aliases: site.aliases.clone(),
            origins: site.origins.iter().map(|origin| origin.0.origin().ascii_serialization()).collect(),
        }
    }
}

/// Applies new settings.
pub struct Reloader {
    pub(super) parts: Parts,
    pub(crate) gate: Arc<ArcSwap<Gate>>,
    pub(super) trusted: Trusted,
    pub(super) upstreams: watch::Sender<Upstreams>,
    /// What holds now; locked while a change is under way.
    pub(super) running: Mutex<Settings>,
}

impl Reloader {
    /// Puts new settings in the place of the present ones, as far as that can be done without a restart. Names of new
    /// upstreams are looked up before, for at most five seconds.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything stays as it was.
    pub async fn apply(&self, new: Settings) -> Result<Outcome, ReloadError> {
        let mut running = self.running.lock().await;
        let (next, outcome) = merged(&running, new);
        for site in &next.sites {
            if let Some(provider) = site.providers.iter().find(|name| !self.parts.providers.contains_key(*name)) {
                return Err(ReloadError::NewProvider { site: site.name.clone(), provider: provider.clone() });
            }
        }
        if outcome.applied.is_empty() {
            return Ok(outcome);
        }
        let before = self.upstreams.borrow().clone();
        let upstreams = before.changed_to(&next.upstreams, &self.parts.lookup, &self.parts.metrics);
        upstreams.find_first().await;
        let gate = self.parts.gate(&next, &upstreams, Some(&self.gate.load()))?;
        self.gate.store(Arc::new(gate));
        self.trusted.store(Arc::new(next.trusted_proxies.clone()));
        for gone in before.iter().filter(|upstream| upstreams.get(upstream.name()).is_none()) {
            self.parts.metrics.forget_upstream(gone.name());
        }
        upstreams.set_retries(&next.upstreams);
        for provider in next.providers.iter().filter_map(ProviderKind::oidc) {
            let known = self.parts.providers.get(&provider.name).and_then(|known| known.oidc());
            if let (ClientAuth::PrivateKeyJwt(keys), Some(known)) = (&provider.client_auth, known) {
                known.replace_client_keys(keys);
            }
        }
        self.upstreams.send_replace(upstreams);
        *running = next;
        self.parts.sessions.audit().config_changed(&outcome.applied, &outcome.needs_restart);
        Ok(outcome)
    }
}

/// What holds if `new` takes the place of `running` as far as it can.
fn merged(running: &Settings, new: Settings) -> (Settings, Outcome) {
    // Every section by name, so that none that will be added is forgotten.
    let Settings {
        listeners,
        threads,
        trusted_proxies,
        limits,
        admin,
        keys,
        proxy_token,
        store,
        session,
        refresh,
        providers,
        upstreams,
        idle_connections,
        sites,
        shutdown,
        telemetry,
    } = new;
    let (mut next, mut outcome) = (running.clone(), Outcome::default());
    let applied = &mut outcome.applied;
    // Listeners that want PROXY headers were checked together with those who may send them.
    if next.listeners == listeners {
        take(&mut next.trusted_proxies, trusted_proxies.clone(), "trusted_proxies", applied);
    }
    take(&mut next.session.csrf.mode, session.csrf.mode, "session.csrf.mode", applied);
    if renew_client_keys(&mut next.providers, &providers) {
        applied.push("providers[].client_auth.keys");
    }
    take(&mut next.upstreams, upstreams, "upstreams", applied);
    take(&mut next.sites, sites, "sites", applied);
    let changed = [
        ("listeners", next.listeners != listeners),
        ("threads", next.threads != threads),
        ("trusted_proxies", next.trusted_proxies != trusted_proxies),
        ("limits", next.limits != limits),
        ("admin", next.admin != admin),
        ("keys", next.keys != keys),
        ("proxy_token", next.proxy_token != proxy_token),
        ("store", next.store != store),
        ("session", next.session != session),
        ("refresh", next.refresh != refresh),
        ("providers", next.providers != providers),
        ("idle_connections", next.idle_connections != idle_connections),
        ("shutdown", next.shutdown != shutdown),
        ("telemetry", next.telemetry != telemetry),
    ];
    outcome.needs_restart = changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
    (next, outcome)
}

/// Takes the new keys of `private_key_jwt` where a provider has had some; nothing else of a provider changes.
fn renew_client_keys(running: &mut [ProviderKind], new: &[ProviderKind]) -> bool {
    let mut renewed = false;
    for provider in running {
        let ProviderKind::Oidc(provider) = provider else { continue };
        let other = new.iter().filter_map(ProviderKind::oidc).find(|other| other.name == provider.name);
        if let (ClientAuth::PrivateKeyJwt(keys), Some(ClientAuth::PrivateKeyJwt(fresh))) =
            (&mut provider.client_auth, other.map(|other| &other.client_auth))
            && keys != fresh
        {
            *keys = fresh.clone();
            renewed = true;
        }
    }
    renewed
}

fn take<T: PartialEq>(now: &mut T, new: T, name: &'static str, applied: &mut Vec<&'static str>) {
    if *now != new {
        *now = new;
        applied.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, load_str};

    fn load(yaml: &str) -> Settings {
        let env = Env::fixed([
            ("KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("OTHER", "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ]);
        load_str("test.yaml", yaml, &env).unwrap_or_else(|found| panic!("{}", found.plain())).settings
    }

    const YAML: &str = "
listeners: [{ address: \"127.0.0.1:8080\" }]
threads: 2
keys: [{ id: a, secret: { env: KEY } }]
session: { idle_timeout: 30m, csrf: { mode: enforce } }
upstreams: [{ name: a, endpoints: [\"127.0.0.1:1\"] }]
sites: [{ hosts: [a.test], routes: [{ path: /, upstream: a, access: public }] }]
";

    #[test]
    fn each_change_is_applied_or_named() {
        let running = load(YAML);
        for (old, new, applied, needs_restart) in [
            ("", "", "", ""),
            ("127.0.0.1:1\"", "127.0.0.1:2\"", "upstreams", ""),
            ("path: /,", "path: /x,", "sites", ""),
            ("threads: 2", "threads: 2\ntrusted_proxies: [10.0.0.0/8]", "trusted_proxies", ""),
            ("mode: enforce", "mode: report", "session.csrf.mode", ""),
            ("8080", "8081", "", "listeners"),
            ("8080\" }]", "8081\" }]\ntrusted_proxies: [10.0.0.0/8]", "", "listeners,trusted_proxies"),
            ("upstream: a,", "respond: { body: hi },", "sites", ""),
            ("threads: 2", "threads: 2\nlimits: { header_timeout: 3s }", "", "limits"),
            ("threads: 2", "threads: 3", "", "threads"),
            ("env: KEY", "env: OTHER", "", "keys"),
            ("idle_timeout: 30m", "idle_timeout: 31m", "", "session"),
            ("threads: 2", "threads: 2\nrefresh: { ahead: 20s }", "", "refresh"),
            ("threads: 2", "threads: 2\nshutdown: { lame_duck: 1s }", "", "shutdown"),
            ("threads: 2", "threads: 2\ntelemetry: { access_log: { enabled: false } }", "", "telemetry"),
            ("threads: 2", "threads: 2\nadmin: { address: \"127.0.0.1:9090\" }", "", "admin"),
            ("threads: 2", "threads: 2\nstore: { kind: file, path: x }", "", "store"),
        ] {
            let (next, outcome) = merged(&running, load(&YAML.replacen(old, new, 1)));
            assert_eq!(
                (outcome.applied.join(","), outcome.needs_restart.join(",")),
                (applied.into(), needs_restart.into())
            );
            assert_eq!(next == running, applied.is_empty(), "{new}");
            // The same file again still says what waits for a restart, and applies nothing anew.
            let (_, again) = merged(&next, load(&YAML.replacen(old, new, 1)));
            assert_eq!((again.applied.len(), again.needs_restart.join(",")), (0, needs_restart.into()), "{new}");
        }
    }
}
