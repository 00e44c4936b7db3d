//! Whole files in, settings or diagnostics out. One file a risk.

mod access;
mod derived;
mod examples;
mod limits;
mod provider_values;
mod providers;
mod rates;
mod relations;
mod report;
mod route_relations;
mod secrecy;
mod tokens;
mod values;

use super::*;

/// 32 different bytes.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Made for these tests, like everything here.
const DPOP_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgN/TG89DNcQ1QxpLV\nCPWLC+tCoKVSR1hDcBCc7iqCZbyhRANCAARGT4rOY5GHvjciLv7AIcFChOdcVfDg\nLUM5TtFAsCzLTBJa4Ccj6lKBaVWl091ITVC2+GYVptqMsHS1m08y6GNj\n-----END PRIVATE KEY-----";

fn env() -> Env {
    Env::fixed([
        ("CLOAKROOM_KEY", KEY),
        ("CLOAKROOM_PROXY_KEY", "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("CLOAKROOM_ADMIN_TOKEN", "admin-token-from-outside"),
        ("CLIENT_SECRET", "client-secret-from-outside"),
        ("DPOP_KEY", DPOP_KEY),
        ("REDIS_URL", "redis://:password@redis:6379/1"),
        ("POSTGRES_URL", "postgres://cloakroom:password@db/cloakroom"),
        ("EMPTY", ""),
        ("BREAK", "secret\r\n"),
    ])
}

/// A file without mistakes and warnings; tests replace parts of it.
const GOOD: &str = r#"listeners:
  - address: 127.0.0.1:8080
admin:
  address: 127.0.0.1:9090
keys:
  - id: one
    secret: { env: CLOAKROOM_KEY }
store: { kind: memory }
session:
  idle_timeout: 30m
  absolute_timeout: 12h
  cookie: { name: __Host-session }
  csrf: { cookie: XSRF-TOKEN, header: X-XSRF-TOKEN }
  cache: { ttl: 5s, capacity: 1000 }
refresh: { minimum_lifetime: 10s }
providers:
  - name: main
    issuer: https://id.example.com/realms/main
    client_id: cloakroom
    client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }
    scopes: [openid, profile]
upstreams:
  - name: api
    endpoints: ["api.internal:3000"]
sites:
  - hosts: [app.example.com]
    provider: main
    auth_path: /auth
    aliases: { login: /login }
    origins: []
    routes:
      - path: /api
        upstream: api
        access: required
        max_body: 10MiB
"#;

fn load_text(text: &str) -> Result<Loaded, Diagnostics> {
    load_str("cloakroom.yaml", text, &env())
}

/// [`GOOD`] with one part replaced.
fn with(old: &str, new: &str) -> Result<Loaded, Diagnostics> {
    assert_eq!(GOOD.matches(old).count(), 1, "{old:?} must stand in the good file exactly once");
    load_text(&GOOD.replace(old, new))
}

/// `line:column code` of all that is found.
fn places(outcome: &Result<Loaded, Diagnostics>) -> Vec<String> {
    let found = match outcome {
        Ok(loaded) => &loaded.warnings,
        Err(found) => found,
    };
    found.iter().map(|d| format!("{}:{} {}", d.span.line, d.span.column, d.code)).collect()
}

/// The codes alone.
fn codes(outcome: &Result<Loaded, Diagnostics>) -> Vec<&'static str> {
    let found = match outcome {
        Ok(loaded) => &loaded.warnings,
        Err(found) => found,
    };
    found.iter().map(|d| d.code.as_str()).collect()
}

/// Each case replaces a part of the good file and yields exactly these codes.
fn expect(old: &str, cases: &[(&str, &[&str])]) {
    for (new, expected) in cases {
        let outcome = with(old, new);
        assert_eq!(
            codes(&outcome),
            *expected,
            "{new}\n{}",
            outcome.err().map(|found| found.plain()).unwrap_or_default()
        );
    }
}

