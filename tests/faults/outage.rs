//! The store goes away and comes back while browsers ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::Wishes;
use crate::kit::*;
use crate::postgres_server::PostgresServer;
use crate::redis_group::{Watched, until};
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Got, Scale, Tally, client, dice, get, percentile, postgres_at, progress};

const BROWSERS: usize = 45;
/// Life of an access token: refreshes go on all the time.
const LIFE: Duration = secs(12);
/// What an answer may be late by on a machine that does other things as well.
const SLACK: Duration = Duration::from_millis(300);
/// Bounds of D1 and F1.
const REFUSAL: Duration = Duration::from_millis(250);
const RECOVERY: Duration = secs(2);

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let times = scale.of(20, 2);
    let mut rows = Vec::new();
    {
        let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let fleet = fleet(store_at(&redis)).await;
        let redis = Mutex::new(redis);
        let (kill, restart) = (|| redis.lock().unwrap().kill(), || redis.lock().unwrap().restart());
        let what = "Redis killed with -9, started again after 1 to 8 s; appendfsync always";
        rows.push(case(&fleet, what, times, (1, 8), &kill, &restart, &|| {}).await);
        let (freeze, thaw) = (|| redis.lock().unwrap().freeze(), || redis.lock().unwrap().thaw());
        rows.push(case(&fleet, "Redis stopped for 5 s (SIGSTOP)", times / 2, (5, 5), &freeze, &thaw, &|| {}).await);
    }
    {
        let watched = Watched::start();
        let fleet = fleet(format!("{{ kind: redis, url: \"{}\" }}", watched.url())).await;
        let (watched, primary) = (Mutex::new(watched), AtomicUsize::new(0));
        let kill = || watched.lock().unwrap().servers[primary.load(Ordering::SeqCst)].kill();
        let elect = || {
            let old = primary.fetch_xor(1, Ordering::SeqCst);
            let mut watched = watched.lock().unwrap();
            until("another is the primary", || {
                watched.servers[1 - old].ask("INFO replication").contains("role:master")
            });
            watched.servers[old].restart();
        };
        // Nobody can be elected before the server that was killed last follows the one that was elected.
        let follows = || {
            let other = 1 - primary.load(Ordering::SeqCst);
            until("the other follows", || {
                watched.lock().unwrap().servers[other].ask("INFO replication").contains("master_link_status:up")
            });
        };
        let what = "the primary of a Redis under three Sentinels killed with -9; the old one returns as replica";
        rows.push(case(&fleet, what, times / 4, (0, 0), &kill, &elect, &follows).await);
    }
    let postgres = PostgresServer::start();
    let fleet = fleet(postgres_at(&postgres)).await;
    let postgres = Mutex::new(postgres);
    let (kill, restart) = (|| postgres.lock().unwrap().kill(), || postgres.lock().unwrap().restart());
    let what = "PostgreSQL killed with -9, started again after 1 to 5 s";
    rows.push(case(&fleet, what, times / 2, (1, 5), &kill, &restart, &|| {}).await);
    let (freeze, thaw) = (|| postgres.lock().unwrap().freeze(), || postgres.lock().unwrap().thaw());
    rows.push(case(&fleet, "PostgreSQL stopped for 5 s (SIGSTOP)", times / 2, (5, 5), &freeze, &thaw, &|| {}).await);
    rows
}

async fn fleet(store: String) -> Fleet {
    let mut wishes = Wishes {
        store,
        session: STEADY_TICKET.into(),
        refresh: "{ ahead: 60s, minimum_lifetime: 2s }".into(),
        ..Wishes::default()
    };
    wishes.provider.access_token_lifetime = LIFE;
    Fleet::start(wishes).await
}

