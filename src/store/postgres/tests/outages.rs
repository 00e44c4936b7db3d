//! F1 and F3: a server that is killed, frozen, or loses single connections.

use tokio::sync::broadcast::Receiver;

use super::*;

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_millis(500);

/// A refusal while PostgreSQL is known to be away; behaviour D1 allows 250 ms.
const AT_ONCE: Duration = Duration::from_millis(250);

/// A PostgreSQL that returns is to be found within this time; usual are 10 to 400 ms.
const RECOVERY: Duration = Duration::from_secs(2);

async fn refusal(store: &PostgresStore, within: Duration) -> Duration {
    let begun = Instant::now();
    let result = store.load(&fresh_key()).await;
    let took = begun.elapsed();
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(took <= within, "took {took:?}, allowed {within:?}");
    took
}

async fn until_missed(changes: &mut Receiver<Change>) -> Duration {
    let begun = Instant::now();
    let missed = async { while changes.recv().await.unwrap() != Change::Missed {} };
    tokio::time::timeout(Duration::from_secs(15), missed).await.expect("it says that changes may have been missed");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_postgres_that_is_down_at_start_is_told_at_once_and_found_when_it_comes() {
    let mut server = PostgresServer::start();
    server.kill();
    let store = impatient(&server);
    for _ in 0..5 {
        refusal(&store, AT_ONCE).await;
    }
    server.restart();
    let took = time_to_recover(&store).await;
    println!("recovered after a late start: {took:?}");
    assert!(took < RECOVERY, "{took:?}");
}

/// Writers write while the server is killed and started again: whatever was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_restart_under_load_loses_no_acknowledged_session() {
    let mut server = PostgresServer::start();
    let store = Arc::new(impatient(&server));
    time_to_recover(&store).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut acknowledged, mut refused) = (Vec::new(), 0_u32);
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let (key, first) = (fresh_key(), record(Clock::system().now()));
                    if store.create(&key, &first).await.is_err() {
                        refused += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    let next = Record { version: 2, ..first };
                    let swap = store.replace(&key, 1, &next, Announce::Everyone).await;
                    acknowledged.push((key, if matches!(swap, Ok(Swap::Stored)) { 2 } else { 1 }));
                }
                (acknowledged, refused)
            })
        })
        .collect();
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        for _ in 0..5 {
            refusal(&store, AT_ONCE + SLACK).await;
        }
        server.restart();
        let took = time_to_recover(&store).await;
        println!("round {round}: recovered {took:?} after the server was ready");
        assert!(took < RECOVERY, "{took:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (mut sessions, mut refusals) = (0, 0);
    for writer in writers {
        let (acknowledged, refused) = writer.await.unwrap();
        refusals += refused;
        for (key, version) in acknowledged {
            let found = store.load(&key).await.unwrap().expect("an acknowledged session is there");
            assert!(found.version >= version);
            sessions += 1;
        }
    }
    println!("{sessions} sessions acknowledged, {refusals} refused, 0 lost");
    assert!(sessions > 100 && refusals > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_frozen_postgres_is_found_out_within_one_timeout_and_loses_nothing() {
    let server = PostgresServer::start();
    let store = Arc::new(impatient(&server));
    let key = fresh_key();
    let record = record(Clock::system().now());
    time_to_recover(&store).await;
    store.create(&key, &record).await.unwrap();
    let mut changes = store.changes();
    server.freeze();
    // A crowd waits no longer than one.
    let crowd = (0..2_000).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { refusal(&store, COMMAND_TIMEOUT + SLACK * 2).await })
    });
    let longest = futures::future::join_all(crowd).await.into_iter().map(Result::unwrap).max();
    println!("the longest of 2,000 first refusals by a frozen server: {longest:?}");
    // The silence is known now.
    for n in 0..10 {
        println!("refusal {n} by a frozen server: {:?}", refusal(&store, AT_ONCE).await);
    }
    // The connection that listens is half open until its heartbeat fails.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.thaw();
    let took = time_to_recover(&store).await;
    println!("recovered after a freeze: {took:?}");
    assert!(took < RECOVERY, "{took:?}");
    assert_eq!(store.load(&key).await.unwrap().unwrap(), record);
    let took = until_missed(&mut changes).await;
    println!("listening again after {took:?}");
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_a_channel_that_was_cut_says_so_when_it_is_back() {
    // Its own, for the others' tests listen too.
    let server = PostgresServer::start();
    let store = store(settings(&server, "postgres", "cut"), &Clock::system());
    let mut changes = store.changes();
    until_missed(&mut changes).await;
    // A heartbeat is an empty query.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'cloakroom' AND (query LIKE 'LISTEN%' OR query = '')";
    for _ in 0..3 {
        assert_ne!(server.sql(cut), "0");
        let took = until_missed(&mut changes).await;
        println!("listening again after {took:?}");
        let key = fresh_key();
        store.create(&key, &record(Clock::system().now())).await.unwrap();
        store.delete(&key).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(5), async {
            while changes.recv().await.unwrap() != Change::Ended(key) {}
        });
        told.await.expect("and changes are told again");
    }
}

