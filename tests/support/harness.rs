//! The real proxy in this process, with a provider that can misbehave, an upstream that records, and a browser whose
//! cookie jar can be looked into.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cloakroom::app::App;
use cloakroom::app::reload::{Outcome, ReloadError, Reloader};
use cloakroom::config::settings::Settings;
use cloakroom::config::{self, Env};
use cloakroom::demo::{self, Demo, ProviderConfig};
use cloakroom::primitives::clock::Clock;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use reqwest::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, StatusCode};
use tokio::sync::Notify;

use crate::shared_store::SharedStore;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
pub(crate) const SESSION: &str = "__Host-session";
pub(crate) const XSRF: &str = "XSRF-TOKEN";
pub(crate) const LOGIN: &str = "__Host-login";

/// What a test wants different from the usual world.
pub(crate) struct Wishes {
    /// YAML of the section `store`.
    pub(crate) store: String,
    /// YAML lines that go into `session:`, indented by two.
    pub(crate) session: String,
    /// YAML of the section `refresh`. By default nothing is refreshed in the background: most tests own the moment.
    pub(crate) refresh: String,
    /// YAML of top-level sections to add.
    pub(crate) more: String,
    /// YAML list items of `routes`, indented by six; the usual ones if empty.
    pub(crate) routes: String,
    /// YAML lines of the site beside the routes, indented by four.
    pub(crate) site: String,
    /// YAML list items of `upstreams` beside `demo`.
    pub(crate) upstreams: String,
    /// YAML list of `hosts`.
    pub(crate) hosts: String,
    /// YAML of the first listener beside its address: `, tls: { … }`.
    pub(crate) listener: String,
    /// YAML of the admin listener beside its address: `, token: …`.
    pub(crate) admin: String,
    /// The clock of proxy and provider.
    pub(crate) clock: Clock,
    /// The provider.
    pub(crate) provider: ProviderConfig,
    /// YAML lines of the provider `demo`, indented by four.
    pub(crate) provider_yaml: String,
    /// YAML list items of `providers` beside `demo`, indented by two.
    pub(crate) providers: String,
    /// YAML of the site's providers.
    pub(crate) site_providers: String,
    /// A store that all proxies share, in place of `store`.
    pub(crate) shared: Option<SharedStore>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            store: "{ kind: memory }".into(),
            session: String::new(),
            refresh: "{ ahead: 0s }".into(),
            more: String::new(),
            routes: String::new(),
            site: String::new(),
            upstreams: String::new(),
            hosts: "[127.0.0.1]".into(),
            listener: String::new(),
            admin: String::new(),
            clock: Clock::system(),
            provider: ProviderConfig::default(),
            provider_yaml: String::new(),
            providers: String::new(),
            site_providers: "provider: demo".into(),
            shared: None,
        }
    }
}

const ROUTES: &str = r#"
      - { path: /api/, upstream: demo, access: required, identity_headers: { X-User-Id: sub, X-User-Name: name, X-User-Roles: realm_access.roles } }
      - { path: /open/, upstream: demo, access: public }
      - { path: /maybe/, upstream: demo, access: optional }
      - { path: /id/, upstream: demo, access: required, token: { kind: id } }
      - { path: /bare/, upstream: demo, access: required, token: { kind: none } }
      - { path: /stripped/, upstream: demo, access: required, strip_prefix: /stripped }
      - { path: /small/, upstream: demo, access: public, max_body: 1KiB }
      - { path: /nocsrf/, upstream: demo, access: required, csrf: false }
      - { path: /, upstream: demo, access: required }
"#;

/// Provider, upstream and one or more proxies over the same store.
pub(crate) struct World {
    pub(crate) demo: Demo,
    pub(crate) proxy: Proxy,
    pub(crate) clock: Clock,
    /// The settings; `@PROXY@` and `@ADMIN@` stand for the addresses.
    pub(crate) yaml: String,
    /// The store of all proxies, if they share one of the test's.
    pub(crate) shared: Option<SharedStore>,
}

