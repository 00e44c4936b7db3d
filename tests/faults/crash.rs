//! A replica is killed at each step of a refresh, and others go on with what it left behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cloakroom::demo;
use cloakroom::primitives::failpoint::POINTS;
use reqwest::Client;

use crate::harness::{Wishes, free_address};
use crate::kit::*;
use crate::process::Process;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Scale, client, dice, get, progress};

/// What the provider forgives, where it forgives at all.
const GRACE: Duration = secs(12);
/// The setting `refresh_token_grace`, a little less.
const GRACE_SETTING: &str = "    refresh_token_grace: 11s";
/// Life of an access token; the provider counts in whole seconds.
const LIFE: Duration = secs(1);
/// Crashes under way at a time.
const AT_A_TIME: usize = 14;
/// Longest wait for a session to be served again.
const PATIENCE: Duration = secs(40);
/// A random moment within so many microseconds after the intent.
const RANDOM: u64 = 6_000;
/// Between these the token may have been shown, as far as the others can know.
const WINDOW: [&str; 4] =
    ["refresh::after_intent", "refresh::before_show", "refresh::after_answer", "refresh::before_store"];

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    vec![with(GRACE, scale).await, with(Duration::ZERO, scale).await]
}

/// What happened at one point.
#[derive(Clone, Copy, Default)]
struct Count {
    kills: usize,
    lost: usize,
    stuck: usize,
}

struct Plot {
    fleet: Fleet,
    client: Client,
    next: AtomicUsize,
    kills: usize,
    counts: std::sync::Mutex<BTreeMap<String, Count>>,
    slowest: std::sync::Mutex<Duration>,
}

async fn with(grace: Duration, scale: Scale) -> Row {
    let redis = RedisServer::start();
    let mut wishes = Wishes { store: store_at(&redis), session: STEADY_TICKET.into(), ..Wishes::default() };
    wishes.provider.access_token_lifetime = LIFE;
    if !grace.is_zero() {
        wishes.provider_yaml = GRACE_SETTING.to_owned();
    }
    let fleet = Fleet::start(wishes).await;
    fleet.world.demo.provider.switches().set(|switch| switch.reuse_grace = grace);
    let plot = Arc::new(Plot {
        fleet,
        client: client(),
        next: AtomicUsize::new(0),
        kills: scale.of(500, 24),
        counts: std::sync::Mutex::default(),
        slowest: std::sync::Mutex::default(),
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_A_TIME {
        workers.spawn(kill_again_and_again(plot.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("a worker");
    }
    verdict(&plot, grace)
}

async fn kill_again_and_again(plot: Arc<Plot>) {
    let survivors = [plot.fleet.world.proxy.address, plot.fleet.others[0].address];
    let mut ticket = ticket(&plot.fleet.world.logged_in().await);
    loop {
        let turn = plot.next.fetch_add(1, Ordering::SeqCst);
        if turn >= plot.kills {
            return;
        }
        let kinds = POINTS.len() + 1;
        let (name, order) = match POINTS.get(turn % kinds) {
            Some(point) => ((*point).to_owned(), (*point).to_owned()),
            None => ("random".to_owned(), format!("refresh::after_intent+{}", 1 + dice(RANDOM))),
        };
        let (mut victim, address) = start_victim(&plot, &order).await;
        tokio::time::sleep(LIFE + Duration::from_millis(100)).await;
        let _ = get(&plot.client, address, &ticket).await;
        let died = wait_for_end(&mut victim).await;
        drop(victim);
        let begun = Instant::now();
        let served = is_served(&plot, survivors, &ticket).await;
        let mut count = Count { kills: usize::from(died), ..Count::default() };
        match served {
            Some(true) => {}
            Some(false) => count.lost += 1,
            None => count.stuck += 1,
        }
        if served == Some(true) {
            let mut slowest = plot.slowest.lock().unwrap();
            *slowest = begun.elapsed().max(*slowest);
        } else {
            ticket = crate::kit::ticket(&plot.fleet.world.logged_in().await);
        }
        let mut counts = plot.counts.lock().unwrap();
        let sum = counts.entry(name).or_default();
        *sum = Count { kills: sum.kills + count.kills, lost: sum.lost + count.lost, stuck: sum.stuck + count.stuck };
        if turn % 50 == 49 {
            progress(&format!("{} kills", turn + 1));
        }
    }
}

/// A third replica, a process of its own, that dies on order.
async fn start_victim(plot: &Plot, order: &str) -> (Process, SocketAddr) {
    let (address, admin) = (free_address(), free_address());
    let yaml = plot.fleet.world.yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
    let process = Process::start(
        &yaml,
        &[
            ("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("TEST_SECRET", demo::CLIENT_SECRET),
            ("CLOAKROOM_DIE_AT", order),
            ("RUST_LOG", "error"),
        ],
    );
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = plot.client.get(format!("http://{admin}/readyz?verbose")).send().await;
        let text = match answer {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        if text.contains("provider demo: ready") && text.contains("listeners: ready") && text.contains("store: ready") {
            return (process, address);
        }
        assert!(Instant::now() < until, "a replica does not start: {}", process.output());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for_end(victim: &mut Process) -> bool {
    let until = Instant::now() + secs(3);
    while !victim.has_ended() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// Whether the survivors serve the session again; `None` if they never say.
async fn is_served(plot: &Plot, survivors: [SocketAddr; 2], ticket: &str) -> Option<bool> {
    let until = Instant::now() + PATIENCE;
    for turn in 0.. {
        let got = get(&plot.client, survivors[turn % 2], ticket).await;
        match got.status {
            200 => return Some(true),
            401 => return Some(false),
            503 if Instant::now() < until => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => return None,
        }
    }
    None
}

fn verdict(plot: &Plot, grace: Duration) -> Row {
    let counts = plot.counts.lock().unwrap().clone();
    let sum = |of: fn(&Count) -> usize| counts.values().map(of).sum::<usize>();
    let (kills, lost, stuck) = (sum(|c| c.kills), sum(|c| c.lost), sum(|c| c.stuck));
    let inside: usize = counts.iter().filter(|(name, _)| is_inside(name)).map(|(_, count)| count.kills).sum();
    let outside_lost: usize = counts.iter().filter(|(name, _)| !is_inside(name)).map(|(_, count)| count.lost).sum();
    let by_point: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{} {}/{}", name.trim_start_matches("refresh::"), count.lost, count.kills))
        .collect();
    let slowest = plot.slowest.lock().unwrap().as_secs_f64();
    let forgiving = !grace.is_zero();
    Row {
        run: "crash",
        done: format!(
            "{kills} kills of a replica at {} points of a refresh; provider {}",
            counts.len(),
            if forgiving { format!("forgives {} s", grace.as_secs()) } else { "punishes at once".to_owned() }
        ),
        criterion: if forgiving {
            "0 lost".to_owned()
        } else {
            "lost only where the token may have been shown, at most as many as kills there".to_owned()
        },
        measured: format!(
            "{lost} lost, {stuck} without answer; lost/kills: {}; served again after at most {slowest:.1} s",
            by_point.join(", ")
        ),
        passed: kills >= plot.kills * 9 / 10
            && stuck == 0
            && if forgiving { lost == 0 } else { outside_lost == 0 && lost <= inside },
    }
    .tell()
}

fn is_inside(point: &str) -> bool {
    point == "random" || WINDOW.contains(&point)
}
