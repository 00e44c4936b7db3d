//! Tickets are exchanged in time, and nobody is lost over it (behaviour S8).

use std::time::Duration;

use reqwest::header::COOKIE;
use reqwest::{Client, StatusCode};

use crate::harness::{Browser, Proxy, SESSION, Seen, Wishes, World};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::shared_store::{Op, SharedStore};

const EVERY: Duration = secs(15 * 60);
const GRACE: Duration = secs(60);

/// The session cookie that an answer sets.
fn new_ticket(answer: &Seen) -> Option<String> {
    let cookies: Vec<_> =
        answer.set_cookies().into_iter().filter(|line| line.starts_with(&format!("{SESSION}="))).collect();
    assert!(cookies.len() <= 1, "{answer:?}");
    let line = cookies.first()?;
    for attribute in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(line.contains(attribute), "{line}");
    }
    assert!(answer.header("cache-control").contains("private"), "{answer:?}");
    Some(line.split(['=', ';']).nth(1).expect("a value").to_owned())
}

/// A world whose tokens outlive the ticket, and a browser in it.
async fn steady(redis: Option<&RedisServer>) -> (World, Browser) {
    let wishes = redis.map_or_else(ticking, ticking_on);
    let world = world(Wishes { provider: lasting_tokens(), ..wishes }).await;
    let browser = world.logged_in().await;
    (world, browser)
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_ticket_is_exchanged_once_it_has_served_its_time() {
    let (world, mut browser) = steady(None).await;
    let first = ticket(&browser);
    world.clock.advance(EVERY - secs(1));
    assert_eq!(new_ticket(&browser.fetch("/api/whoami").await), None);
    world.clock.advance(secs(1));
    let answer = browser.fetch("/api/whoami").await;
    let second = new_ticket(&answer).expect("a new ticket");
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(first[22..], second[22..], "the secret is new");
    assert_eq!(second.len(), 64);
    assert_eq!(new_ticket(&browser.fetch("/api/whoami").await), None, "once");
    world.clock.advance(EVERY);
    assert!(new_ticket(&browser.fetch("/api/whoami").await).is_some_and(|third| third != second && third != first));
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_the_old_ticket_goes_on_for_the_grace_and_brings_the_new_one() {
    let redis = RedisServer::start();
    for redis in [None, Some(&redis)] {
        let (world, mut browser) = steady(redis).await;
        let mut late = holder(&browser);
        world.clock.advance(EVERY);
        let second = new_ticket(&browser.fetch("/api/whoami").await).expect("a new ticket");
        // Its answer was lost, or another tab did not see it yet: both get the same new ticket.
        for _ in 0..2 {
            let mut twin = holder(&late);
            let answer = twin.fetch("/api/whoami").await;
            assert_eq!((answer.status, new_ticket(&answer)), (StatusCode::OK, Some(second.clone())));
        }
        world.clock.advance(GRACE);
        let refused = late.fetch("/api/whoami").await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "session_expired"));
        assert!(refused.set_cookies().is_empty());
        let answer = browser.fetch("/api/whoami").await;
        assert_eq!((answer.status, new_ticket(&answer)), (StatusCode::OK, None), "an old ticket harms nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_ticket_of_two_rotations_ago_is_none() {
    let (world, mut browser) = steady(None).await;
    let mut thief = holder(&browser);
    for _ in 0..2 {
        world.clock.advance(EVERY);
        assert!(new_ticket(&browser.fetch("/api/whoami").await).is_some());
    }
    assert_eq!(thief.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_parallel_requests_on_two_replicas_agree_on_one_ticket() {
    let redis = RedisServer::start();
    let (world, browser) = steady(Some(&redis)).await;
    let other = world.replica().await;
    other.knows_provider().await;
    for round in 0..5 {
        let browser = if round == 0 { holder(&browser) } else { world.logged_in().await };
        let line = format!("{SESSION}={}", ticket(&browser));
        world.clock.advance(EVERY);
        let client = Client::new();
        let calls = (0..40).map(|n| {
            let home = if n % 2 == 0 { world.proxy.address } else { other.address };
            client.get(format!("http://{home}/api/whoami")).header(COOKIE, &line).send()
        });
        let mut tickets = std::collections::BTreeSet::new();
        for answer in futures::future::join_all(calls).await {
            let answer = answer.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            for cookie in answer.headers().get_all("set-cookie") {
                tickets.insert(cookie.to_str().expect("text").to_owned());
            }
        }
        assert_eq!(tickets.len(), 1, "{tickets:?}");
        let value = tickets.first().and_then(|line| line.split(['=', ';']).nth(1)).expect("a value");
        for home in [world.proxy.address, other.address] {
            let mut twin = Browser::new(home);
            twin.set_cookie(SESSION, value);
            assert_eq!(twin.fetch("/api/whoami").await.status, StatusCode::OK, "both know the new one at once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_logout_ends_both_tickets() {
    let (world, mut browser) = steady(None).await;
    let mut former = holder(&browser);
    world.clock.advance(EVERY);
    assert!(new_ticket(&browser.fetch("/api/whoami").await).is_some());
    let mut present = holder(&browser);
    assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
    for twin in [&mut former, &mut present] {
        assert_eq!(twin.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_ticket_with_the_right_handle_and_a_wrong_secret_opens_nothing() {
    let (_world, mut browser) = steady(None).await;
    let right = ticket(&browser);
    for place in [22, 40, 63] {
        let mut wrong = right.clone().into_bytes();
        wrong[place] = if wrong[place] == b'A' { b'B' } else { b'A' };
        let mut thief = Browser::new(browser.home);
        thief.set_cookie(SESSION, std::str::from_utf8(&wrong).expect("text"));
        assert_eq!(thief.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_store_that_fails_exchanges_nothing_and_loses_nothing() {
    let redis = RedisServer::start();
    let session = "  cache: { ttl: 1h }".to_owned();
    let wishes = Wishes { provider: lasting_tokens(), session, ..ticking_on(&redis) };
    let world = world(wishes).await;
    let mut browser = world.logged_in().await;
    world.clock.advance(EVERY);
    redis.freeze();
    let answer = browser.fetch("/api/whoami").await;
    assert_eq!((answer.status, new_ticket(&answer)), (StatusCode::OK, None), "served from the cache as before");
    redis.thaw();
    crate::harness::eventually("the ticket is exchanged", || {
        let mut twin = holder(&browser);
        async move { new_ticket(&twin.fetch("/api/whoami").await).is_some() }
    })
    .await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

/// The announcement of an exchange is still on its way, and the store cannot be asked: that is no end of a session.
#[tokio::test(flavor = "multi_thread")]
async fn d1_a_ticket_that_is_not_known_here_yet_waits_for_the_store() {
    let wishes = ticking();
    let store = SharedStore::new(&wishes.clock);
    let session = "  cache: { ttl: 1h }".to_owned();
    let wishes = Wishes { session, provider: lasting_tokens(), shared: Some(store.clone()), ..wishes };
    let world = world(wishes).await;
    let other = Proxy::start(&world.yaml, &world.clock, Some(store.unheard())).await;
    other.knows_provider().await;
    let mut browser = world.logged_in().await;
    assert_eq!(carry(&browser, &other).fetch("/api/whoami").await.status, StatusCode::OK);
    world.clock.advance(EVERY);
    assert!(new_ticket(&browser.fetch("/api/whoami").await).is_some());

    store.fail(Op::Load, 0);
    let mut there = carry(&browser, &other);
    for _ in 0..2 {
        assert_not_now(&there.fetch("/api/whoami").await, "store_unavailable");
    }
    store.heal();
    assert_eq!(there.fetch("/api/whoami").await.status, StatusCode::OK);
}

/// The end of a session was missed, and its ticket is due: who asks the store and hears of no session has none.
#[tokio::test(flavor = "multi_thread")]
async fn s8_an_exchange_that_finds_no_session_refuses() {
    let redis = RedisServer::start();
    let session = "  cache: { ttl: 1h }".to_owned();
    let world = world(Wishes { provider: lasting_tokens(), session, ..ticking_on(&redis) }).await;
    // Nothing was missed since the proxy began to listen.
    world.clock.advance(secs(1));
    let mut browser = world.logged_in().await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    world.clock.advance(EVERY);
    redis.raw("FLUSHALL");
    let reached = world.demo.upstream.recorder().count();
    for _ in 0..2 {
        let refused = browser.fetch("/api/whoami").await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{refused:?}");
    }
    assert_eq!(browser.fetch("/maybe/whoami").await.status, StatusCode::OK, "where a session is not needed");
    assert_eq!(world.demo.upstream.recorder().last().and_then(|last| last.bearer().map(str::to_owned)), None);
    assert_eq!(world.demo.upstream.recorder().count(), reached + 1);
    assert_logs_in_again(&mut browser).await;
}
