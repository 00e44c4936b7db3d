//! Which token goes where, and that none ever comes back: K1, H7, and two users over pooled connections.

use std::sync::Arc;

use cloakroom::demo::provider::ProviderConfig;
use futures::future::join_all;
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Wishes, World, XSRF};
use crate::wire::h2c_client;

/// The payload of a JWT, not verified.
pub(crate) fn claims(token: &str) -> serde_json::Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).expect("a JWT");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_sends_its_kind_of_token() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    for (path, audience) in [
        ("/api/x", Some("demo-api")),
        ("/maybe/x", Some("demo-api")),
        ("/", Some("demo-api")),
        ("/id/x", Some("cloakroom-demo")),
        ("/bare/x", None),
        ("/open/x", None),
        ("/small/x", None),
    ] {
        let draft = browser.draft(Method::GET, path).header("authorization", "Bearer of-the-client");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK, "{path}");
        let received = recorder.last().expect("a request");
        assert_eq!(received.header_all("authorization").len(), usize::from(audience.is_some()), "{path}");
        let said = received.bearer().map(|token| claims(token)["aud"].clone());
        assert_eq!(said.as_ref().and_then(|aud| aud.as_str().or_else(|| aud[0].as_str())), audience, "{path}");
    }
    let mut nobody = world.browser();
    for path in ["/maybe/x", "/open/x"] {
        let draft = nobody.draft(Method::GET, path).header("authorization", "Basic eDp5");
        assert_eq!(nobody.send(draft).await.status, StatusCode::OK, "{path}");
        assert_eq!(recorder.last().expect("a request").header("authorization"), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_no_token_is_in_anything_the_browser_receives() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut browser = world.logged_in().await;
    for path in
        ["/api/whoami", "/id/x", "/maybe/x", "/", "/auth/session", "/auth/userinfo", "/userinfo", "/auth/nothing"]
    {
        browser.fetch(path).await;
        browser.navigate(path).await;
    }
    browser.write(Method::POST, "/api/x", "{}").await;
    browser.write(Method::POST, "/small/x", &"x".repeat(5000)).await;
    let draft = browser.draft(Method::POST, "/api/x");
    browser.send(draft).await;
    world.demo.upstream.stop().await;
    browser.fetch("/api/x").await;
    browser.navigate("/api/x").await;
    let mut secrets: Vec<String> =
        world.demo.upstream.recorder().all().iter().filter_map(|r| r.bearer().map(str::to_owned)).collect();
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets.len(), 2, "an access token and an ID token");
    let home = format!("http://{}", browser.home);
    for seen in &browser.received {
        let provider = seen.headers.get("location").is_some_and(|l| !l.to_str().expect("text").starts_with(&home));
        let text = format!("{:?} {}", seen.headers, seen.body);
        for secret in &secrets {
            for part in secret.split('.').filter(|part| part.len() > 20) {
                assert!(provider || !text.contains(part), "{seen:?}");
            }
        }
    }
    assert!(browser.received.len() > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_an_upstreams_redirect_is_passed_on_not_followed() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    let before = recorder.count();
    let answer = browser.fetch("/api/status/307").await;
    assert_eq!((answer.status, recorder.count()), (StatusCode::TEMPORARY_REDIRECT, before + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_interleaved_over_pooled_connections_are_never_mixed_up() {
    const EACH: usize = 260;
    let lifetime = std::time::Duration::from_secs(600);
    let provider = ProviderConfig { access_token_lifetime: lifetime, ..ProviderConfig::default() };
    let world = World::with(Wishes { provider, ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let mut users = Vec::new();
    for (login, subject) in
        [("alice", "a11ce000-0000-4000-8000-000000000001"), ("bob", "b0b00000-0000-4000-8000-000000000002")]
    {
        world.demo.provider.switches().auto_login(login);
        users.push((world.logged_in().await, subject));
    }
    // One connection each for HTTP/1.1 and HTTP/2, shared by both users and nobody, as a proxy in front would do.
    let clients =
        [reqwest::Client::builder().no_proxy().pool_max_idle_per_host(2).build().expect("client"), h2c_client()];
    let cookie = |browser: &Browser| {
        let value = |name| browser.cookie(name).expect("a cookie").to_owned();
        (format!("{SESSION}={}; {XSRF}={}", value(SESSION), value(XSRF)), value(XSRF))
    };
    let mut callers: Vec<(Option<(String, String)>, &str)> =
        users.iter().map(|(browser, subject)| (Some(cookie(browser)), *subject)).collect();
    callers.push((None, ""));
    let origin = Arc::new(users[0].0.origin());
    let mut tasks = Vec::new();
    for (number, client) in (0..4).flat_map(|n| clients.iter().cloned().map(move |client| (n, client))) {
        let (callers, origin) = (callers.clone(), origin.clone());
        let callers: Vec<_> = callers.into_iter().map(|(cookie, subject)| (cookie, subject.to_owned())).collect();
        tasks.push(tokio::spawn(async move {
            let mut mistakes = Vec::new();
            for round in 0..EACH {
                let (cookie, subject) = &callers[(round + number) % callers.len()];
                let url = format!(
                    "{origin}/maybe/../{}/whoami?n={number}.{round}",
                    if cookie.is_some() { "api" } else { "maybe" }
                );
                let mut request =
                    if round % 3 == 0 { client.post(&url).body("x".repeat(round)) } else { client.get(&url) };
                if let Some((cookie, token)) = cookie {
                    request = request.header("cookie", cookie).header("origin", &*origin).header("x-xsrf-token", token);
                }
                let answer = request.send().await.expect("an answer").text().await.expect("a body");
                let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
                let said = answer["subject"].as_str().unwrap_or_default();
                let header = answer["headers"].as_array().expect("headers").iter().find(|pair| pair[0] == "x-user-id");
                let header = header.map_or("", |pair| pair[1].as_str().expect("text"));
                if said != subject || header != subject {
                    mistakes.push(format!("{subject:?} became {said:?} {header:?}"));
                }
            }
            mistakes
        }));
    }
    let mistakes: Vec<String> = join_all(tasks).await.into_iter().flat_map(|task| task.expect("no panic")).collect();
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let recorder = world.demo.upstream.recorder();
    assert_eq!(recorder.count(), 8 * EACH);
    for received in recorder.all() {
        let subject = received.bearer().map(|token| claims(token)["sub"].clone());
        assert_eq!(subject.as_ref().and_then(|s| s.as_str()), received.header("x-user-id"), "token and header agree");
    }
}
