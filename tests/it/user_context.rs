//! The user context: told to applications in a header, changed by them in another, kept in the session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Browser, PATIENCE, Seen, Wishes, World};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::shared_store::{Op, SharedStore};

const ROUTES: &str = r#"
      - { path: /api/read/, upstream: demo, context: read, strip_prefix: /api/read }
      - { path: /own/, upstream: demo, context: read_write, strip_prefix: /own }
      - { path: /known/, upstream: demo, context: read_write, level: returning, strip_prefix: /known }
      - { path: /maybe/, upstream: demo, context: read_write, access: optional, strip_prefix: /maybe }
      - { path: /free/, upstream: demo, context: read_write, token: { kind: none }, strip_prefix: /free }
      - { path: /none/, upstream: demo, strip_prefix: /none }
      - { path: /, upstream: demo }
"#;

async fn world_with(wishes: Wishes) -> World {
    let site = "    user_context: { claims: [name, realm_access.roles, absent] }".into();
    world(Wishes { routes: ROUTES.into(), site, ..wishes }).await
}

/// What the upstream was told with the last request.
fn told(world: &World) -> Option<Value> {
    let last = world.demo.upstream.recorder().last().expect("a request");
    let value = last.header("x-user-context")?;
    Some(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).expect("base64url")).expect("JSON"))
}

async fn attributes(world: &World, browser: &mut Browser) -> Value {
    assert_eq!(browser.fetch("/api/read/api/whoami").await.status, StatusCode::OK);
    told(world).expect("a context")["attributes"].clone()
}

/// The upstream answers with this change.
async fn change(browser: &mut Browser, below: &str, patch: &str) -> Seen {
    let value = URL_SAFE_NO_PAD.encode(patch);
    let answer = browser.fetch(&format!("{below}/api/set-header?X-User-Context-Update={value}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-user-context-update"), "", "no browser sees it");
    answer
}