/// A running proxy; stops when dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    reloader: Arc<Reloader>,
    yaml: String,
    stop: Arc<Notify>,
    drains: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Stop(Arc<Notify>, Arc<AtomicBool>);

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        self.0.notified().await;
        if self.1.load(Ordering::SeqCst) { ShutdownSignal::GracefulTerminate } else { ShutdownSignal::FastShutdown }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.drains.load(Ordering::SeqCst) {
            // It takes its time, and nobody waits for it.
            return;
        }
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Wishes::default()).await
    }

    pub(crate) async fn with(wishes: Wishes) -> Self {
        let mut config = wishes.provider;
        let clock = wishes.clock.clone();
        config.clock = Arc::new(move || std::time::UNIX_EPOCH + Duration::from_millis(clock.now().as_millis()));
        let provider = demo::Provider::start(config).expect("provider");
        provider.switches().auto_login("alice");
        let upstream = demo::Upstream::start(loopback()).expect("upstream");
        let demo = Demo { provider, upstream };
        let routes = if wishes.routes.is_empty() { ROUTES } else { &wishes.routes };
        let yaml = format!(
            r#"
listeners: [{{ address: "@PROXY@"{listener} }}]
admin: {{ address: "@ADMIN@"{admin} }}
threads: 2
keys: [{{ id: "test", secret: {{ env: TEST_KEY }} }}]
store: {store}
session:
  idle_timeout: 30m
  absolute_timeout: 12h
{session}
refresh: {refresh}
providers:
  - name: demo
    kind: oidc
    issuer: {issuer}
    client_id: {client_id}
    client_auth: {{ method: client_secret_basic, secret: {{ env: TEST_SECRET }} }}
    scopes: [openid, profile, email]
{provider_yaml}
{providers}
upstreams:
  - {{ name: demo, endpoints: ["{upstream}"] }}
{upstreams}
sites:
  - hosts: {hosts}
    {site_providers}
    aliases: {{ login: /login, logout: /logout, userinfo: /userinfo }}
{site}
    routes:
{routes}
{more}
"#,
            store = wishes.store,
            provider_yaml = wishes.provider_yaml,
            providers = wishes.providers,
            site_providers = wishes.site_providers,
            session = wishes.session,
            refresh = wishes.refresh,
            issuer = demo.provider.issuer(),
            client_id = demo::CLIENT_ID,
            upstream = demo.upstream.address(),
            site = wishes.site,
            upstreams = wishes.upstreams,
            hosts = wishes.hosts,
            listener = wishes.listener,
            admin = wishes.admin,
            more = wishes.more,
        );
        let proxy = Proxy::start(&yaml, &wishes.clock, wishes.shared.clone()).await;
        Self { demo, proxy, clock: wishes.clock, yaml, shared: wishes.shared }
    }

    /// One more proxy with the same settings on ports of its own.
    pub(crate) async fn replica(&self) -> Proxy {
        self.replica_with("", "").await
    }

    /// One more proxy whose settings have one piece of text replaced by another.
    pub(crate) async fn replica_with(&self, old: &str, new: &str) -> Proxy {
        Proxy::start(&self.yaml.replacen(old, new, 1), &self.clock, self.shared.clone()).await
    }

    /// The same world with its proxy started anew; the old one is gone before the new one begins.
    pub(crate) async fn restarted(self) -> Self {
        let Self { demo, proxy, clock, yaml, shared } = self;
        drop(proxy);
        let proxy = Proxy::start(&yaml, &clock, shared.clone()).await;
        proxy.knows_provider().await;
        Self { demo, proxy, clock, yaml, shared }
    }

    /// A browser that knows nothing yet.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.proxy.address)
    }

    /// A browser with a session of `alice`.
    pub(crate) async fn logged_in(&self) -> Browser {
        let mut browser = self.browser();
        browser.log_in("/").await;
        browser
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        self.proxy.admin_page("/metrics").await.1
    }

    /// The value of a metric's line that begins with `series`; 0 if there is none.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

