//! A cluster of three nodes.

use std::sync::Mutex;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use super::redis_group::{Cluster, shared, until};
use super::*;
use crate::store::redis::slots::slot;

static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

conformance::suite!(async {
    let cluster = shared(&CLUSTER, Cluster::start);
    let clock = Clock::manual(Clock::system().now());
    (store_apart(&cluster.url(), clock.clone()), clock, cluster)
});

/// The node that has a partition, by thirds of the slots.
fn home(partition: u8) -> usize {
    match slot(format!("{partition:02}").as_bytes()) {
        0..=5460 => 0,
        5461..=10922 => 1,
        _ => 2,
    }
}

fn key_in(partition: u8) -> SessionKey {
    let mut bytes: [u8; 32] = crate::primitives::random::bytes().unwrap();
    bytes[0] = partition;
    SessionKey::from_bytes(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_spread_over_the_nodes() {
    let cluster = Cluster::start();
    let store = store(&cluster.url(), Clock::system());
    time_to_recover(&store).await;
    for partition in 0..64 {
        store.create(&key_in(partition), &record(Clock::system().now())).await.unwrap();
    }
    for node in &cluster.nodes {
        let text = node.ask("DBSIZE");
        let keys: usize = text.trim_start_matches(':').lines().next().unwrap().parse().unwrap();
        assert!(keys > 20, "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_takes_only_its_part_with_it() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.raw("CONFIG SET cluster-require-full-coverage no");
    }
    let store = store(&cluster.url(), Clock::system());
    time_to_recover(&store).await;
    let keys: Vec<_> = (0..64).map(|partition| (partition, key_in(partition))).collect();
    for (_, key) in &keys {
        store.create(key, &record(Clock::system().now())).await.unwrap();
    }
    cluster.nodes[1].kill();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        for (partition, key) in &keys {
            let outcome = timed_load(&store, key).await;
            if home(*partition) == 1 {
                assert_unavailable(outcome, AT_ONCE);
            } else {
                assert!(outcome.0.unwrap().is_some());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_a_slot_that_moves_under_load_loses_nothing_and_mixes_nothing_up() {
    let cluster = Cluster::start();
    let store = Arc::new(store_with(&cluster.url(), Clock::system(), "cloakroom:", Duration::from_secs(2)));
    time_to_recover(&store).await;
    let partition = (0..64).find(|partition| home(*partition) == 0).unwrap();
    let slot = slot(format!("{partition:02}").as_bytes());
    let keys: Arc<Vec<_>> = Arc::new((0..200).map(|_| key_in(partition)).collect());
    for (n, key) in keys.iter().enumerate() {
        let sealed = n.to_string().into_bytes();
        store.create(key, &Record { sealed, ..record(Clock::system().now()) }).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (store, keys, stop) = (Arc::clone(&store), Arc::clone(&keys), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut loads, mut failures) = (0_usize, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let n = (loads * 7 + reader) % keys.len();
                    match store.load(&keys[n]).await {
                        Ok(found) => assert_eq!(found.unwrap().sealed, n.to_string().into_bytes(), "its own session"),
                        Err(error) => failures.push(error.to_string()),
                    }
                    loads += 1;
                }
                (loads, failures)
            })
        })
        .collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (source, target) = (cluster.id(from), cluster.id(to));
        cluster.nodes[to].raw(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        cluster.nodes[from].raw(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
        loop {
            let answer = cluster.nodes[from].ask(&format!("CLUSTER GETKEYSINSLOT {slot} 20"));
            let names: Vec<_> = answer.split("\r\n").filter(|line| line.starts_with("cloakroom:")).collect();
            if names.is_empty() {
                break;
            }
            let port = cluster.nodes[to].port();
            cluster.nodes[from].raw(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 5000 KEYS {}", names.join(" ")));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for node in &cluster.nodes {
            node.raw(&format!("CLUSTER SETSLOT {slot} NODE {target}"));
        }
        // Writes of the partition go on when all of it is there.
        until("the move is over", || {
            cluster.nodes[to].ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).starts_with(":2")
        });
        let key = key_in(partition);
        store.create(&key, &record(Clock::system().now())).await.unwrap();
        store.delete(&key).await.unwrap().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let (loads, failures) = reader.await.unwrap();
        println!("{loads} loads, {} failures: {:?}", failures.len(), failures.first());
        assert!(loads > 50 && failures.is_empty(), "{failures:?}");
    }
    for key in keys.iter() {
        assert!(store.load(key).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_and_a_single_server_are_not_taken_for_each_other() {
    let cluster = shared(&CLUSTER, Cluster::start);
    let store_at = |url: &str| store_with(url, Clock::system(), "x:", Duration::from_secs(2));
    let single = store_at(&cluster.url().replace("-cluster", ""));
    let mut errors = Vec::new();
    for _ in 0..20 {
        errors.extend(single.load(&fresh_key()).await.err().map(|error| error.to_string()));
    }
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains("`redis-cluster://`")), "{errors:?}");

    let server = RedisServer::start();
    let error = store_at(&server.url().replace("redis", "redis-cluster")).ping().await.unwrap_err().to_string();
    assert!(error.contains("`redis://`"), "{error}");
}
