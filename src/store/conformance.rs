//! What every session store must do, written once and run over each of them by [`suite`].

use std::sync::Arc;
use std::time::Duration;

use super::{LOGINS_PER_BROWSER, LoginKey, SessionStore, Swap, Touch};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random;
use crate::session::model::{Record, SessionId, SessionKey};

const IDLE: Duration = Duration::from_secs(30 * 60);
const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// Declares one test for each function here. `$make` is a future of a store, the manual clock it follows, and whatever
/// must live as long as the test.
macro_rules! suite {
    ($make:expr) => {
        $crate::store::conformance::suite! { @each $make;
            a_session_comes_back_as_it_was,
            every_byte_survives,
            an_unknown_session_is_none,
            create_again_puts_the_new_one_in_place,
            a_session_ends_when_idle,
            a_session_ends_in_any_case,
            an_expired_session_is_gone_for_every_method,
            replace_moves_the_version_by_compare_and_swap,
            replace_of_a_deleted_session_is_gone,
            replace_keeps_the_later_activity,
            replace_may_bring_the_absolute_end_forward,
            touch_moves_forward_only_and_leaves_the_version,
            touch_revives_nothing,
            touch_takes_many_and_none,
            delete_ends_the_session_once,
            of_many_swaps_exactly_one_is_stored,
            a_login_is_taken_once,
            a_login_belongs_to_its_browser,
            a_login_expires,
            a_login_put_again_is_the_new_one,
            the_seventeenth_login_drops_the_oldest,
            expired_logins_do_not_count,
            of_many_takes_exactly_one_gets_the_login,
            any_bytes_make_a_login,
            ping_answers,
        }
    };
    (@each $make:expr; $($name:ident),+ $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (store, clock, _alive) = $make.await;
            $crate::store::conformance::$name(std::sync::Arc::new(store), clock).await;
        }
    )+ };
}
pub(super) use suite;

/// A fresh session of version 1 that began now.
pub(super) fn record(now: Timestamp) -> Record {
    Record {
        version: 1,
        site: "app.example.com".to_owned(),
        provider: "keycloak".to_owned(),
        subject: "alice".to_owned(),
        provider_session: Some("provider-session".to_owned()),
        created: now,
        last_seen: now,
        idle_end: now.plus(IDLE),
        absolute_end: now.plus(ABSOLUTE),
        generation: 1,
        sealed: b"\0\xffsealed\r\n".to_vec(),
    }
}

pub(super) fn fresh_key() -> SessionKey {
    SessionId::generate().unwrap().key()
}

fn fresh_login() -> LoginKey {
    LoginKey { browser: random::bytes().unwrap(), state: random::bytes().unwrap() }
}

pub(super) async fn a_session_comes_back_as_it_was(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = record(clock.now());
    store.create(&key, &record).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), record);
    let bare = Record { provider_session: None, ..record };
    store.create(&key, &bare).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), bare);
}

pub(super) async fn every_byte_survives(store: Arc<impl SessionStore>, clock: Clock) {
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
    assert_eq!(store.replace(&key, record.version - 1, &next).await.unwrap(), Swap::Conflict);
    assert_eq!(store.replace(&key, record.version, &next).await.unwrap(), Swap::Stored);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), next);
}

pub(super) async fn an_unknown_session_is_none(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    assert!(store.load(&key).await.unwrap().is_none());
    assert!(store.delete(&key).await.unwrap().is_none());
    assert_eq!(store.replace(&key, 1, &record(clock.now())).await.unwrap(), Swap::Gone);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(super) async fn create_again_puts_the_new_one_in_place(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let old = Record { last_seen: clock.now().plus(SECOND), ..record(clock.now()) };
    let new = Record { subject: "bob".to_owned(), sealed: Vec::new(), ..record(clock.now()) };
    store.create(&key, &old).await.unwrap();
    store.create(&key, &new).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), new);
}

pub(super) async fn a_session_ends_when_idle(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    store.create(&key, &record(clock.now())).await.unwrap();
    clock.advance(IDLE - Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(super) async fn a_session_ends_in_any_case(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    store.create(&key, &record(clock.now())).await.unwrap();
    let idle_end = clock.now().plus(ABSOLUTE * 2);
    store.touch(&[Touch { key, last_seen: clock.now(), idle_end }]).await.unwrap();
    clock.advance(ABSOLUTE - Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(super) async fn an_expired_session_is_gone_for_every_method(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = record(clock.now());
    store.create(&key, &record).await.unwrap();
    clock.advance(IDLE);
    let next = Record { version: 2, idle_end: clock.now().plus(IDLE), ..record };
    assert_eq!(store.replace(&key, 1, &next).await.unwrap(), Swap::Gone);
    assert!(store.load(&key).await.unwrap().is_none());
    assert!(store.delete(&key).await.unwrap().is_none());
}

pub(super) async fn replace_moves_the_version_by_compare_and_swap(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let second = Record {
        version: 2,
        generation: 2,
        provider_session: None,
        subject: "bob".to_owned(),
        sealed: b"other".to_vec(),
        ..first.clone()
    };
    assert_eq!(store.replace(&key, 1, &second).await.unwrap(), Swap::Stored);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), second);
    let late = Record { version: 2, ..first };
    assert_eq!(store.replace(&key, 1, &late).await.unwrap(), Swap::Conflict);
    assert_eq!(store.replace(&key, 3, &late).await.unwrap(), Swap::Conflict);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), second);
}