impl Proxy {
    /// Starts one with these settings, in which `@PROXY@` and `@ADMIN@` stand for its addresses.
    pub(crate) async fn start(yaml: &str, clock: &Clock, shared: Option<SharedStore>) -> Self {
        capture_logs();
        let (address, admin) = (free_address(), free_address());
        let yaml = yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
        let settings = load(&yaml);
        let (stop, clock) = (Arc::new(Notify::new()), clock.clone());
        let drains = Arc::new(AtomicBool::new(false));
        let signal = Stop(stop.clone(), drains.clone());
        let (made, failed) = tokio::sync::oneshot::channel();
        let make = move || match shared {
            Some(store) => App::with_store(store, &settings, &clock),
            None => App::new(&settings, &clock),
        };
        let thread = std::thread::spawn(move || match make() {
            Ok(app) => {
                let _ = made.send(Ok(app.reloader()));
                app.run(Box::new(signal));
            }
            Err(error) => drop(made.send(Err(error.to_string()))),
        });
        let reloader = failed.await.expect("the proxy starts or says why not");
        let reloader = reloader.unwrap_or_else(|error| panic!("the proxy does not start: {error}"));
        let proxy = Self { address, admin, reloader, yaml, stop, drains, thread: Some(thread) };
        eventually("the proxy listens", || async { proxy.try_admin_page("/livez").await.is_some() }).await;
        eventually("the provider is discovered", || async {
            proxy.admin_page("/readyz?verbose").await.1.contains("listeners: ready")
        })
        .await;
        proxy
    }

    /// Applies its own settings with one piece of text replaced by another.
    pub(crate) async fn reload(&self, old: &str, new: &str) -> Result<Outcome, ReloadError> {
        assert!(self.yaml.contains(old), "{old}");
        self.reloader.apply(load(&self.yaml.replacen(old, new, 1))).await
    }

    /// Begins to stop as it does on SIGTERM: what is under way goes on for a while.
    pub(crate) fn drain(&self) {
        self.drains.store(true, Ordering::SeqCst);
        self.stop.notify_one();
    }

    /// Waits until the provider's metadata is there.
    pub(crate) async fn knows_provider(&self) {
        eventually("the provider is known", || async {
            self.admin_page("/readyz?verbose").await.1.contains("provider demo: ready")
        })
        .await;
    }

    pub(crate) async fn admin_page(&self, path: &str) -> (StatusCode, String) {
        self.try_admin_page(path).await.expect("the admin listener answers")
    }

    async fn try_admin_page(&self, path: &str) -> Option<(StatusCode, String)> {
        let answer = client().get(format!("http://{}{path}", self.admin)).send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    }
}

fn load(yaml: &str) -> Settings {
    let (key, secret) = ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", demo::CLIENT_SECRET);
    let env = Env::fixed([("TEST_KEY", key), ("TEST_SECRET", secret)]);
    config::load_str("test.yaml", yaml, &env).unwrap_or_else(|mistakes| panic!("{}", mistakes.plain())).settings
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn location(&self) -> &str {
        self.headers.get(LOCATION).unwrap_or_else(|| panic!("no redirect: {self:?}")).to_str().expect("text")
    }

    pub(crate) fn set_cookies(&self) -> Vec<String> {
        self.headers.get_all(SET_COOKIE).iter().map(|v| v.to_str().expect("text").to_owned()).collect()
    }

    /// The code of one of our own errors.
    pub(crate) fn code(&self) -> &str {
        self.header("cloakroom-error")
    }
}

/// A browser: a cookie jar for each host and port, no redirects followed by itself, everything it received kept.
pub(crate) struct Browser {
    pub(crate) home: SocketAddr,
    pub(crate) jars: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) received: Vec<Seen>,
    pub(crate) client: Client,
    /// `http`, or `https` where the listener speaks TLS.
    pub(crate) scheme: &'static str,
}

/// A request about to be sent.
pub(crate) struct Draft {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Draft {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("value"));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// As a browser's address bar or a link on our own page does it.
    pub(crate) fn navigation(self) -> Self {
        self.header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-site", "same-origin")
            .header("accept", "text/html,application/xhtml+xml")
    }
}

