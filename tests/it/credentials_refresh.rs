//! Tokens of a backend are renewed by the same rules as those of an OpenID provider (behaviour R1, R2, R5, R6, R8, R10,
//! R12, B5).

use std::time::Duration;

use cloakroom::demo::backend::BackendEndpoint::{Login, Refresh};
use cloakroom::demo::{Fault, Gate};
use reqwest::StatusCode;

use crate::credentials_kit::*;
use crate::harness::{Wishes, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::shared_store::SharedStore;

#[tokio::test(flavor = "multi_thread")]
async fn r1_r2_parallel_requests_at_the_end_of_a_token_are_one_refresh() {
    for send in ["body", "header"] {
        let site = Site::with(send, "", ticking()).await;
        let mut browser = site.logged_in().await;
        browser.fetch("/api/whoami").await;
        for round in 1..=3 {
            site.world.clock.advance(OVER);
            site.world.demo.upstream.recorder().clear();
            let gate = Gate::closed();
            site.backend.faults(Refresh).add(Fault::hold(&gate).times(1));
            let (answers, ()) = tokio::join!(volley(&browser, "/api/whoami", 50), async {
                gate.arrived(1).await;
                gate.open();
            });
            assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
            assert_eq!(site.calls(Refresh), round, "{send}");
            let fresh = site.access_token();
            assert!(site.world.demo.upstream.recorder().all().iter().all(|seen| seen.bearer() == Some(&fresh)));
        }
        site.assert_shown_once();
        for asked in site.backend.posted(Refresh) {
            let in_header = asked.authorization.is_some();
            assert_eq!((in_header, asked.body.is_empty()), (send == "header", send == "header"), "{asked:?}");
            assert_eq!(asked.content_type.is_some(), send == "body", "{asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_two_replicas_are_one_refresh() {
    let redis = RedisServer::start();
    let site = Site::with("body", "", ticking_on(&redis)).await;
    let other = site.world.replica().await;
    let here = site.logged_in().await;
    let there = carry(&here, &other);
    site.world.clock.advance(OVER);
    let (one, two) = tokio::join!(volley(&here, "/api/whoami", 20), volley(&there, "/api/whoami", 20));
    assert!(one.iter().chain(&two).all(|status| *status == StatusCode::OK), "{one:?} {two:?}");
    assert_eq!(site.calls(Refresh), 1);
    site.assert_shown_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_refused_refresh_token_ends_the_session() {
    let site = Site::start().await;
    let mut browser = site.logged_in().await;
    site.world.clock.advance(OVER);
    site.backend.forget_tokens();
    let seen = browser.fetch("/api/whoami").await;
    assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"), "{seen:?}");
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
    let seen = browser.navigate("/deep").await;
    assert_eq!(seen.location(), "/login-page?return_to=%2Fdeep");
    assert_eq!(site.calls(Refresh), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_the_settings_say_what_a_refusal_is() {
    let backend = start_backend();
    let refused = legacy(&backend, "body", "").replace("send: body", "send: body, refused: [400]");
    let (site_providers, routes) = ("provider: legacy".to_owned(), ROUTES.to_owned());
    let world = crate::harness::World::with(Wishes { providers: refused, site_providers, routes, ..ticking() }).await;
    let site = Site { world, backend };
    let mut browser = site.logged_in().await;
    site.world.clock.advance(OVER);
    // No refusal here: somebody has set something up wrongly, and sessions wait for that to be mended.
    site.backend.faults(Refresh).add(Fault::status(401).times(1));
    assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
    site.world.clock.advance(secs(31));
    site.backend.faults(Refresh).add(Fault::status(400).times(1));
    assert_eq!(browser.fetch("/api/whoami").await.code(), "refresh_rejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_backend_that_is_down_or_busy_costs_no_session() {
    for fault in [Fault::status(503), Fault::status(500), Fault::retry_after(429, 3)] {
        let site = Site::start().await;
        let mut browser = site.logged_in().await;
        site.world.clock.advance(OVER);
        site.backend.faults(Refresh).add(fault.clone().times(1));
        assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
        site.world.clock.advance(secs(5));
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{fault:?}");
        site.assert_shown_once();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r8_a_lost_answer_leaves_the_token_in_doubt_and_it_is_not_shown_again() {
    for fault in
        [Fault::reset().after_work(), Fault::cut_json(), Fault::page(200), Fault::page(502), Fault::status(504)]
    {
        let site = Site::start().await;
        let mut browser = site.logged_in().await;
        site.world.clock.advance(OVER);
        site.backend.faults(Refresh).add(fault.clone().times(1));
        let seen = browser.fetch("/api/whoami").await;
        assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{fault:?}: {seen:?}");
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
        assert!(site.calls(Refresh) <= 1, "{fault:?}");
        site.assert_shown_once();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_what_is_known_of_the_user_changes_with_the_tokens() {
    let site = Site::start().await;
    let mut browser = site.logged_in().await;
    let roles = |site: &Site| {
        let last = site.world.demo.upstream.recorder().last().expect("a request");
        last.header("x-user-roles").map(str::to_owned)
    };
    browser.fetch("/api/whoami").await;
    assert_eq!(roles(&site).as_deref(), Some("user"));
    site.backend.behave(|manners| manners.roles = vec!["guest".into()]);
    site.world.clock.advance(OVER);
    browser.fetch("/api/whoami").await;
    assert_eq!(roles(&site).as_deref(), Some("guest"));
    // An answer that does not speak of the user changes nothing.
    site.backend.behave(|manners| manners.roles.clear());
    site.world.clock.advance(OVER);
    browser.fetch("/api/whoami").await;
    assert_eq!((roles(&site).as_deref(), site.calls(Refresh)), (Some("guest"), 2));
    assert_eq!(browser.fetch("/userinfo").await.json()["sub"], "id-of-alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_refresh_that_brings_another_user_ends_the_session() {
    let site = Site::start().await;
    let mut browser = site.logged_in().await;
    site.backend.behave(|manners| manners.other_user = true);
    site.world.clock.advance(OVER);
    assert_eq!(browser.fetch("/api/whoami").await.code(), "refresh_rejected");
    let orphan = site.refresh_token();
    eventually("nobody keeps the new token", || async { site.backend.is_revoked(&orphan) }).await;
    assert_eq!(site.world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_refresh_whose_token_names_another_user_ends_the_session() {
    for with_user in [true, false] {
        let site = Site::start().await;
        // One name in the answer, another one in the token: that is no change.
        site.backend.behave(|manners| manners.token_subject = Some("alice".into()));
        let mut browser = site.logged_in().await;
        if !with_user {
            site.backend.behave(|manners| manners.roles.clear());
        }
        site.world.clock.advance(OVER);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        site.backend.behave(|manners| manners.token_subject = Some("bob".into()));
        site.world.demo.upstream.recorder().clear();
        site.world.clock.advance(OVER);
        assert_eq!(browser.fetch("/api/whoami").await.code(), "refresh_rejected", "{with_user}");
        let orphan = site.refresh_token();
        eventually("nobody keeps the new token", || async { site.backend.is_revoked(&orphan) }).await;
        assert_eq!(site.world.demo.upstream.recorder().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_what_a_refresh_says_of_the_user_holds_no_token_old_or_new() {
    let site = Site::start().await;
    let mut browser = site.logged_in().await;
    site.backend.behave(|manners| manners.careless = true);
    let (old, shown) = site.backend.last_issued().expect("tokens");
    site.world.clock.advance(OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let seen = browser.fetch("/userinfo").await;
    let (access, refresh) = site.backend.last_issued().expect("tokens");
    assert!(access != old && refresh != shown && seen.status == StatusCode::OK, "{seen:?}");
    for token in [old, shown, access, refresh] {
        assert!(!seen.body.contains(&token), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_logins_that_fail_hold_no_session_back() {
    for fault in [Fault::reset(), Fault::retry_after(429, 60), Fault::retry_after(503, 60)] {
        let site = Site::start().await;
        let mut browser = site.logged_in().await;
        site.world.clock.advance(OVER);
        site.backend.faults(Login).add(fault.clone().times(6));
        for number in 0..6 {
            log_in(&mut site.browser(), &format!("user{number}"), "x").await;
        }
        let seen = browser.fetch("/api/whoami").await;
        assert_eq!((seen.status, site.calls(Refresh)), (StatusCode::OK, 1), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_backend_refreshes_no_more_ends_with_its_access_token() {
    let wishes = ticking();
    let shared = Some(SharedStore::new(&wishes.clock));
    let site = Site::with("body", "", Wishes { shared, ..wishes }).await;
    let browser = site.logged_in().await;
    let line = format!("    refresh: {{ url: \"{}\", send: body }}\n", site.backend.url("/refresh"));
    let changed = site.world.replica_with(&line, "").await;
    let mut browser = carry(&browser, &changed);
    site.world.clock.advance(secs(55));
    for _ in 0..2 {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "it is used to its end");
    }
    site.world.clock.advance(secs(6));
    let seen = browser.fetch("/api/whoami").await;
    assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{seen:?}");
    assert_eq!(browser.navigate("/deep").await.location(), "/login-page?return_to=%2Fdeep");
    assert_eq!(site.calls(Refresh), 0);
    assert_eq!(log_in(&mut browser, "alice", "wrong").await.code(), "login_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_logout_during_a_refresh_wins() {
    let site = Site::start().await;
    let mut browser = site.logged_in().await;
    let mut thief = holder(&browser);
    site.world.clock.advance(OVER);
    let gate = Gate::closed();
    site.backend.faults(Refresh).add(Fault::hold(&gate).after_work().times(1));
    let waiting = fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
    gate.open();
    assert_eq!(waiting.await.expect("an answer").status, StatusCode::UNAUTHORIZED);
    let late = site.refresh_token();
    eventually("the late token is revoked", || async { site.backend.is_revoked(&late) }).await;
    assert_eq!(thief.fetch("/api/whoami").await.code(), "session_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_the_token_gets_the_request_again_with_a_newer_one() {
    let site = Site::start().await;
    site.backend.behave(|manners| manners.access_lifetime = Some(Duration::from_secs(3600)));
    let mut browser = site.logged_in().await;
    browser.fetch("/api/whoami").await;
    site.world.demo.upstream.refuse_token(&site.access_token());
    let seen = browser.fetch("/api/whoami").await;
    assert_eq!((seen.status, site.calls(Refresh)), (StatusCode::OK, 1), "{seen:?}");
    assert_eq!(relayed(&site.world), site.access_token());
    // With its body.
    site.world.clock.advance(secs(301));
    site.world.demo.upstream.refuse_token(&site.access_token());
    let seen = browser.write(reqwest::Method::POST, "/api/echo", "the body").await;
    let last = site.world.demo.upstream.recorder().last().expect("a request");
    assert_eq!((seen.status, &last.body[..], site.calls(Refresh)), (StatusCode::OK, &b"the body"[..], 2));
    site.assert_shown_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_nobody_says_is_that_of_the_settings() {
    let site = Site::with("body", "    default_lifetime: 2m", ticking()).await;
    site.backend.behave(|manners| (manners.access_lifetime, manners.refresh_lifetime) = (None, None));
    let mut browser = site.logged_in().await;
    site.world.clock.advance(secs(105));
    browser.fetch("/api/whoami").await;
    assert_eq!(site.calls(Refresh), 0);
    site.world.clock.advance(secs(10));
    browser.fetch("/api/whoami").await;
    assert_eq!((site.calls(Refresh), site.calls(Login)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_session_ends_with_its_refresh_token() {
    let site = Site::start().await;
    site.backend.behave(|manners| manners.refresh_lifetime = Some(Duration::from_secs(120)));
    let mut browser = site.logged_in().await;
    site.world.clock.advance(secs(121));
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(site.calls(Refresh), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_tokens_are_renewed_in_the_background() {
    let site = Site::with("header", "", Wishes { refresh: "{ ahead: 30s }".into(), ..ticking() }).await;
    let mut browser = site.logged_in().await;
    browser.fetch("/api/whoami").await;
    site.world.clock.advance(secs(40));
    eventually("it is renewed", || async { site.calls(Refresh) == 1 }).await;
    eventually("and used", || async {
        let mut twin = holder(&browser);
        twin.fetch("/api/whoami").await;
        relayed(&site.world) == site.access_token()
    })
    .await;
    site.assert_shown_once();
}
