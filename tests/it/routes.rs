//! What a route can be and do: actions, conditions, rewrites, changes of headers.

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, Draft, Seen, Wishes, World, XSRF};

async fn world(routes: &str) -> World {
    let world = World::with(Wishes {
        routes: format!("{routes}\n      - {{ path: /, upstream: demo, access: required }}"),
        hosts: "[127.0.0.1, app.test, \"*.app.test\"]".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

fn asking(browser: &Browser, method: Method, path: &str, fields: &[(&str, &str)]) -> Draft {
    fields.iter().fold(browser.draft(method, path), |draft, (name, value)| draft.header(name, value))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_keeps_the_path_and_never_the_host_of_a_stranger() {
    let world = world(
        r#"
      - { path: /old/, access: public, redirect: { to: /new/, status: 308, path: keep } }
      - { path: /away, access: public, redirect: { to: "https://www.example.com", status: 301, path: keep } }
      - { path: /fixed, access: public, redirect: { to: "/there?x=1" } }
      - { path: /locked, redirect: { to: /inside, path: keep } }
      - { path: /root, access: public, redirect: { to: /, path: keep } }
"#,
    )
    .await;
    let mut browser = world.browser();
    for (path, status, location) in [
        ("/old", 308, "/new"),
        ("/old/", 308, "/new/"),
        ("/old/a/b?c=d&e", 308, "/new/a/b?c=d&e"),
        ("/old//evil.example/x", 308, "/new/evil.example/x"),
        ("/old/%61?q=%22", 308, "/new/a?q=%22"),
        ("/away", 301, "https://www.example.com"),
        ("/away?a", 301, "https://www.example.com?a"),
        ("/away/.evil.example", 301, "https://www.example.com/.evil.example"),
        ("/fixed/x?y", 302, "/there?x=1"),
        ("/root", 302, "/"),
        ("/root//evil.example", 302, "/evil.example"),
        ("/root/x", 302, "/x"),
    ] {
        let answer = browser.fetch(path).await;
        assert_eq!((answer.status.as_u16(), answer.location()), (status, location), "{path}");
        assert_eq!(answer.header("cache-control"), "", "anybody may have it");
    }
    // The rules of access hold for an answer of our own too.
    assert_eq!(browser.fetch("/locked/x").await.status, StatusCode::UNAUTHORIZED);
    assert!(browser.navigate("/locked/x").await.location().contains("/authorize"));
    browser.log_in("/locked/x").await;
    let answer = browser.fetch("/locked/x").await;
    assert_eq!((answer.status.as_u16(), answer.location()), (302, "/inside/x"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_one_client_stays_out_of_shared_caches_whatever_the_route_says() {
    let shared =
        "response_headers: { set: { Cache-Control: \"public, max-age=3600\", CDN-Cache-Control: max-age=3600 } }";
    let world = world(&format!(
        r#"
      - {{ path: /mine, upstream: demo, {shared} }}
      - {{ path: /fixed, respond: {{ body: mine }}, {shared} }}
      - {{ path: /kept, respond: {{ body: mine }}, response_headers: {{ set: {{ Cache-Control: "private, max-age=60" }} }} }}
      - {{ path: /open, upstream: demo, access: public, max_body: 1, {shared} }}
      - {{ path: /all, access: public, respond: {{ body: all }}, {shared} }}
"#
    ))
    .await;
    let mut browser = world.browser();
    let own = |answer: &Seen| {
        assert_eq!(
            (answer.header("cache-control"), answer.header("cdn-cache-control")),
            ("no-store", ""),
            "{answer:?}"
        );
    };
    // The way to log in has a cookie for this browser.
    let start = browser.navigate("/mine/x").await;
    assert!(start.status == StatusCode::SEE_OTHER && !start.set_cookies().is_empty(), "{start:?}");
    own(&start);
    for target in ["/mine/x", "/fixed"] {
        let answer = browser.fetch(target).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_missing"));
        own(&answer);
    }
    // An error passes.
    let answer = browser.write(Method::POST, "/open/x", "too long").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"), "{answer:?}");
    own(&answer);
    // Nor does the browser keep what holds for this moment alone.
    own(&browser.navigate("/kept").await);
    own(&browser.fetch("/kept").await);
    browser.log_in("/mine/x").await;
    own(&browser.fetch("/fixed").await);
    assert_eq!(browser.fetch("/kept").await.header("cache-control"), "private, max-age=60");
    let all = browser.fetch("/all").await;
    assert_eq!(
        (all.header("cache-control"), all.header("cdn-cache-control")),
        ("public, max-age=3600", "max-age=3600")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_answer_is_what_the_settings_say() {
    let world = world(
        r#"
      - { path: /teapot, access: public, respond: { status: 418, body: "short and stout", content_type: text/x-tea }, response_headers: { set: { Cache-Control: max-age=60 } } }
      - { path: /gone, access: public, respond: { status: 410 } }
      - { path: /nothing, access: public, respond: { status: 204 } }
      - { path: /mine, respond: { body: mine } }
"#,
    )
    .await;
    let mut browser = world.browser();
    let tea = browser.fetch("/teapot/x").await;
    assert_eq!((tea.status.as_u16(), tea.body.as_str()), (418, "short and stout"));
    assert_eq!((tea.header("content-type"), tea.header("cache-control")), ("text/x-tea", "max-age=60"));
    assert_eq!(tea.code(), "", "it is no error of ours");
    let draft = browser.draft(Method::HEAD, "/teapot");
    let head = browser.send(draft).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (418, "15", 0));
    let draft = browser.draft(Method::POST, "/teapot").body(vec![b'x'; 100_000]);
    assert_eq!(browser.send(draft).await.status.as_u16(), 418);
    let gone = browser.fetch("/gone").await;
    assert_eq!((gone.status.as_u16(), gone.body.as_str(), gone.header("content-length")), (410, "", "0"));
    let nothing = browser.fetch("/nothing").await;
    assert_eq!((nothing.status.as_u16(), nothing.header("content-length")), (204, ""));
    browser.log_in("/").await;
    let mine = browser.fetch("/mine").await;
    assert_eq!((mine.body.as_str(), mine.header("cache-control")), ("mine", "no-store"));
    // The page that a user goes to gets its CSRF cookie, whoever answers.
    browser.jars.values_mut().for_each(|jar| drop(jar.remove(XSRF)));
    let page = browser.navigate("/mine").await;
    assert!(page.set_cookies().iter().any(|line| line.starts_with("XSRF-TOKEN=")), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_tell_routes_with_one_path_apart() {
    let world = world(
        r#"
      - { path: /api, access: public, upstream: demo }
      - { path: /api, access: public, when: { methods: [GET] }, respond: { body: get } }
      - { path: /api, access: public, when: { headers: { X-Beta: true } }, respond: { body: beta } }
      - { path: /api, access: public, when: { headers: { X-Beta: "2" } }, respond: { body: beta 2 } }
      - { path: /api, access: public, when: { hosts: [app.test] }, respond: { body: app } }
      - { path: /api, access: public, when: { hosts: ["*.app.test"] }, respond: { body: some app } }
      - { path: /read, access: public, when: { methods: [GET] }, respond: { body: read } }
"#,
    )
    .await;
    let mut browser = world.browser();
    for (method, fields, body) in [
        (Method::GET, &[][..], "get"),
        (Method::GET, &[("x-beta", "2")], "get"),
        (Method::PUT, &[("x-beta", "1")], "beta"),
        (Method::PUT, &[("x-beta", "2")], "beta 2"),
        (Method::PUT, &[("x-beta", "1"), ("x-beta", "2")], "beta 2"),
        (Method::PUT, &[("host", "app.test"), ("x-beta", "2")], "app"),
        (Method::PUT, &[("host", "x.app.test")], "some app"),
    ] {
        let draft = asking(&browser, method.clone(), "/api/x", fields);
        assert_eq!(browser.send(draft).await.body, body, "{method} {fields:?}");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    let draft = browser.draft(Method::PUT, "/api/x");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!(world.demo.upstream.recorder().count(), 1);
    // A path that knows no such method does not leave the request to the path above.
    let draft = browser.draft(Method::POST, "/read/x");
    let refused = browser.send(draft).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (405, "method_not_allowed"));
    assert_eq!(refused.header("allow"), "GET, HEAD");
    let draft = browser.draft(Method::HEAD, "/read/x");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn h4_the_front_of_the_path_is_exchanged_and_the_rest_stays_canonical() {
    let world = world(
        r#"
      - { path: /api/, access: public, upstream: demo, replace_prefix: /v2/service }
      - { path: /bare, access: public, upstream: demo, replace_prefix: / }
"#,
    )
    .await;
    let mut browser = world.browser();
    for (path, forwarded) in [
        ("/api", "/v2/service"),
        ("/api/", "/v2/service/"),
        ("/api/x/y", "/v2/service/x/y"),
        ("/api/%61//b/./c", "/v2/service/a/b/c"),
        ("/bare", "/"),
        ("/bare/x", "/x"),
    ] {
        assert_eq!(browser.fetch(&format!("{path}?q=1")).await.status, StatusCode::OK, "{path}");
        let received = world.demo.upstream.recorder().last().expect("a request");
        assert_eq!((received.path.as_str(), received.query.as_deref()), (forwarded, Some("q=1")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_change_both_ways_and_host_where_it_is_asked_for() {
    let world = world(
        r#"
      - path: /api/
        upstream: demo
        host: internal.test:8443
        identity_headers: { X-User-Id: sub }
        request_headers: { set: { X-Edge: ours }, add: { X-Trail: edge }, remove: [X-Debug] }
        response_headers: { set: { X-Powered-By: coats }, add: { X-Trail: back }, remove: [X-Secret] }
"#,
    )
    .await;
    let mut browser = world.logged_in().await;
    let fields = [("x-edge", "theirs"), ("x-trail", "client"), ("x-debug", "1"), ("x-user-id", "root")];
    let draft = asking(&browser, Method::GET, "/api/set-header?x-powered-by=php&x-trail=app&x-secret=1", &fields);
    let answer = browser.send(draft).await;
    let received = world.demo.upstream.recorder().last().expect("a request");
    assert_eq!(received.header_all("x-edge"), ["ours"]);
    assert_eq!(received.header_all("x-trail"), ["client", "edge"]);
    assert_eq!(received.header("x-debug"), None);
    assert_ne!(received.header("x-user-id"), Some("root"));
    assert!(received.bearer().is_some());
    assert_eq!(received.header_all("host"), ["internal.test:8443"]);
    assert_eq!(received.header("x-forwarded-host"), Some(browser.home.to_string().as_str()));
    assert_eq!(answer.header("x-powered-by"), "coats");
    assert_eq!(answer.header("x-secret"), "");
    let trail: Vec<_> = answer.headers.get_all("x-trail").iter().collect();
    assert_eq!(trail, ["app", "back"]);
    // Also over HTTP/2, whose authority is another one than `Host`.
    let h2 = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let cookies = browser.jars[&browser.home.to_string()].iter().map(|(name, value)| format!("{name}={value}"));
    let cookies = cookies.collect::<Vec<_>>().join("; ");
    let url = format!("{}/api/whoami", browser.origin());
    let answer =
        h2.get(url).header("cookie", cookies).header("sec-fetch-mode", "cors").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let received = world.demo.upstream.recorder().last().expect("a request");
    assert_eq!(received.header_all("host"), ["internal.test:8443"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_protects_in_the_browser_stands_on_every_answer_that_says_nothing_itself() {
    let world = world(
        r#"
      - { path: /open, access: public, upstream: demo, strip_prefix: /open }
      - { path: /fixed, access: public, respond: { body: x } }
"#,
    )
    .await;
    let mut browser = world.browser();
    for path in ["/open/api/status/200", "/open/api/status/500", "/fixed", "/api/x", "/auth/session", "/auth/nothing"] {
        let answer = browser.fetch(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!answer.header("referrer-policy").is_empty(), "{path}");
        assert_eq!(answer.header("x-frame-options"), "SAMEORIGIN", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "{path}: in the clear it means nothing");
    }
    // Pages of our own are stricter.
    let page = browser.navigate("/auth/nothing").await;
    assert_eq!((page.header("x-frame-options"), page.header("referrer-policy")), ("DENY", "no-referrer"));
    let own = "/open/api/set-header?referrer-policy=no-referrer&x-frame-options=DENY&x-content-type-options=x";
    let answer = browser.fetch(own).await;
    for (name, value) in
        [("referrer-policy", "no-referrer"), ("x-frame-options", "DENY"), ("x-content-type-options", "x")]
    {
        assert_eq!(answer.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    let policy = "/open/api/set-header?content-security-policy=frame-ancestors%20https://a.example";
    let answer = browser.fetch(policy).await;
    assert_eq!(answer.header("content-security-policy"), "frame-ancestors https://a.example");
    assert_eq!(answer.header("x-frame-options"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_protects_in_the_browser_is_a_matter_of_settings() {
    let world = World::with(Wishes {
        site: "    security_headers: { hsts: 730d, hsts_subdomains: true, nosniff: false, referrer_policy: off, frame_ancestors: [self, \"https://a.example\"] }"
            .into(),
        more: "trusted_proxies: [127.0.0.1]".into(),
        routes: "      - { path: /open, access: public, upstream: demo, strip_prefix: /open }\n      - { path: /, upstream: demo }"
            .into(),
        ..Wishes::default()
    })
    .await;
    let mut browser = world.browser();
    let draft = browser.draft(Method::GET, "/open/api/set-header?content-security-policy=default-src%20x");
    let answer = browser.send(draft.header("x-forwarded-proto", "https")).await;
    assert_eq!(answer.header("strict-transport-security"), "max-age=63072000; includeSubDomains");
    assert_eq!((answer.header("x-content-type-options"), answer.header("referrer-policy")), ("", ""));
    let policies: Vec<_> = answer.headers.get_all("content-security-policy").iter().collect();
    assert_eq!(policies, ["default-src x", "frame-ancestors 'self' https://a.example"]);
    let answer = browser.fetch("/open/x").await;
    assert_eq!(answer.header("strict-transport-security"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_where_it_is_asked_for_and_possible() {
    let world = world(
        r#"
      - { path: /packed, access: public, upstream: demo, strip_prefix: /packed, compress: true }
      - { path: /plain, access: public, upstream: demo, strip_prefix: /plain }
"#,
    )
    .await;
    let mut browser = world.browser();
    let long = "a".repeat(4000);
    let get = |path: &str, accept: &str| {
        let draft = browser.draft(Method::GET, &format!("{path}/echo?{long}"));
        if accept.is_empty() { draft } else { draft.header("accept-encoding", accept) }
    };
    let drafts = [
        (get("/packed", "gzip"), "gzip"),
        (get("/packed", "gzip;q=0.5, zstd"), "zstd"),
        (get("/packed", "br, gzip;q=0"), ""),
        (get("/packed", ""), ""),
        (get("/plain", "gzip"), ""),
    ];
    let mut vary = Vec::new();
    for (draft, coding) in drafts {
        let answer = browser.send(draft).await;
        assert_eq!(answer.header("content-encoding"), coding);
        assert_eq!(answer.body.contains(&long), coding.is_empty(), "{coding}");
        assert!(coding.is_empty() || answer.body.len() < 2000);
        vary.push(answer.header("vary").to_owned());
    }
    assert_eq!(vary, ["Accept-Encoding", "Accept-Encoding", "Accept-Encoding", "Accept-Encoding", ""]);
    // It can be read again by a program that is not ours, and a connection that has carried it carries the next one.
    let url = format!("{}/packed/echo?{long}", browser.origin());
    for _ in 0..2 {
        let request = browser.client.get(&url).header("accept-encoding", "gzip");
        let body = request.send().await.expect("an answer").bytes().await.expect("a whole body");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &body).expect("written");
        let input = std::fs::File::open(file.path()).expect("a file");
        let unpacked = std::process::Command::new("gzip").arg("-dc").stdin(input).output().expect("gzip");
        assert!(unpacked.status.success() && String::from_utf8_lossy(&unpacked.stdout).contains(&long));
    }
    let draft = browser.draft(Method::HEAD, &format!("/packed/echo?{long}")).header("accept-encoding", "gzip");
    assert_eq!(browser.send(draft).await.header("content-encoding"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_what_we_answer_ourselves_is_not_given_for_a_preflight() {
    let world = world(
        r#"
      - { path: /told, respond: { body: secret } }
      - { path: /sent, redirect: { to: https://secret.example/ } }
      - { path: /kept, files: { root: src } }
      - { path: /got, when: { methods: [GET] }, respond: { body: secret } }
"#,
    )
    .await;
    let mut browser = world.browser();
    for path in ["/told", "/sent", "/kept/lib.rs", "/got"] {
        let fields = [("origin", "https://other.example"), ("access-control-request-method", "GET")];
        let draft = asking(&browser, Method::OPTIONS, path, &fields);
        let answer = browser.send(draft).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(!answer.body.contains("secret") && answer.headers.get("location").is_none(), "{answer:?}");
    }
}
