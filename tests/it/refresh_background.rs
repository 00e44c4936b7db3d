//! Tokens are refreshed before anybody has to wait for them (behaviour B1 to B4).

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom::demo::provider::Endpoint;
use cloakroom::demo::{Fault, Gate, ProviderConfig};
use reqwest::StatusCode;

use crate::harness::{Browser, Proxy, Wishes, World, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;

/// Tokens of 10 minutes, refreshed from one minute before their end (give or take six seconds).
fn wishes(redis: Option<&RedisServer>) -> Wishes {
    Wishes {
        refresh: "{ ahead: 60s, active_within: 15m }".into(),
        session: STEADY_TICKET.into(),
        provider: ProviderConfig { access_token_lifetime: secs(600), ..ProviderConfig::default() },
        ..redis.map_or_else(ticking, ticking_on)
    }
}

const NOT_YET: Duration = secs(600 - 67);
const DUE: Duration = secs(14);

async fn refreshes(proxy: &Proxy, result: &str) -> f64 {
    let series = format!(r#"cloakroom_token_refreshes_total{{mode="background",provider="demo",result="{result}"}} "#);
    let text = proxy.admin_page("/metrics").await.1;
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0.0)
}

async fn eventually_refreshed(world: &World, times: f64) {
    eventually("the refresh in the background", || async { refreshes(&world.proxy, "ok").await >= times }).await;
    assert!((refreshes(&world.proxy, "ok").await - times).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_b4_a_token_is_refreshed_ahead_of_its_end_and_no_request_waits() {
    let redis = RedisServer::start();
    for redis in [None, Some(&redis)] {
        let world = world(wishes(redis)).await;
        let mut browser = world.logged_in().await;
        let first = newest(&world).access_token;
        world.clock.advance(NOT_YET);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        // Two looks at the list later there is still nothing due.
        tokio::time::sleep(secs(2)).await;
        assert_eq!(newest(&world).access_token, first);
        world.clock.advance(DUE);
        eventually_refreshed(&world, 1.0).await;
        let second = newest(&world).access_token;
        assert_ne!(first, second);
        eventually("the cached session knows the new token", || {
            let mut twin = holder(&browser);
            async move { twin.fetch("/api/whoami").await.status == StatusCode::OK }
        })
        .await;
        browser.fetch("/api/whoami").await;
        assert_eq!(relayed(&world), second);
        // And the next one in its turn.
        world.clock.advance(NOT_YET + DUE);
        eventually_refreshed(&world, 2.0).await;
        assert_shown_once(&world);
        assert_eq!(world.metric("cloakroom_token_refreshes_total{mode=\"inline\"").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_an_idle_session_is_left_alone_until_it_is_used_again() {
    let idle = Wishes { refresh: "{ ahead: 60s, active_within: 5m }".into(), ..wishes(None) };
    let world = world(idle).await;
    let mut browser = world.logged_in().await;
    let first = newest(&world).access_token;
    // Late enough that a use finds it overdue, by three seconds, whatever the jitter.
    world.clock.advance(NOT_YET + DUE + secs(3));
    tokio::time::sleep(secs(3)).await;
    assert_eq!(newest(&world).access_token, first, "nobody has used it for longer than five minutes");
    // A use is served with the token that still lives, and hurries the refresh that was left out.
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), first);
    eventually_refreshed(&world, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_of_many_replicas_one_refreshes_each_session() {
    let redis = RedisServer::start();
    let world = world(wishes(Some(&redis))).await;
    let others = [world.replica().await, world.replica().await];
    for other in &others {
        other.knows_provider().await;
    }
    let mut browsers = Vec::new();
    for _ in 0..20 {
        browsers.push(world.logged_in().await);
    }
    let before = token_calls(&world);
    world.clock.advance(NOT_YET + DUE);
    eventually("all are refreshed", || async { token_calls(&world) >= before + 20 }).await;
    eventually("and stored", || async {
        let mut sum = refreshes(&world.proxy, "ok").await;
        for other in &others {
            sum += refreshes(other, "ok").await;
        }
        sum >= 20.0
    })
    .await;
    for browser in &mut browsers {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
    assert_eq!(token_calls(&world), before + 20, "once each");
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_who_waits_for_the_provider_keeps_its_claim() {
    let redis = RedisServer::start();
    let world = world(wishes(Some(&redis))).await;
    let other = world.replica().await;
    other.knows_provider().await;
    let mut browser = world.logged_in().await;
    let gate = hold_tokens(&world, false);
    world.clock.advance(NOT_YET + DUE);
    gate.arrived(1).await;
    let loads = || async {
        let mut sum = 0.0;
        for proxy in [&world.proxy, &other] {
            let text = proxy.admin_page("/metrics").await.1;
            let of_loads = text
                .lines()
                .filter(|line| line.starts_with("cloakroom_store_operations_total{") && line.contains("op=\"load\""));
            sum += of_loads.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        sum
    };
    let before = loads().await;
    // Long enough for several looks at the list of the due, and at the record by whoever waits for it.
    tokio::time::sleep(secs(4)).await;
    let more = loads().await - before;
    assert!(more <= 2.0, "nobody looks after a session that is in good hands, but {more} times somebody did");
    gate.open();
    eventually("one of them has done it", || async {
        refreshes(&world.proxy, "ok").await + refreshes(&other, "ok").await >= 1.0
    })
    .await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_provider_that_is_down_in_the_background_costs_no_session() {
    let world = world(wishes(None)).await;
    let mut browser = world.logged_in().await;
    token_fault(&world, Fault::status(503));
    world.clock.advance(NOT_YET + DUE);
    eventually("it was tried", || async { refreshes(&world.proxy, "error").await >= 1.0 }).await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "the token still lives");
    heal(&world);
    // What was put off comes again when the clock has moved.
    let twin = &world;
    eventually("it succeeds in the end", || async move {
        twin.clock.advance(secs(1));
        refreshes(&twin.proxy, "ok").await >= 1.0
    })
    .await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refresh_token_ends_the_session_in_the_background_too() {
    let world = world(wishes(None)).await;
    let mut browser = world.logged_in().await;
    world.demo.provider.forget_tokens();
    world.clock.advance(NOT_YET + DUE);
    eventually("it was refused", || async { refreshes(&world.proxy, "invalid_grant").await >= 1.0 }).await;
    eventually("and ended", || {
        let mut twin = holder(&browser);
        async move { twin.fetch("/api/whoami").await.status == StatusCode::UNAUTHORIZED }
    })
    .await;
    assert_logs_in_again(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_no_more_calls_at_a_time_than_allowed() {
    let few = Wishes { refresh: "{ ahead: 60s, concurrency: 2, per_second: 1000 }".into(), ..wishes(None) };
    let world = world(few).await;
    let mut browsers: Vec<Browser> = Vec::new();
    for _ in 0..8 {
        browsers.push(world.logged_in().await);
    }
    let gate = Gate::closed();
    token_fault(&world, Fault::hold(&gate));
    let before = token_calls(&world);
    world.clock.advance(NOT_YET + DUE);
    gate.arrived(2).await;
    // Requests join: their tokens still live, so they do not wait for long, and nobody asks the provider beside the two.
    let mut statuses = BTreeMap::new();
    for browser in &browsers {
        for status in volley(browser, "/api/whoami", 3).await {
            *statuses.entry(status.as_u16()).or_insert(0) += 1;
        }
    }
    assert_eq!(statuses, BTreeMap::from([(200, 24)]));
    assert_eq!(token_calls(&world), before + 2);
    heal(&world);
    gate.open();
    eventually_refreshed(&world, 8.0).await;
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_who_has_waited_for_a_place_keeps_to_the_rate_too() {
    let few = Wishes { refresh: "{ ahead: 0s, concurrency: 2, per_second: 5 }".into(), ..wishes(None) };
    let world = world(few).await;
    let mut browsers = Vec::new();
    for _ in 0..15 {
        browsers.push(world.logged_in().await);
    }
    let before = token_calls(&world);
    world.clock.advance(secs(601));
    let begun = std::time::Instant::now();
    let mut calls = vec![(begun, 0)];
    let requests: Vec<_> = browsers.iter().map(|browser| fetch_soon(browser, "/api/whoami")).collect();
    while calls.last().is_none_or(|(_, calls)| *calls < 15) {
        assert!(begun.elapsed() < secs(15), "not all are refreshed: {calls:?}");
        calls.push((std::time::Instant::now(), token_calls(&world) - before));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A bucket that is full gives its content at once and then its rate.
    for (at, count) in &calls {
        let a_second_before = calls.iter().find(|(other, _)| at.duration_since(*other) <= secs(1));
        assert!(count - a_second_before.map_or(0, |(_, before)| *before) <= 10, "{calls:?}");
    }
    for request in requests {
        assert_eq!(request.await.expect("an answer").status, StatusCode::OK);
    }
    assert_shown_once(&world);
}

/// A world whose second site, `localhost`, has a provider of its own.
async fn with_two_providers(store: Option<&RedisServer>) -> (World, cloakroom::demo::Provider) {
    let clock = ticking().clock;
    let now = clock.clone();
    let second = cloakroom::demo::Provider::start(ProviderConfig {
        access_token_lifetime: secs(600),
        clock: std::sync::Arc::new(move || std::time::UNIX_EPOCH + Duration::from_millis(now.now().as_millis())),
        ..ProviderConfig::default()
    })
    .expect("a provider");
    second.switches().auto_login("alice");
    let world = world(Wishes {
        refresh: "{ ahead: 60s, concurrency: 2, per_second: 1000 }".into(),
        provider_yaml: format!(
            "  - {{ name: second, kind: oidc, issuer: {}, client_id: {}, client_auth: {{ method: client_secret_basic, \
             secret: {{ env: TEST_SECRET }} }} }}",
            second.issuer(),
            cloakroom::demo::CLIENT_ID
        ),
        more: "  - { hosts: [localhost], provider: second, routes: [{ path: /, upstream: demo, access: required }] }"
            .into(),
        clock,
        ..wishes(store)
    })
    .await;
    knows_second(&world.proxy).await;
    (world, second)
}

async fn knows_second(proxy: &Proxy) {
    eventually("both providers are known", || async {
        proxy.admin_page("/readyz?verbose").await.1.contains("provider second: ready")
    })
    .await;
}

async fn log_in_at_second(world: &World, times: usize) {
    for _ in 0..times {
        let mut browser = world.browser();
        let callback = browser.authorize(&format!("http://localhost:{}/", world.proxy.address.port())).await;
        assert_eq!(browser.navigate(&callback).await.status, StatusCode::OK);
    }
}

/// Refreshes in the background at the second provider.
async fn second_refreshes(proxy: &Proxy) -> f64 {
    let series = r#"cloakroom_token_refreshes_total{mode="background",provider="second",result="ok"} "#;
    let text = proxy.admin_page("/metrics").await.1;
    text.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_a_provider_that_hangs_holds_up_no_other() {
    let (world, hanging) = with_two_providers(None).await;
    // Many more than can be asked for at a time, and due before the other.
    log_in_at_second(&world, 40).await;
    world.clock.advance(secs(1));
    let mut browser = world.logged_in().await;
    let gate = Gate::closed();
    hanging.switches().fault(Endpoint::Token, Fault::hold(&gate));
    world.clock.advance(NOT_YET + DUE);
    gate.arrived(2).await;
    let begun = std::time::Instant::now();
    eventually("the other is refreshed", || async {
        world.clock.advance(Duration::from_millis(10));
        refreshes(&world.proxy, "ok").await >= 1.0
    })
    .await;
    // Less than a call may take.
    assert!(begun.elapsed() < secs(6), "after {:?}", begun.elapsed());
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    gate.open();
    hanging.switches().faults(Endpoint::Token).clear();
    eventually("those of the one that hung come in their turn", || async {
        world.clock.advance(secs(1));
        second_refreshes(&world.proxy).await >= 40.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_a_replica_that_stops_hands_over_what_waits_for_a_place() {
    let redis = RedisServer::start();
    let (world, hanging) = with_two_providers(Some(&redis)).await;
    log_in_at_second(&world, 6).await;
    let gate = Gate::closed();
    hanging.switches().fault(Endpoint::Token, Fault::hold(&gate).times(2));
    world.clock.advance(NOT_YET + DUE);
    gate.arrived(2).await;
    // It has claimed as many as it has places for both providers: two wait. Their claims end in 15 s of a clock that
    // stands still.
    world.proxy.drain();
    let other = world.replica().await;
    knows_second(&other).await;
    eventually("the other has the rest", || async { second_refreshes(&other).await >= 4.0 }).await;
    gate.open();
}
