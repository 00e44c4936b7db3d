//! Nobody finds a password out by trying.

use cloakroom::demo::backend::{BackendEndpoint, PASSWORD};
use reqwest::StatusCode;

use crate::credentials_kit::*;
use crate::harness::{Browser, Wishes, World};
use crate::kit::*;

const LIMITS: &str = "    limits: { account: 3, address: 8, per: 1m }";

/// The wait that an answer asks for.
fn limited(seen: &crate::harness::Seen) -> u64 {
    assert_eq!((seen.status, seen.code()), (StatusCode::TOO_MANY_REQUESTS, "too_many_logins"), "{seen:?}");
    assert!(seen.set_cookies().is_empty());
    seen.header("retry-after").parse().expect("seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_so_many_attempts_however_it_is_written() {
    let site = Site::with("body", LIMITS, ticking()).await;
    let mut browser = site.browser();
    for name in ["alice", "Alice", " ALICE "] {
        assert_eq!(log_in(&mut browser, name, "wrong").await.code(), "login_refused", "{name}");
    }
    // Not even with the right password, or its owner would be found by it.
    let wait = limited(&log_in(&mut browser, "alice", PASSWORD).await);
    assert!((1..=68).contains(&wait), "{wait}");
    // Some backends would find the account here, and look it up with a collation.
    for name in ["USERNAME", "u\u{17f}ername", "user\u{200b}name"] {
        let body = format!("{{\"{name}\":\"alice\",\"password\":{}}}", serde_json::json!(PASSWORD));
        let draft = post(&browser, "/auth/login", &body);
        assert_eq!(browser.send(draft).await.code(), "bad_request", "{name}");
    }
    for name in [
        "\u{c1}lice",
        "\u{ff41}lice",
        "al\u{131}ce",
        "alice\u{a0}",
        "al\u{20dd}ice",
        "alice\u{fe0f}",
        "ałice",
        "alice🍣",
    ] {
        limited(&log_in(&mut browser, name, PASSWORD).await);
    }
    assert_eq!(site.calls(BackendEndpoint::Login), 3);
    assert_eq!(log_in(&mut browser, "bob", PASSWORD).await.status, StatusCode::OK, "others go on");
    site.world.clock.advance(secs(wait));
    assert_eq!(log_in(&mut browser, "alice", PASSWORD).await.status, StatusCode::OK);
    let failures = "cloakroom_logins_total{provider=\"legacy\",reason=\"limit_account\",result=\"failure\"}";
    assert_eq!(site.world.metric(failures).await, 9.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_attempts_and_locks_no_account() {
    let wishes = Wishes { more: "trusted_proxies: [127.0.0.0/8]".into(), ..ticking() };
    let site = Site::with("body", LIMITS, wishes).await;
    let mut browser = site.browser();
    let attempt = |browser: &Browser, name: &str, from: &str| {
        post(browser, "/auth/login", &form(name, "wrong")).header("x-forwarded-for", from)
    };
    for n in 0..8 {
        let draft = attempt(&browser, &format!("user{n}"), "192.0.2.1");
        assert_eq!(browser.send(draft).await.code(), "login_refused");
    }
    for _ in 0..5 {
        let draft = attempt(&browser, "alice", "192.0.2.1");
        limited(&browser.send(draft).await);
    }
    let draft = post(&browser, "/auth/login", &form("alice", PASSWORD)).header("x-forwarded-for", "192.0.2.2");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_at_the_same_moment_do_not_pass_the_limit() {
    let site = Site::with("body", "    limits: { account: 3 }", ticking()).await;
    let calls = (0..20).map(|_| async {
        let mut browser = site.browser();
        log_in(&mut browser, "alice", "wrong").await.status
    });
    let answers = futures::future::join_all(calls).await;
    let refused = answers.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count();
    assert_eq!((refused, site.calls(BackendEndpoint::Login)), (3, 3), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_is_looked_for_where_the_settings_say() {
    let backend = start_backend();
    let providers = legacy(&backend, "body", "    account: login.email\n    limits: { account: 1 }");
    let (site_providers, routes) = ("provider: legacy".to_owned(), ROUTES.to_owned());
    let world = World::with(Wishes { providers, site_providers, routes, ..ticking() }).await;
    let mut browser = world.browser();
    let body = r#"{"login":{"email":"alice@example.com"},"username":"alice","password":"x"}"#;
    for code in ["login_refused", "too_many_logins"] {
        let draft = post(&browser, "/auth/login", body);
        assert_eq!(browser.send(draft).await.code(), code);
    }
    let draft = post(&browser, "/auth/login", &form("alice", PASSWORD));
    assert_eq!(browser.send(draft).await.code(), "bad_request");
}
