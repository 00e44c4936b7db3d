//! The provider is away for ten minutes and comes back, under a clock that runs faster than ours.

use std::time::{Duration, Instant};

use cloakroom::demo::Fault;
use cloakroom::demo::provider::Endpoint;

use crate::harness::{SESSION, Wishes};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Scale, client, get, progress};

/// Life of an access token; the sessions' ends are spread over it.
const LIFE: u64 = 300;
/// Refreshes a second and replica.
const RATE: usize = 20;
/// Calls that one replica may spend on finding out whether the provider is back, in ten minutes: its breaker's own bound.
const PROBES: f64 = 90.0;
/// Longest part of a second of ours that a second of theirs takes.
const STEP: Duration = Duration::from_millis(25);

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let redis = RedisServer::start();
    let mut wishes = Wishes {
        session: STEADY_TICKET.into(),
        refresh: format!("{{ ahead: 60s, per_second: {RATE}, concurrency: 8 }}"),
        ..ticking_on(&redis)
    };
    wishes.provider.access_token_lifetime = secs(LIFE);
    let fleet = Fleet::start(wishes).await;
    let (world, client, addresses) = (&fleet.world, client(), fleet.addresses());
    let sessions = scale.of(300, 60);
    let mut tickets = Vec::new();
    for _ in 0..sessions {
        tickets.extend(fleet.log_in(1).await);
        world.clock.advance(Duration::from_millis(LIFE * 1000 / 2 / sessions as u64));
    }
    tokio::time::sleep(secs(2)).await;

    let token_calls_made = "cloakroom_idp_requests_total{endpoint=\"token\"";
    world.demo.provider.stop().await;
    let ends = ends_of_tokens(&client, addresses[0], &tickets).await;
    let (before, begun) = (fleet.metric(token_calls_made).await, world.clock.now());
    let (mut live, mut dead, mut wrong, mut slowest) = (0_usize, 0_usize, Vec::new(), Duration::ZERO);
    for second in 0..600_usize {
        world.clock.advance(secs(1));
        if second == 300 {
            // From refused connections to an answer that says no.
            token_fault(world, Fault::status(503));
            world.demo.provider.restart().expect("the port is still ours");
        }
        for at in (second % 30..sessions).step_by(30) {
            let got = get(&client, addresses[second % 3], &tickets[at]).await;
            let now = world.clock.now();
            let alive = now.as_millis() + 1_000 < ends[at] * 1_000;
            match got.status {
                // The end is known in whole seconds; the token may live for a part of one more.
                200 if now.as_millis() < (ends[at] + 1) * 1_000 => live += 1,
                503 if !alive && got.retry_after.is_some() && !got.touches_cookies => {
                    dead += 1;
                    slowest = slowest.max(got.took);
                }
                _ => wrong.push(format!("{} at {second} s, {alive}", got.status)),
            }
        }
        tokio::time::sleep(STEP).await;
    }
    let calls = fleet.metric(token_calls_made).await - before;
    progress(&format!("{live} served, {dead} told to wait, {calls} calls, wrong: {wrong:?}"));
    debug_assert!(world.clock.now().since(begun) >= secs(600));

    // Back again.
    let counted = || world.demo.provider.ledger().count(Endpoint::Token);
    heal(world);
    let (up, at_return) = (Instant::now(), counted());
    let watch = {
        let ledger = world.demo.provider.ledger().clone();
        tokio::spawn(async move {
            let mut counts = Vec::new();
            for _ in 0..400 {
                counts.push((Instant::now(), ledger.count(Endpoint::Token)));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            counts
        })
    };
    let mut open: Vec<usize> = (0..sessions).collect();
    let mut lost = 0;
    while !open.is_empty() && up.elapsed() < secs(60) {
        world.clock.advance(Duration::from_millis(500));
        let calls = open.iter().map(|at| get(&client, addresses[at % 3], &tickets[*at]));
        let answers = futures::future::join_all(calls).await;
        lost += answers.iter().filter(|got| got.status == 401).count();
        let still_open = open.iter().zip(&answers).filter(|(_, got)| !matches!(got.status, 200 | 401));
        open = still_open.map(|(at, _)| *at).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let recovered = up.elapsed();
    let counts = watch.await.expect("a watch");
    // By the clock, for a busy machine wakes nobody on time.
    let since = |(at, count): &(Instant, usize)| {
        let first = counts.iter().find(|(other, _)| at.duration_since(*other) <= secs(1));
        first.map_or(0, |(_, before)| count - before)
    };
    let fastest = counts.iter().map(since).max().unwrap_or_default();
    let again = fleet.shown_again();
    // A bucket that is full gives its content at once and then its rate.
    let most = 3 * 2 * RATE;
    let max_calls = 3.0 * PROBES;
    vec![
        Row {
            run: "provider",
            done: format!(
                "provider away for 10 min (5 refusing connections, 5 answering 503), {sessions} sessions, 3 replicas"
            ),
            criterion: format!(
                "live tokens served, dead ones 503 with Retry-After, none ends, ≤ {max_calls:.0} calls; afterwards ≤ \
                 {most} calls in any second, all served"
            ),
            measured: format!(
                "{live} served, {dead} told to wait (slowest {} ms), {} others; {calls:.0} calls; afterwards {fastest} \
                 calls in the busiest second, {} calls in all, all but {} served after {:.1} s, {lost} lost; {again} \
                 tokens shown again",
                slowest.as_millis(),
                wrong.len(),
                counted() - at_return,
                open.len(),
                recovered.as_secs_f64()
            ),
            passed: wrong.is_empty()
                && dead > 0
                && live > 0
                && lost == 0
                && open.is_empty()
                && again == 0
                && calls <= max_calls
                && fastest <= most,
        }
        .tell(),
    ]
}

/// When the access token of each session ends, in seconds.
async fn ends_of_tokens(client: &reqwest::Client, at: std::net::SocketAddr, tickets: &[String]) -> Vec<u64> {
    let mut ends = Vec::new();
    for ticket in tickets {
        let call = client.get(format!("http://{at}/auth/session"));
        let answer = call.header("cookie", format!("{SESSION}={ticket}")).send().await.expect("an answer");
        let body: serde_json::Value =
            serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON of ours");
        ends.push(body["token_expires_at"].as_u64().expect("a time"));
    }
    ends
}
