//! Sessions that were never logged in: written into the store as the proxy would write them.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::config::settings::{Settings, Store};
use cloakroom::config::{self, Env};
use cloakroom::demo;
use cloakroom::primitives::clock::{Clock, Timestamp};
use cloakroom::primitives::secret::SecretText;
use cloakroom::session::key_ring::KeyRing;
use cloakroom::session::manager::{NewSession, Sessions, new_csrf_token};
use cloakroom::session::model::Secrets;
use cloakroom::session::profile::Profile;
use cloakroom::session::ticket::TicketSeed;
use cloakroom::store::SessionStore;
use cloakroom::store::record::SessionKey;
use cloakroom::store::redis::RedisStore;
use cloakroom::telemetry::Metrics;
use futures::StreamExt as _;

use crate::quick::{Quick, access_token, refresh_token};
use crate::redis_server::RedisServer;

/// Name of site, provider and client in [`settings`].
const SITE: &str = "127.0.0.1";
const PROVIDER: &str = "quick";

/// Settings of a proxy before a quick provider; `@PROXY@` and `@ADMIN@` stand for its addresses.
pub(crate) fn settings(redis: &RedisServer, issuer: &str, upstream: &str, refresh: &str) -> String {
    format!(
        r#"
listeners: [{{ address: "@PROXY@" }}]
admin: {{ address: "@ADMIN@" }}
threads: 2
keys: [{{ id: "test", secret: {{ env: TEST_KEY }} }}]
store: {{ kind: redis, url: "{url}" }}
session: {{ rotate_every: 0s, cache: {{ capacity: 300000, memory: 2GiB }} }}
refresh: {refresh}
providers:
  - {{ name: {PROVIDER}, kind: oidc, issuer: "{issuer}", client_id: c, scopes: [openid],
      client_auth: {{ method: client_secret_basic, secret: {{ env: TEST_SECRET }} }} }}
upstreams: [{{ name: demo, endpoints: ["{upstream}"] }}]
sites:
  - hosts: ["{SITE}"]
    provider: {PROVIDER}
    routes: [{{ path: /, upstream: demo, access: required }}]
"#,
        url = redis.url()
    )
}

/// The environment that [`settings`] name.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] =
    [("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("TEST_SECRET", demo::CLIENT_SECRET)];

pub(crate) struct Seeder {
    pub(crate) sessions: Arc<Sessions>,
    profile: Arc<Profile>,
}

/// A session in the store.
pub(crate) struct Seeded {
    pub(crate) ticket: String,
    pub(crate) key: SessionKey,
}

impl Seeder {
    /// With the settings of the proxies.
    pub(crate) fn new(yaml: &str) -> Self {
        let yaml = yaml.replace("@PROXY@", "127.0.0.1:1").replace("@ADMIN@", "127.0.0.1:2");
        let loaded = config::load_str("seed.yaml", &yaml, &Env::fixed(ENVIRONMENT));
        let settings = loaded.unwrap_or_else(|mistakes| panic!("{}", mistakes.plain())).settings;
        let Store::Redis(redis) = &settings.store else { panic!("not Redis") };
        let store = Arc::new(RedisStore::new(redis, Clock::system()).expect("a store"));
        Self::over(&settings, store)
    }

    fn over(settings: &Settings, store: Arc<dyn SessionStore>) -> Self {
        let ring = KeyRing::new(&settings.keys).expect("a key ring");
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let mut own = settings.session.clone();
        // What is seeded is for others to look up.
        own.cache.capacity = 1;
        let (sessions, _) = Sessions::new(&own, &settings.refresh, store, ring, Clock::system(), metrics);
        Self { sessions: Arc::new(sessions), profile: Arc::new(profile(SITE)) }
    }

    /// So many sessions; `times` says when the access token of each was issued and when it ends.
    pub(crate) async fn seed(
        &self,
        count: usize,
        token_length: usize,
        times: impl Fn(usize) -> (Timestamp, Timestamp),
    ) -> Vec<Seeded> {
        let begin = |session: usize| {
            let (issued, expires) = times(session);
            let secrets = secrets(session, token_length, issued, expires);
            async move {
                let new = NewSession {
                    provider: PROVIDER.into(),
                    subject: format!("user-{session}"),
                    provider_session: None,
                    secrets,
                };
                let open = self.sessions.begin(&new, &self.profile).await.expect("a session");
                Seeded { ticket: open.id().expose(), key: *open.key() }
            }
        };
        futures::stream::iter(0..count).map(begin).buffered(128).collect().await
    }
}

pub(crate) fn profile(site: &str) -> Profile {
    Profile { site: site.into(), providers: vec![PROVIDER.into()], ..Profile::default() }
}

pub(crate) fn secrets(session: usize, token_length: usize, issued: Timestamp, expires: Timestamp) -> Secrets {
    let subject = ("sub".to_owned(), format!("user-{session}").into());
    Secrets {
        access_token: SecretText::new(access_token(session, 0, token_length)),
        bound: false,
        access_issued: issued,
        access_expires: Some(expires),
        forced: None,
        max_age: None,
        refresh_token: Some(SecretText::new(refresh_token(session, 0))),
        refresh_expires: None,
        offline: false,
        id_token: None,
        claims: serde_json::Map::from_iter([subject]),
        context: serde_json::Map::new(),
        csrf_token: new_csrf_token().expect("randomness"),
        tickets: TicketSeed::generate().expect("randomness"),
    }
}

/// A provider, an upstream and the settings of proxies between them.
pub(crate) struct Site {
    pub(crate) redis: RedisServer,
    pub(crate) quick: Quick,
    pub(crate) upstream: demo::Upstream,
    pub(crate) yaml: String,
    pub(crate) seeder: Seeder,
}

impl Site {
    pub(crate) async fn new(latency: Duration, life: Duration, refresh: &str) -> Self {
        let redis = RedisServer::start();
        let quick = Quick::start(latency, life).await;
        let upstream = demo::Upstream::start(([127, 0, 0, 1], 0).into()).expect("an upstream");
        let yaml = settings(&redis, quick.issuer(), &upstream.address().to_string(), refresh);
        let seeder = Seeder::new(&yaml);
        Self { redis, quick, upstream, yaml, seeder }
    }
}
