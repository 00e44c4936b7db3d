//! A primary that the Sentinels name, and its end.

use std::sync::Mutex;
use std::sync::Weak;

use super::redis_group::{Watched, shared, until};
use super::*;

static WATCHED: Mutex<Weak<Watched>> = Mutex::new(Weak::new());

conformance::suite!(async {
    let watched = shared(&WATCHED, Watched::start);
    let clock = Clock::manual(Clock::system().now());
    (store_apart(&watched.url(), clock.clone()), clock, watched)
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_a_failover_under_load_loses_nothing_that_was_acknowledged_and_revives_nothing() {
    let mut watched = Watched::start();
    let store = Arc::new(store(&watched.url(), Clock::system()));
    let ended = fresh_key();
    store.create(&ended, &record(Clock::system().now())).await.unwrap();
    store.delete(&ended).await.unwrap().unwrap();
    let mut changes = store.changes();

    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let key = fresh_key();
                    if store.create(&key, &record(Clock::system().now())).await.is_ok() {
                        acknowledged.push((key, Instant::now()));
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    watched.servers[0].kill();
    let killed = Instant::now();
    let key = fresh_key();
    while store.create(&key, &record(Clock::system().now())).await.is_err() {
        assert!(killed.elapsed() < Duration::from_secs(20), "no failover");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("writes go on {:?} after the kill", killed.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The old primary returns, with nothing or with old data: it is made a replica, and nobody asks it.
    watched.servers[0].restart();
    until("the old primary follows", || watched.servers[0].ask("INFO replication").contains("role:slave"));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut lost = Vec::new();
    let mut kept = 0;
    for writer in writers {
        for (key, at) in writer.await.unwrap() {
            match store.load(&key).await.unwrap() {
                Some(_) => kept += 1,
                None => lost.push(killed.saturating_duration_since(at)),
            }
        }
    }
    println!("{kept} kept, lost before the kill by: {lost:?}");
    assert!(kept > 100);
    // Replication is asynchronous: what was acknowledged in the very last moment may not have left the old primary.
    assert!(lost.iter().all(|before| *before < Duration::from_millis(50)), "{lost:?}");
    assert!(store.load(&ended).await.unwrap().is_none());
    // Whoever listens knows that something may have gone unheard, twice: at first and after the failover.
    let mut missed = 0;
    while let Ok(change) = changes.try_recv() {
        missed += usize::from(change == Change::Missed);
    }
    assert!(missed >= 2, "{missed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_is_left_for_the_one_that_was_elected() {
    let watched = Watched::start();
    let store = store(&watched.url(), Clock::system());
    store.ping().await.unwrap();
    watched.servers[0].freeze();
    let frozen = Instant::now();
    until("another is elected", || watched.servers[1].ask("INFO replication").contains("role:master"));
    let took = time_to_recover(&store).await;
    println!("elected after {:?}, found {took:?} later", frozen.elapsed() - took);
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    watched.servers[0].thaw();
    until("the old primary follows", || watched.servers[0].ask("INFO replication").contains("role:slave"));
    assert!(store.load(&key).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_that_is_behind_pulls_nobody_off_the_right_primary() {
    let mut watched = Watched::start();
    let (old, new) = (watched.servers[0].port(), watched.servers[1].port());
    watched.kill_sentinel(0);
    watched.servers[0].kill();
    until("the others have elected", || [1, 2].iter().all(|n| watched.named_by(*n) == Some(new)));
    let store = store(&watched.url(), Clock::system());
    time_to_recover(&store).await;
    watched.servers[0].restart();
    until("the old primary follows", || watched.servers[0].ask("INFO replication").contains("role:slave"));
    // The one that knows nothing of it is alone.
    watched.signal_sentinel(1, "-STOP");
    watched.signal_sentinel(2, "-STOP");
    watched.restart_sentinel(0);
    until("the other is behind", || watched.named_by(0) == Some(old));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        store.ping().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(watched.named_by(0), Some(old), "it has heard of the election: nothing was tried");
    for n in [1, 2] {
        watched.signal_sentinel(n, "-CONT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_sentinels_do_not_know_is_said() {
    let watched = shared(&WATCHED, Watched::start);
    let error = store(&watched.url().replace("=main", "=other"), Clock::system()).ping().await.unwrap_err().to_string();
    assert!(error.contains("`sentinelServiceName`"), "{error}");
}
