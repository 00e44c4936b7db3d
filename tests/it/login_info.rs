//! Who am I: `/auth/userinfo`, `/auth/session`, and the manners of all endpoints (behaviour S9, K1, L17).

use std::time::Duration;

use cloakroom::demo::ProviderConfig;
use cloakroom::primitives::clock::{Clock, Timestamp};
use reqwest::{Method, StatusCode};

use crate::harness::{SESSION, Wishes, World, XSRF};
use crate::login_kit::uncached;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

async fn by_hand() -> World {
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    // The refresh token must not bound the session here.
    let provider = ProviderConfig { refresh_token_lifetime: 24 * HOUR, ..ProviderConfig::default() };
    let world = World::with(Wishes { clock, provider, ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_sees_claims_and_times_and_no_token() {
    let world = by_hand().await;
    let mut browser = world.logged_in().await;
    let now = world.clock.now().as_secs();
    let issued = world.demo.provider.ledger().last_issued().expect("tokens");

    for path in ["/auth/userinfo", "/userinfo"] {
        let answer = browser.fetch(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        uncached(&answer);
        let claims = answer.json();
        assert_eq!(claims["sub"], issued.subject);
        assert_eq!(claims["name"], "Alice Ærø");
        assert_eq!(claims["realm_access"]["roles"][1], "admin");
        for protocol in ["nonce", "at_hash", "aud", "exp", "iat", "jti"] {
            assert!(claims.get(protocol).is_none(), "{protocol}: {claims}");
        }
    }
    let answer = browser.fetch("/auth/session").await;
    uncached(&answer);
    let session = answer.json();
    assert_eq!((&session["authenticated"], &session["level"]), (&true.into(), &"logged_on".into()));
    assert_eq!(session["expires_at"], now + 12 * 3600);
    assert_eq!(session["idle_expires_at"], now + 30 * 60);
    assert_eq!(session["token_expires_at"], now + 60);
    assert_eq!(session["user"]["preferred_username"], "alice");
    assert!(session["user"].get("realm_access").is_none());

    let secrets = [Some(issued.access_token), issued.refresh_token, issued.id_token];
    for seen in &browser.received {
        for secret in secrets.iter().flatten() {
            assert!(!format!("{seen:?}").contains(secret.as_str()), "K1: {seen:?}");
        }
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0, "L17: answered here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_where_to_log_in() {
    let world = by_hand().await;
    for path in ["/auth/userinfo", "/userinfo"] {
        let answer = world.browser().fetch(path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_missing"), "{answer:?}");
        assert_eq!(answer.json()["login_url"], "/auth/login");
        uncached(&answer);
    }
    let mut expired = world.browser();
    expired.set_cookie(SESSION, &"A".repeat(43));
    assert_eq!(expired.fetch("/auth/userinfo").await.code(), "session_expired", "as on any route");
    for mut browser in [world.browser(), expired] {
        let answer = browser.fetch("/auth/session").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["authenticated"], false);
        assert_eq!(answer.json()["login_url"], "/auth/login");
        assert!(answer.json().get("user").is_none() && answer.set_cookies().is_empty());
        uncached(&answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_asking_is_no_activity() {
    let world = by_hand().await;
    let mut asking = world.logged_in().await;
    let mut working = world.logged_in().await;
    let end = asking.fetch("/auth/session").await.json()["idle_expires_at"].as_u64().expect("a time");
    for _ in 0..5 {
        world.clock.advance(5 * MINUTE);
        for path in ["/auth/session", "/auth/userinfo", "/userinfo"] {
            assert_eq!(asking.fetch(path).await.status, StatusCode::OK);
        }
        assert_eq!(asking.fetch("/auth/session").await.json()["idle_expires_at"], end);
        assert_eq!(working.fetch("/bare/whoami").await.status, StatusCode::OK);
    }
    world.clock.advance(5 * MINUTE);
    assert_eq!(asking.fetch("/auth/session").await.json()["authenticated"], false);
    assert_eq!(asking.fetch("/auth/userinfo").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(asking.fetch("/bare/whoami").await.status, StatusCode::UNAUTHORIZED);

    let slid = working.fetch("/auth/session").await.json();
    assert_eq!(slid["authenticated"], true);
    assert_eq!(slid["idle_expires_at"], world.clock.now().as_secs() + 25 * 60, "a use five minutes ago counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_lost_its_csrf_cookie_gets_it_with_the_answer() {
    let world = by_hand().await;
    let mut browser = world.logged_in().await;
    let token = browser.cookie(XSRF).expect("a token").to_owned();
    for path in ["/auth/session", "/auth/userinfo"] {
        assert!(browser.fetch(path).await.set_cookies().is_empty());
        browser.set_cookie(XSRF, "tossed");
        browser.fetch(path).await;
        assert_eq!(browser.cookie(XSRF), Some(token.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_which_are_known() {
    let world = by_hand().await;
    let mut browser = world.logged_in().await;
    let known = [
        ("/auth/login", "GET"),
        ("/auth/callback", "GET"),
        ("/auth/logged-out", "GET, HEAD"),
        ("/auth/userinfo", "GET, HEAD"),
        ("/auth/session", "GET, HEAD"),
        ("/userinfo", "GET, HEAD"),
    ];
    let methods = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    for (path, allow) in known {
        for method in methods.clone() {
            let answer = browser.write(method.clone(), path, "").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}: {answer:?}");
            assert_eq!((answer.header("allow"), answer.code()), (allow, "method_not_allowed"), "{method} {path}");
        }
    }
    for method in methods.into_iter().filter(|method| method != Method::POST) {
        let answer = browser.write(method.clone(), "/auth/logout", "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, POST"), "{method}");
    }
    for nowhere in ["/auth", "/auth/", "/auth/x", "/auth/login/x", "/auth/session.json"] {
        assert_eq!(browser.fetch(nowhere).await.status, StatusCode::NOT_FOUND, "{nowhere}");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}
