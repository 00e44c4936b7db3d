//! A refresh and what can happen meanwhile: logout, clients that go away, a store that stops (behaviour R3, R4, R6, R9).

use std::time::{Duration, Instant};

use cloakroom::demo::Gate;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::{Browser, SESSION, Wishes, World, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_logout_during_a_refresh_wins() {
    let redis = RedisServer::start();
    for wishes in [ticking(), ticking_on(&redis)] {
        let world = world(wishes).await;
        let mut browser = world.logged_in().await;
        let thief = holder(&browser);
        world.clock.advance(OVER);
        let gate = hold_tokens(&world, true);
        let waiting = fetch_soon(&browser, "/api/whoami");
        gate.arrived(1).await;
        assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
        gate.open();
        let late = newest(&world).refresh_token.expect("a refresh token");
        assert_eq!(waiting.await.expect("an answer").status, StatusCode::UNAUTHORIZED);
        let ledger = world.demo.provider.ledger();
        eventually("the late refresh token is revoked", || async { ledger.revoked().contains(&late) }).await;
        let mut thief = thief;
        for _ in 0..3 {
            let answer = thief.fetch("/api/whoami").await;
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "it stays dead");
            world.clock.advance(CACHE_TTL);
        }
        assert_eq!(world.demo.upstream.recorder().count(), 0);
        assert_shown_once(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_logout_against_refresh_at_any_offset() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let ledger = world.demo.provider.ledger().clone();
    for round in 0_u32..40 {
        let mut browser = world.logged_in().await;
        let (mut thief, sid) = (holder(&browser), newest(&world).sid);
        world.clock.advance(OVER);
        let waiting = fetch_soon(&browser, "/api/whoami");
        for _ in 0..round * 25 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
        let _ = waiting.await;
        let after = thief.fetch("/api/whoami").await;
        assert_eq!(after.status, StatusCode::UNAUTHORIZED, "round {round}: {after:?}");
        eventually("the newest refresh token is revoked", || async {
            let newest = ledger.issued().into_iter().rev().find(|issued| issued.sid == sid).expect("it");
            ledger.revoked().contains(&newest.refresh_token.expect("a refresh token"))
        })
        .await;
    }
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_who_waits_too_long_goes_on_with_the_old_token_while_it_lives() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    let old = newest(&world).access_token;
    world.clock.advance(NEARLY_OVER);
    let gate = hold_tokens(&world, true);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), old);
    gate.open();
    eventually("the refresh ends without its waiter", || async {
        world.metric("cloakroom_token_refreshes_total{mode=\"inline\",provider=\"demo\",result=\"ok\"}").await == 1.0
    })
    .await;
    world.clock.advance(REST);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_who_waits_too_long_with_a_dead_token_is_told_to_come_back() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(OVER);
    let gate = hold_tokens(&world, true);
    let answers = tokio::join!(fetch_soon(&browser, "/api/whoami"), fetch_soon(&browser, "/api/whoami"));
    for answer in [answers.0, answers.1] {
        assert_not_now(&answer.expect("an answer"), "provider_unavailable");
    }
    assert_eq!(
        (token_calls(&world), world.demo.upstream.recorder().count()),
        (2, 0),
        "the one call is still under way"
    );
    gate.open();
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!((relayed(&world), token_calls(&world)), (newest(&world).access_token, 2));
    assert_shown_once(&world);
}

