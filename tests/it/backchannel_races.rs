//! A logout of the provider against a login, and against a refresh, at any moment (behaviour O7, R6, F17).

use cloakroom::demo::provider::send_logout_token;
use reqwest::StatusCode;

use crate::backchannel_kit::*;
use crate::harness::{Browser, SESSION, Seen, World, eventually};
use crate::kit::*;
use crate::login_kit::refused;
use crate::shared_store::Op;

/// Comes back from the provider in a task of its own, for something holds it up.
fn come_back(browser: Browser, callback: &str) -> tokio::task::JoinHandle<(Browser, Seen)> {
    let (mut browser, callback) = (browser, callback.to_owned());
    tokio::spawn(async move {
        let page = browser.navigate(&callback).await;
        (browser, page)
    })
}

/// Whom the logout names, of a login that is under way.
fn named(world: &World, by_subject: bool) -> String {
    if by_subject { token(world, Some(ALICE), None) } else { token(world, None, Some(&newest(world).sid)) }
}

async fn no_session_of(browser: &mut Browser) {
    if browser.cookie(SESSION).is_some() {
        // Another replica may have ended it; to hear of that may take a second (behaviour O8).
        let heard = std::time::Instant::now() + secs(1);
        while is_alive(browser).await {
            assert!(std::time::Instant::now() < heard, "the session lives on");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let newest = browser.fetch("/auth/session").await.json();
    assert_eq!(newest["authenticated"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_logout_that_overtakes_the_callback_wins() {
    let world = world(shared()).await;
    for by_subject in [false, true] {
        // Before the session is stored: the provider has given the tokens, and we have not read them.
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        let gate = hold_tokens(&world, true);
        let waiting = come_back(browser, &callback);
        gate.arrived(1).await;
        log_out_at(&world.proxy, &named(&world, by_subject)).await;
        gate.open();
        let (mut browser, page) = waiting.await.expect("an answer");
        refused(&browser, &page, &callback, "overtaken");
        assert!(page.body.contains("logged out"), "{page:?}");
        no_session_of(&mut browser).await;
        eventually_revoked(&world, &newest(&world).refresh_token.expect("a refresh token")).await;
        heal(&world);
        world.clock.advance(secs(1));

        // Between storing it and the look at the tombstone.
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        let gate = store(&world).hold(Op::Create);
        let waiting = come_back(browser, &callback);
        gate.arrived(1).await;
        log_out_at(&world.proxy, &named(&world, by_subject)).await;
        gate.open();
        let (mut browser, page) = waiting.await.expect("an answer");
        refused(&browser, &page, &callback, "overtaken after it was stored");
        no_session_of(&mut browser).await;
        eventually_revoked(&world, &newest(&world).refresh_token.expect("a refresh token")).await;
        world.clock.advance(secs(1));

        // After the look, before the answer: the logout finds the session.
        let mut browser = world.browser();
        let callback = browser.authorize("/").await;
        let gate = store(&world).hold(Op::Marked);
        let waiting = come_back(browser, &callback);
        gate.arrived(1).await;
        log_out_at(&world.proxy, &named(&world, by_subject)).await;
        gate.open();
        let (mut browser, _) = waiting.await.expect("an answer");
        no_session_of(&mut browser).await;
        world.clock.advance(secs(1));
    }
    let reason = "cloakroom_logins_total{provider=\"demo\",reason=\"logged_out\",result=\"failure\"}";
    assert!(world.metric(reason).await >= 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_the_logout_may_stand_still_half_way_as_well() {
    let world = world(shared()).await;
    let other = world.replica().await;
    other.knows_provider().await;
    for by_subject in [false, true] {
        for op in [Op::Mark, Op::Find] {
            let mut browser = world.browser();
            let callback = browser.authorize("/").await;
            let tokens = hold_tokens(&world, true);
            let login = come_back(browser, &callback);
            tokens.arrived(1).await;
            let (url, logout) = (address(&other), named(&world, by_subject));
            let gate = store(&world).hold(op);
            let delivery =
                tokio::spawn(async move { cloakroom::demo::provider::send_logout_token(&url, &logout).await });
            gate.arrived(1).await;
            tokens.open();
            let (mut browser, _) = login.await.expect("an answer");
            gate.open();
            assert_eq!(delivery.await.expect("a task").expect("an answer").status, 200);
            no_session_of(&mut browser).await;
            heal(&world);
            world.clock.advance(secs(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_login_begun_after_the_logout_works() {
    let world = world(shared()).await;
    for _ in 0..3 {
        log_out_at(&world.proxy, &token(&world, Some(ALICE), None)).await;
        log_out_at(&world.proxy, &token(&world, Some(ALICE), Some("a-session-that-nobody-has"))).await;
        world.clock.advance(secs(1));
        let mut browser = world.logged_in().await;
        assert!(is_alive(&mut browser).await);
        log_out_at(&world.proxy, &token(&world, Some(BOB), None)).await;
        assert!(is_alive(&mut browser).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_who_cannot_look_for_a_tombstone_lets_nobody_in() {
    let world = world(shared()).await;
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    store(&world).fail(Op::Marked, 0);
    let page = browser.navigate(&callback).await;
    assert_eq!((page.status, page.code()), (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"), "{page:?}");
    assert!(browser.cookie(SESSION).is_none());
    store(&world).heal();
    eventually_revoked(&world, &newest(&world).refresh_token.expect("a refresh token")).await;
    browser.log_in("/").await;
    assert!(is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_logout_of_the_provider_during_a_refresh_wins() {
    let world = world(shared()).await;
    let (browser, sid) = one_session(&world).await;
    let mut thief = holder(&browser);
    world.clock.advance(OVER);
    let gate = hold_tokens(&world, true);
    let waiting = fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    log_out_at(&world.proxy, &token(&world, None, Some(&sid))).await;
    gate.open();
    assert_eq!(waiting.await.expect("an answer").status, StatusCode::UNAUTHORIZED);
    eventually_revoked(&world, &newest(&world).refresh_token.expect("a refresh token")).await;
    for _ in 0..3 {
        assert!(!is_alive(&mut thief).await, "it stays dead");
        world.clock.advance(CACHE_TTL);
    }
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_logout_of_the_provider_against_refresh_at_any_offset() {
    let world = world(shared()).await;
    let other = world.replica().await;
    other.knows_provider().await;
    let ledger = world.demo.provider.ledger().clone();
    for round in 0_u32..120 {
        let (browser, sid) = one_session(&world).await;
        let mut thieves = [holder(&browser), carry(&browser, &other)];
        world.clock.advance(OVER);
        let waiting = fetch_soon(&browser, "/api/whoami");
        tokio::time::sleep(std::time::Duration::from_micros(u64::from(round) * 100)).await;
        let proxy = if round % 2 == 0 { &world.proxy } else { &other };
        log_out_at(proxy, &token(&world, None, Some(&sid))).await;
        let _ = waiting.await;
        // Where it was said at once, elsewhere as soon as the news is there.
        let [here, there] = &mut thieves;
        let (first, second) = if round % 2 == 0 { (here, there) } else { (there, here) };
        let after = first.fetch("/api/whoami").await;
        assert_eq!(after.status, StatusCode::UNAUTHORIZED, "round {round}: {after:?}");
        let told = std::time::Instant::now();
        while second.fetch("/api/whoami").await.status != StatusCode::UNAUTHORIZED {
            assert!(told.elapsed() < std::time::Duration::from_secs(1), "round {round}: not refused within a second");
        }
        eventually("the newest refresh token is revoked", || async {
            let newest = ledger.issued().into_iter().rev().find(|issued| issued.sid == sid).expect("it");
            ledger.revoked().contains(&newest.refresh_token.expect("a refresh token"))
        })
        .await;
    }
    assert_shown_once(&world);
}

/// Who comes second to a session's end has ended nothing.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_logouts_at_once_one_tells_of_the_end() {
    let world = world(shared()).await;
    let other = world.replica().await;
    other.knows_provider().await;
    let (mut browser, sid) = one_session(&world).await;
    let gate = store(&world).hold(Op::Load);
    let (address, first) = (address(&world.proxy), token(&world, None, Some(&sid)));
    let first = tokio::spawn(async move { send_logout_token(&address, &first).await });
    gate.arrived(1).await;
    log_out_at(&other, &token(&world, None, Some(&sid))).await;
    gate.open();
    assert_eq!(first.await.expect("a task").expect("an answer").status, 200);
    assert!(!is_alive(&mut browser).await);
    let told = "cloakroom_audit_events_total{event=\"session_ended\"} 1";
    assert!(other.admin_page("/metrics").await.1.contains(told));
    assert!(!world.metrics().await.contains(told));
}
