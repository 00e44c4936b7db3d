//! Create, load, replace, touch, delete.

use std::sync::Arc;
use std::time::Duration;

use super::{ABSOLUTE, IDLE, SECOND, fresh_key, record};
use crate::primitives::clock::{Clock, Timestamp};
use crate::store::record::{Intent, Record};
use crate::store::{Announce, SessionStore, Swap, Touch};

pub(in crate::store) async fn a_session_comes_back_as_it_was(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = record(clock.now());
    store.create(&key, &record).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), record);
    let bare = Record { provider_session: None, ..record };
    store.create(&key, &bare).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), bare);
}

pub(in crate::store) async fn every_byte_survives(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = Record {
        site: "*".to_owned(),
        provider: "a\0b\r\n\"ü".to_owned(),
        subject: "\u{7f}{}[]\\ 🧥".to_owned(),
        provider_session: Some(String::new()),
        // Beyond what a double holds: numbers must not pass one on their way.
        version: (1 << 60) + 1,
        generation: u64::MAX,
        sealed: (0..=u8::MAX).cycle().take(16 * 1024).collect(),
        ..record(clock.now())
    };
    store.create(&key, &record).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), record);
    let next = Record { version: record.version + 1, ..record.clone() };
    assert_eq!(store.replace(&key, record.version - 1, &next, Announce::Everyone).await.unwrap(), Swap::Conflict);
    assert_eq!(store.replace(&key, record.version, &next, Announce::Everyone).await.unwrap(), Swap::Stored);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), next);
}

pub(in crate::store) async fn an_unknown_session_is_none(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    assert!(store.load(&key).await.unwrap().is_none());
    assert!(store.delete(&key).await.unwrap().is_none());
    assert_eq!(store.replace(&key, 1, &record(clock.now()), Announce::Everyone).await.unwrap(), Swap::Gone);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn create_again_puts_the_new_one_in_place(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let old = Record { last_seen: clock.now().plus(SECOND), ..record(clock.now()) };
    let new = Record { subject: "bob".to_owned(), sealed: Vec::new(), ..record(clock.now()) };
    store.create(&key, &old).await.unwrap();
    store.create(&key, &new).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), new);
}

pub(in crate::store) async fn a_session_ends_when_idle(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    store.create(&key, &record(clock.now())).await.unwrap();
    clock.advance(IDLE - Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn a_session_ends_in_any_case(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    store.create(&key, &record(clock.now())).await.unwrap();
    let idle_end = clock.now().plus(ABSOLUTE * 2);
    store.touch(&[Touch { key, last_seen: clock.now(), idle_end, returning_end: Timestamp::default() }]).await.unwrap();
    clock.advance(ABSOLUTE - Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn an_expired_session_is_gone_for_every_method(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = record(clock.now());
    store.create(&key, &record).await.unwrap();
    clock.advance(IDLE);
    let next = Record { version: 2, idle_end: clock.now().plus(IDLE), ..record };
    assert_eq!(store.replace(&key, 1, &next, Announce::Everyone).await.unwrap(), Swap::Gone);
    assert!(store.load(&key).await.unwrap().is_none());
    assert!(store.delete(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn replace_moves_the_version_by_compare_and_swap(
    store: Arc<impl SessionStore>,
    clock: Clock,
) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let second = Record {
        version: 2,
        generation: 2,
        rotation: 7,
        intent: Some(Intent { owner: u64::MAX, begun: clock.now(), until: clock.now().plus(SECOND) }),
        refresh_in_doubt: Some(u64::MAX),
        retry_at: Some(clock.now()),
        due: None,
        sealing_key: "another".to_owned(),
        sealed: b"other".to_vec(),
        ..first.clone()
    };
    assert_eq!(store.replace(&key, 1, &second, Announce::Everyone).await.unwrap(), Swap::Stored);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), second);
    let late = Record { version: 2, ..first };
    assert_eq!(store.replace(&key, 1, &late, Announce::Everyone).await.unwrap(), Swap::Conflict);
    assert_eq!(store.replace(&key, 3, &late, Announce::Everyone).await.unwrap(), Swap::Conflict);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), second);
}

pub(in crate::store) async fn replace_of_a_deleted_session_is_gone(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = record(clock.now());
    store.create(&key, &record).await.unwrap();
    assert!(store.delete(&key).await.unwrap().is_some());
    assert_eq!(store.replace(&key, 1, &Record { version: 2, ..record }, Announce::Everyone).await.unwrap(), Swap::Gone);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn replace_keeps_the_later_activity(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let seen = first.last_seen.plus(SECOND);
    let idle_end = first.idle_end.plus(SECOND);
    store.touch(&[Touch { key, last_seen: seen, idle_end, returning_end: Timestamp::default() }]).await.unwrap();
    // Made from what was loaded before the touch, as a refresh under way does.
    assert_eq!(
        store.replace(&key, 1, &Record { version: 2, ..first.clone() }, Announce::Everyone).await.unwrap(),
        Swap::Stored
    );
    let stored = store.load(&key).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.last_seen, stored.idle_end), (2, seen, idle_end));

    let later = first.idle_end.plus(SECOND * 2);
    assert_eq!(
        store.replace(&key, 2, &Record { version: 3, idle_end: later, ..first }, Announce::Everyone).await.unwrap(),
        Swap::Stored
    );
    let stored = store.load(&key).await.unwrap().unwrap();
    assert_eq!((stored.last_seen, stored.idle_end), (seen, later));
    clock.advance(IDLE + SECOND);
    assert!(store.load(&key).await.unwrap().is_some(), "it lives to the later end");
}

pub(in crate::store) async fn an_over_session_is_kept_for_the_returning(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let returning_end = clock.now().plus(IDLE * 10);
    let first = Record { returning_end, ..record(clock.now()) };
    store.create(&key, &first).await.unwrap();
    clock.advance(IDLE * 2);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), first);
    let later = returning_end.plus(IDLE * 10);
    let touch = Touch { key, last_seen: first.last_seen, idle_end: first.idle_end, returning_end: later };
    store.touch(&[touch]).await.unwrap();
    let next = Record { version: 2, ..first.clone() };
    assert_eq!(store.replace(&key, 1, &next, Announce::Nobody).await.unwrap(), Swap::Stored);
    clock.advance(IDLE * 18 - SECOND);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), Record { returning_end: later, ..next });
    clock.advance(SECOND);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn replace_may_bring_the_absolute_end_forward(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let next = Record { version: 2, absolute_end: clock.now().plus(SECOND * 60), ..first };
    assert_eq!(store.replace(&key, 1, &next, Announce::Everyone).await.unwrap(), Swap::Stored);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), next);
    clock.advance(SECOND * 60);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn touch_moves_forward_only_and_leaves_the_version(
    store: Arc<impl SessionStore>,
    clock: Clock,
) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let (seen, idle_end) = (first.last_seen.plus(SECOND), first.idle_end.plus(SECOND));
    store.touch(&[Touch { key, last_seen: seen, idle_end, returning_end: Timestamp::default() }]).await.unwrap();
    let touched = Record { last_seen: seen, idle_end, ..first.clone() };
    assert_eq!(store.load(&key).await.unwrap().unwrap(), touched);
    store
        .touch(&[Touch {
            key,
            last_seen: first.last_seen,
            idle_end: first.idle_end,
            returning_end: Timestamp::default(),
        }])
        .await
        .unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), touched, "nothing moves back");
    store
        .touch(&[Touch {
            key,
            last_seen: first.last_seen,
            idle_end: idle_end.plus(SECOND),
            returning_end: Timestamp::default(),
        }])
        .await
        .unwrap();
    let touched = Record { idle_end: idle_end.plus(SECOND), ..touched };
    assert_eq!(store.load(&key).await.unwrap().unwrap(), touched, "each time moves by itself");
}