/// Browsers that ask and ask, and what they were told.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(usize, Got)>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(addresses: [SocketAddr; 3], tickets: &[String]) -> Self {
        let mut load = Self { stop: Arc::default(), seen: Arc::default(), tasks: tokio::task::JoinSet::new() };
        let client = client();
        for (browser, ticket) in tickets.iter().cloned().enumerate() {
            let (stop, seen, client) = (load.stop.clone(), load.seen.clone(), client.clone());
            load.tasks.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let got = get(&client, addresses[browser % 3], &ticket).await;
                    seen.lock().unwrap().push((browser, got));
                    tokio::time::sleep(Duration::from_millis(20 + dice(20))).await;
                }
            });
        }
        load
    }

    /// How long after `up` each browser was served again; the longest.
    async fn recovery(&self, up: Instant) -> Duration {
        loop {
            let mut first = vec![None; BROWSERS];
            for (browser, got) in self.seen.lock().unwrap().iter() {
                if got.status == 200 && got.at + got.took >= up && first[*browser].is_none() {
                    first[*browser] = Some((got.at + got.took).saturating_duration_since(up));
                }
            }
            let slowest: Option<Vec<Duration>> = first.into_iter().collect();
            if let Some(slowest) = slowest {
                return slowest.into_iter().max().unwrap_or_default();
            }
            if up.elapsed() > secs(30) {
                return Duration::MAX;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(mut self) -> Vec<(usize, Got)> {
        self.stop.store(true, Ordering::SeqCst);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn case(
    fleet: &Fleet,
    what: &str,
    times: usize,
    (shortest, longest): (u64, u64),
    down: &(dyn Fn() + Sync),
    up: &(dyn Fn() + Sync),
    ready: &(dyn Fn() + Sync),
) -> Row {
    let times = times.max(1);
    let tickets = fleet.log_in(BROWSERS).await;
    let mut tally = Tally::default();
    let (mut refusals, mut cached_longest, mut served_down) = (Vec::new(), Duration::ZERO, 0);
    let (mut slowest, mut without_time, mut cookies) = (Duration::ZERO, 0, 0);
    for turn in 0..times {
        tokio::task::block_in_place(ready);
        let load = Load::start(fleet.addresses(), &tickets);
        tokio::time::sleep(secs(4)).await;
        let began = Instant::now();
        tokio::task::block_in_place(down);
        let hold = shortest + (longest - shortest) * turn as u64 / (times as u64 - 1).max(1);
        tokio::time::sleep(secs(hold)).await;
        tokio::task::block_in_place(up);
        let back = Instant::now();
        slowest = slowest.max(load.recovery(back).await);
        let seen = load.end().await;
        tell_late(&seen, back);
        for (_, got) in &seen {
            tally.add(got.status);
            cookies += usize::from(got.touches_cookies);
            if got.status == 503 {
                refusals.push(got.took);
                without_time += usize::from(got.retry_after.is_none());
            }
            // What began in the outage and was answered in it came from a cache.
            if got.status == 200 && got.at > began + Duration::from_millis(50) && got.at + got.took < back {
                let age = got.at - began;
                // The store may be there a little before `up` says so; an election has no such moment.
                if hold == 0 || hold > 5 || age < secs(hold) {
                    served_down += 1;
                    cached_longest = cached_longest.max(age);
                }
            }
        }
        progress(&format!("{what}: {}/{times}, {:?}, back after {slowest:?}", turn + 1, tally.0));
    }
    let others = tally.all() - tally.of(200) - tally.of(503) - tally.of(401);
    let (again, most) = (fleet.shown_again(), percentile(&mut refusals, 99.0));
    let worst = refusals.last().copied().unwrap_or_default();
    Row {
        run: "outage",
        done: format!("{times} × {what}; {BROWSERS} browsers ask all the time, tokens live {} s", LIFE.as_secs()),
        criterion:
            "0 lost, no cookie touched, cached sessions served (not longer than 5 s), else 503 with Retry-After, \
                    p99 ≤ 250 ms; all served ≤ 2 s after the return"
                .to_owned(),
        measured: format!(
            "{} lost, {cookies} cookies touched, {others} other answers; in the outage {served_down} served (the last \
             {:.1} s into it), {} times 503 ({without_time} without Retry-After; p99 {} ms, longest {} ms); all served \
             {:.2} s after the return; {again} tokens shown again",
            tally.of(401),
            cached_longest.as_secs_f64(),
            refusals.len(),
            most.as_millis(),
            worst.as_millis(),
            slowest.as_secs_f64(),
        ),
        passed: tally.of(401) == 0
            && cookies == 0
            && others == 0
            && without_time == 0
            && served_down > 0
            && cached_longest <= secs(5) + SLACK
            && most <= REFUSAL
            && slowest <= RECOVERY
            && again == 0,
    }
    .tell()
}

/// What was refused after the return, and when: for whoever looks for the reason.
fn tell_late(seen: &[(usize, Got)], back: Instant) {
    let mut late = BTreeMap::<_, (usize, Duration)>::new();
    for (_, got) in seen.iter().filter(|(_, got)| got.status != 200) {
        let ended = got.at + got.took;
        if let Some(after) = ended.checked_duration_since(back) {
            let entry = late.entry((after.as_millis() / 500, got.code.clone())).or_default();
            *entry = (entry.0 + 1, entry.1.max(got.took));
        }
    }
    for ((half_seconds, code), (count, longest)) in late {
        progress(&format!(
            "  {:.1} s after the return: {count} × {code}, longest {longest:?}",
            half_seconds as f64 / 2.0
        ));
    }
}