async fn counted(world: &World, result: &str) -> f64 {
    world.metric(&format!("cloakroom_user_context_updates_total{{result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_told_and_what_it_changes_is_there_at_once() {
    let redis = RedisServer::start();
    for wishes in [ticking(), ticking_on(&redis)] {
        let world = world_with(wishes).await;
        let replica = world.replica().await;
        let mut browser = world.logged_in().await;
        assert_eq!(attributes(&world, &mut browser).await, json!({}));
        let context = told(&world).expect("a context");
        assert_eq!((&context["level"], &context["claims"]["name"]), (&"logged_on".into(), &"Alice Ærø".into()));
        assert_eq!(context["claims"], json!({"name": "Alice Ærø", "realm_access.roles": ["user", "admin"]}));
        assert_eq!(context["sub"], "a11ce000-0000-4000-8000-000000000001");
        assert_eq!(context["provider"], "demo", "and whose `sub` that is");

        change(&mut browser, "/own", r#"{"basket": {"a": 1, "b": 2}, "theme": "dark"}"#).await;
        assert_eq!(attributes(&world, &mut browser).await, json!({"basket": {"a": 1, "b": 2}, "theme": "dark"}));
        change(&mut browser, "/own", r#"{"basket": {"a": null}, "theme": null}"#).await;
        assert_eq!(attributes(&world, &mut browser).await, json!({"basket": {"b": 2}}));
        change(&mut browser, "/own", r#"{"basket": {"b": 2}}"#).await;
        assert_eq!((counted(&world, "stored").await, counted(&world, "unchanged").await), (2.0, 1.0));
        if world.yaml.contains("redis") {
            let mut there = carry(&browser, &replica);
            assert_eq!(attributes(&world, &mut there).await, json!({"basket": {"b": 2}}), "on every replica");
        }

        // It outlives a refresh and a login of the same user, and nobody else gets it.
        world.clock.advance(OVER);
        assert_eq!(attributes(&world, &mut browser).await, json!({"basket": {"b": 2}}));
        assert_eq!(token_calls(&world), 2);
        browser.log_in("/auth/login").await;
        assert_eq!(attributes(&world, &mut browser).await, json!({"basket": {"b": 2}}));
        world.demo.provider.switches().auto_login("bob");
        browser.log_in("/auth/login").await;
        assert_eq!(attributes(&world, &mut browser).await, json!({}));
        let mut stranger = world.browser();
        stranger.fetch("/maybe/api/whoami").await;
        assert_eq!(told(&world), None);
        log_out(&mut browser).await;
        world.demo.provider.switches().auto_login("alice");
        browser.log_in("/auth/login").await;
        assert_eq!(attributes(&world, &mut browser).await, json!({}), "it ends with the logout");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_small_changes_of_routes_that_may_are_kept_and_no_browser_sees_any() {
    let world = world_with(ticking()).await;
    let mut browser = world.logged_in().await;
    for below in ["/api/read", "/none", "/maybe"] {
        let mut who = if below == "/maybe" { world.browser() } else { holder(&browser) };
        change(&mut who, below, r#"{"a": 1}"#).await;
    }
    for wrong in ["[1]", "{", "", "\"x\""] {
        change(&mut browser, "/own", wrong).await;
    }
    let target = "/own/api/set-header?X-User-Context-Update=%7B%7D";
    assert_eq!(browser.fetch(target).await.header("x-user-context-update"), "");
    change(&mut browser, "/own", &format!("{{\"a\": \"{}\"}}", "x".repeat(3_100))).await;
    for name in ["a", "b"] {
        change(&mut browser, "/own", &format!("{{\"{name}\": \"{}\"}}", "x".repeat(2_500))).await;
    }
    for (result, count) in
        [("not_allowed", 2.0), ("no_session", 1.0), ("malformed", 5.0), ("too_large", 2.0), ("stored", 1.0)]
    {
        assert_eq!(counted(&world, result).await, count, "{result}");
    }
    let kept = attributes(&world, &mut browser).await;
    assert_eq!(kept.as_object().map(serde_json::Map::len), Some(1), "{kept}");
    // What a client sends in this name is nothing.
    let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#);
    let draft = browser.draft(Method::GET, "/api/read/api/whoami").header("x-user-context", &forged);
    browser.send(draft).await;
    assert_ne!(told(&world).expect("ours")["sub"], "root");
    let draft = browser.draft(Method::GET, "/none/api/whoami").header("x_user_context", &forged);
    browser.send(draft).await;
    let last = world.demo.upstream.recorder().last().expect("a request");
    assert!(last.header("x-user-context").is_none() && last.header("x_user_context").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_has_a_context_too() {
    let session = "  returning_timeout: 7d".into();
    let world = world_with(Wishes { session, provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    change(&mut browser, "/known", r#"{"basket": 1}"#).await;
    world.clock.advance(secs(31 * 60));
    browser.fetch("/known/api/whoami").await;
    let context = told(&world).expect("a context");
    assert_eq!((&context["level"], &context["attributes"]), (&"returning".into(), &json!({"basket": 1})));
    change(&mut browser, "/known", r#"{"basket": 2}"#).await;
    browser.fetch("/known/api/whoami").await;
    assert_eq!(told(&world).expect("a context")["attributes"], json!({"basket": 2}));
    // The way up is a login, and takes it along.
    assert_eq!(browser.fetch("/api/read/api/whoami").await.code(), "session_expired");
    browser.log_in("/").await;
    assert_eq!(attributes(&world, &mut browser).await, json!({"basket": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_and_changes_during_a_refresh_all_count() {
    let world = world_with(Wishes { session: STEADY_TICKET.into(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let changes = (0..5).map(|number| {
        let mut twin = holder(&browser);
        async move { change(&mut twin, "/own", &format!("{{\"n{number}\": 1}}")).await }
    });
    futures::future::join_all(changes).await;
    assert_eq!(attributes(&world, &mut browser).await, json!({"n0": 1, "n1": 1, "n2": 1, "n3": 1, "n4": 1}));

    // The provider is asked for new tokens while an application writes.
    world.clock.advance(NEARLY_OVER);
    let gate = hold_tokens(&world, true);
    let waiting = fetch_soon(&browser, "/api/read/api/whoami");
    gate.arrived(1).await;
    let mut twin = holder(&browser);
    change(&mut twin, "/free", r#"{"during": 1}"#).await;
    gate.open();
    assert_eq!(waiting.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(attributes(&world, &mut browser).await["during"], 1);
    assert_eq!(token_calls(&world), 2);
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_a_store_that_hangs_no_longer_than_it_must() {
    let wishes = ticking();
    let store = SharedStore::new(&wishes.clock);
    let world = world_with(Wishes { shared: Some(store.clone()), ..wishes }).await;
    let mut browser = world.logged_in().await;
    assert_eq!(attributes(&world, &mut browser).await, json!({}));
    let gate = store.hold(Op::Load);
    let answer = tokio::time::timeout(PATIENCE, change(&mut browser, "/own", r#"{"a": 1}"#)).await;
    answer.expect("an answer, without the change");
    assert_eq!(counted(&world, "timeout").await, 1.0);
    gate.open();
    assert_eq!(attributes(&world, &mut browser).await, json!({}), "and the session goes on");
}