pub(in crate::store) async fn touch_revives_nothing(store: Arc<impl SessionStore>, clock: Clock) {
    let (deleted, expired, unknown) = (fresh_key(), fresh_key(), fresh_key());
    for key in [&deleted, &expired] {
        store.create(key, &record(clock.now())).await.unwrap();
    }
    assert!(store.delete(&deleted).await.unwrap().is_some());
    clock.advance(IDLE);
    let touch = |key| Touch {
        key,
        last_seen: clock.now(),
        idle_end: clock.now().plus(IDLE),
        returning_end: Timestamp::default(),
    };
    store.touch(&[touch(deleted), touch(expired), touch(unknown)]).await.unwrap();
    for key in [&deleted, &expired, &unknown] {
        assert!(store.load(key).await.unwrap().is_none());
    }
}

pub(in crate::store) async fn touch_takes_many_and_none(store: Arc<impl SessionStore>, clock: Clock) {
    store.touch(&[]).await.unwrap();
    let now = clock.now();
    let keys: Vec<_> = (0..300).map(|_| fresh_key()).collect();
    for key in &keys {
        store.create(key, &record(now)).await.unwrap();
    }
    let touches: Vec<_> = keys
        .iter()
        .map(|key| Touch {
            key: *key,
            last_seen: now.plus(SECOND),
            idle_end: now.plus(IDLE),
            returning_end: Timestamp::default(),
        })
        .collect();
    store.touch(&touches).await.unwrap();
    for key in &keys {
        assert_eq!(store.load(key).await.unwrap().unwrap().last_seen, now.plus(SECOND));
    }
}

pub(in crate::store) async fn delete_ends_the_session_once(store: Arc<impl SessionStore>, clock: Clock) {
    let (key, other) = (fresh_key(), fresh_key());
    store.create(&key, &record(clock.now())).await.unwrap();
    store.create(&other, &record(clock.now())).await.unwrap();
    assert!(store.delete(&key).await.unwrap().is_some());
    assert!(store.delete(&key).await.unwrap().is_none());
    assert!(store.load(&key).await.unwrap().is_none());
    assert!(store.load(&other).await.unwrap().is_some());
}

pub(in crate::store) async fn of_many_swaps_exactly_one_is_stored(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let swaps = (0..32_u8).map(|n| {
        let (store, record) = (Arc::clone(&store), Record { version: 2, sealed: vec![n], ..first.clone() });
        tokio::spawn(async move { (n, store.replace(&key, 1, &record, Announce::Everyone).await.unwrap()) })
    });
    let results: Vec<_> = futures::future::join_all(swaps).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter(|(_, swap)| *swap == Swap::Stored).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(results.iter().all(|(_, swap)| matches!(swap, Swap::Stored | Swap::Conflict)));
    assert_eq!(store.load(&key).await.unwrap().unwrap().sealed, winners, "the winner's bytes are there");
}
