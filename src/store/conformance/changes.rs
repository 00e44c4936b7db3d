//! Announcements, marks, and the count by key.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;

use super::{IDLE, SECOND, fresh_key, record};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random;
use crate::store::record::{Owner, Record, SessionKey};
use crate::store::{Announce, Change, MarkKey, SessionStore, Touch};

/// The next change of this session; other tests may share the channel.
async fn next(changes: &mut Receiver<Change>, of: &SessionKey) -> Change {
    let next = async {
        loop {
            match changes.recv().await.unwrap() {
                change @ (Change::Replaced(key, _) | Change::Ended(key)) if key == *of => return change,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("a change is told in time")
}

/// Waits until the channel carries something: a store may need a moment to listen.
async fn listening(store: &Arc<impl SessionStore>, clock: &Clock) -> Receiver<Change> {
    let mut changes = store.changes();
    for _ in 0..200 {
        let key = fresh_key();
        store.create(&key, &record(clock.now())).await.unwrap();
        store.delete(&key).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(50), async {
            while changes.recv().await.unwrap() != Change::Ended(key) {}
        });
        if heard.await.is_ok() {
            return changes;
        }
    }
    panic!("no change was told");
}

pub(in crate::store) async fn changes_are_told_in_order(store: Arc<impl SessionStore>, clock: Clock) {
    let mut changes = listening(&store, &clock).await;
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    store.replace(&key, 1, &Record { version: 2, ..first.clone() }, Announce::Everyone).await.unwrap();
    store
        .touch(&[Touch { key, last_seen: clock.now(), idle_end: first.idle_end, returning_end: Timestamp::default() }])
        .await
        .unwrap();
    // Neither a quiet write nor one that lost is told.
    store.replace(&key, 2, &Record { version: 3, ..first.clone() }, Announce::Nobody).await.unwrap();
    store.replace(&key, 2, &Record { version: 3, ..first.clone() }, Announce::Everyone).await.unwrap();
    let large = (1 << 60) + 1;
    store.replace(&key, 3, &Record { version: large, ..first }, Announce::Everyone).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(next(&mut changes, &key).await, Change::Replaced(key, 2));
    assert_eq!(next(&mut changes, &key).await, Change::Replaced(key, large));
    assert_eq!(next(&mut changes, &key).await, Change::Ended(key));
}

pub(in crate::store) async fn the_end_of_an_owners_sessions_is_told(store: Arc<impl SessionStore>, clock: Clock) {
    let mut changes = listening(&store, &clock).await;
    let key = fresh_key();
    let provider = random::base64url(&random::bytes::<16>().unwrap());
    store.create(&key, &Record { provider: provider.clone(), ..record(clock.now()) }).await.unwrap();
    store.delete_of(&Owner::Subject { provider: &provider, subject: "alice" }).await.unwrap();
    assert_eq!(next(&mut changes, &key).await, Change::Ended(key));
}

pub(in crate::store) async fn a_mark_is_made_once(store: Arc<impl SessionStore>, clock: Clock) {
    let key = MarkKey(random::bytes().unwrap());
    assert_eq!(store.marked(&key).await.unwrap(), None);
    let (at, expires) = (clock.now(), clock.now().plus(SECOND * 600));
    assert!(store.mark(&key, at, expires).await.unwrap());
    assert!(!store.mark(&key, at.plus(SECOND), expires.plus(SECOND)).await.unwrap());
    assert_eq!(store.marked(&key).await.unwrap(), Some(at));
    assert_eq!(store.marked(&MarkKey(random::bytes().unwrap())).await.unwrap(), None);
    clock.advance(SECOND * 600);
    assert_eq!(store.marked(&key).await.unwrap(), None);
    assert!(store.mark(&key, clock.now(), clock.now().plus(SECOND)).await.unwrap(), "an expired one is none");
    assert_eq!(store.marked(&key).await.unwrap(), Some(clock.now()));
}

pub(in crate::store) async fn of_many_marks_exactly_one_is_new(store: Arc<impl SessionStore>, clock: Clock) {
    let key = MarkKey(random::bytes().unwrap());
    let marks = (0..32).map(|_| {
        let (store, now) = (Arc::clone(&store), clock.now());
        tokio::spawn(async move { store.mark(&key, now, now.plus(SECOND * 60)).await.unwrap() })
    });
    let new = futures::future::join_all(marks).await.into_iter().filter(|new| *new.as_ref().unwrap()).count();
    assert_eq!(new, 1);
}

pub(in crate::store) async fn the_census_counts_living_sessions_by_key(store: Arc<impl SessionStore>, clock: Clock) {
    let count = async |key: &str| store.census().await.unwrap().get(key).copied().unwrap_or(0);
    let by = |key: &str| Record { sealing_key: key.to_owned(), ..record(clock.now()) };
    let (one, other) = (fresh_key(), fresh_key());
    store.create(&one, &by("2026-11")).await.unwrap();
    store.create(&other, &by("2026-11")).await.unwrap();
    assert_eq!((count("2026-11").await, count("2026-12").await), (2, 0));
    store.replace(&one, 1, &Record { version: 2, ..by("2026-12") }, Announce::Nobody).await.unwrap();
    assert_eq!((count("2026-11").await, count("2026-12").await), (1, 1));
    store.delete(&other).await.unwrap();
    assert_eq!((count("2026-11").await, count("2026-12").await), (0, 1));
    clock.advance(IDLE);
    assert_eq!(count("2026-12").await, 0);
}

pub(in crate::store) async fn ping_answers(store: Arc<impl SessionStore>, _clock: Clock) {
    store.ping().await.unwrap();
}
