//! Logins with what the user types: who may, what goes to the backend, what comes back (behaviour C7, S7, K1, O1).

use cloakroom::demo::backend::{BackendEndpoint, PASSWORD};
use cloakroom::demo::{Fault, Gate};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::credentials_kit::*;
use crate::harness::{LOGIN, SESSION, Wishes, XSRF, eventually, logs};
use crate::kit::*;
use crate::login_kit::{sessions_begun, tab};

#[tokio::test(flavor = "multi_thread")]
async fn a_login_brings_a_session_and_the_user_and_no_token() {
    let site = Site::start().await;
    site.backend.behave(|manners| manners.careless = true);
    let mut browser = site.browser();
    // As it came, odd spaces and all.
    let body = format!("{{ \"remember\":true,\n\"username\" : \"alice\",\"password\":{}}}", json!(PASSWORD));
    let draft = post(&browser, "/auth/login?return_to=/deep%3Fx%3D1", &body);
    let seen = browser.send(draft).await;
    assert_eq!(seen.status, StatusCode::OK, "{seen:?}");
    let user = json!({ "id": "id-of-alice", "sub": "id-of-alice", "name": "alice", "roles": ["user"], "links": [] });
    assert_eq!(seen.json(), json!({ "user": user, "return_to": "/deep?x=1" }));
    assert_eq!((seen.header("cache-control"), seen.header("referrer-policy")), ("no-store", "no-referrer"));

    let posted = site.backend.posted(BackendEndpoint::Login);
    assert_eq!((posted.len(), &posted[0].body[..]), (1, body.as_bytes()));
    assert_eq!(posted[0].content_type.as_deref(), Some("application/json"));
    assert_eq!((&posted[0].cookie, &posted[0].authorization), (&None, &None));

    let cookies = seen.set_cookies();
    assert_eq!(cookies.len(), 3, "{cookies:?}");
    assert!(cookies.iter().any(|c| c.starts_with(LOGIN) && c.contains("HttpOnly") && c.contains("SameSite=Lax")));
    assert!(cookies.iter().any(|c| c.starts_with(SESSION) && c.contains("HttpOnly") && c.contains("SameSite=Strict")));
    assert!(cookies.iter().any(|c| c.starts_with(XSRF)));

    let seen = browser.fetch("/api/whoami").await;
    assert_eq!(seen.status, StatusCode::OK, "{seen:?}");
    assert_eq!(relayed(&site.world), site.access_token());
    let last = site.world.demo.upstream.recorder().last().expect("a request");
    assert_eq!((last.header("x-user-id"), last.header("x-user-roles")), (Some("id-of-alice"), Some("user")));
    assert_eq!(browser.fetch("/userinfo").await.json()["name"], "alice");
    assert_eq!(browser.write(Method::POST, "/api/whoami", "x").await.status, StatusCode::OK, "the CSRF token is good");

    let (access, refresh) = site.backend.last_issued().expect("tokens");
    for seen in &browser.received {
        let text = format!("{seen:?}");
        assert!(!text.contains(&access) && !text.contains(&refresh) && !text.contains(PASSWORD), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_only_a_page_of_this_site_may_post_and_only_json() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let body = form("alice", PASSWORD);
    let json = |browser: &crate::harness::Browser| {
        browser.draft(Method::POST, "/auth/login").body(body.as_bytes()).header("content-type", "application/json")
    };
    let origin = browser.origin();
    let refused = [
        json(&browser),
        json(&browser).header("origin", "null"),
        json(&browser).header("origin", "https://evil.example"),
        json(&browser).header("origin", &format!("{origin}.evil.example")),
        json(&browser).header("origin", &origin).header("origin", "https://evil.example"),
        json(&browser).header("sec-fetch-site", "same-site"),
        json(&browser).header("sec-fetch-site", "cross-site"),
        json(&browser).header("origin", "https://evil.example").header("sec-fetch-site", "same-origin"),
    ];
    for draft in refused {
        let seen = browser.send(draft).await;
        assert_eq!((seen.status, seen.code()), (StatusCode::FORBIDDEN, "csrf_failed"), "{seen:?}");
        assert!(seen.set_cookies().is_empty());
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let draft = browser.draft(Method::POST, "/auth/login").body(body.as_bytes()).header("origin", &origin);
        let seen = browser.send(draft.header("content-type", kind)).await;
        assert_eq!((seen.status, seen.code()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"));
    }
    assert_eq!(site.calls(BackendEndpoint::Login), 0, "none of them reached the backend");
    let draft = json(&browser).header("sec-fetch-site", "same-origin");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!(site.world.metric("cloakroom_csrf_rejections_total{mode=\"enforce\",reason=\"origin\"}").await, 8.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_form_never_reaches_the_backend() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let large = form("alice", &"x".repeat(64 * 1024));
    for (body, status, code) in [
        ("", StatusCode::BAD_REQUEST, "bad_request"),
        ("[]", StatusCode::BAD_REQUEST, "bad_request"),
        (r#"{"password":"x"}"#, StatusCode::BAD_REQUEST, "bad_request"),
        (r#"{"username":"alice","Username":"bob","password":"x"}"#, StatusCode::BAD_REQUEST, "bad_request"),
        (large.as_str(), StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
    ] {
        let draft = post(&browser, "/auth/login", body);
        let seen = browser.send(draft).await;
        assert_eq!((seen.status, seen.code()), (status, code), "{seen:?}");
    }
    assert_eq!(site.calls(BackendEndpoint::Login), 0);
    let most = form("alice", &"x".repeat(60 * 1024));
    let draft = post(&browser, "/auth/login", &most);
    assert_eq!(browser.send(draft).await.code(), "login_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backend_says_becomes_a_code_and_its_words_stay_inside() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let seen = log_in(&mut browser, "alice", "wrong").await;
    assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "login_refused"), "{seen:?}");
    assert!(seen.set_cookies().is_empty() && !seen.body.contains("bad credentials"));
    let faults = site.backend.faults(BackendEndpoint::Login);
    for (fault, status, code) in [
        (Fault::status(403), StatusCode::UNAUTHORIZED, "login_refused"),
        (Fault::status(400), StatusCode::BAD_REQUEST, "bad_request"),
        (Fault::status(404), StatusCode::BAD_GATEWAY, "provider_failed"),
        (Fault::page(302), StatusCode::BAD_GATEWAY, "provider_failed"),
        (Fault::page(200), StatusCode::BAD_GATEWAY, "provider_failed"),
        (Fault::cut_json(), StatusCode::BAD_GATEWAY, "provider_failed"),
        (Fault::status(500), StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"),
        (Fault::page(502), StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"),
        (Fault::reset(), StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"),
    ] {
        faults.add(fault.clone().times(1));
        let seen = log_in(&mut browser, "bob", PASSWORD).await;
        assert_eq!((seen.status, seen.code()), (status, code), "{fault:?}: {seen:?}");
        assert!(seen.set_cookies().is_empty() && !seen.body.contains("switched off"), "{seen:?}");
    }
    site.backend.stop().await;
    let seen = log_in(&mut browser, "carol", PASSWORD).await;
    assert_not_now(&seen, "provider_unavailable");
    site.backend.restart().expect("restart");
    faults.add(Fault::retry_after(429, 7).times(1));
    let seen = log_in(&mut browser, "carol", PASSWORD).await;
    assert_eq!(
        (seen.status, seen.code(), seen.header("retry-after")),
        (StatusCode::TOO_MANY_REQUESTS, "too_many_logins", "7")
    );
    // That was for carol.
    assert_eq!(log_in(&mut browser, "erin", "wrong").await.code(), "login_refused");
    let told = |line: &str| line.contains(" cloakroom") || line.contains(" audit");
    assert!(!logs().lines().any(|line| told(line) && line.contains(PASSWORD)), "D3");
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_a_login_ends_the_session_before_and_takes_no_id_from_the_browser() {
    let site = Site::start().await;
    let mut browser = site.logged_in().await;
    let mut thief = holder(&browser);
    let (before, token) = (ticket(&browser), site.refresh_token());
    assert_eq!(log_in(&mut browser, "bob", PASSWORD).await.status, StatusCode::OK);
    assert_ne!(ticket(&browser), before);
    eventually("the backend hears of its end", || async { site.backend.is_revoked(&token) }).await;
    assert!(!site.backend.is_revoked(&site.refresh_token()));
    assert_eq!(thief.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(browser.fetch("/userinfo").await.json()["sub"], "id-of-bob");
    // A login that is refused changes nothing.
    assert_eq!(log_in(&mut browser, "bob", "wrong").await.code(), "login_refused");
    assert_eq!(browser.fetch("/userinfo").await.json()["sub"], "id-of-bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_pages_go_to_the_form_and_scripts_get_401() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let seen = browser.navigate("/deep/page?a=1&b=%2F").await;
    assert_eq!(
        (seen.status, seen.location()),
        (StatusCode::SEE_OTHER, "/login-page?return_to=%2Fdeep%2Fpage%3Fa%3D1%26b%3D%252F")
    );
    assert_eq!(browser.navigate("/login-page?return_to=%2Fdeep").await.status, StatusCode::OK, "the page is public");
    let seen = browser.fetch("/api/whoami").await;
    assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "session_missing"));
    assert_eq!(seen.json()["login_url"], "/auth/login");
    for path in ["/auth/login", "/login"] {
        let seen = browser.navigate(&format!("{path}?return_to=/x")).await;
        assert_eq!((seen.status, seen.location()), (StatusCode::SEE_OTHER, "/login-page?return_to=%2Fx"));
    }
    for evil in ["//evil.example", "https://evil.example", "/auth/login", "/%5cevil"] {
        let draft = post(&browser, &format!("/auth/login?return_to={evil}"), &form("alice", PASSWORD));
        assert_eq!(browser.send(draft).await.json()["return_to"], "/", "{evil}");
        let seen = browser.navigate(&format!("/auth/login?return_to={evil}")).await;
        assert_eq!(seen.location(), "/login-page?return_to=%2F", "{evil}");
    }
    let seen = browser.fetch("/auth/login").await;
    assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "a script starts no login: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_such_a_provider_takes_no_credentials() {
    let world = world(Wishes::default()).await;
    let mut browser = world.browser();
    let draft = post(&browser, "/auth/login", &form("alice", PASSWORD));
    let seen = browser.send(draft).await;
    assert_eq!((seen.status, seen.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"), "{seen:?}");
    let site = Site::start().await;
    let mut browser = site.browser();
    let draft = browser.draft(Method::PUT, "/auth/login");
    assert_eq!(browser.send(draft).await.header("allow"), "GET, POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_logout_ends_the_session_and_tells_the_backend() {
    for send in ["body", "header"] {
        let site = Site::with(send, "", ticking()).await;
        let mut browser = site.logged_in().await;
        let (mut thief, token) = (holder(&browser), site.refresh_token());
        let seen = log_out(&mut browser).await;
        assert_eq!(seen.status, StatusCode::SEE_OTHER, "{seen:?}");
        assert!(seen.location().starts_with("/auth/logged-out?state="), "{seen:?}");
        let page = browser.navigate(seen.location()).await;
        assert!(page.body.contains("You are logged out") && page.body.contains("/auth/login"), "{page:?}");
        assert_eq!(thief.fetch("/api/whoami").await.code(), "session_expired");
        eventually("the backend hears of it", || async { site.backend.is_revoked(&token) }).await;
        let told = site.backend.posted(BackendEndpoint::Logout).remove(0);
        assert_eq!(told.authorization.is_some(), send == "header", "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_everything_else_is_checked_as_on_other_sites() {
    let site = Site::start().await;
    let browser = site.logged_in().await;
    let mut forger = holder(&browser);
    let draft = forger.draft(Method::POST, "/api/whoami").header("origin", &browser.origin());
    let seen = forger.send(draft).await;
    assert_eq!((seen.status, seen.code()), (StatusCode::FORBIDDEN, "csrf_failed"));
    let draft = forger.draft(Method::POST, "/auth/logout").header("origin", &browser.origin());
    assert_eq!(forger.send(draft).await.code(), "csrf_failed");
    assert_eq!(forger.fetch("/api/whoami").await.status, StatusCode::OK, "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_names_nobody_is_no_login() {
    let site = Site::with("body", "    fields: { subject: user.nobody }\n", ticking()).await;
    let mut browser = site.browser();
    let seen = log_in(&mut browser, "alice", PASSWORD).await;
    assert_eq!((seen.status, seen.code()), (StatusCode::BAD_GATEWAY, "provider_failed"), "{seen:?}");
    assert!(seen.set_cookies().is_empty(), "{seen:?}");
    let token = site.refresh_token();
    eventually("the refresh token is revoked", || async { site.backend.is_revoked(&token) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_whose_client_goes_away_leaves_no_token_that_nobody_knows() {
    let site = Site::start().await;
    let gate = Gate::closed();
    site.backend.faults(BackendEndpoint::Login).add(Fault::hold(&gate).after_work().times(1));
    let mut browser = site.browser();
    let waiting = tokio::spawn(async move { log_in(&mut browser, "alice", PASSWORD).await });
    gate.arrived(1).await;
    waiting.abort();
    gate.open();
    let token = site.refresh_token();
    eventually("it is in a session, or revoked", || async {
        sessions_begun(&site.world).await > 0.0 || site.backend.is_revoked(&token)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_two_tabs_that_log_in_at_once_leave_one_session() {
    let site = Site::start().await;
    let mut browser = site.browser();
    // Both come by way of the endpoint, and neither has a session.
    browser.navigate("/deep").await;
    let mut other = tab(&browser);
    let gate = Gate::closed();
    site.backend.faults(BackendEndpoint::Login).add(Fault::hold(&gate).after_work().times(2));
    let (one, two, ()) =
        tokio::join!(log_in(&mut browser, "alice", PASSWORD), log_in(&mut other, "alice", PASSWORD), async {
            gate.arrived(2).await;
            gate.open();
        });
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK));
    let mut alive = 0;
    for browser in [&mut browser, &mut other] {
        alive += usize::from(browser.fetch("/api/whoami").await.status == StatusCode::OK);
    }
    assert_eq!(alive, 1);
}