/// Sends some bytes of a request and resets the connection.
async fn abort(browser: &Browser, bytes: usize, refresh_has_begun: Option<&Gate>) {
    let stream = TcpStream::connect(browser.home).await.expect("a connection");
    let request = format!(
        "GET /api/whoami HTTP/1.1\r\nHost: {}\r\nSec-Fetch-Mode: cors\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.home,
        ticket(browser)
    );
    let mut stream = stream;
    stream.write_all(&request.as_bytes()[..bytes.min(request.len())]).await.expect("sent");
    if let Some(gate) = refresh_has_begun {
        gate.arrived(1).await;
    }
    stream.set_zero_linger().expect("an option");
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_r3_clients_that_go_away_during_a_refresh_cost_nothing() {
    let world = world(Wishes { session: STEADY_TICKET.to_owned(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let before = ticket(&browser);
    for round in 0..30_usize {
        world.clock.advance(OVER);
        match round % 3 {
            // At any point of the request, without waiting for anything.
            0 => abort(&browser, round * 9, None).await,
            1 => abort(&browser, usize::MAX, None).await,
            // While the provider has the refresh token and before or after it has made new ones.
            _ => {
                let gate = hold_tokens(&world, round % 2 == 0);
                abort(&browser, usize::MAX, Some(&gate)).await;
                gate.open();
            }
        }
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!(answer.status, StatusCode::OK, "round {round}: {answer:?}");
        assert_eq!(relayed(&world), newest(&world).access_token, "round {round}");
    }
    assert_eq!(ticket(&browser), before);
    assert_eq!(token_calls(&world), 31, "one for the login, one for each token that ended");
    assert_shown_once(&world);
    at_rest(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_r4_a_store_that_stops_after_the_token_answer_loses_no_tokens() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(OVER);
    let gate = hold_tokens(&world, true);
    let waiting = fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    redis.freeze();
    gate.open();
    let answer = waiting.await.expect("an answer");
    assert_not_now(&answer, answer.code());
    assert_eq!(world.demo.upstream.recorder().count(), 0, "what is not stored is not used");
    redis.thaw();
    let fresh = newest(&world).access_token;
    eventually_ok(&mut browser).await;
    assert_eq!((relayed(&world), newest(&world).access_token), (fresh.clone(), fresh.clone()));

    // They are in the store, not only in this process.
    let other = world.replica().await;
    assert_eq!(carry(&browser, &other).fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), fresh);
    assert_eq!(token_calls(&world), 2);
    assert_shown_once(&world);
}

/// Two wait for a refresh, whose tokens the store does not take; others come later.
#[tokio::test(flavor = "multi_thread")]
async fn d1_while_new_tokens_cannot_be_stored_nobody_else_waits_for_them() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(OVER);
    let gate = hold_tokens(&world, true);
    let waiting = [fetch_soon(&browser, "/api/whoami"), fetch_soon(&browser, "/api/whoami")];
    gate.arrived(1).await;
    redis.freeze();
    let begun = Instant::now();
    gate.open();
    for answer in waiting {
        assert_not_now(&answer.await.expect("an answer"), "store_unavailable");
    }
    // One timeout of the store's, and a little patience.
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    for _ in 0..5 {
        let begun = Instant::now();
        assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    }
    redis.thaw();
    let begun = Instant::now();
    eventually_ok(&mut browser).await;
    assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());
    assert_eq!((relayed(&world), token_calls(&world)), (newest(&world).access_token, 2));
    assert_shown_once(&world);
}

/// A store that is full: it reads, and refuses every write. What was read then says nothing of a dead owner, for it is our own
/// intent that stands there.
#[tokio::test(flavor = "multi_thread")]
async fn r2_a_store_that_only_reads_makes_nobody_take_us_for_dead() {
    let redis = RedisServer::start();
    let provider_yaml = "    refresh_token_grace: 24h".to_owned();
    let world = world(Wishes { provider_yaml, ..ticking_on(&redis) }).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(OVER);
    let gate = hold_tokens(&world, true);
    let waiting = fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    redis.ask("CONFIG SET maxmemory 1");
    gate.open();
    assert_not_now(&waiting.await.expect("an answer"), "store_unavailable");
    let refused = "cloakroom_store_operations_total{op=\"replace\",result=\"unavailable\"}";
    let before = world.metric(refused).await;
    let full = Instant::now();
    while full.elapsed() < secs(8) {
        // Longer than a lease, and than a living owner may be silent.
        let begun = Instant::now();
        assert_not_now(&browser.fetch("/api/whoami").await, "store_unavailable");
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.clock.advance(Duration::from_millis(50));
    }
    // One who holds the tokens tries five times a second, and nobody else.
    let tries = world.metric(refused).await - before;
    assert!((1.0..80.0).contains(&tries), "{tries}");
    redis.ask("CONFIG SET maxmemory 0");
    eventually_ok(&mut browser).await;
    assert_eq!((relayed(&world), token_calls(&world)), (newest(&world).access_token, 2));
    assert_shown_once(&world);
}

/// However long the store is away, new tokens are held as long as they may be of use, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn r4_tokens_that_were_held_until_their_session_was_over_are_revoked() {
    let redis = RedisServer::start();
    let world = world(ticking_on(&redis)).await;
    let browser = world.logged_in().await;
    world.clock.advance(OVER);
    let gate = hold_tokens(&world, true);
    let waiting = fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    redis.freeze();
    gate.open();
    assert_not_now(&waiting.await.expect("an answer"), "store_unavailable");
    let late = newest(&world).refresh_token.expect("a refresh token");
    let ledger = world.demo.provider.ledger();
    world.clock.advance(secs(20 * 60));
    tokio::time::sleep(secs(1)).await;
    assert!(ledger.revoked().is_empty(), "the session may still live");
    world.clock.advance(secs(12 * 3600));
    eventually("they are revoked", || async { ledger.revoked().contains(&late) }).await;
    redis.thaw();
}

async fn eventually_ok(browser: &mut Browser) {
    let until = Instant::now() + crate::harness::PATIENCE;
    loop {
        let answer = browser.fetch("/api/whoami").await;
        match answer.status {
            StatusCode::OK => return,
            StatusCode::SERVICE_UNAVAILABLE => assert!(answer.set_cookies().is_empty(), "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
        assert!(Instant::now() < until, "in vain: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_many_sessions_that_return_at_once_are_all_served() {
    let world = world(ticking()).await;
    let mut browsers = Vec::new();
    for _ in 0..60 {
        browsers.push(world.logged_in().await);
    }
    world.clock.advance(OVER);
    world.demo.provider.stop().await;
    for browser in &mut browsers {
        assert_not_now(&browser.fetch("/api/whoami").await, "provider_unavailable");
    }
    world.demo.provider.restart().expect("the port is still ours");
    world.clock.advance(secs(2));
    let calls = token_calls(&world);
    let answers = futures::future::join_all(browsers.iter().map(|browser| volley(browser, "/api/whoami", 3))).await;
    assert!(answers.iter().flatten().all(|status| *status == StatusCode::OK), "{answers:?}");
    assert_eq!(token_calls(&world), calls + browsers.len());
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_use_that_renews_the_token_counts_as_a_use() {
    // The refresh reads the record before the use is written to it.
    let world: World = world(ticking()).await;
    let mut browsers = Vec::new();
    for _ in 0..20 {
        browsers.push(world.logged_in().await);
    }
    world.clock.advance(secs(30 * 60 - 3));
    for browser in &mut browsers {
        let answer = browser.write(Method::POST, "/api/whoami", "").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    world.clock.advance(secs(4));
    for browser in &mut browsers {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
}

/// One replica has looked and is about to end the session; just then another stores new tokens in it.
#[tokio::test(flavor = "multi_thread")]
async fn r10_tokens_that_come_while_a_session_ends_are_revoked() {
    use crate::backchannel_kit::{shared, store};
    use crate::shared_store::Op;

    let provider_yaml = "    refresh_token_grace: 24h".to_owned();
    let world = world(Wishes { provider_yaml, ..shared() }).await;
    let other = world.replica().await;
    other.knows_provider().await;
    let browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.refuse_refresh = Some("invalid_grant".into()));
    let gate = hold_tokens(&world, true);
    world.clock.advance(NEARLY_OVER);
    fetch_soon(&browser, "/api/whoami");
    gate.arrived(1).await;
    let look = store(&world).hold(Op::Load);
    gate.open();
    look.arrived(1).await;
    heal(&world);
    // Longer than a lease.
    world.clock.advance(secs(4));
    let there = carry(&browser, &other);
    eventually("another has taken over", || {
        let mut twin = holder(&there);
        let calls = token_calls(&world);
        async move {
            twin.fetch("/api/whoami").await;
            calls == 3
        }
    })
    .await;
    let newest = newest(&world).refresh_token.expect("a refresh token");
    assert!(!world.demo.provider.ledger().revoked().contains(&newest));
    look.open();
    eventually("revoked", || async { world.demo.provider.ledger().revoked().contains(&newest) }).await;
}
