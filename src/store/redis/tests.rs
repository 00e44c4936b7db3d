//! The conformance suite and the outages, on a real `redis-server` each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::primitives::secret::SecretText;
use crate::store::conformance::{self, fresh_key, record};

#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;
use redis_server::{RedisServer, free_port};

const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);

/// What a busy machine may add to a bound; usual are 10 ms.
const SLACK: Duration = Duration::from_millis(500);

/// A Redis that returns is to be found within this time; usual are 10 to 400 ms.
const RECOVERY: Duration = Duration::from_secs(1);

/// A refusal while Redis is known to be away; behaviour D1 allows 250 ms.
const AT_ONCE: Duration = Duration::from_millis(250);

conformance::suite!(async {
    let server = RedisServer::start();
    // Redis expires keys by its own clock, so ours begins there.
    let clock = Clock::manual(Clock::system().now());
    (store(&server.url(), clock.clone()), clock, server)
});

fn store(url: &str, clock: Clock) -> RedisStore {
    let settings = settings::RedisStore {
        url: SecretText::new(url.to_owned()),
        prefix: "cloakroom:".to_owned(),
        command_timeout: COMMAND_TIMEOUT,
    };
    RedisStore::new(&settings, clock).unwrap()
}

/// The outcome of one load, and how long it took.
async fn timed_load(store: &RedisStore, key: &SessionKey) -> (Result<Option<Record>, StoreError>, Duration) {
    let begun = Instant::now();
    (store.load(key).await, begun.elapsed())
}

fn assert_unavailable(outcome: (Result<Option<Record>, StoreError>, Duration), within: Duration) {
    let (result, took) = outcome;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(took <= within, "took {took:?}, allowed {within:?}");
}

