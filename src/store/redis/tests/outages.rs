//! A server that is away, stuck, restarted or another than before.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_down_at_start_is_told_at_once_and_found_when_it_comes() {
    let mut server = RedisServer::start();
    server.kill();
    let store = store(&server.url(), Clock::system());
    let key = fresh_key();
    for _ in 0..5 {
        assert_unavailable(timed_load(&store, &key).await, AT_ONCE);
    }
    server.restart();
    let took = time_to_recover(&store).await;
    println!("recovered after a late start: {took:?}");
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_is_told_at_once_and_found_when_it_returns() {
    let mut server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    server.kill();
    for n in 0..10 {
        let outcome = timed_load(&store, &key).await;
        println!("refusal {n} after a crash: {:?}", outcome.1);
        assert_unavailable(outcome, AT_ONCE);
    }
    assert!(matches!(store.create(&key, &record(Clock::system().now())).await, Err(StoreError::Unavailable(_))));
    server.restart();
    let took = time_to_recover(&store).await;
    println!("recovered after a crash: {took:?}");
    assert!(took < RECOVERY, "{took:?}");
    // The new process knows neither sessions nor scripts.
    assert!(store.load(&key).await.unwrap().is_none());
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    assert!(store.delete(&key).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_is_found_out_within_one_timeout_and_loses_nothing() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let key = fresh_key();
    let record = record(Clock::system().now());
    store.create(&key, &record).await.unwrap();
    server.freeze();
    let outcome = timed_load(&store, &key).await;
    println!("first refusal by a frozen server: {:?}", outcome.1);
    assert_unavailable(outcome, COMMAND_TIMEOUT + SLACK);
    // The silence is known now: waiting is over for all who come after.
    for n in 0..10 {
        let outcome = timed_load(&store, &key).await;
        println!("refusal {n} by a frozen server: {:?}", outcome.1);
        assert_unavailable(outcome, AT_ONCE);
    }
    until_known_down(&store, &key).await;
    server.thaw();
    let took = time_to_recover(&store).await;
    println!("recovered after a freeze: {took:?}");
    assert!(took < RECOVERY, "{took:?}");
    assert_eq!(store.load(&key).await.unwrap().unwrap(), record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_before_a_frozen_redis_waits_no_longer_than_one() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server.url(), Clock::system()));
    store.ping().await.unwrap();
    server.freeze();
    // More bytes than the sockets hold, so that writing stalls too, and more commands than the buffer holds.
    let big = Record { sealed: vec![0; 4 * 1024], ..record(Clock::system().now()) };
    let crowd = (0..6_000).map(|_| {
        let (store, big) = (Arc::clone(&store), big.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            (store.create(&fresh_key(), &big).await, begun.elapsed())
        })
    });
    let results = futures::future::join_all(crowd).await;
    let longest = results.iter().map(|result| result.as_ref().unwrap().1).max().unwrap();
    println!("longest wait in a crowd of {}: {longest:?}", results.len());
    assert!(results.into_iter().all(|result| matches!(result.unwrap().0, Err(StoreError::Unavailable(_)))));
    // Far above the timeout, for six thousand tasks keep a busy machine busy; were one to wait for another, or all for
    // the write that stalls, it would not be enough.
    assert!(longest < COMMAND_TIMEOUT * 6, "{longest:?}");
    server.thaw();
    assert!(time_to_recover(&store).await < RECOVERY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_connection_is_made_again_unseen() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    for _ in 0..3 {
        server.raw("CLIENT KILL TYPE normal SKIPME yes");
        // The command that was on its way may fail; none that comes a moment later does.
        assert!(time_to_recover(&store).await < RECOVERY);
        assert!(store.load(&key).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_left_for_another() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let record = record(Clock::system().now());
    store.create(&fresh_key(), &record).await.unwrap();
    let connections = || {
        let stats = String::from_utf8(server.raw("INFO stats")).unwrap();
        let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        count.parse::<usize>().unwrap()
    };
    let before = connections();
    server.raw(&format!("REPLICAOF 127.0.0.1 {}\r\nCONFIG SET replica-serve-stale-data yes", free_port()));
    let error = store.create(&fresh_key(), &record).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("READONLY")), "{error}");
    server.raw("REPLICAOF NO ONE");
    assert!(time_to_recover(&store).await < RECOVERY);
    store.create(&fresh_key(), &record).await.unwrap();
    assert!(connections() > before + 3, "two of ours, the rest is the new connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_sent_again_to_a_server_that_forgot_them() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    server.raw("SCRIPT FLUSH");
    assert!(store.delete(&key).await.unwrap().is_some());
}

#[test]
fn a_store_outlives_the_runtime_that_first_used_it() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(store.ping()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_store_closes_its_connection() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    store.ping().await.unwrap();
    let clients = || server.raw("INFO clients").windows(20).any(|text| text == b"connected_clients:1\r");
    assert!(!clients(), "ours and the one that asks");
    drop(store);
    let begun = Instant::now();
    while !clients() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the connection is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
