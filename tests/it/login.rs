//! From a stranger to a logged-in user and out again.

use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, Wishes, World, XSRF};
use crate::wire::Wire;

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

#[tokio::test(flavor = "multi_thread")]
async fn l11_a_route_that_redirects_and_the_login_itself_look_for_what_denies_a_navigation() {
    let routes = "      - { path: /, upstream: demo, access: required, on_missing: redirect }";
    let world = World::with(Wishes { routes: routes.into(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let mut browser = world.browser();
    let navigate = [("sec-fetch-mode", "navigate"), ("accept", "text/html")];
    let with = |last| [navigate[0], navigate[1], last];
    let script = [("x-requested-with", "XMLHttpRequest"), ("accept", "text/html")];
    // Fields; whether `/auth/login` starts a login; whether a route with `on_missing: redirect` does.
    for (fields, login, route) in [
        (&with(("sec-fetch-dest", "document"))[..], true, true),
        (&[("accept", "text/html")], true, true),
        (&[("accept", "*/*")], true, true),
        (&[], true, true),
        (&with(("sec-fetch-dest", "iframe")), false, false),
        (&script, false, false),
        (&[("accept", "text/event-stream")], false, false),
        (&[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "text/html")], false, false),
        (&[("accept", "text/html"), ("sec-purpose", "prefetch")], false, false),
        (&[("accept", "text/html"), ("purpose", "prefetch")], false, false),
    ] {
        for (path, starts) in [("/auth/login", login), ("/login", login), ("/page", route)] {
            let draft = fields.iter().fold(browser.draft(Method::GET, path), |d, (name, value)| d.header(name, value));
            let answer = browser.send(draft).await;
            let expected = if starts { StatusCode::SEE_OTHER } else { StatusCode::UNAUTHORIZED };
            assert_eq!(answer.status, expected, "{path} {fields:?}");
            assert_eq!(answer.set_cookies().is_empty(), !starts, "{path} {fields:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l15_a_link_from_elsewhere_goes_on_to_exactly_its_own_address() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut browser = world.browser();
    let long = format!("/x?{}", "a".repeat(3000));
    for (asked, onward) in [
        ("/deep/page?x=1&y=%2F..%2f", "/deep/page?x=1&#38;y=%2F..%2f"),
        ("/caf%c3%a9?q=a\\b", "/caf%C3%A9?q=a\\b"),
        ("/x%EF%BC%8Fy/%E2%80%8B", "/x%EF%BC%8Fy/%E2%80%8B"),
        ("//elsewhere.test/x", "/elsewhere.test/x"),
        ("/x?a='b'&c=d", "/x?a=%27b%27&#38;c=d"),
        (long.as_str(), long.as_str()),
    ] {
        let mut wire = Wire::connect(browser.home).await;
        let fields = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: cross-site\r\n";
        let page = wire.exchange(format!("GET {asked} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", browser.home)).await;
        assert_eq!(page.status, StatusCode::OK, "{asked}");
        assert!(page.body.contains(&format!("href=\"{onward}\"")), "{asked}: {}", page.body);
        assert!(page.set_cookies().is_empty());
    }
    assert_eq!(browser.navigate("/deep/page").await.status, StatusCode::SEE_OTHER);
}
