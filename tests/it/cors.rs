//! C6: cross-origin requests are answered at the edge, by the Fetch standard.

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, Seen, Wishes, World};

const FRIEND: &str = "https://partner.example";
const ROUTES: &str = r#"
      - path: /api/
        upstream: demo
        cors: { origins: ["https://partner.example"], methods: [GET, PUT], headers: [X-A, Content-Type], expose: [X-Total], max_age: 1h, credentials: true }
      - path: /loose/
        upstream: demo
        csrf: false
        cors: { origins: ["https://partner.example"], credentials: true }
      - { path: /world/, upstream: demo, access: public, cors: { origins: "*" } }
      - { path: /fixed, access: public, respond: { body: x }, cors: { origins: ["https://partner.example"] } }
      - { path: /, upstream: demo }
"#;

async fn world() -> World {
    let world = World::with(Wishes { routes: ROUTES.into(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

fn fields(answer: &Seen) -> Vec<&str> {
    answer.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("access-control-")).collect()
}

async fn ask(browser: &mut Browser, method: Method, path: &str, fields: &[(&str, &str)]) -> Seen {
    let draft = browser.draft(method, path);
    browser.send(fields.iter().fold(draft, |draft, (name, value)| draft.header(name, value))).await
}

async fn preflight(browser: &mut Browser, path: &str, origin: &str) -> Seen {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-a"),
        ("sec-fetch-mode", "cors"),
    ];
    ask(browser, Method::OPTIONS, path, &asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_preflight_needs_no_session_and_never_reaches_the_upstream() {
    let world = world().await;
    let mut browser = world.browser();
    let answer = preflight(&mut browser, "/api/x", FRIEND).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(answer.header("access-control-allow-origin"), FRIEND);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-allow-methods"), "GET, PUT");
    assert_eq!(answer.header("access-control-allow-headers"), "x-a, content-type");
    assert_eq!(answer.header("access-control-max-age"), "3600");
    assert!(answer.header("vary").starts_with("Origin"), "{answer:?}");
    assert_eq!(answer.header("content-length"), "");
    for stranger in ["https://evil.example", "null", "https://partner.example.evil", "http://partner.example"] {
        let answer = preflight(&mut browser, "/api/x", stranger).await;
        assert_eq!((answer.status, fields(&answer)), (StatusCode::NO_CONTENT, vec![]), "{stranger}");
        assert!(answer.header("vary").contains("Origin"));
    }
    let answer = preflight(&mut browser, "/world/x", "null").await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    // What is no preflight goes on as any request; so does one to a route that says nothing about other origins.
    assert_eq!(ask(&mut browser, Method::OPTIONS, "/world/x", &[("origin", FRIEND)]).await.status, StatusCode::OK);
    assert_eq!(preflight(&mut browser, "/elsewhere", FRIEND).await.status, StatusCode::OK);
    assert_eq!(world.demo.upstream.recorder().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_the_upstreams_own_fields_are_replaced() {
    let world = world().await;
    let mut browser = world.logged_in().await;
    let theirs = "access-control-allow-origin=https://evil.example&access-control-allow-credentials=true\
                  &access-control-expose-headers=x-secret&access-control-allow-methods=DELETE&vary=Accept";
    let path = format!("/api/set-header?{theirs}");
    let answer = ask(&mut browser, Method::GET, &path, &[("origin", FRIEND), ("sec-fetch-mode", "cors")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    for (name, value) in [
        ("access-control-allow-origin", FRIEND),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-total"),
    ] {
        assert_eq!(answer.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    assert_eq!(answer.header("access-control-allow-methods"), "");
    let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept", "Origin"]);
    for stranger in [&[("origin", "https://evil.example")][..], &[]] {
        let answer = ask(&mut browser, Method::GET, &path, stranger).await;
        assert_eq!((answer.status, fields(&answer)), (StatusCode::OK, vec![]), "{stranger:?}");
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Accept", "Origin"], "a cache must not give this to {FRIEND}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_answers_of_our_own_can_be_read_by_who_may_read_the_others() {
    let world = world().await;
    let mut browser = world.browser();
    let asked = [("origin", FRIEND), ("sec-fetch-mode", "cors")];
    let refused = ask(&mut browser, Method::GET, "/api/x", &asked).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "session_missing"));
    assert_eq!(refused.header("access-control-allow-origin"), FRIEND);
    let strange = ask(&mut browser, Method::GET, "/api/x", &[("origin", "https://evil.example")]).await;
    assert_eq!((strange.status, fields(&strange)), (StatusCode::UNAUTHORIZED, vec![]));
    let fixed = ask(&mut browser, Method::GET, "/fixed", &asked).await;
    assert_eq!((fixed.header("access-control-allow-origin"), fixed.header("vary")), (FRIEND, "Origin"));
    world.demo.upstream.stop().await;
    let down = ask(&mut browser, Method::GET, "/world/x", &asked).await;
    assert_eq!((down.status, down.header("access-control-allow-origin")), (StatusCode::SERVICE_UNAVAILABLE, "*"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_no_origin_but_the_allowed_ones_writes_with_the_session() {
    let world = world().await;
    let mut browser = world.logged_in().await;
    let own = browser.origin();
    let recorder = world.demo.upstream.recorder();
    for (path, origin, status) in [
        // Without the token, which a page of another origin cannot read, no one writes.
        ("/api/x", FRIEND, 403),
        ("/loose/x", FRIEND, 200),
        ("/loose/x", own.as_str(), 200),
        ("/loose/x", "https://evil.example", 403),
        ("/loose/x", "null", 403),
    ] {
        recorder.clear();
        let answer = ask(&mut browser, Method::POST, path, &[("origin", origin)]).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {origin}");
        assert_eq!(recorder.count(), usize::from(status == 200), "{path} {origin}");
    }
    // A page of ours writes as ever.
    assert_eq!(browser.write(Method::PUT, "/api/x", "").await.status, StatusCode::OK);
}