pub(super) async fn replace_of_a_deleted_session_is_gone(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let record = record(clock.now());
    store.create(&key, &record).await.unwrap();
    assert!(store.delete(&key).await.unwrap().is_some());
    assert_eq!(store.replace(&key, 1, &Record { version: 2, ..record }).await.unwrap(), Swap::Gone);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(super) async fn replace_keeps_the_later_activity(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let seen = first.last_seen.plus(SECOND);
    let idle_end = first.idle_end.plus(SECOND);
    store.touch(&[Touch { key, last_seen: seen, idle_end }]).await.unwrap();
    // Made from what was loaded before the touch, as a refresh under way does.
    assert_eq!(store.replace(&key, 1, &Record { version: 2, ..first.clone() }).await.unwrap(), Swap::Stored);
    let stored = store.load(&key).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.last_seen, stored.idle_end), (2, seen, idle_end));

    let later = first.idle_end.plus(SECOND * 2);
    assert_eq!(store.replace(&key, 2, &Record { version: 3, idle_end: later, ..first }).await.unwrap(), Swap::Stored);
    let stored = store.load(&key).await.unwrap().unwrap();
    assert_eq!((stored.last_seen, stored.idle_end), (seen, later));
    clock.advance(IDLE + SECOND);
    assert!(store.load(&key).await.unwrap().is_some(), "it lives to the later end");
}

pub(super) async fn replace_may_bring_the_absolute_end_forward(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let next = Record { version: 2, absolute_end: clock.now().plus(SECOND * 60), ..first };
    assert_eq!(store.replace(&key, 1, &next).await.unwrap(), Swap::Stored);
    assert_eq!(store.load(&key).await.unwrap().unwrap(), next);
    clock.advance(SECOND * 60);
    assert!(store.load(&key).await.unwrap().is_none());
}

pub(super) async fn touch_moves_forward_only_and_leaves_the_version(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let (seen, idle_end) = (first.last_seen.plus(SECOND), first.idle_end.plus(SECOND));
    store.touch(&[Touch { key, last_seen: seen, idle_end }]).await.unwrap();
    let touched = Record { last_seen: seen, idle_end, ..first.clone() };
    assert_eq!(store.load(&key).await.unwrap().unwrap(), touched);
    store.touch(&[Touch { key, last_seen: first.last_seen, idle_end: first.idle_end }]).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), touched, "nothing moves back");
    store.touch(&[Touch { key, last_seen: first.last_seen, idle_end: idle_end.plus(SECOND) }]).await.unwrap();
    let touched = Record { idle_end: idle_end.plus(SECOND), ..touched };
    assert_eq!(store.load(&key).await.unwrap().unwrap(), touched, "each time moves by itself");
}

pub(super) async fn touch_revives_nothing(store: Arc<impl SessionStore>, clock: Clock) {
    let (deleted, expired, unknown) = (fresh_key(), fresh_key(), fresh_key());
    for key in [&deleted, &expired] {
        store.create(key, &record(clock.now())).await.unwrap();
    }
    assert!(store.delete(&deleted).await.unwrap().is_some());
    clock.advance(IDLE);
    let touch = |key| Touch { key, last_seen: clock.now(), idle_end: clock.now().plus(IDLE) };
    store.touch(&[touch(deleted), touch(expired), touch(unknown)]).await.unwrap();
    for key in [&deleted, &expired, &unknown] {
        assert!(store.load(key).await.unwrap().is_none());
    }
}

pub(super) async fn touch_takes_many_and_none(store: Arc<impl SessionStore>, clock: Clock) {
    store.touch(&[]).await.unwrap();
    let now = clock.now();
    let keys: Vec<_> = (0..300).map(|_| fresh_key()).collect();
    for key in &keys {
        store.create(key, &record(now)).await.unwrap();
    }
    let touches: Vec<_> =
        keys.iter().map(|key| Touch { key: *key, last_seen: now.plus(SECOND), idle_end: now.plus(IDLE) }).collect();
    store.touch(&touches).await.unwrap();
    for key in &keys {
        assert_eq!(store.load(key).await.unwrap().unwrap().last_seen, now.plus(SECOND));
    }
}

pub(super) async fn delete_ends_the_session_once(store: Arc<impl SessionStore>, clock: Clock) {
    let (key, other) = (fresh_key(), fresh_key());
    store.create(&key, &record(clock.now())).await.unwrap();
    store.create(&other, &record(clock.now())).await.unwrap();
    assert!(store.delete(&key).await.unwrap().is_some());
    assert!(store.delete(&key).await.unwrap().is_none());
    assert!(store.load(&key).await.unwrap().is_none());
    assert!(store.load(&other).await.unwrap().is_some());
}

