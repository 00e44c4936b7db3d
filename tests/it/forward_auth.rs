//! A proxy in front asks about requests and passes them on itself: H1, H2, H4, C1, C5, L11, K1. Nothing of it goes upstream.

use std::time::Instant;

use cloakroom::demo::provider::Signing;
use cloakroom::demo::{Fault, Gate};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::backchannel_kit::ALICE;
use crate::harness::{Browser, PATIENCE, Seen, Wishes, World, XSRF, free_address, logs};
use crate::kit::*;

const ROUTES: &str = r#"
      - { path: /api/, upstream: demo, identity_headers: { X-User-Id: sub, X-User-Roles: realm_access.roles }, level_header: X-User-Level }
      - { path: /open/, upstream: demo, access: public }
      - { path: /maybe/, upstream: demo, access: optional, identity_headers: { X-User-Id: sub } }
      - { path: /both/, upstream: demo, accept: [session, bearer], identity_headers: { X-User-Id: sub } }
      - { path: /bare/, upstream: demo, token: { kind: none } }
      - { path: /closed/, upstream: demo, allow: [{ claim: department, equals: sales }] }
      - { path: /read/, upstream: demo, when: { methods: [GET] } }
      - { path: /shared/, upstream: demo, cors: { origins: ["https://other.example.com"] } }
      - { path: /fixed/, respond: { body: secret } }
      - { path: /orders/, upstream: demo, token: { kind: exchange, audience: orders-api } }
      - { path: /moved/, redirect: { to: https://elsewhere.example.com/ } }
      - { path: /, upstream: demo }
"#;

/// A world with a listener for questions, and where that one is.
struct Asked {
    world: World,
    manner: &'static str,
    questions: Browser,
}

impl Asked {
    async fn start(manner: &'static str, trusted: &str) -> Self {
        let address = free_address();
        let world = world(Wishes {
            listener: format!(" }}, {{ address: \"{address}\", forward_auth: {manner}"),
            more: format!("trusted_proxies: [{trusted}]"),
            site: "    bearer: { audiences: [demo-api], types: [at+jwt] }".into(),
            routes: ROUTES.into(),
            ..ticking()
        })
        .await;
        Self { world, manner, questions: Browser::new(address) }
    }

    /// The same with the cookies of a browser.
    fn with(&mut self, browser: &Browser) {
        let jar = browser.jars.get(&browser.home.to_string()).cloned().unwrap_or_default();
        self.questions.jars.insert(self.questions.home.to_string(), jar);
    }

    /// What a proxy in front says of a request, in the words of its kind.
    fn told(&self, method: &Method, target: &str) -> Vec<(&'static str, String)> {
        let home = self.world.proxy.address.to_string();
        let proto = ("x-forwarded-proto", "http".to_owned());
        match self.manner {
            "x_forwarded" => vec![
                ("x-forwarded-method", method.to_string()),
                proto,
                ("x-forwarded-host", home),
                ("x-forwarded-uri", target.to_owned()),
            ],
            "x_original" => {
                vec![("x-original-method", method.to_string()), ("x-original-url", format!("http://{home}{target}"))]
            }
            _ => vec![proto, ("host", home)],
        }
    }

    async fn ask(&mut self, method: Method, target: &str, fields: &[(&str, &str)]) -> Seen {
        let told = self.told(&method, target);
        let (method, address) =
            if self.manner == "ext_authz" { (method, target) } else { (Method::GET, "/auth/check") };
        let mut draft = self.questions.draft(method, address);
        for (name, value) in told {
            draft = draft.header(name, &value);
        }
        for (name, value) in fields {
            draft = draft.header(name, value);
        }
        self.questions.send(draft).await
    }

    fn passes(&self) -> StatusCode {
        if self.manner == "ext_authz" { StatusCode::OK } else { StatusCode::ACCEPTED }
    }
}

const MANNERS: [&str; 3] = ["x_forwarded", "x_original", "ext_authz"];
const SCRIPT: [(&str, &str); 2] = [("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin")];
const PAGE: [(&str, &str); 3] =
    [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("accept", "text/html")];

#[tokio::test(flavor = "multi_thread")]
async fn who_is_logged_in_passes_with_what_the_route_sends_upstream() {
    for manner in MANNERS {
        let mut asked = Asked::start(manner, "127.0.0.1").await;
        let mut browser = asked.world.logged_in().await;
        browser.set_cookie("theirs", "1");
        browser.fetch("/api/x").await;
        let (token, csrf) = (relayed(&asked.world), browser.cookie(XSRF).expect("a cookie").to_owned());
        asked.world.demo.upstream.recorder().clear();
        asked.with(&browser);
        let (passes, origin) = (asked.passes(), browser.origin());

        let spoofed = [SCRIPT[0], SCRIPT[1], ("authorization", "Bearer evil"), ("x-user-id", "root")];
        let answer = asked.ask(Method::GET, "/api/x?y=//", &spoofed).await;
        assert_eq!((answer.status, answer.body.as_str()), (passes, ""), "{manner} {answer:?}");
        assert_eq!(answer.header("authorization"), format!("Bearer {token}"));
        assert_eq!((answer.header("x-user-id"), answer.header("x-user-level")), (ALICE, "logged_on"), "{answer:?}");
        assert_eq!(answer.header("cookie"), "theirs=1", "our cookies are not for the application");
        assert_eq!(answer.header("cache-control"), "no-store");
        let removed = answer.header("x-envoy-auth-headers-to-remove");
        assert_eq!(removed, if manner == "ext_authz" { "x-user-context" } else { "" });

        let bare = asked.ask(Method::GET, "/bare/x", &spoofed).await;
        assert_eq!((bare.status, bare.headers.get("authorization")), (passes, None));
        let removed = bare.header("x-envoy-auth-headers-to-remove");
        if manner == "ext_authz" {
            for name in ["authorization", "x-user-id", "x-user-roles", "x-user-level", "x-user-context"] {
                assert!(removed.split(',').any(|one| one == name), "{name}: {removed}");
            }
            assert!(!removed.contains("cookie"), "{removed}");
        }
        // What a route of ours answers itself the proxy in front may pass on: whom it lets in was asked.
        for target in ["/fixed/x", "/moved/x"] {
            let answer = asked.ask(Method::GET, target, &SCRIPT).await;
            assert_eq!((answer.status, answer.body.as_str()), (passes, ""), "{target} {answer:?}");
        }
        // C1, C2: what is unsafe by the method that is told is proved as everywhere.
        let own = [("origin", &*origin), ("x-xsrf-token", &*csrf)];
        assert_eq!(asked.ask(Method::POST, "/api/x", &own).await.status, passes, "{manner}");
        for fields in [&own[..1], &own[1..], &[("origin", "https://evil.example.com"), own[1]], &[]] {
            let answer = asked.ask(Method::POST, "/api/x", fields).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "csrf_failed"), "{manner} {fields:?}");
            assert_eq!(answer.headers.get("authorization"), None);
        }
        // C5: no `Upgrade` is needed to see a handshake.
        for (fields, status) in [
            (&[("sec-websocket-key", "x"), ("origin", &*origin)][..], passes),
            (&[("sec-websocket-key", "x"), ("origin", "https://evil.example.com")], StatusCode::FORBIDDEN),
            (&[("upgrade", "websocket"), ("origin", "https://evil.example.com")], StatusCode::FORBIDDEN),
        ] {
            assert_eq!(asked.ask(Method::GET, "/api/x", fields).await.status, status, "{manner} {fields:?}");
        }
        // Over HTTP/2 it is a CONNECT (RFC 8441); no other one is judged.
        for (fields, status, code) in [
            (&[("upgrade", "websocket"), ("origin", &*origin)][..], passes, ""),
            (&[("upgrade", "websocket"), ("origin", "https://evil.example.com")], StatusCode::FORBIDDEN, "csrf_failed"),
            (&[("origin", &*origin)], StatusCode::FORBIDDEN, "check_refused"),
        ] {
            if manner != "ext_authz" {
                let answer = asked.ask(Method::CONNECT, "/api/x", fields).await;
                assert_eq!((answer.status, answer.code()), (status, code), "{manner} {fields:?}");
            }
        }
        let answer = asked.ask(Method::GET, "/closed/x", &SCRIPT).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "rule_failed"));
        // A preflight brings no cookies and gets nothing of the user.
        let preflight = [("origin", "https://other.example.com"), ("access-control-request-method", "POST")];
        let answer = asked.ask(Method::OPTIONS, "/shared/x", &preflight).await;
        assert_eq!((answer.status, answer.headers.get("authorization")), (passes, None), "{answer:?}");
        // A session that is over is one no longer.
        log_out(&mut browser).await;
        let answer = asked.ask(Method::GET, "/api/x", &SCRIPT).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_expired"));
        assert_eq!(asked.world.demo.upstream.recorder().count(), 0, "{manner}: nothing went upstream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_session_ends_while_a_token_is_made_is_sent_to_log_in_as_who_has_none() {
    for manner in MANNERS {
        let mut asked = Asked::start(manner, "127.0.0.1").await;
        let mut browser = asked.world.logged_in().await;
        asked.with(&browser);
        let gate = Gate::closed();
        token_fault(&asked.world, Fault::hold(&gate).after_work().times(1));
        let leave = async {
            gate.arrived(1).await;
            log_out(&mut browser).await;
            gate.open();
        };
        let (answer, ()) = tokio::join!(asked.ask(Method::GET, "/orders/x?y=1", &PAGE), leave);
        let login = format!("http://{}/auth/login?return_to=%2Forders%2Fx%3Fy%3D1", asked.world.proxy.address);
        let status = if manner == "x_original" { StatusCode::UNAUTHORIZED } else { StatusCode::SEE_OTHER };
        assert_eq!((answer.status, answer.location()), (status, &*login), "{manner} {answer:?}");
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
        assert_eq!(asked.world.demo.upstream.recorder().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_is_sent_to_log_in_or_told_401() {
    for manner in MANNERS {
        let mut asked = Asked::start(manner, "127.0.0.1").await;
        let passes = asked.passes();
        for target in ["/api/x", "/fixed/x", "/moved/x", "/bare/x"] {
            let answer = asked.ask(Method::GET, target, &SCRIPT).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_missing"), "{target}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(!answer.body.contains("secret") && answer.headers.get("location").is_none(), "{answer:?}");
        }
        let login = format!("http://{}/auth/login?return_to=%2Fapi%2Fx%3Fy%3D1", asked.world.proxy.address);
        // Also one that another site began: the page that would go on by itself is a success, and so would be leave.
        for site in ["same-origin", "cross-site"] {
            let fields = [PAGE[0], PAGE[1], PAGE[2], ("sec-fetch-site", site)];
            let answer = asked.ask(Method::GET, "/api/x?y=1", &fields).await;
            let status = if manner == "x_original" { StatusCode::UNAUTHORIZED } else { StatusCode::SEE_OTHER };
            assert_eq!((answer.status, answer.location()), (status, &*login), "{manner} {answer:?}");
            assert!(answer.set_cookies().is_empty(), "no login has begun: {answer:?}");
        }
        // The login at that address works, and comes back.
        let mut browser = asked.world.browser();
        let page = browser.log_in(login.split_once(&browser.origin()).expect("ours").1).await;
        assert!(page.body.contains("/api/x?y=1"), "{page:?}");

        for target in ["/open/x", "/maybe/x"] {
            let answer = asked.ask(Method::GET, target, &[("authorization", "Bearer evil")]).await;
            assert_eq!((answer.status, answer.headers.get("authorization")), (passes, None), "{target}");
            assert_eq!(answer.headers.get("x-user-id"), None);
        }
        // A gRPC error is 200 of HTTP. A proxy in front would take it for leave.
        let answer = asked.ask(Method::POST, "/api/x", &[("content-type", "application/grpc")]).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_missing"), "{manner}");
        // K1: an echo stays one.
        let answer = asked.ask(Method::from_bytes(b"TRACK").unwrap(), "/open/x", &[]).await;
        let odd = |status| if manner == "x_original" { StatusCode::FORBIDDEN } else { status };
        assert_eq!(answer.status, odd(StatusCode::METHOD_NOT_ALLOWED), "{manner}");
        let answer = asked.ask(Method::POST, "/read/x", &[]).await;
        assert_eq!((answer.status, answer.code()), (odd(StatusCode::METHOD_NOT_ALLOWED), "method_not_allowed"));
        assert_eq!(asked.world.demo.upstream.recorder().count(), 0, "{manner}: nothing went upstream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_client_is_judged_as_everywhere() {
    let mut asked = Asked::start("x_original", "127.0.0.1").await;
    let (now, provider) = (asked.world.clock.now().as_secs(), &asked.world.demo.provider);
    let claims = json!({
        "iss": provider.issuer(), "sub": "robot", "aud": "demo-api", "client_id": "app", "iat": now, "exp": now + 600,
    });
    let token = format!("Bearer {}", provider.sign("at+jwt", &claims, &Signing::Honest).expect("signed"));
    let answer = asked.ask(Method::POST, "/both/x", &[("authorization", &token)]).await;
    assert_eq!((answer.status, answer.header("authorization")), (StatusCode::ACCEPTED, &*token), "{answer:?}");
    assert_eq!(answer.header("x-user-id"), "robot");
    let answer = asked.ask(Method::POST, "/both/x", &[("authorization", "Bearer a.b.c")]).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "token_invalid"));
    assert!(answer.header("www-authenticate").contains("invalid_token"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_has_served_its_time_is_exchanged_in_the_answer() {
    let mut asked = Asked::start("x_original", "127.0.0.1").await;
    let mut browser = asked.world.logged_in().await;
    browser.fetch("/api/x").await;
    asked.with(&browser);
    let answer = asked.ask(Method::GET, "/bare/x", &SCRIPT).await;
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
    asked.world.clock.advance(secs(16 * 60));
    let answer = asked.ask(Method::GET, "/bare/x", &PAGE).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    // nginx passes one cookie on, no more.
    assert!(matches!(&answer.set_cookies()[..], [one] if one.starts_with("__Host-session=")), "{answer:?}");
    assert_eq!(asked.ask(Method::GET, "/bare/x", &SCRIPT).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_nobody_but_a_trusted_proxy_asks_and_only_on_its_listener() {
    let mut asked = Asked::start("x_forwarded", "10.0.0.1").await;
    let mut browser = asked.world.logged_in().await;
    browser.fetch("/api/x").await;
    asked.with(&browser);
    asked.world.demo.upstream.recorder().clear();
    let answer = asked.ask(Method::GET, "/api/x", &SCRIPT).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "check_refused"), "{answer:?}");
    assert_eq!(answer.headers.get("authorization"), None);

    // A browser's own listener tells no token to anybody, trusted or not.
    let mut asked = Asked::start("x_forwarded", "127.0.0.1").await;
    let mut browser = asked.world.logged_in().await;
    browser.fetch("/api/x").await;
    asked.with(&browser);
    asked.world.demo.upstream.recorder().clear();
    let told = asked.told(&Method::GET, "/api/x");
    let draft =
        told.iter().fold(browser.draft(Method::GET, "/auth/check"), |draft, (name, value)| draft.header(name, value));
    let answer = browser.send(draft).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not_found"), "{answer:?}");
    assert_eq!(answer.headers.get("authorization"), None);

    // On the listener for questions nothing else is answered, the endpoints of a login neither.
    for (method, path, status) in [
        (Method::GET, "/api/x", StatusCode::NOT_FOUND),
        (Method::GET, "/open/x", StatusCode::NOT_FOUND),
        (Method::GET, "/auth/login", StatusCode::NOT_FOUND),
        (Method::GET, "/auth/userinfo", StatusCode::NOT_FOUND),
        (Method::GET, "/auth/check/", StatusCode::NOT_FOUND),
        (Method::POST, "/auth/check", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let mut draft = asked.questions.draft(method, path);
        for (name, value) in asked.told(&Method::GET, "/api/x") {
            draft = draft.header(name, &value);
        }
        assert_eq!(asked.questions.send(draft).await.status, status, "{path}");
    }
    // Another site than any of ours, a path below `auth_path`, what is not told, or twice, or not as it will be sent on.
    let answer = asked.ask(Method::GET, "/api/x", &[("x-forwarded-uri", "/open/x")]).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "check_refused"), "{answer:?}");
    // What an application may take for another field, or for another method, would go on as it came.
    for name in ["x-http-method-override", "x-method-override", "x_user_id", "x_forwarded_for"] {
        let answer = asked.ask(Method::GET, "/api/x", &[(name, "DELETE")]).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "check_refused"), "{name} {answer:?}");
    }
    for target in ["/auth/userinfo", "/login", "//api/x", "/open/../api/x", "/open/..%2fapi/x", "/%6fpen/x", "x"] {
        let answer = asked.ask(Method::GET, target, &SCRIPT).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "check_refused"), "{target} {answer:?}");
    }
    let answer = asked.ask(Method::GET, "/auth/check", &SCRIPT).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not_found"), "no question about a question");
    let draft = asked.questions.draft(Method::GET, "/auth/check");
    let answer = asked.questions.send(draft).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "check_refused"), "{answer:?}");
    assert_eq!(asked.world.demo.upstream.recorder().count(), 0, "nothing went upstream");
    assert!(asked.world.metric("cloakroom_requests_rejected_total{reason=\"forward_auth\"}").await >= 9.0);
    // One line a second is told, and other tests ask too.
    let until = Instant::now() + PATIENCE;
    while asked.world.metric("cloakroom_audit_events_total{event=\"check_refused\"}").await < 1.0 {
        assert!(Instant::now() < until, "the audit log tells of none");
        asked.ask(Method::GET, "x", &SCRIPT).await;
    }
    assert!(logs().contains("a forward auth request is refused"));
}
