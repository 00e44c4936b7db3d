//! H2: forwarding headers are rebuilt; a stranger's change nothing, a trusted proxy's are believed.

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, Draft, Wishes, World, XSRF};

const CLAIMS: [(&str, &str); 10] = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.test"),
    ("x-forwarded-port", "443"),
    ("forwarded", "for=203.0.113.7;proto=https;host=app.test"),
    ("x-real-ip", "203.0.113.7"),
    ("x-original-url", "/open/x"),
    ("x-original-host", "app.test"),
    ("x-rewrite-url", "/open/x"),
    ("x-forwarded-prefix", "/open"),
];

fn claiming(browser: &Browser, method: Method, path: &str) -> Draft {
    CLAIMS.iter().fold(browser.draft(method, path), |draft, (name, value)| draft.header(name, value))
}

fn redirect_uri(location: &str) -> String {
    let url: reqwest::Url = location.parse().expect("a URL");
    url.query_pairs().find(|(name, _)| name == "redirect_uri").expect("a redirect URI").1.into_owned()
}

async fn world(trusted: &str) -> World {
    let world = World::with(Wishes {
        more: format!("trusted_proxies: [{trusted}]"),
        hosts: "[127.0.0.1, app.test]".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_a_strangers_forwarding_headers_change_nothing() {
    for trusted in ["", "10.0.0.0/8"] {
        let world = world(trusted).await;
        let mut browser = world.browser();
        let (home, origin) = (browser.home.to_string(), browser.origin());
        let recorder = world.demo.upstream.recorder();

        let draft = claiming(&browser, Method::GET, "/api/x").navigation();
        let start = browser.send(draft).await;
        assert_eq!(redirect_uri(start.location()), format!("{origin}/auth/callback"));
        let draft = claiming(&browser, Method::GET, "/api/x");
        assert_eq!(browser.send(draft).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(recorder.count(), 0);

        browser.log_in("/").await;
        let draft = claiming(&browser, Method::GET, "/api/x");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK);
        let received = recorder.last().expect("a request");
        assert_eq!(received.path, "/api/x");
        for (name, ours) in
            [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", &home)]
        {
            assert_eq!(received.header_all(name), [ours], "{name}");
        }
        for (name, _) in CLAIMS.iter().skip(3) {
            assert_eq!(received.header(name), None, "{name}");
        }

        let before = recorder.count();
        let token = browser.cookie(XSRF).expect("a token").to_owned();
        for (origin, status) in [("https://app.test", StatusCode::FORBIDDEN), (origin.as_str(), StatusCode::OK)] {
            let draft =
                claiming(&browser, Method::POST, "/api/x").header("origin", origin).header("x-xsrf-token", &token);
            assert_eq!(browser.send(draft).await.status, status, "{origin}");
        }
        assert_eq!(recorder.count(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_a_trusted_proxys_forwarding_headers_are_believed() {
    let world = world("127.0.0.0/8").await;
    let mut browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();

    let mut stranger = world.browser();
    let draft = claiming(&stranger, Method::GET, "/api/x").navigation();
    let start = stranger.send(draft).await;
    assert_eq!(redirect_uri(start.location()), "https://app.test/auth/callback");

    // `browser` has its session on the site that serves both hosts.
    let token = browser.cookie(XSRF).expect("a token").to_owned();
    let draft = claiming(&browser, Method::POST, "/api/x").header("x-forwarded-for", "192.0.2.1");
    let answer = browser.send(draft.header("origin", "https://app.test").header("x-xsrf-token", &token)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let received = recorder.last().expect("a request");
    assert_eq!(received.path, "/api/x");
    assert_eq!(received.header_all("x-forwarded-for"), ["203.0.113.7, 192.0.2.1, 127.0.0.1"]);
    assert_eq!(received.header_all("x-forwarded-proto"), ["https"]);
    assert_eq!(received.header_all("x-forwarded-host"), ["app.test"]);
    for (name, _) in CLAIMS.iter().skip(3) {
        assert_eq!(received.header(name), None, "{name}");
    }

    let origin = browser.origin();
    let draft = claiming(&browser, Method::POST, "/api/x").header("origin", &origin).header("x-xsrf-token", &token);
    assert_eq!(browser.send(draft).await.status, StatusCode::FORBIDDEN, "the inner origin is not the browser's");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_of_several_elements_the_nearest_proxys_counts() {
    let world = world("127.0.0.1").await;
    let mut browser = world.browser();
    let draft = browser.draft(Method::GET, "/api/x").navigation();
    let draft = draft.header("x-forwarded-host", "evil.test, app.test").header("x-forwarded-proto", "http, https");
    let start = browser.send(draft).await;
    assert_eq!(redirect_uri(start.location()), "https://app.test/auth/callback");
    for host in ["evil.test", "app.test.evil", "app.test, evil.test", "app.test:x", "", "a b"] {
        let draft = browser.draft(Method::GET, "/open/x").header("x-forwarded-host", host);
        let answer = browser.send(draft).await;
        assert!(matches!(answer.status.as_u16(), 400 | 421), "{host}: {answer:?}");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}
