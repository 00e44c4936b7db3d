//! How long new tokens exist nowhere but in one replica's memory: from the provider's answer to the store's word.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::Wishes;
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Scale, client, get, percentile};

/// Criterion of F14.
const BOUND: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Watch {
    open: HashMap<tokio::task::Id, Instant>,
    lengths: Vec<Duration>,
}

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let redis = RedisServer::start();
    let fleet = Fleet::start(Wishes { session: STEADY_TICKET.into(), ..ticking_on(&redis) }).await;
    let watch = Arc::new(Mutex::new(Watch::default()));
    let (answer, stored) = (watch.clone(), watch.clone());
    fail::cfg_callback("refresh::after_answer", move || {
        let Some(task) = tokio::task::try_id() else { return };
        answer.lock().unwrap().open.insert(task, Instant::now());
    })
    .expect("a fail point");
    fail::cfg_callback("refresh::after_store", move || {
        let (Some(task), now) = (tokio::task::try_id(), Instant::now()) else { return };
        let mut watch = stored.lock().unwrap();
        if let Some(begun) = watch.open.remove(&task) {
            watch.lengths.push(now - begun);
        }
    })
    .expect("a fail point");

    let mut rows = Vec::new();
    for at_a_time in [1, 32] {
        let tickets = fleet.log_in(32).await;
        let client = client();
        let rounds = scale.of(2_000 / 32, 8);
        for _ in 0..rounds {
            fleet.world.clock.advance(OVER);
            for some in tickets.chunks(at_a_time) {
                let calls = some.iter().map(|ticket| get(&client, fleet.world.proxy.address, ticket));
                assert!(futures::future::join_all(calls).await.iter().all(|got| got.status == 200));
            }
        }
        let mut lengths = std::mem::take(&mut watch.lock().unwrap().lengths);
        let (half, most) = (percentile(&mut lengths, 50.0), percentile(&mut lengths, 99.0));
        rows.push(
            Row {
                run: "window",
                done: format!("{} refreshes, {at_a_time} at a time; Redis on the same machine", lengths.len()),
                criterion: if at_a_time == 1 { "p99 ≤ 5 ms" } else { "published" }.to_owned(),
                measured: format!(
                    "from answer to stored: p50 {:.2} ms, p99 {:.2} ms",
                    half.as_secs_f64() * 1e3,
                    most.as_secs_f64() * 1e3
                ),
                passed: lengths.len() >= rounds * 32 && (at_a_time > 1 || most <= BOUND),
            }
            .tell(),
        );
    }
    fail::remove("refresh::after_answer");
    fail::remove("refresh::after_store");
    rows
}
