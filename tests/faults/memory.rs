//! What a session costs in memory, as the operating system counts it. In a process of its own, which does nothing else.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use cloakroom::config::settings::{Cache, Refresh, SealingKey, Session};
use cloakroom::primitives::clock::Clock;
use cloakroom::primitives::secret::{Key256, SecretText};
use cloakroom::session::key_ring::KeyRing;
use cloakroom::session::manager::{NewSession, Sessions};
use cloakroom::session::model::Secrets;
use cloakroom::session::ticket::SessionId;
use cloakroom::store::SessionStore;
use cloakroom::store::memory::MemoryStore;
use cloakroom::telemetry::Metrics;

use crate::kit::secs;
use crate::report::Row;
use crate::seed;
use crate::yard::{Scale, resident};

const BUDGET: u64 = 4_096;
/// Sizes of the tokens; 2 KiB together.
const ACCESS: usize = 1_024;
const REFRESH: usize = 512;
const ID: usize = 512;

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let sessions = scale.of(1_000_000, 50_000);
    let child = tokio::task::spawn_blocking(move || {
        let program = std::env::current_exe().expect("this program");
        Command::new(program).args(["child", "memory", &sessions.to_string()]).output().expect("a process")
    });
    let text = String::from_utf8(child.await.expect("a task").stdout).expect("text");
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [stored, cached, cache_count] = numbers[..] else { panic!("the process did not say: {text}") };
    let row = |done: String, measured| Row {
        run: "memory",
        done,
        criterion: "≤ 4 KiB of resident memory each".to_owned(),
        measured: format!("{measured} bytes each"),
        passed: measured <= BUDGET && measured > 500,
    };
    vec![
        row(format!("{sessions} sessions with 2 KiB of tokens in the memory store"), stored).tell(),
        row(format!("{cache_count} of them in the local cache"), cached).tell(),
    ]
}

/// The work of that process: prints bytes a stored session, bytes a cached one, and how many were cached.
pub(crate) async fn measure(sessions: &str) -> ExitCode {
    let count: usize = sessions.parse().expect("a number");
    let cached = count / 5;
    let clock = Clock::system();
    let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::with_limits(clock.clone(), count * 2, 1_000, 1_000));
    let writer = manager(&store, &clock, 1);
    let profile = Arc::new(seed::profile("site"));
    let (now, mut tickets) = (clock.now(), Vec::with_capacity(cached));
    let before = resident("self");
    for session in 0..count {
        let secrets = Secrets {
            refresh_token: Some(SecretText::new(format!("{session:0width$}", width = REFRESH))),
            id_token: Some(SecretText::new(format!("{session:0width$}", width = ID))),
            ..seed::secrets(session, ACCESS, now, now.plus(secs(300)))
        };
        let new = NewSession {
            provider: "quick".into(),
            subject: format!("user-{session}"),
            provider_session: None,
            secrets,
        };
        let open = writer.begin(&new, &profile).await.expect("a session");
        if tickets.len() < cached {
            tickets.push(*open.id());
        }
    }
    let stored = (resident("self") - before) / count as u64;
    let reader = manager(&store, &clock, cached * 2);
    let before = resident("self");
    for ticket in &tickets {
        let ticket: &SessionId = ticket;
        assert!(reader.lookup(ticket, &profile).await.expect("the store").is_some());
    }
    let each = resident("self").saturating_sub(before) / cached as u64;
    println!("{stored} {each} {}", reader.cached().0);
    // The store is large, and nobody needs it back.
    ExitCode::SUCCESS
}

fn manager(store: &Arc<dyn SessionStore>, clock: &Clock, capacity: usize) -> Sessions {
    let key = SealingKey { id: "test".into(), secret: Key256::new([7; 32]) };
    let ring = KeyRing::new(std::slice::from_ref(&key)).expect("a key ring");
    let default = Session::default();
    let settings = Session { cache: Cache { ttl: secs(3600), capacity, memory: 8 << 30 }, ..default };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    Sessions::new(&settings, &Refresh::default(), store.clone(), ring, clock.clone(), metrics).0
}
