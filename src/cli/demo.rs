//! `cloakroom demo`: everything on loopback, nothing to install, nothing to set.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::signals::Signals;
use super::{FAILED, log};
use crate::app::App;
use crate::config::{self, Env};
use crate::demo::{self, Demo};
use crate::primitives::clock::Clock;
use crate::primitives::random;

/// What `demo` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port of the proxy
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// The page is on `localhost`, the provider on `127.0.0.1`: to a browser these are two sites, as in real life.
const HOST: &str = "localhost";

pub(super) fn run(args: &Args) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo cannot start: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_filter(log::filter("warn"));
    let _ = tracing_subscriber::registry().with(lines).try_init();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let any = loopback(0);
    let demo = {
        let _runtime = runtime.enter();
        demo::start(any, any).context("provider and API")?
    };
    let proxy = loopback(args.port);
    let taken = || format!("port {} is taken; choose another with --port", args.port);
    let proxy = TcpListener::bind(proxy).and_then(|socket| socket.local_addr()).with_context(taken)?;
    let admin = TcpListener::bind(any)?.local_addr()?;

    let yaml = settings(proxy, admin, &demo);
    let key = STANDARD.encode(random::bytes::<32>()?);
    let env = Env::fixed([("DEMO_KEY", key.as_str()), ("DEMO_SECRET", demo::CLIENT_SECRET)]);
    let loaded = config::load_str("demo.yaml", &yaml, &env).map_err(|mistakes| anyhow::anyhow!(mistakes.plain()))?;
    let app = App::new(&loaded.settings, &Clock::system())?;
    tell(proxy, admin, &demo);
    let signals = Signals::new(&app, &loaded.settings, None);
    app.run(Box::new(signals));
    drop(demo);
    Ok(())
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// As a newcomer would write them, but for one thing: on plain HTTP a browser takes no `Secure` cookie everywhere, so
/// the demo's cookies go without, and without the `__Host-` prefix that demands it.
fn settings(proxy: SocketAddr, admin: SocketAddr, demo: &Demo) -> String {
    format!(
        r#"
listeners: [{{ address: "{proxy}" }}]
admin: {{ address: "{admin}" }}
keys: [{{ id: demo, secret: {{ env: DEMO_KEY }} }}]
store: {{ kind: memory }}
session:
  cookie: {{ name: session, secure: false }}
providers:
  - name: demo
    kind: oidc
    issuer: {issuer}
    client_id: {client_id}
    client_auth: {{ method: client_secret_basic, secret: {{ env: DEMO_SECRET }} }}
    scopes: [openid, profile, email]
upstreams:
  - {{ name: demo, endpoints: ["{upstream}"] }}
sites:
  - hosts: [{HOST}, 127.0.0.1]
    provider: demo
    routes:
      - path: /api/
        upstream: demo
        access: required
        identity_headers: {{ X-User-Id: sub, X-User-Name: name, X-User-Roles: realm_access.roles }}
      - path: /
        upstream: demo
        access: optional
        token: {{ kind: none }}
"#,
        issuer = demo.provider.issuer(),
        client_id = demo::CLIENT_ID,
        upstream = demo.upstream.address(),
    )
}

fn tell(proxy: SocketAddr, admin: SocketAddr, demo: &Demo) {
    let port = proxy.port();
    println!(
        "\n  Cloakroom demo\n\n  \
         Open      http://{HOST}:{port}/\n  \
         Users     {users} (one click each, no password)\n\n  \
         Try\n    \
         - log in, and look at the cookies: no token among them\n    \
         - call the API, and see which headers reached it\n    \
         - wait a minute and call again: the access token is renewed, the page notices nothing\n    \
         - post with and without the XSRF header\n    \
         - open a second tab, log out in one of them\n\n  \
         Provider  {issuer}\n  \
         API       http://{api}/\n  \
         Metrics   http://{admin}/metrics\n\n  \
         Everything listens on this machine only. Ctrl-C ends it.\n",
        users = demo::USERS.join(" and "),
        issuer = demo.provider.issuer(),
        api = demo.upstream.address(),
    );
}
