//! Whoever is refused gets a code, whatever may be an attack is told in the audit log, and the upstream hears of none of it.
//! The details of each kind of refusal are in the files beside this one.

use std::time::Instant;

use cloakroom::demo::backend::PASSWORD;
use cloakroom::demo::provider::Signing;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::credentials_kit::{Site, form, post};
use crate::harness::{Browser, Draft, PATIENCE, SESSION, Wishes, World, XSRF};
use crate::kit::*;

const ROUTES: &str = r#"
      - { path: /machines/, upstream: demo, accept: [bearer], scopes: [read] }
      - { path: /both/, upstream: demo, accept: [session, bearer], access: optional }
      - { path: /app/, upstream: demo, token: { kind: proxy } }
      - { path: /internal/, upstream: demo, accept: [proxy_token] }
      - { path: /closed/, upstream: demo, allow: [{ claim: department, equals: sales }] }
      - { path: /orders/, upstream: demo, token: { kind: exchange, audience: orders-api } }
      - { path: /few/, upstream: demo, rate_limits: [{ by: session, requests: 1, per: 1h }] }
      - { path: /read/, upstream: demo, when: { methods: [GET] } }
      - { path: /, upstream: demo }
"#;

/// One refusal: what it is, how it is provoked, its status, its code, and its event, where it is told.
type Case<'c> = (&'c str, &'c dyn Fn(&Browser) -> Draft, u16, &'c str, Option<&'c str>);