#[test]
fn the_good_file_is_good_and_defaults_are_as_documented() {
    let loaded = load_text(GOOD).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let bare = r#"
listeners: [{ address: "[::1]:8080" }]
keys: [{ id: one, secret: { env: CLOAKROOM_KEY } }]
upstreams: [{ name: a, endpoints: ["[::1]:80", "10.0.0.1:81", "Host.Example:82"] }]
providers: [{ name: p, issuer: "http://localhost:9/", client_id: c, client_auth: { method: client_secret_post, secret: { env: BREAK } }, scopes: [email] }]
sites:
- hosts: [App.Example.com, "*.Example.org", "::1", bücher.example]
  provider: p
  origins: ["https://App.example.com:443"]
  routes: [{ path: /, upstream: a }, { path: /p/, upstream: a, access: public, strip_prefix: /p }]
- hosts: ["*"]
  routes: [{ path: /, upstream: a, access: public }]
"#;
    let settings = load_text(bare).map_err(|found| found.plain()).unwrap().settings;
    insta_like(
        &settings,
        r#"Settings { listeners: [Listener { address: [::1]:8080, tls: None, redirect_to_https: None, proxy_protocol: false, forward_auth: None }], threads: N, trusted_proxies: [],
limits: Limits { header_timeout: 10s, handshake_timeout: 10s, keepalive_timeout: 60s, body_timeout: 30s, body_rate: 240, write_timeout: 30s, header_size: 32768, header_fields: 100, uri_length: 8192, requests_per_connection: Some(10000), connections: Fitting, connections_per_address: Fitting, memory: Fitting, http2: Http2 { streams: 100, header_list: 16384, window: 1048576, idle: 300s } }, admin: None,
keys: [SealingKey { id: "one", secret: Key256(…) }], proxy_token: None, store: Memory,
session: Session { idle_timeout: 1800s, absolute_timeout: 43200s, returning_timeout: 0ns, returning_tokens: Drop, rotate_every: 900s, rotation_grace: 60s, cookie: SessionCookie { name: "__Host-session", same_site: Strict, secure: true },
csrf: Csrf { cookie: "XSRF-TOKEN", header: "x-xsrf-token", mode: Enforce }, cache: Cache { ttl: 5s, capacity: 100000, memory: 268435456 } },
refresh: Refresh { ahead: 60s, minimum_lifetime: 10s, active_within: 900s, concurrency: 32, per_second: 100 },
providers: [Oidc(Provider { name: "p", title: "p", issuer: "http://localhost:9/", client_id: "c", client_auth: Post(SecretText(…)), dpop: None, ca: None, pushed_authorization: Auto, response_mode: Query, login_parameters: [Prompt, LoginHint, AcrValues, MaxAge], merge_userinfo: false, revoke_access_tokens: false, scopes: ["openid", "email"], refresh_token_grace: 0ns, backchannel_logout: BackchannelLogout { scope: Session, require_exp: true }, frontchannel_logout: Off, introspection: None, authorization_params: {} })],
upstreams: [Upstream { name: "a", endpoints: [Endpoint { host: "::1", port: 80, weight: 1 }, Endpoint { host: "10.0.0.1", port: 81, weight: 1 }, Endpoint { host: "host.example", port: 82, weight: 1 }],
balance: RoundRobin, protocol: Http1, tls: None, health_check: None, ejection: Some(Ejection { after: 5, on_5xx: false, pause: 10s, longest_pause: 300s }), max_requests: None,
timeouts: UpstreamTimeouts { connect: 2s, read: 60s, write: 60s, idle: 60s }, retries: Retries { attempts: 3, budget: 20 } }], idle_connections: None,
sites: [Site { name: "app.example.com", hosts: [Exact("app.example.com"), Wildcard("example.org"), Exact("[::1]"), Exact("xn--bcher-kva.example")], providers: ["p"], auth_path: /auth,
aliases: Aliases { login: None, logout: None, userinfo: None }, context_claims: [], origins: [Origin(https://app.example.com/)], bearer: None, security_headers: SecurityHeaders { hsts: 31536000s, hsts_subdomains: false, nosniff: true, referrer_policy: Some("strict-origin-when-cross-origin"), frames: SameOrigin },
routes: [Route { path: /, when: Conditions { hosts: [], methods: [], headers: [] }, action: Upstream(Forward { upstream: "a", rewrite: None, host: None, request_headers: HeaderChanges { set: [], add: [], remove: [] }, compress: [] }), access: Required, accept: Accept { session: true, bearer: false, proxy_token: false }, scopes: [], level: LoggedOn, level_header: None, allow: [], provider: None, on_missing: Auto, token: Access, identity_headers: [], context: None, max_body: 10485760, csrf: true, retry_unauthorized: true, step_up: true, response_headers: HeaderChanges { set: [], add: [], remove: [] }, cors: None, timeouts: None, rate_limits: [] },
Route { path: /p, when: Conditions { hosts: [], methods: [], headers: [] }, action: Upstream(Forward { upstream: "a", rewrite: Some(Rewrite { from: /p, to: / }), host: None, request_headers: HeaderChanges { set: [], add: [], remove: [] }, compress: [] }), access: Public, accept: Accept { session: true, bearer: false, proxy_token: false }, scopes: [], level: LoggedOn, level_header: None, allow: [], provider: None, on_missing: Auto, token: None, identity_headers: [], context: None, max_body: 10485760, csrf: true, retry_unauthorized: true, step_up: true, response_headers: HeaderChanges { set: [], add: [], remove: [] }, cors: None, timeouts: None, rate_limits: [] }] },
Site { name: "*", hosts: [Any], providers: [], auth_path: /auth, aliases: Aliases { login: None, logout: None, userinfo: None }, context_claims: [], origins: [], bearer: None, security_headers: SecurityHeaders { hsts: 31536000s, hsts_subdomains: false, nosniff: true, referrer_policy: Some("strict-origin-when-cross-origin"), frames: SameOrigin },
routes: [Route { path: /, when: Conditions { hosts: [], methods: [], headers: [] }, action: Upstream(Forward { upstream: "a", rewrite: None, host: None, request_headers: HeaderChanges { set: [], add: [], remove: [] }, compress: [] }), access: Public, accept: Accept { session: true, bearer: false, proxy_token: false }, scopes: [], level: LoggedOn, level_header: None, allow: [], provider: None, on_missing: Auto, token: None, identity_headers: [], context: None, max_body: 10485760, csrf: true, retry_unauthorized: true, step_up: true, response_headers: HeaderChanges { set: [], add: [], remove: [] }, cors: None, timeouts: None, rate_limits: [] }] }],
shutdown: Shutdown { lame_duck: 5s, grace: 35s, upgrade_socket: "/run/cloakroom/upgrade.sock" },
telemetry: Telemetry { access_log: AccessLog { enabled: true, omit: Fields(0) }, traces: None } }"#,
    );
    let settings::ClientAuth::Post(secret) = &settings.providers[0].oidc().unwrap().client_auth else { panic!() };
    assert_eq!(secret.expose(), "secret", "the line break is taken off");
}

/// Compares the `Debug` text, with the URL's long form and the number of cores taken out.
fn insta_like(settings: &settings::Settings, expected: &str) {
    let mut text = format!("{settings:?}").replace(&format!("threads: {}", settings.threads), "threads: N");
    while let Some((before, rest)) = text.split_once("Origin(Url {") {
        let (_, after) = rest.split_once("})").unwrap();
        text = format!("{before}Origin({}){after}", settings.sites[0].origins[0].0);
    }
    assert_eq!(text, expected.replace('\n', " "));
}
