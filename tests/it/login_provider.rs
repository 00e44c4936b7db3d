//! Providers that refuse, fail, lie about themselves, or are not there (behaviour L7, D2, D4; F7–F9).

use std::time::Duration;

use cloakroom::demo::Fault;
use cloakroom::demo::provider::Endpoint;
use cloakroom::primitives::clock::{Clock, Timestamp};
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, PATIENCE, Proxy, SESSION, Wishes, World, XSRF};
use crate::kit::{ticking, world};
use crate::login_kit::{guarded, onward, refused, sessions_begun, token_calls, uncached, with};

async fn ready() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_what_happened_and_how_to_go_on() {
    let world = ready().await;
    for (error, text, shown) in [
        ("access_denied", "did not let you in", true),
        ("temporarily_unavailable", "has a problem", true),
        ("server_error", "has a problem", true),
        ("interaction_required", "refused the login", true),
        ("<script>alert(1)</script>", "refused the login", false),
        ("\"><img src=x onerror=alert(1)>", "refused the login", false),
        (&"a".repeat(300), "refused the login", false),
        ("line\r\nSet-Cookie: x=1", "refused the login", false),
    ] {
        world.demo.provider.switches().set(|switch| switch.callback_error = Some(error.to_owned()));
        let mut browser = world.browser();
        let callback = browser.authorize("/page?a=1&b=2").await;
        let page = browser.navigate(&with(&callback, "error_uri", "https://evil.example")).await;
        refused(&browser, &page, &callback, error);
        guarded(&page);
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert_eq!(page.code(), "login_failed");
        assert!(page.body.contains(text), "{page:?}");
        assert_eq!(page.body.contains(&format!("({error})")), shown, "{page:?}");
        for foreign in ["switched off by a test", "evil.example", "alert(1)", "onerror"] {
            assert!(!page.body.contains(foreign), "the provider's text: {page:?}");
        }
        assert!(page.body.contains("/auth/login?return_to=%2Fpage%3Fa%3D1%26b%3D2"), "{page:?}");
        world.demo.provider.switches().set(|switch| switch.callback_error = None);
        assert_eq!(onward(&browser.log_in("/auth/login?return_to=%2Fpage%3Fa%3D1%26b%3D2").await), "/page?a=1&b=2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_a_token_endpoint_that_babbles_gives_no_session() {
    let world = world(ticking()).await;
    let switches = world.demo.provider.switches();
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    for (fault, status) in [
        (Fault::status(500), unavailable),
        (Fault::status(503), unavailable),
        (Fault::retry_after(429, 7), unavailable),
        (Fault::status(502), unavailable),
        (Fault::page(502), unavailable),
        (Fault::page(200), unavailable),
        (Fault::cut_json(), unavailable),
        (Fault::reset(), unavailable),
        (Fault::reset().after_work(), unavailable),
        (Fault::status(400), StatusCode::BAD_REQUEST),
        (Fault::page(404), StatusCode::BAD_REQUEST),
        (Fault::page(302), StatusCode::BAD_REQUEST),
    ] {
        switches.fault(Endpoint::Token, fault.clone());
        let calls = token_calls(&world);
        let mut browser = world.browser();
        let callback = browser.authorize("/page").await;
        let page = browser.navigate(&callback).await;
        let what = format!("{fault:?}");
        refused(&browser, &page, &callback, &what);
        assert_eq!(page.status, status, "{what}: {page:?}");
        assert!(!page.body.contains("switched off") && !page.body.contains("Bad gateway"), "{what}: {page:?}");
        assert!(page.body.contains("/auth/login?return_to=%2Fpage"), "{what}: {page:?}");
        assert_eq!(token_calls(&world), calls + 1, "{what}: a code is shown once");
        switches.faults(Endpoint::Token).clear();
        // The provider asked for seven seconds at most, and single failures hold nobody back.
        world.clock.advance(std::time::Duration::from_secs(7));
        browser.log_in("/page").await;
    }
    assert_eq!(sessions_begun(&world).await, 12.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_provider_that_is_known_to_be_down_is_not_redirected_to() {
    let world = world(ticking()).await;
    world.demo.provider.switches().fault(Endpoint::Token, Fault::status(503));
    for _ in 0..5 {
        let mut browser = world.browser();
        let callback = browser.authorize("/page").await;
        assert_eq!(browser.navigate(&callback).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut browser = world.browser();
    let answer = browser.navigate("/auth/login").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"), "{answer:?}");
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    world.demo.provider.switches().faults(Endpoint::Token).clear();
    world.clock.advance(std::time::Duration::from_secs(1));
    browser.log_in("/page").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_a_slow_token_endpoint_is_waited_for_only_so_long() {
    let world = ready().await;
    let gate = cloakroom::demo::Gate::closed();
    world.demo.provider.switches().fault(Endpoint::Token, Fault::hold(&gate));
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    let page = tokio::time::timeout(PATIENCE, browser.navigate(&callback)).await.expect("an answer");
    refused(&browser, &page, &callback, "too slow");
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    gate.open();
    assert_eq!(sessions_begun(&world).await, 0.0);
}

/// Everything that needs no login works; what does is told in both languages, and nobody waits for the provider.
async fn works_without_logins(world: &World, proxy: &Proxy) {
    let mut browser = Browser::new(proxy.address);
    assert_eq!(browser.fetch("/open/echo").await.status, StatusCode::OK);
    assert_eq!(browser.fetch("/maybe/echo").await.status, StatusCode::OK);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
    let asked = world.demo.provider.ledger().count(Endpoint::Authorize) + token_calls(world);
    for path in ["/", "/auth/login", "/login"] {
        let page = tokio::time::timeout(Duration::from_secs(3), browser.navigate(path)).await.expect("at once");
        assert_eq!((page.status, page.code()), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"), "{page:?}");
        assert!(page.header("content-type").starts_with("text/html") && page.set_cookies().is_empty(), "{page:?}");
        assert!(page.header("retry-after").parse::<u32>().is_ok(), "{page:?}");
        uncached(&page);
        guarded(&page);
    }
    let script = browser.draft(Method::GET, "/auth/login").header("accept", "application/json");
    let problem = browser.send(script).await;
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(problem.json()["code"], "provider_unavailable");
    assert_eq!(world.demo.provider.ledger().count(Endpoint::Authorize) + token_calls(world), asked);
    assert_eq!(proxy.admin_page("/readyz").await.0, StatusCode::OK, "a provider decides nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_another_issuer_in_the_metadata_is_never_taken() {
    let world = ready().await;
    let issuer = world.demo.provider.issuer().to_owned();
    for other in [format!("{issuer}/"), "https://evil.example".into(), issuer.replace("127.0.0.1", "localhost")] {
        world.demo.provider.switches().set(|switch| switch.discovery_issuer = Some(other.clone()));
        let proxy = world.replica().await;
        crate::harness::eventually("the reason is told", || async {
            let (_, text) = proxy.admin_page("/readyz?verbose").await;
            text.contains("provider demo: not ready") && text.contains("another issuer")
        })
        .await;
        works_without_logins(&world, &proxy).await;
        if other == format!("{issuer}/") {
            continue;
        }
        world.demo.provider.switches().set(|switch| switch.discovery_issuer = None);
        proxy.knows_provider().await;
        Browser::new(proxy.address).log_in("/").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_provider_that_is_down_at_the_start_is_taken_on_when_it_comes() {
    let world = World::start().await;
    world.demo.provider.stop().await;
    let proxy = world.replica().await;
    let (status, text) = proxy.admin_page("/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains("provider demo: not ready"), "{text}");
    works_without_logins(&world, &proxy).await;

    world.demo.provider.restart().expect("the same port");
    proxy.knows_provider().await;
    Browser::new(proxy.address).log_in("/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_live_sessions_go_on_without_their_provider() {
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    let world = World::with(Wishes { clock: clock.clone(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let mut user = world.logged_in().await;
    let mut late = world.browser();
    let callback = late.authorize("/").await;
    world.demo.provider.stop().await;

    // The token lives for a minute and is due ten seconds before its end.
    for seconds in [0, 45, 10, 4] {
        clock.advance(Duration::from_secs(seconds));
        assert_eq!(user.fetch("/api/whoami").await.status, StatusCode::OK, "{seconds} s later");
        assert_eq!(user.fetch("/auth/session").await.json()["authenticated"], true);
        assert_eq!(user.fetch("/auth/userinfo").await.status, StatusCode::OK);
    }
    let page = late.navigate(&callback).await;
    refused(&late, &page, &callback, "a login on its way");
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{page:?}");

    clock.advance(Duration::from_secs(60));
    for page in [user.fetch("/api/whoami").await, user.navigate("/").await] {
        assert_eq!((page.status, page.code()), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"), "{page:?}");
        assert!(page.set_cookies().is_empty() && page.header("retry-after").parse::<u32>().is_ok(), "{page:?}");
    }
    assert_eq!(user.fetch("/bare/whoami").await.status, StatusCode::OK, "a route without tokens needs no provider");
    assert!(user.cookie(SESSION).is_some() && user.cookie(XSRF).is_some());

    world.demo.provider.restart().expect("the same port");
    clock.advance(Duration::from_secs(2));
    assert_eq!(user.fetch("/api/whoami").await.status, StatusCode::OK, "nothing was lost");
}
