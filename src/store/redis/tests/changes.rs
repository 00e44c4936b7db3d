//! The connection that hears changes.

use tokio::sync::broadcast::Receiver;

use super::*;

/// Waits for the first change that is this one.
async fn hear(changes: &mut Receiver<Change>, wanted: Change) {
    let heard =
        tokio::time::timeout(Duration::from_secs(8), async { while changes.recv().await.unwrap() != wanted {} });
    assert!(heard.await.is_ok(), "not heard: {wanted:?}");
}

async fn end_one(store: &RedisStore) -> SessionKey {
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    store.delete(&key).await.unwrap().unwrap();
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_hear_of_an_end_and_listening_needs_no_command() {
    let server = RedisServer::start();
    let (here, there) = (store(&server.url(), Clock::system()), store(&server.url(), Clock::system()));
    let mut changes = there.changes();
    hear(&mut changes, Change::Missed).await;
    let begun = Instant::now();
    let key = end_one(&here).await;
    hear(&mut changes, Change::Ended(key)).await;
    println!("heard after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn changes_may_be_asked_for_before_there_is_a_runtime() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let mut changes = store.changes();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        store.ping().await.unwrap();
        hear(&mut changes, Change::Missed).await;
        let key = end_one(&store).await;
        hear(&mut changes, Change::Ended(key)).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_subscription_is_made_again_and_says_that_something_was_missed() {
    let mut server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let mut changes = store.changes();
    hear(&mut changes, Change::Missed).await;
    server.raw("CLIENT KILL TYPE pubsub");
    hear(&mut changes, Change::Missed).await;
    let key = end_one(&store).await;
    hear(&mut changes, Change::Ended(key)).await;

    server.kill();
    server.restart();
    hear(&mut changes, Change::Missed).await;
    time_to_recover(&store).await;
    let key = end_one(&store).await;
    hear(&mut changes, Change::Ended(key)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_subscription_is_found_out() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let mut changes = store.changes();
    hear(&mut changes, Change::Missed).await;
    // No command is sent, so that the subscription must find out by itself.
    server.freeze();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(changes.is_empty());
    server.thaw();
    hear(&mut changes, Change::Missed).await;
    let key = end_one(&store).await;
    hear(&mut changes, Change::Ended(key)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_means_that_something_changed() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let mut changes = store.changes();
    hear(&mut changes, Change::Missed).await;
    server.raw("PUBLISH cloakroom:changes x:1:2:3");
    hear(&mut changes, Change::Missed).await;
}
