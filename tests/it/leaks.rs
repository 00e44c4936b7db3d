//! No secret is where it should not be (behaviour K1, D3, D4, F37): not in what a browser gets, a log at its finest level,
//! the metrics, or the store.
//!
//! A browser rightly gets: the values of our own cookies, in `Set-Cookie`; `state` and `nonce`, in the redirect to the
//! provider; the ID token as `id_token_hint`, in the redirect to the provider's logout page; the CSRF token, in the form
//! that asks whether to log out; and from `/auth/userinfo` the claims of the ID token, the canary among them, but no token.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use cloakroom::demo::provider::{LogoutTokenFault, send_logout_token};
use cloakroom::demo::{CLIENT_SECRET, Fault};
use reqwest::header::SET_COOKIE;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Browser, LOGIN, SESSION, Seen, World, XSRF, eventually, logs};
use crate::kit::*;
use crate::process::{Process, free_address};
use crate::redis_server::RedisServer;
use crate::secrets_found::Secrets;

const ADMIN_TOKEN: &str = "the-admin-token-of-the-leak-test";
const CANARY: &str = "canary-4b1d-that-sings-in-every-token";
const SEALING_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// A short life, so that the machine's own clock brings refreshes.
const LIFE: u64 = 2;

struct Scene {
    world: World,
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    secrets: Secrets,
    /// What browsers got from us, each with the secrets that may be in it.
    received: Vec<(String, Seen, &'static [&'static str])>,
}

impl Scene {
    async fn start(redis: &RedisServer) -> Self {
        let wishes = crate::harness::Wishes { store: store_at(redis), ..Default::default() };
        let world = world(wishes).await;
        let broken = upstream_with_bad_headers();
        let (address, admin) = (free_address(), free_address());
        let yaml = world
            .yaml
            .replace("@PROXY@", &address.to_string())
            .replace("\"@ADMIN@\"", &format!("\"{admin}\", token: {ADMIN_TOKEN}"))
            .replace("upstreams:\n", &format!("upstreams:\n  - {{ name: broken, endpoints: [\"{broken}\"] }}\n"))
            .replace("    routes:\n", "    routes:\n      - { path: /broken/, upstream: broken, access: required }\n");
        let environment = [("TEST_KEY", SEALING_KEY), ("TEST_SECRET", CLIENT_SECRET), ("RUST_LOG", "trace")];
        let process = Process::start(&yaml, &environment);
        let scene = Self { world, process, address, admin, secrets: Secrets::default(), received: Vec::new() };
        eventually("the program is ready", || async {
            scene.admin_page("/readyz?verbose").await.contains("demo: ready")
        })
        .await;
        scene
    }

    async fn admin_page(&self, path: &str) -> String {
        let page = reqwest::Client::new().get(format!("http://{}{path}", self.admin)).bearer_auth(ADMIN_TOKEN);
        match page.send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Keeps an answer of ours for the search at the end.
    fn keep(&mut self, what: &str, seen: Seen, allowed: &'static [&'static str]) -> Seen {
        self.received.push((what.to_owned(), seen.clone(), allowed));
        seen
    }

    /// The kept secrets of a browser.
    fn know(&mut self, browser: &Browser) {
        for (kind, name) in [("session id", SESSION), ("CSRF token", XSRF), ("login binding", LOGIN)] {
            if let Some(value) = browser.cookie(name) {
                self.secrets.add(kind, value);
            }
        }
    }

    async fn log_in(&mut self) -> Browser {
        let mut browser = Browser::new(self.address);
        let callback = self.come_back(&mut browser).await;
        let page = browser.navigate(&callback).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        self.keep("the page after the login", page, &[]);
        self.know(&browser);
        browser
    }

    /// As far as the provider's redirect to our callback.
    async fn come_back(&mut self, browser: &mut Browser) -> String {
        let start = browser.navigate("/").await;
        let start = self.keep("the redirect to the provider", start, &["state", "nonce"]);
        self.know(browser);
        // The provider's own answer: code and state are its to give.
        browser.navigate(start.location()).await.location().to_owned()
    }

