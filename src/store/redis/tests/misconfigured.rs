//! Each mistake is said by name, with the next step and without the password.

use super::*;

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
async fn a_full_redis_is_said_and_goes_on_reading_and_ending() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let key = fresh_key();
    let first = record(Clock::system().now());
    store.create(&key, &first).await.unwrap();
    server.raw("CONFIG SET maxmemory 1");
    let says_so = |error: StoreError| {
        let text = error.to_string();
        assert!(
            matches!(error, StoreError::Unavailable(_)) && text.contains("(OOM)") && text.contains("maxmemory"),
            "{text}"
        );
    };
    says_so(store.ping().await.unwrap_err());
    says_so(store.create(&fresh_key(), &first).await.unwrap_err());
    let next = Record { version: 2, sealed: b"next".to_vec(), ..first.clone() };
    says_so(store.replace(&key, 1, &next, Announce::Everyone).await.unwrap_err());
    let mark = MarkKey([1; 32]);
    says_so(store.mark(&mark, first.created, first.absolute_end).await.unwrap_err());
    // No write was done by halves: the session is the one it was, and can be ended.
    assert_eq!(store.load(&key).await.unwrap().unwrap(), first);
    assert_eq!(store.delete(&key).await.unwrap().unwrap(), first);
    assert!(server.ask("DBSIZE").starts_with(":0\r\n"), "{}", server.ask("KEYS *"));
    server.raw("CONFIG SET maxmemory 0");
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_replica_is_said() {
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let server = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let error = store(&server.url(), Clock::system()).ping().await.unwrap_err().to_string();
    assert!(error.contains("READONLY") && error.contains("primary"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_host_and_a_closed_port_are_said() {
    for (url, says) in [
        ("redis://no-such-host.invalid".to_owned(), "check its name"),
        (format!("redis://127.0.0.1:{}", free_port()), "nothing listens"),
        (format!("redis-cluster://127.0.0.1:{}", free_port()), "nothing listens"),
    ] {
        let store = store_with(&url, Clock::system(), "x:", Duration::from_secs(5));
        let error = store.ping().await.unwrap_err().to_string();
        assert!(error.contains(says), "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_is_no_redis() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let store = store_with(&url, Clock::system(), "x:", Duration::from_secs(5));
    let error = store.ping().await.unwrap_err().to_string();
    assert!(error.contains("speaks no Redis"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_of_the_documentation_are_enough_and_each_is_missed() {
    let server = RedisServer::start();
    let text = include_str!("../../../../docs/how-to/redis.md");
    let rule = text.lines().find(|line| line.starts_with("ACL SETUSER cloakroom")).unwrap().replace("…", "secret");
    assert!(server.ask(&rule).starts_with("+OK"), "{}", server.ask(&rule));
    let url = format!("redis://cloakroom:secret@{}", server.address());
    let clock = Clock::system();
    let store = Arc::new(store(&url, clock.clone()));
    store.ping().await.unwrap();
    assert_eq!(store.warnings().await, Vec::<String>::new());
    let mut changes = store.changes();
    while tokio::time::timeout(Duration::from_secs(5), changes.recv()).await.unwrap().unwrap() != Change::Missed {}
    for _ in 0..40 {
        let key = fresh_key();
        store.create(&key, &record(clock.now())).await.unwrap();
    }
    conformance::owners::all_sessions_of_an_owner_end_at_once(Arc::clone(&store), clock.clone()).await;
    conformance::logins::a_login_is_taken_once(Arc::clone(&store), clock.clone()).await;
    assert!(store.census().await.unwrap()["test"] >= 40);
    store.marked(&MarkKey([1; 32])).await.unwrap();

    for right in [
        "-hset",
        "-zadd",
        "-zrem",
        "-sadd",
        "-srem",
        "-set",
        "-pexpireat",
        "-publish",
        "resetchannels",
        "-evalsha -eval",
        "resetkeys",
    ] {
        server.raw(&format!("ACL SETUSER cloakroom {right}"));
        let error = store.ping().await.unwrap_err().to_string();
        assert!(error.contains("lacks a right"), "without {right}: {error}");
        server.raw(&rule);
        store.ping().await.unwrap();
    }
}
