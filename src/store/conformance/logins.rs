//! Logins under way.

use std::sync::Arc;
use std::time::Duration;

use super::SECOND;
use crate::primitives::clock::Clock;
use crate::primitives::random;
use crate::store::{LOGINS_PER_BROWSER, LoginKey, SessionStore};

fn fresh_login() -> LoginKey {
    LoginKey { browser: random::bytes().unwrap(), state: random::bytes().unwrap() }
}

pub(in crate::store) async fn a_login_is_taken_once(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    assert!(store.take_login(&key).await.unwrap().is_none());
    store.put_login(&key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    assert_eq!(store.take_login(&key).await.unwrap().unwrap(), b"login");
    assert!(store.take_login(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn a_login_belongs_to_its_browser(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    store.put_login(&key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    let stranger = LoginKey { browser: fresh_login().browser, ..key };
    assert!(store.take_login(&stranger).await.unwrap().is_none());
    let other_state = LoginKey { state: fresh_login().state, ..key };
    assert!(store.take_login(&other_state).await.unwrap().is_none());
    assert!(store.take_login(&key).await.unwrap().is_some(), "a stranger's attempt takes nothing away");
}

pub(in crate::store) async fn a_login_expires(store: Arc<impl SessionStore>, clock: Clock) {
    let (one, two) = (fresh_login(), fresh_login());
    for key in [&one, &two] {
        store.put_login(key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    }
    clock.advance(SECOND * 600 - Duration::from_millis(1));
    assert!(store.take_login(&one).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert!(store.take_login(&two).await.unwrap().is_none());
}

pub(in crate::store) async fn a_login_put_again_is_the_new_one(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    let expires = clock.now().plus(SECOND * 600);
    store.put_login(&key, b"old", expires).await.unwrap();
    store.put_login(&key, b"new", expires.plus(SECOND)).await.unwrap();
    assert_eq!(store.take_login(&key).await.unwrap().unwrap(), b"new");
    assert!(store.take_login(&key).await.unwrap().is_none());
}

pub(in crate::store) async fn a_login_put_again_gives_the_old_one_back(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    let put = async |sealed: &[u8], life| store.put_login(&key, sealed, clock.now().plus(SECOND * life)).await.unwrap();
    assert_eq!(put(b"1:2:one", 600).await, None);
    let other = LoginKey { state: fresh_login().state, ..key };
    assert_eq!(store.put_login(&other, b"other", clock.now().plus(SECOND * 600)).await.unwrap(), None);
    assert_eq!(put(b"\0\xfftwo", 10).await.as_deref(), Some(&b"1:2:one"[..]));
    assert_eq!(put(b"three", 10).await.as_deref(), Some(&b"\0\xfftwo"[..]));
    clock.advance(SECOND * 10);
    assert_eq!(put(b"four", 10).await, None, "what is over is nothing");
    assert_eq!(store.take_login(&key).await.unwrap().unwrap(), b"four");
    assert_eq!(put(b"five", 10).await, None, "what was taken as well");
    assert_eq!(store.take_login(&other).await.unwrap().unwrap(), b"other");
}

/// Nobody's is lost: each gets another's, and the last is there.
pub(in crate::store) async fn of_many_puts_each_gets_the_one_before(store: Arc<impl SessionStore>, clock: Clock) {
    for _ in 0..10 {
        let (key, expires) = (fresh_login(), clock.now().plus(SECOND * 600));
        let puts = (0..16_u8).map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.put_login(&key, &[n], expires).await.unwrap() })
        });
        let mut seen: Vec<_> = futures::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
        seen.push(store.take_login(&key).await.unwrap());
        seen.sort();
        let each_once = std::iter::once(None).chain((0..16).map(|n| Some(vec![n]))).collect::<Vec<_>>();
        assert_eq!(seen, each_once);
    }
}

pub(in crate::store) async fn the_seventeenth_login_drops_the_oldest(store: Arc<impl SessionStore>, clock: Clock) {
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

pub(in crate::store) async fn expired_logins_do_not_count(store: Arc<impl SessionStore>, clock: Clock) {
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

pub(in crate::store) async fn of_many_takes_exactly_one_gets_the_login(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    store.put_login(&key, b"login", clock.now().plus(SECOND * 600)).await.unwrap();
    let takes = (0..32).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.take_login(&key).await.unwrap() })
    });
    let taken = futures::future::join_all(takes).await.into_iter().filter_map(Result::unwrap).count();
    assert_eq!(taken, 1);
}

pub(in crate::store) async fn any_bytes_make_a_login(store: Arc<impl SessionStore>, clock: Clock) {
    let key = fresh_login();
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for sealed in [b"".as_slice(), b"1:2:3", b"%d:\0:", &all] {
        store.put_login(&key, sealed, clock.now().plus(SECOND * 600)).await.unwrap();
        assert_eq!(store.take_login(&key).await.unwrap().unwrap(), sealed);
    }
}