impl Browser {
    pub(crate) fn new(home: SocketAddr) -> Self {
        Self { home, jars: BTreeMap::new(), received: Vec::new(), client: client(), scheme: "http" }
    }

    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.home)
    }

    /// A cookie of our site.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.jars.get(&self.home.to_string())?.get(name).map(String::as_str)
    }

    pub(crate) fn set_cookie(&mut self, name: &str, value: &str) {
        self.jars.entry(self.home.to_string()).or_default().insert(name.into(), value.into());
    }

    pub(crate) fn draft(&self, method: Method, target: &str) -> Draft {
        let url = if target.starts_with('/') { format!("{}{target}", self.origin()) } else { target.to_owned() };
        Draft { method, url, headers: HeaderMap::new(), body: Vec::new() }
    }

    pub(crate) async fn send(&mut self, draft: Draft) -> Seen {
        let url: reqwest::Url = draft.url.parse().expect("url");
        let host = format!("{}:{}", url.host_str().expect("host"), url.port_or_known_default().expect("port"));
        let mut request = self.client.request(draft.method, url).headers(draft.headers).body(draft.body);
        let jar = self.jars.entry(host).or_default();
        if !jar.is_empty() {
            let line = jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
            request = request.header(COOKIE, line);
        }
        let answer = request.send().await.expect("an answer");
        let seen = Seen {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: String::from_utf8_lossy(&answer.bytes().await.expect("a body")).into_owned(),
        };
        for line in seen.set_cookies() {
            let (pair, attributes) = line.split_once(';').unwrap_or((&line, ""));
            let (name, value) = pair.split_once('=').expect("a cookie");
            if attributes.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        self.received.push(seen.clone());
        seen
    }

    /// A script's GET from our own page.
    pub(crate) async fn fetch(&mut self, target: &str) -> Seen {
        let draft = self.draft(Method::GET, target);
        self.send(draft.header("sec-fetch-mode", "cors").header("sec-fetch-site", "same-origin")).await
    }

    /// A navigation to a page.
    pub(crate) async fn navigate(&mut self, target: &str) -> Seen {
        let draft = self.draft(Method::GET, target);
        self.send(draft.navigation()).await
    }

    /// A script's request from our own page with the XSRF header that belongs to it.
    pub(crate) async fn write(&mut self, method: Method, target: &str, body: &str) -> Seen {
        let (origin, token) = (self.origin(), self.cookie(XSRF).unwrap_or_default().to_owned());
        let draft = self.draft(method, target).body(body);
        self.send(draft.header("origin", &origin).header("x-xsrf-token", &token)).await
    }

    /// From our redirect to the provider up to the address of our callback.
    pub(crate) async fn authorize(&mut self, start: &str) -> String {
        let answer = self.navigate(start).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
        let answer = self.navigate(answer.location()).await;
        assert!(answer.status.is_redirection(), "{answer:?}");
        answer.location().to_owned()
    }

    /// The whole login; ends on the continue page.
    pub(crate) async fn log_in(&mut self, path: &str) -> Seen {
        let callback = self.authorize(path).await;
        let page = self.navigate(&callback).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        assert!(self.cookie(SESSION).is_some(), "{page:?}");
        page
    }
}

/// Runs `check` until it is true.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let until = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < until, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn client() -> Client {
    cloakroom::listener::tls::install_crypto_provider();
    Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().expect("client")
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A port of our own: below those that the system gives to clients, or one of the many connections of these tests could
/// take it before the proxy does; and never the same one twice in this process.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 64).expect("small") * 256;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::SeqCst) % 4_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

static LOGS: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

/// Everything any proxy of this process logs, at the finest level.
pub(crate) fn logs() -> String {
    let logs = capture_logs();
    String::from_utf8_lossy(&logs.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

fn capture_logs() -> &'static Arc<Mutex<Vec<u8>>> {
    LOGS.get_or_init(|| {
        let logs = Arc::new(Mutex::new(Vec::new()));
        let writer = LogWriter(logs.clone());
        let make = move || writer.clone();
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(make)
            .try_init();
        logs
    })
}

#[derive(Clone)]
struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
