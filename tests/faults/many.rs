//! Many sessions, of which a few are due at any moment.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloakroom::primitives::clock::{Clock, Timestamp};
use cloakroom::store::record::SessionKey;
use futures::StreamExt as _;
use reqwest::Client;

use crate::harness::{Proxy, free_address};
use crate::kit::secs;
use crate::process::Process;
use crate::report::Row;
use crate::seed::{ENVIRONMENT, Seeded, Site};
use crate::yard::{Scale, client, get, percentile, progress, resident};

/// Sessions due a minute.
const PACE: usize = 5_000;
/// Minutes that are watched.
const MINUTES: usize = 3;
/// Time for seeding before the first is due.
const HEAD_START: u64 = 90;
const LATE: Duration = secs(2);
/// Sessions that one replica is asked for, to see what its cache takes.
const CACHED: usize = 50_000;
const TOKEN: usize = 2_000;

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let site = Site::new(Duration::from_millis(20), secs(24 * 3600), "{ ahead: 60s }").await;
    let sessions = scale.of(200_000, 20_000);
    let minutes = if scale.divisor() == 1 { MINUTES } else { 1 };
    let first = Clock::system().now().as_millis() + (HEAD_START / scale.divisor().min(4) as u64 + 66) * 1000;
    // Due one after the other, a little disordered by the plan's own jitter.
    let end = |session: usize| Timestamp::from_millis(first + session as u64 * 60_000 / PACE as u64);
    let issued = |end: Timestamp| Timestamp::from_millis(end.as_millis() - 3_600_000);
    let seeded = site.seeder.seed(sessions, TOKEN, |session| (issued(end(session)), end(session))).await;
    progress(&format!("{sessions} sessions are in Redis"));
    let clock = Clock::system();
    let replicas = [Proxy::start(&site.yaml, &clock, None).await, Proxy::start(&site.yaml, &clock, None).await];
    let (address, admin) = (free_address(), free_address());
    let yaml = site.yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
    let third = Process::start(&yaml, &[ENVIRONMENT[0], ENVIRONMENT[1], ("RUST_LOG", "error")]);

    // What those are due at that come up while we watch; read before they change.
    let watched = minutes * PACE;
    let due = due_times(&site, seeded.iter().take(watched).map(|session| session.key).collect()).await;
    assert!(Clock::system().now().as_millis() < first - 66_000, "seeding took longer than planned");
    let memory = cache_entry(address, third.id(), &seeded[watched.min(sessions / 2)..], scale).await;

    let last = due.iter().max().copied().unwrap_or_default() + 3_000;
    while Clock::system().now().as_millis() < last {
        tokio::time::sleep(secs(10)).await;
        progress(&format!("{} refreshes", site.quick.books.calls.load(Ordering::SeqCst)));
    }
    let books = &site.quick.books;
    let (mut lags, mut never, mut early) = (Vec::new(), 0, 0);
    for (session, due) in due.iter().enumerate() {
        match books.arrival(session) {
            0 => never += 1,
            at if at < *due => early += 1,
            at => lags.push(Duration::from_millis(at - due)),
        }
    }
    let late = lags.iter().filter(|lag| **lag > LATE).count();
    let most = percentile(&mut lags, 100.0);
    let (twice, wrong) = (books.sessions().1, books.wrong.load(Ordering::SeqCst));
    drop(replicas);
    vec![
        Row {
            run: "many",
            done: format!(
                "{sessions} sessions in Redis, {PACE} due a minute for {minutes} min; 3 replicas, provider answers in 20 ms"
            ),
            criterion: "each refreshed once, none more than 2 s late".to_owned(),
            measured: format!(
                "{} refreshed, {never} not, {early} early, {late} late, {twice} twice, {wrong} refused; lateness p50 {} ms, p99 {} \
                 ms, longest {} ms",
                lags.len(),
                percentile(&mut lags, 50.0).as_millis(),
                percentile(&mut lags, 99.0).as_millis(),
                most.as_millis()
            ),
            passed: never == 0 && early == 0 && late == 0 && twice == 0 && wrong == 0,
        }
        .tell(),
        memory.tell(),
    ]
}

async fn due_times(site: &Site, keys: Vec<SessionKey>) -> Vec<u64> {
    let due = |key: SessionKey| {
        let store = site.seeder.sessions.store().clone();
        async move {
            let record = store.load(&key).await.expect("the store").expect("a session");
            record.due.expect("a due time").as_millis()
        }
    };
    futures::stream::iter(keys).map(due).buffered(64).collect().await
}

/// What a replica's memory grows by for each session that it serves.
async fn cache_entry(address: SocketAddr, process: u32, seeded: &[Seeded], scale: Scale) -> Row {
    let client = client();
    let count = scale.of(CACHED, 5_000).min(seeded.len() / 2);
    // Connections, buffers and tables are there before anything is weighed.
    let warm = count / 5;
    let warmed = ask(&client, address, &seeded[..warm]).await;
    let before = resident(&process.to_string());
    let served = ask(&client, address, &seeded[warm..warm + count]).await;
    let each = resident(&process.to_string()).saturating_sub(before) / count as u64;
    Row {
        run: "many",
        done: format!("one replica (a process of its own) asked for {count} sessions with tokens of {TOKEN} bytes"),
        criterion: "≤ 4 KiB of resident memory a cached session".to_owned(),
        measured: format!("{each} bytes each; {} not served", warm + count - warmed - served),
        passed: each <= 4_096 && each > 500 && warmed + served == warm + count,
    }
}

/// How many of these sessions are served.
async fn ask(client: &Client, address: SocketAddr, some: &[Seeded]) -> usize {
    let tickets: Vec<String> = some.iter().map(|session| session.ticket.clone()).collect();
    let call = |ticket: String| {
        let client = client.clone();
        async move { get(&client, address, &ticket).await.status == 200 }
    };
    futures::stream::iter(tickets)
        .map(call)
        .buffer_unordered(48)
        .filter(|served| std::future::ready(*served))
        .count()
        .await
}
