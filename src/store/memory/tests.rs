//! The conformance suite, and what only this store has: limits and sweeping.

use std::time::Duration;

use super::*;
use crate::store::conformance::{self, record};

const START: Timestamp = Timestamp::from_secs(1_000_000);

conformance::suite!(async {
    let clock = Clock::manual(START);
    let store = MemoryStore::new(clock.clone());
    (store, clock, ())
});

/// Keys of one shard, so that its limits show.
fn key(n: u8) -> SessionKey {
    let mut bytes = [0; 32];
    bytes[31] = n;
    SessionKey::from_bytes(bytes)
}

fn counts(store: &MemoryStore) -> [usize; 4] {
    let shard = store.shard(&[0; 32]).unwrap();
    let ([sessions, ends, _], [logins, login_ends]) = (shard.sessions.counts(), shard.logins.counts());
    [sessions, ends, logins, login_ends]
}

#[tokio::test]
async fn expired_sessions_are_swept_by_later_writes() {
    let clock = Clock::manual(START);
    let store = MemoryStore::new(clock.clone());
    for n in 0..20 {
        store.create(&key(n), &record(clock.now())).await.unwrap();
        store.put_login(&LoginKey { browser: [0; 32], state: [n; 32] }, b"x", START).await.unwrap();
    }
    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(counts(&store)[..2], [20, 20], "reading the clock alone removes nothing");
    for n in 100..103 {
        store.create(&key(n), &record(clock.now())).await.unwrap();
    }
    assert_eq!(counts(&store), [3, 3, 0, 0]);
}

#[tokio::test]
async fn every_change_keeps_map_and_order_alike() {
    let clock = Clock::manual(START);
    let store = MemoryStore::new(clock.clone());
    let first = record(clock.now());
    store.create(&key(1), &first).await.unwrap();
    store
        .create(&key(1), &Record { idle_end: first.idle_end.plus(Duration::from_secs(1)), ..first.clone() })
        .await
        .unwrap();
    assert_eq!(counts(&store)[..2], [1, 1]);
    let idle_end = first.idle_end.plus(Duration::from_secs(9));
    store
        .touch(&[Touch { key: key(1), last_seen: clock.now(), idle_end, returning_end: Timestamp::default() }])
        .await
        .unwrap();
    assert_eq!(counts(&store)[..2], [1, 1]);
    store.replace(&key(1), 1, &Record { version: 2, ..first }, Announce::Nobody).await.unwrap();
    assert_eq!(counts(&store)[..2], [1, 1]);
    store.delete(&key(1)).await.unwrap();
    assert_eq!(counts(&store)[..2], [0, 0]);
}

#[tokio::test]
async fn a_full_store_refuses_sessions_and_drops_logins() {
    let store = MemoryStore::with_limits(Clock::manual(START), 2 * SHARDS, 2 * SHARDS, 2 * SHARDS);
    let end = |n: u8| START.plus(Duration::from_secs(u64::from(n)));
    for n in 1..=2 {
        store.create(&key(n), &record(START)).await.unwrap();
    }
    assert!(matches!(store.create(&key(3), &record(START)).await, Err(StoreError::Unavailable(_))));
    store.create(&key(2), &record(START)).await.expect("there already, so it takes no more room");

    let login = |n: u8| {
        let mut browser = [0; 32];
        browser[31] = n;
        LoginKey { browser, state: [n; 32] }
    };
    for n in 1..=3 {
        store.put_login(&login(n), b"x", end(n)).await.unwrap();
    }
    assert_eq!(counts(&store), [2, 2, 2, 2]);
    assert!(store.take_login(&login(1)).await.unwrap().is_none(), "the first to end makes room");
    assert!(store.take_login(&login(3)).await.unwrap().is_some());
}

fn mark(n: u8) -> MarkKey {
    MarkKey(*key(n).as_bytes())
}

fn marks(store: &MemoryStore) -> [usize; 2] {
    store.shard(&[0; 32]).unwrap().marks.counts()
}

#[tokio::test]
async fn marks_end_and_later_writes_of_any_kind_sweep_them() {
    let clock = Clock::manual(START);
    let store = MemoryStore::new(clock.clone());
    for n in 0..20 {
        assert!(store.mark(&mark(n), START, START.plus(Duration::from_secs(60))).await.unwrap());
    }
    clock.advance(Duration::from_secs(59));
    store.put_login(&LoginKey { browser: [0; 32], state: [0; 32] }, b"x", START).await.unwrap();
    assert_eq!(marks(&store), [20, 20], "none before its time");
    clock.advance(Duration::from_secs(1));
    for left in [12, 4, 0] {
        assert_eq!(store.marked(&mark(1)).await.unwrap(), None);
        store.create(&key(left), &record(clock.now())).await.unwrap();
        assert_eq!(marks(&store), [usize::from(left); 2]);
    }
}

#[tokio::test]
async fn a_store_without_room_forgets_no_mark_and_takes_no_new_one() {
    let clock = Clock::manual(START);
    let store = MemoryStore::with_limits(clock.clone(), SHARDS, SHARDS, 20 * SHARDS);
    let end = |seconds: u64| START.plus(Duration::from_secs(seconds));
    for n in 0..20 {
        assert!(store.mark(&mark(n), START, end(60)).await.unwrap());
    }
    for n in 20..=255 {
        assert!(matches!(store.mark(&mark(n), START, end(600)).await, Err(StoreError::Unavailable(_))), "{n}");
        assert_eq!(store.marked(&mark(n)).await.unwrap(), None);
    }
    for n in 0..20 {
        assert_eq!(store.marked(&mark(n)).await.unwrap(), Some(START));
        assert!(!store.mark(&mark(n), end(1), end(600)).await.unwrap(), "there already, so it takes no more room");
    }
    clock.advance(Duration::from_secs(60));
    assert!(store.mark(&mark(20), end(60), end(600)).await.unwrap(), "what has ended makes room");
}
