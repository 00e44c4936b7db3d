//! What lies in Redis, and for how long.

use super::*;

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
async fn o6_one_record_that_cannot_be_read_hides_no_other() {
    let server = RedisServer::start();
    let store = store(&server.url(), Clock::system());
    let owner = Owner::Subject { provider: "keycloak", subject: "alice" };
    for damage in ["HDEL KEY sealed", "HDEL KEY meta", "HSET KEY meta {}"] {
        let keys = [fresh_key(), fresh_key(), fresh_key()];
        for key in &keys {
            store.create(key, &record(Clock::system().now())).await.unwrap();
        }
        server.raw(&damage.replace("KEY", &store.keys.session(&keys[1])));
        let mut found: Vec<_> = store.find(&owner).await.unwrap().into_iter().map(|(key, _)| key).collect();
        found.sort_unstable();
        let mut readable = vec![keys[0], keys[2]];
        readable.sort_unstable();
        assert_eq!(found, readable, "{damage}");
        server.raw("FLUSHALL");
    }
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
        bound: false,
        access_issued: crate::primitives::clock::Timestamp::from_secs(1),
        access_expires: None,
        forced: None,
        max_age: None,
        refresh_token: Some(canary("refresh")),
        refresh_expires: None,
        offline: false,
        id_token: Some(canary("id")),
        claims: serde_json::Map::from_iter([("email".to_owned(), "CANARY-claim".into())]),
        context: serde_json::Map::new(),
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

/// Prints the figures of `docs/how-to/redis.md`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it with --ignored --nocapture"]
async fn how_much_memory_sessions_take() {
    let server = RedisServer::start();
    let store = Arc::new(store_with(&server.url(), Clock::system(), "cloakroom:", Duration::from_secs(5)));
    let used = || {
        let info = server.ask("INFO memory");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    store.ping().await.unwrap();
    let (empty, mut there) = (used(), 0_usize);
    for wanted in [10_000, 100_000] {
        while there < wanted {
            let some = (there..there + 500).map(|n| {
                let store = Arc::clone(&store);
                async move {
                    let now = Clock::system().now();
                    let record = Record {
                        subject: format!("f7d5d1c4-8d3f-4c55-9a51-{n:012x}"),
                        provider_session: Some(format!("0c1d7a9e-51f0-43c5-8a1d-{n:012x}")),
                        due: Some(now.plus(Duration::from_secs(240))),
                        sealed: vec![0x5a; 2048],
                        ..record(now)
                    };
                    store.create(&fresh_key(), &record).await.unwrap();
                }
            });
            futures::future::join_all(some).await;
            there += 500;
        }
        println!("{there} sessions: {} bytes each", (used() - empty) / there);
    }
}

/// Sets of owners lose their dead members when others come into them, and when they are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_sessions_leave_the_sets_of_their_owners() {
    let server = RedisServer::start();
    let clock = Clock::system();
    let store = store(&server.url(), clock.clone());
    let in_one_partition = || {
        let mut bytes: [u8; 32] = crate::primitives::random::bytes().unwrap();
        bytes[0] = 0;
        SessionKey::from_bytes(bytes)
    };
    let set = store.keys.owner(0, &OwnerName::of(&record(clock.now()))[0]);
    let size = || server.ask(&format!("SCARD {set}"))[1..].lines().next().unwrap().parse::<usize>().unwrap();
    for _ in 0..100 {
        let key = in_one_partition();
        store.create(&key, &record(clock.now())).await.unwrap();
        // As if Redis had expired it.
        server.raw(&format!("DEL {}", store.keys.session(&key)));
    }
    println!("{} of 100 dead sessions are still named", size());
    assert!(size() <= 20, "{}", size());
    let (alive, foreign) = (in_one_partition(), in_one_partition());
    store.create(&alive, &record(clock.now())).await.unwrap();
    store.create(&foreign, &record(clock.now())).await.unwrap();
    store.create(&foreign, &Record { subject: "bob".to_owned(), ..record(clock.now()) }).await.unwrap();
    let owner = Owner::Subject { provider: "keycloak", subject: "alice" };
    assert_eq!(store.find(&owner).await.unwrap().len(), 1);
    assert_eq!(size(), 1, "looking at them strikes off the dead, and those of somebody else");
}

/// Touches move a session far beyond the end that its indexes were made for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_live_as_long_as_their_sessions() {
    let server = RedisServer::start();
    let clock = Clock::manual(Clock::system().now());
    let store = store(&server.url(), clock.clone());
    let key = fresh_key();
    let long = Record { absolute_end: clock.now().plus(Duration::from_secs(400 * 3600)), ..record(clock.now()) };
    store.create(&key, &Record { due: Some(clock.now()), ..long }).await.unwrap();
    let sets = store.keys.whole(&key, &OwnerName::of(&record(clock.now())));
    for hours in 1..100 {
        let idle_end = clock.now().plus(Duration::from_secs(hours * 3600));
        store
            .touch(&[Touch { key, last_seen: clock.now(), idle_end, returning_end: Timestamp::default() }])
            .await
            .unwrap();
        for set in &sets[1..] {
            let answer = server.ask(&format!("PTTL {}\r\nPTTL {set}", sets[0]));
            let ends: Vec<i64> =
                answer.lines().filter_map(|line| line.strip_prefix(':')).map(|n| n.parse().unwrap()).collect();
            // The second question is a little later than the first.
            assert!(ends[0] > 0 && ends[1] + 1_000 >= ends[0], "{set} after {hours} h: {ends:?}");
        }
    }
    let owner = Owner::ProviderSession { provider: "keycloak", sid: "provider-session" };
    assert_eq!(store.find(&owner).await.unwrap().len(), 1);
}
