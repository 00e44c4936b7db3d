//! The admin listener: who may see what, what is counted, and that none of it is on the public side.

use reqwest::{Method, StatusCode};

use crate::harness::{PATIENCE, Wishes, World, eventually};
use crate::wire::ask;

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_open_and_everything_else_asks_for_the_token() {
    let admin = ", token: a-token-for-this-test-only".into();
    let world = World::with(Wishes { admin, ..Wishes::default() }).await;
    let address = world.proxy.admin;
    for path in ["/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(world.proxy.admin_page(path).await.0, StatusCode::OK, "{path}");
    }
    let get = |path: &str, credentials: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{credentials}\r\n")
    };
    for wrong in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer a-token-for-this-test-onl\r\n",
        "Authorization: Basic a-token-for-this-test-only\r\n",
        "Authorization: a-token-for-this-test-only\r\n",
        "Cookie: token=a-token-for-this-test-only\r\n",
    ] {
        let answer = ask(address, get("/metrics", wrong)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
        assert!(!answer.body.contains("cloakroom_"), "{answer:?}");
    }
    let answer = ask(address, get("/metrics", "Authorization: Bearer a-token-for-this-test-only\r\n")).await;
    assert!(answer.expect("an answer").body.contains("cloakroom_build_info"));
    let by_query = ask(address, get("/metrics?token=a-token-for-this-test-only", "")).await.expect("an answer");
    assert_eq!(by_query.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_paths_mean_nothing_on_the_public_listener() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut nobody = world.browser();
    for path in ["/metrics", "/livez", "/readyz", "/readyz?verbose", "/sessions", "/auth/metrics", "/auth/sessions"] {
        let answer = nobody.fetch(path).await;
        assert!(matches!(answer.status.as_u16(), 401 | 404), "{path}: {answer:?}");
        assert!(!answer.body.contains("cloakroom_") && !answer.body.contains("ready"), "{path}: {answer:?}");
    }
    let mut user = world.logged_in().await;
    let answer = user.fetch("/metrics").await;
    assert_eq!((answer.status, answer.json()["path"].as_str()), (StatusCode::OK, Some("/metrics")), "the upstream's");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_under_their_route_method_and_code() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut user = world.logged_in().await;
    let home = user.home;
    let mut nobody = world.browser();
    for _ in 0..3 {
        user.fetch("/api/deep/path?with=query").await;
    }
    nobody.fetch("/api/x").await;
    user.write(Method::POST, "/small/x", &"x".repeat(2000)).await;
    user.fetch("/api/status/418").await;
    let draft = user.draft(Method::from_bytes(b"BREW").expect("a method"), "/open/x");
    user.send(draft).await;
    for request in [
        "GET /x HTTP/1.1\r\nHost: other.test\r\n\r\n".to_owned(),
        format!("GET /%2f HTTP/1.1\r\nHost: {home}\r\n\r\n"),
        format!("TRACE /x HTTP/1.1\r\nHost: {home}\r\n\r\n"),
        "GET /x HTTP/1.1\r\nHost: a,b\r\n\r\n".to_owned(),
    ] {
        ask(home, request).await.expect("an answer");
    }
    let series = |route: &str, method: &str, code: u16| {
        format!(
            "cloakroom_http_requests_total{{code=\"{code}\",method=\"{method}\",route=\"{route}\",site=\"127.0.0.1\"}}"
        )
    };
    let rejected = |reason: &str| format!("cloakroom_requests_rejected_total{{reason=\"{reason}\"}}");
    let expected = [
        (series("/api", "GET", 200), 3.0),
        (series("/api", "GET", 401), 1.0),
        (series("/api", "GET", 418), 1.0),
        (series("/small", "POST", 413), 1.0),
        (series("/open", "OTHER", 200), 1.0),
        (rejected("unknown_host"), 1.0),
        (rejected("path"), 1.0),
        (rejected("method"), 1.0),
        (rejected("host"), 1.0),
        ("cloakroom_unauthenticated_total{answer=\"401\"}".into(), 1.0),
        ("cloakroom_logins_total{provider=\"demo\",reason=\"ok\",result=\"success\"}".into(), 1.0),
        ("cloakroom_upstream_requests_total{code=\"200\",upstream=\"demo\"}".into(), 4.0),
        ("cloakroom_http_requests_in_flight{site=\"127.0.0.1\"}".into(), 0.0),
    ];
    // An answer is counted right after it is sent.
    let until = std::time::Instant::now() + PATIENCE;
    for (series, value) in expected {
        eventually(&series, || async { world.metric(&series).await == value || std::time::Instant::now() > until })
            .await;
        assert_eq!(world.metric(&series).await, value, "{series}\n{}", world.metrics().await);
    }
    let page = world.metrics().await;
    for secret in ["deep", "with=query", "other.test", "a11ce000", "BREW"] {
        assert!(!page.contains(secret), "{secret}");
    }
}