/// How many events of a name were told; of all names together without one.
async fn told(world: &World, event: Option<&str>) -> f64 {
    let series = match event {
        Some(event) => format!("cloakroom_audit_events_total{{event=\"{event}\"}}"),
        None => "cloakroom_audit_events_total{".to_owned(),
    };
    let text = world.metrics().await;
    text.lines()
        .filter(|line| line.starts_with(&series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Some events come once a second at most, of all worlds of this process: whoever goes on is told of in the end.
async fn is_refused(world: &World, browser: &Browser, case: Case<'_>) {
    let (what, draft, status, code, event) = case;
    let (passed, before) = (world.demo.upstream.recorder().count(), told(world, event).await);
    let until = Instant::now() + PATIENCE;
    loop {
        let mut client = crate::login_kit::tab(browser);
        let answer = client.send(draft(&client)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{what}: {answer:?}");
        assert!(answer.headers.get("location").is_none(), "{what}: {answer:?}");
        assert_eq!(world.demo.upstream.recorder().count(), passed, "{what}");
        let now = told(world, event).await;
        if event.is_none() {
            return assert_eq!(now, before, "{what} is told of");
        }
        if now > before {
            return;
        }
        assert!(Instant::now() < until, "{what} is told of nowhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_request_has_a_code_an_event_and_no_way_upstream() {
    let more = "proxy_token: { issuer: \"https://app.test\", audience: \"https://internal.test\", lifetime: 5m, \
                keys: [{ id: p1, secret: { env: TEST_KEY } }] }";
    let world = world(Wishes {
        routes: ROUTES.into(),
        site: "    bearer: { audiences: [demo-api] }".into(),
        more: more.into(),
        provider: lasting_tokens(),
        ..ticking()
    })
    .await;
    let (guest, mut user) = (world.browser(), world.logged_in().await);
    let token = |change: &dyn Fn(&mut Value), signing: Signing| {
        let now = world.clock.now().as_secs();
        let mut claims = json!({
            "iss": world.demo.provider.issuer(), "sub": "robot", "aud": "demo-api", "client_id": "app", "iat": now,
            "exp": now + 600, "jti": "j", "scope": "read",
        });
        change(&mut claims);
        world.demo.provider.sign("at+jwt", &claims, &signing).expect("signed")
    };
    let bearer = |browser: &Browser, target: &str, token: &str| {
        browser.draft(Method::POST, target).header("authorization", &format!("Bearer {token}")).body("{}")
    };
    // All that follows is refused for what it lacks alone.
    let good = token(&|_| {}, Signing::Honest);
    let mut app = world.browser();
    let draft = bearer(&app, "/machines/x", &good);
    assert_eq!(app.send(draft).await.status, StatusCode::OK);
    assert_eq!(user.fetch("/app/x").await.status, StatusCode::OK);
    let name = relayed(&world);
    let draft = bearer(&app, "/internal/x", &name);
    assert_eq!(app.send(draft).await.status, StatusCode::OK);
    for target in ["/orders/x", "/few/x", "/read/x"] {
        assert_eq!(user.fetch(target).await.status, StatusCode::OK, "{target}");
    }
    assert_eq!(user.write(Method::POST, "/x", "{}").await.status, StatusCode::OK);

    let forged = token(&|_| {}, Signing::Broken);
    let foreign = token(&|claims| claims["aud"] = "another-api".into(), Signing::Honest);
    let ended = token(&|claims| claims["exp"] = (world.clock.now().as_secs() - 61).into(), Signing::Honest);
    let narrow = token(&|claims| claims["scope"] = "write".into(), Signing::Honest);
    let bound = token(&|claims| claims["cnf"] = json!({ "jkt": "x" }), Signing::Honest);
    let stray = format!("{}A", &name[..name.len() - 1]);
    let stray = if stray == name { format!("{}E", &name[..name.len() - 1]) } else { stray };
    let (origin, xsrf) = (user.origin(), user.cookie(XSRF).expect("a token").to_owned());
    let script = |browser: &Browser, method: Method, target: &str| {
        browser.draft(method, target).header("sec-fetch-mode", "cors").header("sec-fetch-site", "same-origin")
    };
    let of_user: [Case<'_>; 10] = [
        (
            "no CSRF token",
            &|b| script(b, Method::POST, "/x").header("origin", &origin),
            403,
            "csrf_failed",
            Some("csrf_rejected"),
        ),
        (
            "another's CSRF token",
            &|b| script(b, Method::POST, "/x").header("origin", &origin).header("x-xsrf-token", "x"),
            403,
            "csrf_failed",
            Some("csrf_rejected"),
        ),
        (
            "another site",
            &|b| b.draft(Method::POST, "/x").header("origin", "https://evil.example.com").header("x-xsrf-token", &xsrf),
            403,
            "csrf_failed",
            Some("csrf_rejected"),
        ),
        (
            "a tunnel from another site",
            &|b| {
                let draft = b
                    .draft(Method::GET, "/x")
                    .header("origin", "https://evil.example.com")
                    .header("upgrade", "websocket");
                draft
                    .header("connection", "upgrade")
                    .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                    .header("sec-websocket-version", "13")
            },
            403,
            "csrf_failed",
            Some("csrf_rejected"),
        ),
        (
            "a logout without CSRF token",
            &|b| script(b, Method::POST, "/auth/logout").header("origin", &origin),
            403,
            "csrf_failed",
            Some("csrf_rejected"),
        ),
        ("a rule", &|b| script(b, Method::GET, "/closed/x"), 403, "rule_failed", Some("access_denied")),
        // Nothing that an attacker would find out by it.
        ("too many", &|b| script(b, Method::GET, "/few/x"), 429, "too_many_requests", None),
        ("another method", &|b| script(b, Method::PUT, "/read/x"), 405, "method_not_allowed", None),
        (
            "a session where tokens are asked for",
            &|b| script(b, Method::GET, "/machines/x"),
            401,
            "token_missing",
            None,
        ),
        (
            "a session where proxy tokens are asked for",
            &|b| script(b, Method::GET, "/internal/x"),
            401,
            "token_invalid",
            None,
        ),
    ];
    for case in of_user {
        is_refused(&world, &user, case).await;
    }
    let of_guests: [Case<'_>; 12] = [
        ("nobody", &|b| script(b, Method::GET, "/x"), 401, "session_missing", None),
        (
            "no session",
            &|b| script(b, Method::GET, "/x").header("cookie", &format!("{SESSION}={}", "A".repeat(64))),
            401,
            "session_expired",
            None,
        ),
        ("no token", &|b| b.draft(Method::GET, "/machines/x"), 401, "token_missing", None),
        ("a forged token", &|b| bearer(b, "/machines/x", &forged), 401, "token_invalid", Some("token_rejected")),
        (
            "a forged token where none is needed",
            &|b| bearer(b, "/both/x", &forged),
            401,
            "token_invalid",
            Some("token_rejected"),
        ),
        ("a token for another", &|b| bearer(b, "/machines/x", &foreign), 401, "token_invalid", Some("token_rejected")),
        ("a token without its key", &|b| bearer(b, "/machines/x", &bound), 401, "token_bound", Some("token_rejected")),
        (
            "a proxy token as access token",
            &|b| bearer(b, "/machines/x", &name),
            401,
            "token_invalid",
            Some("token_rejected"),
        ),
        ("a token that has ended", &|b| bearer(b, "/machines/x", &ended), 401, "token_invalid", None),
        ("a token of less scope", &|b| bearer(b, "/machines/x", &narrow), 403, "insufficient_scope", None),
        ("a forged proxy token", &|b| bearer(b, "/internal/x", &stray), 401, "token_invalid", Some("token_rejected")),
        (
            "an access token as proxy token",
            &|b| bearer(b, "/internal/x", &good),
            401,
            "token_invalid",
            Some("token_rejected"),
        ),
    ];
    for case in of_guests {
        is_refused(&world, &guest, case).await;
    }
    for (error, status, code) in
        [("access_denied", 403, "upstream_token_denied"), ("invalid_target", 502, "upstream_token_refused")]
    {
        // A refusal is kept for a while; another session asks anew.
        let other = world.logged_in().await;
        world.demo.provider.switches().set(|switch| switch.refuse_service_tokens = Some(error.to_owned()));
        let case: Case<'_> =
            (error, &|b| script(b, Method::GET, "/orders/x"), status, code, Some("upstream_token_refused"));
        is_refused(&world, &other, case).await;
        world.demo.provider.switches().set(|switch| switch.refuse_service_tokens = None);
    }
    // Who names a session that has ended is no attacker.
    log_out(&mut user).await;
    let case: Case<'_> =
        ("a proxy token of a session that is over", &|b| bearer(b, "/internal/x", &name), 401, "token_invalid", None);
    is_refused(&world, &guest, case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_login_has_a_code_an_event_and_no_way_upstream() {
    let site = Site::with("body", "    limits: { account: 2 }", ticking()).await;
    let browser = site.browser();
    let evil = |draft: Draft| draft.header("origin", "https://evil.example.com");
    let cases: [Case<'_>; 6] = [
        (
            "a wrong password",
            &|b| post(b, "/auth/login", &form("alice", "wrong")),
            401,
            "login_refused",
            Some("login_failure"),
        ),
        ("no account", &|b| post(b, "/auth/login", "{}"), 400, "bad_request", Some("login_failure")),
        (
            "two accounts",
            &|b| post(b, "/auth/login", r#"{"username":"a","Username":"b"}"#),
            400,
            "bad_request",
            Some("login_failure"),
        ),
        (
            "another site",
            &|b| evil(b.draft(Method::POST, "/auth/login").body(form("alice", PASSWORD))),
            403,
            "csrf_failed",
            Some("csrf_rejected"),
        ),
        // What a form of another site could send is not read.
        (
            "no JSON",
            &|b| {
                let draft = b
                    .draft(Method::POST, "/auth/login")
                    .header("origin", &b.origin())
                    .header("content-type", "text/plain");
                draft.body(form("alice", PASSWORD))
            },
            415,
            "unsupported_media_type",
            None,
        ),
        (
            "one of many",
            &|b| post(b, "/auth/login", &form("al\u{20dd}ice", "wrong")),
            401,
            "login_refused",
            Some("login_failure"),
        ),
    ];
    for case in cases {
        is_refused(&site.world, &browser, case).await;
    }
    let case: Case<'_> = (
        "one too many",
        &|b| post(b, "/auth/login", &form("ałice", PASSWORD)),
        429,
        "too_many_logins",
        Some("login_failure"),
    );
    is_refused(&site.world, &browser, case).await;
}
