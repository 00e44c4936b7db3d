//! What each error of the token endpoint means for the session (behaviour R10, F7, F9).

use cloakroom::demo::Fault;
use cloakroom::demo::provider::Rotation;
use reqwest::StatusCode;

use crate::harness::{Browser, Wishes, World};
use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn r10_invalid_grant_ends_the_session_once() {
    let world = world(ticking()).await;
    let (mut browser, mut other) = (world.logged_in().await, world.logged_in().await);
    world.clock.advance(NEARLY_OVER);
    world.demo.provider.switches().set(|switch| switch.refuse_refresh = Some("invalid_grant".into()));
    let refused = browser.fetch("/api/whoami").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"));
    assert_eq!(refused.json()["login_url"], "/auth/login");
    let calls = token_calls(&world);
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(browser.fetch("/maybe/x").await.status, StatusCode::OK);
    assert!(world.demo.upstream.recorder().last().expect("a request").bearer().is_none());
    assert_eq!(token_calls(&world), calls, "what is over is not asked for again");

    heal(&world);
    assert_logs_in_again(&mut browser).await;
    assert_eq!(other.fetch("/api/whoami").await.status, StatusCode::OK, "another session is none the worse");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_navigation_logs_in_when_the_refresh_token_is_refused() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(OVER);
    world.demo.provider.forget_tokens();
    let page = browser.log_in("/deep").await;
    assert!(page.body.contains("/deep"), "{page:?}");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

/// With five seconds left an error is not felt, after that it is a 503, and nobody asks more often than allowed.
async fn keeps_the_session(world: &World, browser: &mut Browser, what: &str) {
    let (token, calls) = (newest(world).access_token, token_calls(world));
    world.clock.advance(NEARLY_OVER);
    for _ in 0..5 {
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!(answer.status, StatusCode::OK, "{what}: {answer:?}");
        assert_eq!(relayed(world), token, "{what}: the old token is used to its end");
    }
    assert!(token_calls(world) <= calls + 1, "{what}: one call a back-off step");

    world.clock.advance(REST);
    world.demo.upstream.recorder().clear();
    for _ in 0..5 {
        assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
        assert_not_now(&browser.navigate("/").await, "provider_unavailable");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0, "{what}: a dead token is not relayed");
    assert!(token_calls(world) <= calls + 2, "{what}: one call a back-off step");
}

async fn recovers(world: &World, browser: &mut Browser, what: &str) {
    let before = ticket(browser);
    world.clock.advance(secs(61));
    let answer = browser.fetch("/api/whoami").await;
    assert_eq!(answer.status, StatusCode::OK, "{what}: {answer:?}");
    assert_eq!(relayed(world), newest(world).access_token, "{what}");
    assert_eq!(ticket(browser), before, "{what}: the session is the one it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_errors_that_say_nothing_of_the_grant_keep_the_session() {
    let world = world(ticking()).await;
    for code in ["invalid_client", "unauthorized_client", "invalid_scope", "temporarily_unavailable"] {
        let mut browser = world.logged_in().await;
        world.demo.provider.switches().set(|switch| switch.refuse_refresh = Some(code.into()));
        keeps_the_session(&world, &mut browser, code).await;
        heal(&world);
        recovers(&world, &mut browser, code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_r10_tokens_of_no_use_keep_the_session_with_the_newest_refresh_token() {
    // A grace forgives a token that is shown twice because nobody knows what came of it. Here everybody knows.
    let provider_yaml = "    refresh_token_grace: 60s".to_owned();
    let world = world(Wishes { provider_yaml, ..ticking() }).await;
    for rotation in [Rotation::Rotate, Rotation::Silent] {
        let mut browser = world.logged_in().await;
        world.demo.provider.switches().set(|switch| {
            switch.rotation = rotation;
            switch.refreshed_token_type = Some("N_A".into());
        });
        // The provider has made tokens that nobody takes; what it gave out last is not what is relayed.
        let (token, calls) = (newest(&world).access_token, token_calls(&world));
        world.clock.advance(NEARLY_OVER);
        for _ in 0..5 {
            assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{rotation:?}");
            assert_eq!(relayed(&world), token, "{rotation:?}: the old token is used to its end");
        }
        assert_eq!(token_calls(&world), calls + 1, "{rotation:?}");
        world.clock.advance(REST);
        assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
        assert_eq!(token_calls(&world), calls + 1, "{rotation:?}: it is left alone for a while");
        // Half a minute later it is asked once more, and that is no loss either.
        world.clock.advance(secs(30));
        assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
        assert_eq!(token_calls(&world), calls + 2, "{rotation:?}");
        assert!(world.demo.provider.ledger().revoked().is_empty(), "{rotation:?}");

        world.demo.provider.switches().set(|switch| switch.refreshed_token_type = None);
        recovers(&world, &mut browser, "a provider that is set right").await;
        if rotation == Rotation::Rotate {
            assert_shown_once(&world);
        }
    }
    assert_eq!(world.metric("cloakroom_token_refresh_in_doubt_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_busy_or_broken_provider_keeps_the_session() {
    let world = world(ticking()).await;
    for (what, fault) in [
        ("429", Fault::status(429)),
        ("500", Fault::status(500)),
        ("503", Fault::status(503)),
        ("503 as a page", Fault::page(503)),
        ("a firewall's 403", Fault::page(403)),
    ] {
        let mut browser = world.logged_in().await;
        token_fault(&world, fault);
        keeps_the_session(&world, &mut browser, what).await;
        heal(&world);
        recovers(&world, &mut browser, what).await;
        assert_shown_again_only_when_never_taken(&world);
    }
}

/// These faults strike before the provider looks at the token, so its ledger has each at most once.
fn assert_shown_again_only_when_never_taken(world: &World) {
    assert_shown_once(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn f7_a_provider_that_is_gone_keeps_the_session() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    world.demo.provider.stop().await;
    keeps_the_session(&world, &mut browser, "refused connections").await;
    world.demo.provider.restart().expect("the port is still ours");
    recovers(&world, &mut browser, "refused connections").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_retry_after_is_honoured() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    token_fault(&world, Fault::retry_after(429, 20));
    world.clock.advance(OVER);
    let calls = token_calls(&world);
    let answer = browser.fetch("/api/whoami").await;
    assert_not_now(&answer, "provider_unavailable");
    assert_eq!(answer.header("retry-after"), "20");
    for _ in 0..3 {
        world.clock.advance(secs(6));
        assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
    }
    assert_eq!(token_calls(&world), calls + 1, "eighteen seconds are not twenty");
    heal(&world);
    world.clock.advance(secs(3));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(token_calls(&world), calls + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_redirect_of_the_token_endpoint_is_not_followed() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    token_fault(&world, Fault::status(307));
    keeps_the_session(&world, &mut browser, "a redirect").await;
    heal(&world);
    recovers(&world, &mut browser, "a redirect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_login_without_provider_is_told_to_wait() {
    let world = world(ticking()).await;
    // The user is back from the provider, whose token endpoint is gone meanwhile.
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    world.demo.provider.stop().await;
    let answer = browser.navigate(&callback).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"));
    assert!(browser.cookie(crate::harness::SESSION).is_none());

    // A proxy that never saw the provider has nowhere to send anybody.
    let fresh = world.replica().await;
    let mut browser = Browser::new(fresh.address);
    assert_not_now(&browser.navigate("/").await, "provider_unavailable");
    assert_not_now(&browser.navigate("/auth/login").await, "provider_unavailable");
    world.demo.provider.restart().expect("the port is still ours");
    fresh.knows_provider().await;
    browser.log_in("/").await;
}
