//! All replicas were down, all tokens are dead, and everybody comes back at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cloakroom::primitives::clock::Clock;
use tokio::sync::Semaphore;

use crate::harness::Proxy;
use crate::kit::secs;
use crate::report::Row;
use crate::seed::Site;
use crate::yard::{Scale, client, get};

/// The defaults of `refresh.concurrency` and `refresh.per_second`.
const CONCURRENCY: usize = 32;
const RATE: usize = 100;
const LATENCY: Duration = Duration::from_millis(50);
/// Requests under way at a time; each takes a few descriptors of this process.
const AT_A_TIME: usize = 1_500;
const PATIENCE: Duration = secs(300);

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let site = Site::new(LATENCY, secs(3600), "{ ahead: 60s }").await;
    let sessions = scale.of(20_000, 600);
    let now = Clock::system().now().as_millis();
    let ago = |seconds: u64| cloakroom::primitives::clock::Timestamp::from_millis(now - seconds * 1000);
    // Out of the background refresher's list as well: whoever returns is who refreshes.
    let seeded = site.seeder.seed(sessions, 1024, |_| (ago(600), ago(300))).await;
    let clock = Clock::system();
    let proxies = [
        Proxy::start(&site.yaml, &clock, None).await,
        Proxy::start(&site.yaml, &clock, None).await,
        Proxy::start(&site.yaml, &clock, None).await,
    ];
    for proxy in &proxies {
        while !proxy.admin_page("/readyz?verbose").await.1.contains("provider quick: ready") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (client, places, begun) = (client(), Arc::new(Semaphore::new(AT_A_TIME)), Instant::now());
    let mut returns = tokio::task::JoinSet::new();
    for (at, session) in seeded.iter().enumerate() {
        let (client, places, ticket) = (client.clone(), places.clone(), session.ticket.clone());
        let address = proxies[at % 3].address;
        returns.spawn(async move {
            while begun.elapsed() < PATIENCE {
                let place = places.acquire().await.expect("open");
                let got = get(&client, address, &ticket).await;
                drop(place);
                match got.status {
                    200 | 401 => return got.status,
                    503 => tokio::time::sleep(secs(got.retry_after.unwrap_or(1))).await,
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            0
        });
    }
    let (mut served, mut lost, mut never) = (0, 0, 0);
    while let Some(end) = returns.join_next().await {
        match end.expect("a task") {
            200 => served += 1,
            401 => lost += 1,
            _ => never += 1,
        }
    }
    let took = begun.elapsed();
    let books = &site.quick.books;
    let (most, wrong) = (books.most_under_way.load(Ordering::SeqCst), books.wrong.load(Ordering::SeqCst));
    let calls = books.calls.load(Ordering::SeqCst);
    let bound = secs((sessions * 3 / 2 / (3 * RATE)) as u64 + 10);
    vec![
        Row {
            run: "herd",
            done: format!("{sessions} sessions with dead tokens return at once to 3 replicas that have just started"),
            criterion: format!(
                "all served within 1.5 × what the default rate of {RATE}/s a replica allows (+ 10 s), 0 lost, never more \
                 than 3 × {CONCURRENCY} calls at a time, one call a session"
            ),
            measured: format!(
                "{served} served, {lost} lost, {never} never served; {:.0} s; {most} calls at a time, {calls} calls, \
                 {wrong} refused",
                took.as_secs_f64()
            ),
            passed: lost == 0
                && never == 0
                && wrong == 0
                && calls == sessions
                && most <= 3 * CONCURRENCY
                && took <= bound,
        }
        .tell(),
    ]
}
