//! From a stranger to a logged-in user and out again.

use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, World, XSRF};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_logs_in_calls_the_api_and_logs_out() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut browser = world.browser();

    let refused = browser.fetch("/api/whoami").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "session_missing"));
    assert_eq!(refused.json()["login_url"], "/auth/login");

    let page = browser.log_in("/deep/page?x=1").await;
    assert!(page.body.contains("/deep/page?x=1"), "{}", page.body);
    assert!(browser.cookie(SESSION).is_some() && browser.cookie(XSRF).is_some() && browser.cookie(LOGIN).is_some());

    let me = browser.fetch("/api/whoami").await;
    assert_eq!(me.status, StatusCode::OK, "{me:?}");
    let received = world.demo.upstream.recorder().last().expect("a request");
    assert!(received.bearer().is_some());
    assert_eq!(received.header("x-user-roles"), Some("user,admin"));

    let info = browser.fetch("/userinfo").await;
    assert_eq!(info.json()["preferred_username"], "alice");
    let session = browser.fetch("/auth/session").await.json();
    assert_eq!(session["authenticated"], true);

    let out = browser.write(Method::POST, "/auth/logout", "").await;
    assert_eq!(out.status, StatusCode::SEE_OTHER, "{out:?}");
    assert!(out.location().contains("id_token_hint="));
    assert!(browser.cookie(SESSION).is_none());
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_another_sites_logout_clears_nothing_and_is_asked_first() {
    let world = World::start().await;
    // Cross-site a browser holds the Strict session cookie back, so the request looks like a stranger's.
    let mut browser = world.browser();
    for method in [Method::GET, Method::POST] {
        let draft = browser.draft(method, "/auth/logout");
        let draft = draft.header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "navigate");
        let answer = browser.send(draft).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
        assert!(answer.body.contains("href=\"/auth/logout\""), "{answer:?}");
    }
    let answer = browser.navigate("/auth/logout").await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/auth/logged-out"));
}