/// As after a failover in which the old primary lives on as a replica: commands look for another server, and the channel
/// must not stay behind, where it is answered and never told anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_who_listens_goes_along_with_the_commands_to_another_server() {
    let server = PostgresServer::start();
    let store = store(settings(&server, "postgres", "moved"), &Clock::system());
    let mut changes = store.changes();
    until_missed(&mut changes).await;
    time_to_recover(&store).await;
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    server.sql("SELECT pg_reload_conf()");
    let create = || async { store.create(&fresh_key(), &record(Clock::system().now())).await };
    let until = |works: bool| async move {
        let begun = Instant::now();
        while create().await.is_ok() != works {
            assert!(begun.elapsed() < Duration::from_secs(10), "wanted: {works}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(false).await;
    server.sql("ALTER SYSTEM RESET default_transaction_read_only");
    server.sql("SELECT pg_reload_conf()");
    until(true).await;
    let took = until_missed(&mut changes).await;
    println!("listening again after {took:?}");
    assert!(took < RECOVERY, "{took:?}");
}

/// An administrator, or a pooler, may end single connections at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_connections_that_end_are_replaced() {
    let server = PostgresServer::start();
    let store = impatient(&server);
    time_to_recover(&store).await;
    for _ in 0..3 {
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cloakroom'");
        let took = time_to_recover(&store).await;
        assert!(took < RECOVERY, "{took:?}");
    }
}

/// A statement that waits for a lock ends by itself, says so, and leaves connection and server in good repute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_a_statement_that_hangs_harms_no_other() {
    let server = shared();
    let settings = settings(server, "postgres", &server.fresh_schema());
    let schema = settings.schema.clone();
    let settings = settings::PostgresStore { command_timeout: COMMAND_TIMEOUT, connections: 4, ..settings };
    let store = Arc::new(store(settings, &Clock::system()));
    let (locked, free) = (fresh_key(), fresh_key());
    time_to_recover(&store).await;
    for key in [&locked, &free] {
        store.create(key, &record(Clock::system().now())).await.unwrap();
    }
    let hex: String = locked.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let blocker = std::thread::spawn(move || {
        shared().sql(&format!(
            "BEGIN; SELECT 1 FROM {schema}.sessions WHERE key = '\\x{hex}' FOR UPDATE; SELECT pg_sleep(2); COMMIT"
        ))
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let hanging = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.delete(&locked).await.map(drop) })
    };
    for _ in 0..20 {
        assert!(store.load(&free).await.unwrap().is_some(), "others go on meanwhile");
    }
    let error = hanging.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("no answer in time"), "{error}");
    assert!(begun.elapsed() < COMMAND_TIMEOUT + SLACK, "{:?}", begun.elapsed());
    store.load(&free).await.expect("the connection was not given up");
    blocker.join().unwrap();
    assert!(store.delete(&locked).await.unwrap().is_some());
}