/// Asks until it answers, and tells how long that took.
async fn time_to_recover(store: &RedisStore) -> Duration {
    let begun = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// Asks until it refuses at once, as it must when the outage is known.
async fn until_known_down(store: &RedisStore, key: &SessionKey) {
    let begun = Instant::now();
    loop {
        let (result, took) = timed_load(store, key).await;
        if result.is_err() && took < Duration::from_millis(20) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "never known to be down");
    }
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_accepts_and_closes_is_no_redis() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", free_port())).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let store = store(&url, Clock::system());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_unavailable(timed_load(&store, &fresh_key()).await, AT_ONCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let accepted = accepted.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=10).contains(&accepted), "{accepted} attempts in a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_without_showing_it() {
    let server = RedisServer::start_with(&["--requirepass", "correct-horse"]);
    let url = |password: &str| format!("redis://:{password}@{}", server.address());
    store(&url("correct-horse"), Clock::system()).ping().await.unwrap();
    let error = store(&url("hunter2"), Clock::system()).ping().await.unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("hunter2"), "{error}");
    let error = store(&server.url(), Clock::system()).ping().await.unwrap_err().to_string();
    assert!(error.contains("NOAUTH"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k5_an_evicting_redis_is_warned_of() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    assert_eq!(store.warnings().await, Vec::<String>::new());
    server.raw("CONFIG SET maxmemory-policy allkeys-lru");
    let warnings = store.warnings().await;
    assert!(warnings.len() == 1 && warnings[0].contains("allkeys-lru"), "{warnings:?}");
    server.raw("ACL SETUSER default -info");
    assert!(store.warnings().await[0].contains("could not learn"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k5_redis_itself_drops_what_has_ended() {
    let server = RedisServer::start();
    let clock = Clock::system();
    let store = store(&server.url(), clock.clone());
    let (ended, short) = (fresh_key(), fresh_key());
    let soon = clock.now().plus(Duration::from_millis(300));
    store.create(&ended, &Record { idle_end: clock.now(), ..record(clock.now()) }).await.unwrap();
    store.create(&short, &Record { absolute_end: soon, ..record(clock.now()) }).await.unwrap();
    let login = LoginKey { browser: [1; 32], state: [2; 32] };
    store.put_login(&login, b"login", soon).await.unwrap();
    // The session, two sets of its owners, the login.
    assert!(server.raw("DBSIZE").starts_with(b":4\r\n"), "{:?}", server.raw("KEYS *"));
    // A touch may lengthen, a swap may shorten; both carry the expiry with them.
    let touch = Touch {
        key: short,
        last_seen: clock.now(),
        idle_end: clock.now().plus(Duration::from_secs(9999)),
        returning_end: clock.now(),
    };
    store.touch(&[touch]).await.unwrap();
    let begun = Instant::now();
    while !server.raw("DBSIZE").starts_with(b":0\r\n") {
        assert!(begun.elapsed() < Duration::from_secs(5), "a key without expiry is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_login_leaves_nothing() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let login = LoginKey { browser: [1; 32], state: [2; 32] };
    store.put_login(&login, b"login", Clock::system().now().plus(Duration::from_secs(60))).await.unwrap();
    store.take_login(&login).await.unwrap().unwrap();
    assert!(server.raw("DBSIZE").starts_with(b":0\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_record_is_damage_and_a_foreign_type_an_error() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let (partial, text) = (fresh_key(), fresh_key());
    server.raw(&format!("HSET {} v 1\r\nSET {} x", store.keys.session(&partial), store.keys.session(&text)));
    assert!(matches!(store.load(&partial).await, Err(StoreError::Damaged(_))));
    assert!(matches!(store.load(&text).await, Err(StoreError::Damaged(_))));
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_no_secret_can_be_read_in_redis() {
    use crate::config::settings::SealingKey;
    use crate::primitives::secret::Key256;
    use crate::session::key_ring::KeyRing;
    use crate::session::model::Secrets;
    use crate::session::seal::{Context, Purpose};
    use crate::session::ticket::TicketSeed;

    let canary = |name: &str| SecretText::new(format!("CANARY-{name}"));
    let secrets = Secrets {
        access_token: canary("access"),
        access_issued: crate::primitives::clock::Timestamp::from_secs(1),
        access_expires: None,
        refresh_token: Some(canary("refresh")),
        refresh_expires: None,
        offline: false,
        id_token: Some(canary("id")),
        claims: serde_json::Map::from_iter([("email".to_owned(), "CANARY-claim".into())]),
        csrf_token: canary("csrf"),
        tickets: TicketSeed::generate().unwrap(),
    };
    let ring = KeyRing::new(&[SealingKey { id: "2026-11".into(), secret: Key256::new([9; 32]) }]).unwrap();
    let server = RedisServer::start();
    let clock = Clock::system();
    let store = store(&server.url(), clock.clone());

    let id = secrets.tickets.ticket(0);
    let key = id.key();
    let context = Context {
        purpose: Purpose::Session,
        key: key.as_bytes(),
        provider: "keycloak",
        owner: [b"app", b"alice"],
        generation: 1,
    };
    let sealed = ring.seal(&context, &secrets.to_plaintext().unwrap()).unwrap();
    store.create(&key, &Record { sealed: sealed.clone(), ..record(clock.now()) }).await.unwrap();
    let login = LoginKey { browser: *key.as_bytes(), state: [2; 32] };
    let context = Context { purpose: Purpose::Login, ..context };
    let sealed_login = ring.seal(&context, b"CANARY-verifier").unwrap();
    store.put_login(&login, &sealed_login, clock.now().plus(Duration::from_secs(60))).await.unwrap();

    let (session, browser) = (store.keys.session(&key), store.keys.browser(&login));
    let dump = server.raw(&format!("KEYS *\r\nHGETALL {session}\r\nHGETALL {browser}"));
    let contains = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    assert!(contains(&sealed) && contains(&sealed_login), "the dump shows all there is");
    assert!(!contains(b"CANARY"));
    assert!(!contains(id.expose().as_bytes()), "the cookie's value is not in the store");
}