pub(super) async fn of_many_swaps_exactly_one_is_stored(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_key();
    let first = record(clock.now());
    store.create(&key, &first).await.unwrap();
    let swaps = (0..32_u8).map(|n| {
        let (store, record) = (Arc::clone(&store), Record { version: 2, sealed: vec![n], ..first.clone() });
        tokio::spawn(async move { (n, store.replace(&key, 1, &record).await.unwrap()) })
    });
    let results: Vec<_> = futures::future::join_all(swaps).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter(|(_, swap)| *swap == Swap::Stored).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(results.iter().all(|(_, swap)| matches!(swap, Swap::Stored | Swap::Conflict)));
    assert_eq!(store.load(&key).await.unwrap().unwrap().sealed, winners, "the winner's bytes are there");
}

pub(super) async fn a_login_is_taken_once(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    assert!(store.take_login(&key).await.unwrap().is_none());
    store.put_login(&key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    assert_eq!(store.take_login(&key).await.unwrap().unwrap(), b"login");
    assert!(store.take_login(&key).await.unwrap().is_none());
}

pub(super) async fn a_login_belongs_to_its_browser(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    store.put_login(&key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    let stranger = LoginKey { browser: fresh_login().browser, ..key };
    assert!(store.take_login(&stranger).await.unwrap().is_none());
    let other_state = LoginKey { state: fresh_login().state, ..key };
    assert!(store.take_login(&other_state).await.unwrap().is_none());
    assert!(store.take_login(&key).await.unwrap().is_some(), "a stranger's attempt takes nothing away");
}

pub(super) async fn a_login_expires(store: Arc<impl SessionStore>, clock: Clock) {
    let (one, two) = (fresh_login(), fresh_login());
    for key in [&one, &two] {
        store.put_login(key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    }
    clock.advance(SECOND * 600 - Duration::from_millis(1));
    assert!(store.take_login(&one).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.take_login(&two).await.unwrap().is_none());
}

pub(super) async fn a_login_put_again_is_the_new_one(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    let expires = clock.now().plus(SECOND * 600);
    store.put_login(&key, b"old", expires).await.unwrap();
    store.put_login(&key, b"new", expires.plus(SECOND)).await.unwrap();
    assert_eq!(store.take_login(&key).await.unwrap().unwrap(), b"new");
    assert!(store.take_login(&key).await.unwrap().is_none());
}

pub(super) async fn the_seventeenth_login_drops_the_oldest(store: Arc<impl SessionStore>, clock: Clock) {
    let browser = fresh_login().browser;
    let login = |n: usize| LoginKey { browser, state: [u8::try_from(n).unwrap(); 32] };
    // All within one tick of the clock, and the first lives longest: age alone decides.
    let expires = |n: usize| clock.now().plus(SECOND * if n == 0 { 900 } else { 600 });
    for n in 0..=LOGINS_PER_BROWSER {
        store.put_login(&login(n), &[u8::try_from(n).unwrap()], expires(n)).await.unwrap();
    }
    assert!(store.take_login(&login(0)).await.unwrap().is_none(), "the oldest makes room");
    for n in 1..=LOGINS_PER_BROWSER {
        assert_eq!(store.take_login(&login(n)).await.unwrap().unwrap(), [u8::try_from(n).unwrap()]);
    }
}

pub(super) async fn expired_logins_do_not_count(store: Arc<impl SessionStore>, clock: Clock) {
    let browser = fresh_login().browser;
    let login = |n: usize| LoginKey { browser, state: [u8::try_from(n).unwrap(); 32] };
    store.put_login(&login(0), b"long", clock.now().plus(SECOND * 3600)).await.unwrap();
    for n in 1..LOGINS_PER_BROWSER {
        store.put_login(&login(n), b"short", clock.now().plus(SECOND * 10)).await.unwrap();
    }
    clock.advance(SECOND * 10);
    store.put_login(&login(100), b"new", clock.now().plus(SECOND * 10)).await.unwrap();
    assert_eq!(store.take_login(&login(0)).await.unwrap().unwrap(), b"long");
    assert_eq!(store.take_login(&login(100)).await.unwrap().unwrap(), b"new");
    assert!(store.take_login(&login(1)).await.unwrap().is_none());
}

pub(super) async fn of_many_takes_exactly_one_gets_the_login(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    store.put_login(&key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    let takes = (0..32).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.take_login(&key).await.unwrap() })
    });
    let taken = futures::future::join_all(takes).await.into_iter().filter_map(Result::unwrap).count();
    assert_eq!(taken, 1);
}

pub(super) async fn any_bytes_make_a_login(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for sealed in [b"".as_slice(), b"1:2:3", b"%d:\0:", &all] {
        store.put_login(&key, sealed, clock.now().plus(SECOND * 600)).await.unwrap();
        assert_eq!(store.take_login(&key).await.unwrap().unwrap(), sealed);
    }
}

pub(super) async fn ping_answers(store: Arc<impl SessionStore>, _clock: Clock) {
    store.ping().await.unwrap();
    assert!(["memory", "redis"].contains(&store.kind()));
}
