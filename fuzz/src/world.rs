//! A gate with a few routes, and requests for it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use cloakroom::config::{Env, load_str};
use cloakroom::gate::{Connection, Gate, Request, Verdict};
use http::HeaderMap;
use pingora::http::RequestHeader;

/// The host of the one site.
pub const HOST: &str = "app.test";

/// A peer that is believed, see [`SETTINGS`], and one that is not.
pub const TRUSTED: &str = "10.0.0.1";
/// See [`TRUSTED`].
pub const STRANGER: &str = "192.0.2.1";

/// The routes: path without a final slash, what is taken off, what is put in its place.
pub const ROUTES: [(&str, &str, &str); 7] = [
    ("", "", ""),
    ("/api", "", ""),
    ("/api/v1", "/api", ""),
    ("/api/v1/admin", "/api/v1/admin", "/internal"),
    ("/a.b/~x", "", ""),
    ("/gone", "/gone", ""),
    ("/with%20space", "", ""),
];

/// Below it are endpoints of our own.
pub const AUTH: &str = "/auth";

/// The headers that name the user, in the settings.
pub const IDENTITY: [&str; 2] = ["X-User-Id", "Remote_User"];

const SETTINGS: &str = r#"
listeners: [{ address: "127.0.0.1:8080" }]
trusted_proxies: [10.0.0.0/8, "fd00::/8"]
keys: [{ id: a, secret: { env: KEY } }]
providers:
  - name: idp
    issuer: https://issuer.test
    client_id: app
    client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }
upstreams: [{ name: a, endpoints: ["127.0.0.1:1"] }]
sites:
  - hosts: [app.test]
    provider: idp
    aliases: { login: /enter }
    routes:
      - { path: /, upstream: a, access: public }
      - { path: /api, upstream: a, access: optional, identity_headers: { X-User-Id: sub, Remote_User: name } }
      - { path: /api/v1, upstream: a, access: public, strip_prefix: /api }
      - { path: /api/v1/admin, upstream: a, access: public, replace_prefix: /internal }
      - { path: /a.b/~x, upstream: a, access: public }
      - { path: /gone, upstream: a, access: public, strip_prefix: /gone }
      - { path: /with%20space, upstream: a, access: public }
"#;

/// Variables for settings; their values are nowhere else.
#[must_use]
pub fn env() -> Env {
    Env::fixed([
        ("KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("CLOAKROOM_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("CLIENT_SECRET", "correct-horse-battery-staple"),
        ("REDIS_URL", "redis://:correct-horse-battery-staple@redis:6379/1"),
        ("POSTGRES_URL", "postgres://cloakroom:correct-horse-battery-staple@db/cloakroom"),
    ])
}

/// The gate of these settings.
pub fn gate() -> &'static Arc<Gate> {
    static GATE: OnceLock<Arc<Gate>> = OnceLock::new();
    GATE.get_or_init(|| {
        let loaded = load_str("fuzz.yaml", SETTINGS, &env()).unwrap_or_else(|found| panic!("{}", found.plain()));
        let mut settings = loaded.settings;
        // The gate knows nothing of them, and a port could be taken.
        settings.listeners.clear();
        cloakroom::fuzzing::gate(&settings).expect("good settings make a gate")
    })
}

/// The path of a request, as the proxy takes it from Pingora.
#[must_use]
pub fn raw_path(header: &RequestHeader) -> &str {
    if header.raw_path_is_utf8() { header.uri.path() } else { "" }
}

/// What the gate says to a request from this peer.
#[must_use]
pub fn admit(header: &RequestHeader, headers: &HeaderMap, peer: IpAddr) -> Verdict {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime of one thread");
    }
    let request = Request {
        method: &header.method,
        uri: &header.uri,
        raw_path: raw_path(header),
        headers,
        connection: Connection::plain(peer),
    };
    RUNTIME.with(|runtime| runtime.block_on(gate().admit(request)))
}

/// The route that has the longest path, each tried in turn: its index.
#[must_use]
pub fn longest(path: &str) -> Option<usize> {
    let covers = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (0..ROUTES.len()).filter(|index| covers(ROUTES[*index].0)).max_by_key(|index| ROUTES[*index].0.len())
}
