//! The list of the due.

use std::collections::HashSet;
use std::sync::Arc;

use super::{IDLE, SECOND, fresh_key, record};
use crate::primitives::clock::{Clock, Timestamp};
use crate::store::record::{Record, SessionKey};
use crate::store::{Announce, Claim, SessionStore, Swap};

async fn due_in(store: &Arc<impl SessionStore>, clock: &Clock, seconds: u32) -> SessionKey {
    let key = fresh_key();
    let due = Some(clock.now().plus(SECOND * seconds));
    store.create(&key, &Record { due, ..record(clock.now()) }).await.unwrap();
    key
}

fn claim(clock: &Clock) -> Claim {
    let now = clock.now();
    Claim { due: now, active_since: Timestamp::from_millis(0), lease: now.plus(SECOND * 10), limit: 1000 }
}

async fn claimed(store: &Arc<impl SessionStore>, claim: &Claim) -> HashSet<SessionKey> {
    let keys = store.claim_due(claim).await.unwrap();
    let set: HashSet<_> = keys.iter().copied().collect();
    assert_eq!(set.len(), keys.len(), "each once");
    set
}

pub(in crate::store) async fn what_is_due_is_claimed_once_a_lease(store: Arc<impl SessionStore>, clock: Clock) {
    let (soon, later) = (due_in(&store, &clock, 5).await, due_in(&store, &clock, 6).await);
    let never = fresh_key();
    store.create(&never, &Record { due: None, ..record(clock.now()) }).await.unwrap();
    assert!(claimed(&store, &claim(&clock)).await.is_empty());
    clock.advance(SECOND * 5);
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([soon]));
    assert!(claimed(&store, &claim(&clock)).await.is_empty(), "it is somebody's now");
    clock.advance(SECOND);
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([later]));
    clock.advance(SECOND * 9);
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([soon]), "the first lease is over");
    assert_eq!(store.load(&soon).await.unwrap().unwrap().version, 1, "a claim changes no record");
}

pub(in crate::store) async fn a_claim_takes_no_more_than_its_limit(store: Arc<impl SessionStore>, clock: Clock) {
    let mut keys = HashSet::new();
    for _ in 0..200 {
        keys.insert(due_in(&store, &clock, 0).await);
    }
    let mut got = HashSet::new();
    loop {
        let some = claimed(&store, &Claim { limit: 30, ..claim(&clock) }).await;
        assert!(some.len() <= 30);
        if some.is_empty() {
            break;
        }
        assert!(some.iter().all(|key| got.insert(*key)), "nobody gets one twice");
    }
    assert_eq!(got, keys);
    assert!(claimed(&store, &Claim { limit: 0, ..claim(&clock) }).await.is_empty());
}

pub(in crate::store) async fn of_many_claimers_each_session_has_one(store: Arc<impl SessionStore>, clock: Clock) {
    for _ in 0..100 {
        due_in(&store, &clock, 0).await;
    }
    let claims = (0..8).map(|_| {
        let (store, claim) = (Arc::clone(&store), Claim { limit: 40, ..claim(&clock) });
        tokio::spawn(async move { store.claim_due(&claim).await.unwrap() })
    });
    let all: Vec<_> = futures::future::join_all(claims).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len());
    assert!(all.len() >= 40);
}

pub(in crate::store) async fn idle_and_dead_sessions_are_struck_off(store: Arc<impl SessionStore>, clock: Clock) {
    let idle = due_in(&store, &clock, 5).await;
    let (ended, expired) = (due_in(&store, &clock, 5).await, due_in(&store, &clock, u32::MAX).await);
    store.delete(&ended).await.unwrap();
    clock.advance(SECOND * 5);
    let active = due_in(&store, &clock, 0).await;
    let picky = Claim { active_since: clock.now(), ..claim(&clock) };
    assert_eq!(claimed(&store, &picky).await, HashSet::from([active]));
    clock.advance(SECOND * 10);
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([active]), "who was idle is not asked again");
    assert!(store.load(&idle).await.unwrap().is_some());
    clock.advance(IDLE);
    store.reschedule(&[(expired, clock.now()), (ended, clock.now())]).await.unwrap();
    assert!(claimed(&store, &claim(&clock)).await.is_empty());
}

pub(in crate::store) async fn rescheduling_moves_sessions_on_the_list(store: Arc<impl SessionStore>, clock: Clock) {
    store.reschedule(&[]).await.unwrap();
    let (one, other) = (due_in(&store, &clock, 0).await, due_in(&store, &clock, 0).await);
    assert_eq!(claimed(&store, &claim(&clock)).await.len(), 2);
    // One is handed back at once, the other put off.
    store.reschedule(&[(one, clock.now()), (other, clock.now().plus(SECOND * 60))]).await.unwrap();
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([one]));
    clock.advance(SECOND * 60);
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([one, other]));
}

pub(in crate::store) async fn replacing_sets_when_it_is_due(store: Arc<impl SessionStore>, clock: Clock) {
    let key = due_in(&store, &clock, 0).await;
    let first = store.load(&key).await.unwrap().unwrap();
    let later = Record { version: 2, due: Some(clock.now().plus(SECOND * 60)), ..first.clone() };
    assert_eq!(store.replace(&key, 1, &later, Announce::Nobody).await.unwrap(), Swap::Stored);
    assert!(claimed(&store, &claim(&clock)).await.is_empty());
    clock.advance(SECOND * 60);
    let never = Record { version: 3, due: None, ..first.clone() };
    assert_eq!(store.replace(&key, 1, &never, Announce::Nobody).await.unwrap(), Swap::Conflict);
    assert_eq!(claimed(&store, &claim(&clock)).await, HashSet::from([key]), "a conflict moves nothing");
    assert_eq!(store.replace(&key, 2, &never, Announce::Nobody).await.unwrap(), Swap::Stored);
    clock.advance(SECOND * 60);
    assert!(claimed(&store, &claim(&clock)).await.is_empty());
}