    fn assert_clean(&self, place: &str, text: &str) {
        self.secrets.assert_none_in(place, text, &[]);
    }
}

/// Answers every request with a header that is none, and a cookie in it.
fn upstream_with_bad_headers() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        // Ends with the process; each connection is served once.
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let answer = format!("HTTP/1.1 200 OK\r\nSet-Cookie: theirs={CANARY}\r\nno header \x01 at all\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// Everything that Redis holds, keys of every type.
fn dump(redis: &RedisServer) -> String {
    let script = "local out = {} for _, key in ipairs(redis.call('KEYS', '*')) do out[#out + 1] = key \
        local kind = redis.call('TYPE', key).ok \
        if kind == 'hash' then out[#out + 1] = redis.call('HGETALL', key) \
        elseif kind == 'string' then out[#out + 1] = redis.call('GET', key) \
        elseif kind == 'list' then out[#out + 1] = redis.call('LRANGE', key, 0, -1) \
        elseif kind == 'set' then out[#out + 1] = redis.call('SMEMBERS', key) \
        elseif kind == 'zset' then out[#out + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') \
        else error('a key of type ' .. kind) end end return out";
    let answer = redis.raw(&format!("EVAL \"{script}\" 0\r\n"));
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains("s:") && !text.contains("a key of type"), "{text}");
    text
}

/// A request written by hand; what comes back.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(secs(10), stream.read_to_end(&mut answer)).await;
    reading.expect("an answer in time").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests and answers of an ordinary day.
async fn good_day(scene: &mut Scene, redis: &RedisServer) {
    let mut browser = scene.log_in().await;
    for target in ["/api/whoami", "/maybe/x", "/id/x", "/auth/session"] {
        let seen = browser.fetch(target).await;
        assert_eq!(scene.keep(target, seen, &[]).status, StatusCode::OK);
    }
    let seen = browser.fetch("/auth/userinfo").await;
    assert!(seen.body.contains(CANARY));
    scene.keep("/auth/userinfo", seen, &["canary"]);
    let seen = browser.write(Method::POST, "/api/whoami", "x").await;
    // The sample API shows the header fields that reached it; the CSRF token is the page's own to send.
    assert_eq!(scene.keep("a write", seen, &["CSRF token"]).status, StatusCode::OK);
    let calls = token_calls(&scene.world);
    eventually_refreshed(scene, &mut browser, calls).await;

    let h2 = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let cookie = format!("{SESSION}={}", ticket(&browser));
    let answer = h2.get(format!("{}/api/whoami", browser.origin())).header("cookie", cookie).send().await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, reqwest::Version::HTTP_2));
    scene.assert_clean("an answer over HTTP/2", &answer.text().await.expect("a body"));

    // A login under way lies in the store too.
    scene.come_back(&mut Browser::new(scene.address)).await;
    scene.secrets.add_all_of(&scene.world);
    scene.assert_clean("Redis", &dump(redis));

    let asked = browser.draft(Method::GET, "/auth/logout").header("accept", "text/html");
    let seen = browser.send(asked).await;
    scene.keep("the page that asks", seen, &["CSRF token"]);
    let seen = log_out(&mut browser).await;
    assert!(seen.location().contains("id_token_hint="));
    scene.keep("the logout", seen, &["ID token", "canary", "nonce"]);
}

