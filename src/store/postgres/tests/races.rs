//! Several replicas at once.

use std::collections::HashSet;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// So many replicas over the same tables.
fn replicas<const N: usize>(clock: &Clock) -> [Arc<PostgresStore>; N] {
    let schema = shared().fresh_schema();
    std::array::from_fn(|_| Arc::new(store(settings(shared(), "postgres", &schema), clock)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_make_the_tables_once() {
    for _ in 0..5 {
        let replicas = replicas::<6>(&Clock::system());
        let starts = replicas.iter().map(|store| {
            let store = Arc::clone(store);
            // The very first attempt must do: another one would hide a collision.
            tokio::spawn(async move { store.ping().await })
        });
        for start in futures::future::join_all(starts).await {
            start.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b3_of_many_replicas_each_due_session_is_claimed_by_one() {
    let clock = Clock::manual(Clock::system().now());
    let replicas = replicas::<3>(&clock);
    let now = clock.now();
    let mut keys = HashSet::new();
    for _ in 0..300 {
        let key = fresh_key();
        replicas[0].create(&key, &Record { due: Some(now), ..record(now) }).await.unwrap();
        keys.insert(key);
    }
    let claim = Claim { due: now, active_since: Timestamp::default(), lease: now.plus(SECOND * 30), limit: 7 };
    let claimers = (0..12).map(|n| {
        let store = Arc::clone(&replicas[n % 3]);
        tokio::spawn(async move {
            let (mut mine, mut empty) = (Vec::new(), 0);
            // Others may hold the last ones for the moment.
            while empty < 20 {
                let some = store.claim_due(&claim).await.unwrap();
                empty = if some.is_empty() { empty + 1 } else { 0 };
                mine.extend(some);
            }
            mine
        })
    });
    let claimed: Vec<_> = futures::future::join_all(claimers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(claimed.len(), 300, "nobody gets one twice");
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), keys);
}

/// Statements over many rows lock them in one order; in any other, some of these would wait for each other until
/// PostgreSQL ends one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o6_ending_a_users_sessions_and_touching_them_do_not_block_each_other() {
    let clock = Clock::manual(Clock::system().now());
    let replicas = replicas::<2>(&clock);
    let now = clock.now();
    for _ in 0..15 {
        let keys: Vec<_> = (0..60).map(|_| fresh_key()).collect();
        for key in &keys {
            replicas[0].create(key, &record(now)).await.unwrap();
        }
        let work = (0..6).map(|n| {
            let (store, mut keys) = (Arc::clone(&replicas[n % 2]), keys.clone());
            if n % 2 == 0 {
                keys.reverse();
            }
            tokio::spawn(async move {
                let touches: Vec<_> = keys
                    .iter()
                    .map(|key| Touch {
                        key: *key,
                        last_seen: now.plus(SECOND),
                        idle_end: now.plus(SECOND * 60),
                        returning_end: Timestamp::default(),
                    })
                    .collect();
                let due: Vec<_> = keys.iter().map(|key| (*key, now)).collect();
                match n {
                    0 | 1 => store.touch(&touches).await,
                    2 | 3 => store.reschedule(&due).await,
                    4 => store.delete_of(&Owner::Subject { provider: "keycloak", subject: "alice" }).await.map(drop),
                    _ => {
                        let claim = Claim { due: now, active_since: now, lease: now.plus(SECOND), limit: 100 };
                        store.claim_due(&claim).await.map(drop)
                    }
                }
            })
        });
        for done in futures::future::join_all(work).await {
            done.unwrap().unwrap();
        }
        for key in &keys {
            assert!(replicas[1].load(key).await.unwrap().is_none(), "and the end wins");
        }
    }
}

/// A logout wins against a refresh, on whichever replica: the refresh is told that the session is gone, or its tokens
/// are those that the logout returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_a_replace_and_a_delete_agree_on_who_came_first() {
    let clock = Clock::manual(Clock::system().now());
    let replicas = replicas::<2>(&clock);
    let first = record(clock.now());
    let mut outcomes = [0, 0];
    for _ in 0..200 {
        let key = fresh_key();
        replicas[0].create(&key, &first).await.unwrap();
        let next = Record { version: 2, sealed: b"newer".to_vec(), ..first.clone() };
        let (swap, ended) =
            tokio::join!(replicas[0].replace(&key, 1, &next, Announce::Everyone), replicas[1].delete(&key));
        let ended = ended.unwrap().expect("it was there");
        match swap.unwrap() {
            Swap::Stored => assert_eq!(ended.sealed, b"newer"),
            Swap::Gone => assert_eq!(ended.sealed, first.sealed),
            Swap::Conflict => panic!("there never was another version"),
        }
        outcomes[usize::from(ended.version == 2)] += 1;
    }
    println!("the delete came first {} times, the replace {} times", outcomes[0], outcomes[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_is_swept_in_batches_and_nothing_else() {
    let clock = Clock::manual(Clock::system().now());
    let [store] = replicas::<1>(&clock);
    for n in 0..250_u8 {
        store.create(&fresh_key(), &record(clock.now())).await.unwrap();
        if n < 20 {
            let ends = clock.now().plus(SECOND);
            store.put_login(&LoginKey { browser: [n; 32], state: [n; 32] }, b"x", ends).await.unwrap();
            store.mark(&MarkKey([n; 32]), clock.now(), ends).await.unwrap();
        }
    }
    clock.advance(SECOND * 24 * 3600);
    let living = fresh_key();
    store.create(&living, &record(clock.now())).await.unwrap();
    let sweep = async |query| sweep::batch(store.link.shared(), query).await;
    assert_eq!(sweep(Query::SweepSessions).await, Some(true), "a batch at a time");
    assert_eq!(sweep(Query::SweepSessions).await, Some(false));
    assert_eq!(sweep(Query::SweepLogins).await, Some(false));
    assert_eq!(sweep(Query::SweepMarks).await, Some(false));
    assert!(store.load(&living).await.unwrap().is_some());
    let left = "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM logins), (SELECT count(*) FROM marks)";
    let schema = store.link.shared().dialer.schema.clone();
    assert_eq!(shared().sql(&format!("SET search_path = {schema}; {left}")), "1|0|0");
}
