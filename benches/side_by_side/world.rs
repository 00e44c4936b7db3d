//! The processes under load, and a session to load them with.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom::demo;
use reqwest::Client;
use reqwest::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};

const PATIENCE: Duration = Duration::from_secs(60);
const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) process: u32,
    pub(crate) url: String,
    pub(crate) cookie: Option<String>,
    /// Position of the case in which bare Pingora gets the very same request.
    pub(crate) bare: usize,
}

/// Everything that runs; ends when dropped.
pub(crate) struct World {
    pub(crate) cases: Vec<Case>,
    _demo: demo::Demo,
    _files: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        cloakroom::listener::tls::install_crypto_provider();
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let demo = demo::start(any, any).expect("provider");
        demo.provider.switches().auto_login("alice");
        // The token must outlive the run: a refresh would be measured as well.
        demo.provider.switches().set(|m| m.access_token_lifetime = Some(Duration::from_secs(3600)));
        let files = tempfile::tempdir().expect("folder");
        let (upstream, bare, redis) = (free(), free(), free());

        let itself = std::env::current_exe().expect("own path");
        let mut children = Vec::new();
        let mut start = |command: &mut Command, address: SocketAddr| {
            let child = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn();
            let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
            let id = child.id();
            children.push(child);
            listening(address);
            id
        };
        start(on(LOAD_CORE, &itself).args(["upstream", &upstream.to_string()]), upstream);
        let port = redis.port().to_string();
        start(
            on(LOAD_CORE, Path::new("redis-server")).args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]),
            redis,
        );
        let id = start(on(PROXY_CORE, &itself).args(["bare", &bare.to_string(), &upstream.to_string()]), bare);
        let bare_url = format!("http://{bare}/api/item");
        let mut cases = vec![Case { name: "bare Pingora", process: id, url: bare_url.clone(), cookie: None, bare: 0 }];

        let redis_store = format!("{{ kind: redis, url: \"redis://{redis}\" }}");
        // The bare proxy writes no access log; what ours costs is a case of its own.
        for (name, store, ttl, log) in [
            ("session in the local cache", "{ kind: memory }", "1h", false),
            ("the same, with the access log", "{ kind: memory }", "1h", true),
            ("session read from the memory store", "{ kind: memory }", "1ms", false),
            ("session read from Redis", redis_store.as_str(), "1ms", false),
        ] {
            let address = free();
            let file = files.path().join(format!("{}.yaml", address.port()));
            fs::write(&file, settings(address, upstream, demo.provider.issuer(), store, ttl, log)).expect("settings");
            let mut command = on(PROXY_CORE, Path::new(env!("CARGO_BIN_EXE_cloakroom")));
            command.arg("run").arg("-c").arg(&file).env("KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
            let process = start(command.env("SECRET", demo::CLIENT_SECRET).stderr(Stdio::null()), address);
            let cookie = log_in(address).await;
            if cases.len() == 1 {
                let url = format!("http://{address}/open/item");
                cases.push(Case { name: "public route", process, url, cookie: None, bare: 0 });
                let (name, url, cookie) = ("bare Pingora, with a cookie", bare_url.clone(), Some(cookie.clone()));
                cases.push(Case { name, process: id, url, cookie, bare: 2 });
            }
            let url = format!("http://{address}/api/item");
            cases.push(Case { name, process, url, cookie: Some(cookie), bare: 2 });
        }
        Self { cases, _demo: demo, _files: files, children }
    }
}

fn settings(address: SocketAddr, upstream: SocketAddr, issuer: &str, store: &str, ttl: &str, log: bool) -> String {
    format!(
        r#"
listeners: [{{ address: "{address}" }}]
threads: 1
keys: [{{ id: bench, secret: {{ env: KEY }} }}]
store: {store}
session: {{ cache: {{ ttl: {ttl} }} }}
telemetry: {{ access_log: {{ enabled: {log} }} }}
providers:
  - name: demo
    kind: oidc
    issuer: {issuer}
    client_id: {client_id}
    client_auth: {{ method: client_secret_basic, secret: {{ env: SECRET }} }}
upstreams: [{{ name: api, endpoints: ["{upstream}"] }}]
sites:
  - hosts: [127.0.0.1]
    provider: demo
    routes:
      - {{ path: /api/, upstream: api, access: required, identity_headers: {{ X-User: sub, X-Name: name }} }}
      - {{ path: /open/, upstream: api, access: public }}
"#,
        client_id = demo::CLIENT_ID,
    )
}

/// `login PROVIDER PROXY`, for profilers: a provider, a login at a proxy that was started by hand, its `Cookie` line, and
/// then sleep.
pub(crate) fn hold_login(arguments: &[String]) {
    let at =
        |position: usize| arguments.get(position).and_then(|text| text.parse::<SocketAddr>().ok()).expect("address");
    cloakroom::listener::tls::install_crypto_provider();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let demo = demo::start(at(2), (Ipv4Addr::LOCALHOST, 0).into()).expect("provider");
        demo.provider.switches().auto_login("alice");
        demo.provider.switches().set(|m| m.access_token_lifetime = Some(Duration::from_secs(36_000)));
        println!("{}", log_in(at(3)).await);
        std::future::pending::<()>().await;
    });
}

/// Walks through a login and returns the `Cookie` line of the session.
async fn log_in(proxy: SocketAddr) -> String {
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().expect("client");
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(cookie) = try_log_in(&client, proxy).await {
            return cookie;
        }
        assert!(Instant::now() < until, "no login");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn try_log_in(client: &Client, proxy: SocketAddr) -> Option<String> {
    let start = client.get(format!("http://{proxy}/api/item")).header(ACCEPT, "text/html").send().await.ok()?;
    let binding = cookies(&start);
    let provider = client.get(start.headers().get(LOCATION)?.to_str().ok()?).send().await.ok()?;
    let callback = provider.headers().get(LOCATION)?.to_str().ok()?.to_owned();
    let done = client.get(callback).header(COOKIE, binding).send().await.ok()?;
    Some(cookies(&done)).filter(|line| line.contains("session"))
}

fn cookies(answer: &reqwest::Response) -> String {
    let all = answer.headers().get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.filter_map(|line| line.split(';').next()).collect::<Vec<_>>().join("; ")
}

/// A command that runs on one core. `taskset` becomes the program, so the process id is the program's.
fn on(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

fn listening(address: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