/// The provider and an administrator end sessions; others would like to.
async fn ended_from_outside(scene: &mut Scene) {
    let url = format!("http://{}/auth/backchannel-logout", scene.address);
    let browser = scene.log_in().await;
    let sid = newest(&scene.world).sid;
    for faults in [&[LogoutTokenFault::BadSignature][..], &[LogoutTokenFault::WithNonce], &[], &[]] {
        let logout = scene.world.demo.provider.logout_token(None, Some(&sid), faults).expect("a token");
        scene.secrets.add("logout token", &logout);
        for _ in 0..2 {
            let answer = send_logout_token(&url, &logout).await.expect("an answer");
            scene.assert_clean("the answer to a logout token", &answer.body);
        }
    }
    assert_eq!(holder(&browser).fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
    scene.log_in().await;
    let sid = newest(&scene.world).sid;
    for method in [Method::GET, Method::DELETE] {
        let url = format!("http://{}/sessions?provider_session={sid}", scene.admin);
        let answer =
            reqwest::Client::new().request(method, url).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let text = answer.text().await.expect("a body");
        assert!(text.contains(&sid), "{text}");
        scene.assert_clean("a list of sessions", &text);
    }
}

async fn eventually_refreshed(scene: &mut Scene, browser: &mut Browser, calls: usize) {
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while token_calls(&scene.world) == calls {
        assert!(std::time::Instant::now() < until, "no refresh");
        let seen = browser.fetch("/api/whoami").await;
        scene.keep("a request with a refresh", seen, &[]);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Errors of every kind that a stranger, the provider, the upstream or the store can bring about.
async fn bad_day(scene: &mut Scene, redis: &RedisServer) {
    let mut browser = scene.log_in().await;
    let (address, session) = (scene.address, ticket(&browser));
    for (target, fields) in [
        ("/api/whoami", "broken \x01 field"),
        ("/api/ /x", "X: 1"),
        ("/api/%2f", "X: 1"),
        ("/x", "Host: other"),
        ("/api/whoami", &format!("Cookie: {SESSION}={session}")),
        ("/x", &format!("X-Big: {}", "x".repeat(40_000))),
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nCookie: {SESSION}={session}\r\n{fields}\r\n\r\n"
        );
        let answer = raw(address, &request).await;
        scene.assert_clean("an answer to a broken request", &answer);
    }
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session}\r\nbroken \x01 field\r\n\r\n");
    raw(scene.admin, &request).await;

    let seen = browser.fetch("/broken/x").await;
    assert_eq!(scene.keep("a broken upstream", seen, &[]).status, StatusCode::BAD_GATEWAY);
    scene.world.demo.upstream.faults().add(Fault::reset().times(3));
    let seen = browser.fetch("/api/whoami").await;
    scene.keep("a reset upstream", seen, &[]);
    scene.world.demo.upstream.faults().clear();
    let forged = browser.draft(Method::POST, "/api/whoami").header("x-xsrf-token", &session);
    let seen = browser.send(forged).await;
    assert_eq!(scene.keep("a failed CSRF check", seen, &[]).status, StatusCode::FORBIDDEN);

    // Callbacks: with somebody else's state, twice, refused by the provider, and with a client that has gone.
    let mut other = Browser::new(address);
    let callback = scene.come_back(&mut other).await;
    for changed in [callback.replace("state=", "state=x"), callback.replace("iss=", "iss=x"), callback.clone()] {
        let seen = Browser::new(address).navigate(&changed).await;
        scene.keep("a callback that does not fit", seen, &[]);
        let seen = other.navigate(&changed).await;
        scene.keep("a callback that does not fit", seen, &[]);
    }
    let callback = scene.come_back(&mut other).await;
    token_fault(&scene.world, Fault::status(400).times(1));
    let seen = other.navigate(&callback).await;
    scene.keep("a refused code", seen, &[]);
    let callback = scene.come_back(&mut other).await;
    let gate = hold_tokens(&scene.world, true);
    let target = callback.split_once(&address.to_string()).expect("our own address").1.to_owned();
    let binding = other.cookie(LOGIN).expect("a binding").to_owned();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nCookie: {LOGIN}={binding}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    gate.arrived(1).await;
    stream.set_zero_linger().expect("an option");
    drop(stream);
    gate.open();

    for fault in [Fault::cut_json(), Fault::status(429), Fault::page(502)] {
        let mut browser = scene.log_in().await;
        token_fault(&scene.world, fault);
        let calls = token_calls(&scene.world);
        eventually_refreshed(scene, &mut browser, calls).await;
        heal(&scene.world);
    }
    scene.world.demo.provider.switches().set(|switch| switch.other_subject_on_refresh = true);
    let calls = token_calls(&scene.world);
    let mut browser = scene.log_in().await;
    eventually_refreshed(scene, &mut browser, calls + 1).await;
    scene.world.demo.provider.switches().set(|switch| switch.other_subject_on_refresh = false);

    redis.freeze();
    for target in ["/api/whoami", "/auth/session"] {
        let seen = browser.fetch(target).await;
        scene.keep("an outage", seen, &[]);
        let seen = browser.navigate("/").await;
        scene.keep("an outage", seen, &[]);
    }
    redis.thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn f37_no_secret_is_where_it_should_not_be() {
    let redis = RedisServer::start();
    let mut scene = Scene::start(&redis).await;
    scene.world.demo.provider.switches().set(|switch| {
        switch.canary = Some(CANARY.to_owned());
        switch.access_token_lifetime = Some(secs(LIFE));
    });
    scene.secrets.add("canary", CANARY);
    scene.secrets.add("client secret", CLIENT_SECRET);
    scene.secrets.add("sealing key", SEALING_KEY);
    scene.secrets.add("admin token", ADMIN_TOKEN);
    good_day(&mut scene, &redis).await;
    ended_from_outside(&mut scene).await;
    bad_day(&mut scene, &redis).await;
    scene.secrets.add_all_of(&scene.world);

    // The search works: what the upstream got is found.
    let upstream = scene.world.demo.upstream.recorder().all();
    let upstream: String = upstream.iter().flat_map(|request| request.bearer()).collect();
    assert_eq!(scene.secrets.found_in(&upstream), ["ID token", "access token", "canary", "nonce"]);

    for (what, seen, allowed) in &scene.received {
        let mut text = format!("{}\n{}\n", seen.status, seen.body);
        for (name, value) in &seen.headers {
            let value = value.to_str().expect("text");
            let ours = [SESSION, XSRF, LOGIN].iter().any(|ours| value.starts_with(&format!("{ours}=")));
            if name != SET_COOKIE || !ours {
                text += &format!("{name}: {value}\n");
            }
        }
        scene.secrets.assert_none_in(what, &text, allowed);
    }
    scene.assert_clean("the metrics", &scene.admin_page("/metrics").await);
    let output = scene.process.interrupted();
    assert!(output.contains("\"level\":\"DEBUG\"") && !output.contains("panicked"), "{output}");
    for stream in ["access", "app", "audit"] {
        assert!(output.contains(&format!("\"stream\":\"{stream}\"")), "{stream}");
    }
    scene.assert_clean("the logs", &output);
    scene.assert_clean("Redis", &dump(&redis));
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_our_own_lines_hold_no_secret_at_the_finest_level() {
    let world = world(ticking()).await;
    world.demo.provider.switches().set(|switch| switch.canary = Some("canary-77f0-of-our-own-lines".to_owned()));
    let mut browser = world.logged_in().await;
    let mut secrets = Secrets::default();
    for name in [SESSION, XSRF, LOGIN] {
        secrets.add("cookie", browser.cookie(name).expect("a cookie"));
    }
    for fault in [Fault::status(500), Fault::status(429), Fault::cut_json()] {
        world.clock.advance(NEARLY_OVER);
        browser.fetch("/api/whoami").await;
        token_fault(&world, fault.times(1));
        world.clock.advance(NEARLY_OVER);
        browser.fetch("/api/whoami").await;
    }
    log_out(&mut browser).await;
    secrets.add_all_of(&world);
    secrets.add("canary", "canary-77f0-of-our-own-lines");
    let all = logs();
    let ours: String =
        all.lines().filter(|line| line.contains(" cloakroom::")).map(|line| format!("{line}\n")).collect();
    assert!(ours.contains("a user logged out"));
    let audit: String = all.lines().filter(|line| line.contains(" audit")).map(|line| format!("{line}\n")).collect();
    assert!(audit.contains("login_success"));
    secrets.assert_none_in("the audit log", &audit, &[]);
    secrets.assert_none_in("our own log", &ours, &[]);
}
