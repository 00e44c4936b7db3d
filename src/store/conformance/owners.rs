//! Finding and ending the sessions of an owner.

use std::collections::HashSet;
use std::sync::Arc;

use super::{IDLE, SECOND, fresh_key, record};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random;
use crate::store::record::{Owner, Record, SessionKey};
use crate::store::{Announce, SessionStore, Swap, Touch};

/// A name that no other test uses.
fn fresh_name() -> String {
    random::base64url(&random::bytes::<16>().unwrap())
}

struct Three {
    provider: String,
    subject: String,
    keys: [SessionKey; 3],
}

/// Sessions 0 and 1 of one provider session, 2 of another, all of one user.
async fn three(store: &Arc<impl SessionStore>, clock: &Clock) -> Three {
    let (provider, subject) = (fresh_name(), fresh_name());
    let keys = [fresh_key(), fresh_key(), fresh_key()];
    for (n, key) in keys.iter().enumerate() {
        let sid = if n < 2 { "one" } else { "two" };
        let record = Record {
            provider: provider.clone(),
            subject: subject.clone(),
            provider_session: Some(sid.to_owned()),
            ..record(clock.now())
        };
        store.create(key, &record).await.unwrap();
    }
    Three { provider, subject, keys }
}

impl Three {
    fn user(&self) -> Owner<'_> {
        Owner::Subject { provider: &self.provider, subject: &self.subject }
    }

    fn session<'a>(&'a self, sid: &'a str) -> Owner<'a> {
        Owner::ProviderSession { provider: &self.provider, sid }
    }
}

async fn found(store: &Arc<impl SessionStore>, owner: &Owner<'_>) -> HashSet<SessionKey> {
    let found = store.find(owner).await.unwrap();
    assert!(found.iter().all(|(_, record)| owner.owns(record)));
    let keys: HashSet<_> = found.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys.len(), found.len(), "each once");
    keys
}

pub(in crate::store) async fn sessions_are_found_by_their_owners(store: Arc<impl SessionStore>, clock: Clock) {
    let three = three(&store, &clock).await;
    let [one, other, third] = three.keys;
    assert_eq!(found(&store, &three.user()).await, HashSet::from([one, other, third]));
    assert_eq!(found(&store, &three.session("one")).await, HashSet::from([one, other]));
    assert_eq!(found(&store, &three.session("two")).await, HashSet::from([third]));
    assert!(found(&store, &three.session("three")).await.is_empty());
    assert!(found(&store, &Owner::Subject { provider: "other", subject: &three.subject }).await.is_empty());
    assert!(found(&store, &Owner::ProviderSession { provider: "other", sid: "one" }).await.is_empty());
    let swapped = Owner::Subject { provider: &three.subject, subject: &three.provider };
    assert!(found(&store, &swapped).await.is_empty(), "names are kept apart");
}

pub(in crate::store) async fn any_text_is_a_name_of_an_owner(store: Arc<impl SessionStore>, clock: Clock) {
    for odd in ["", "\0:\r\n", "a:b", "{x}*?[", "🧥\"'\\"] {
        let provider = format!("{odd}{}", fresh_name());
        let key = fresh_key();
        let record = Record {
            provider: provider.clone(),
            subject: odd.to_owned(),
            provider_session: Some(odd.to_owned()),
            ..record(clock.now())
        };
        store.create(&key, &record).await.unwrap();
        let user = Owner::Subject { provider: &provider, subject: odd };
        assert_eq!(found(&store, &user).await, HashSet::from([key]));
        assert_eq!(
            found(&store, &Owner::ProviderSession { provider: &provider, sid: odd }).await,
            HashSet::from([key])
        );
    }
}

pub(in crate::store) async fn an_ended_or_expired_session_is_not_found(store: Arc<impl SessionStore>, clock: Clock) {
    let three = three(&store, &clock).await;
    let [one, other, third] = three.keys;
    store.delete(&one).await.unwrap();
    assert_eq!(found(&store, &three.user()).await, HashSet::from([other, third]));
    clock.advance(IDLE - SECOND);
    let idle_end = clock.now().plus(IDLE);
    store
        .touch(&[Touch { key: other, last_seen: clock.now(), idle_end, returning_end: Timestamp::default() }])
        .await
        .unwrap();
    clock.advance(SECOND);
    assert_eq!(
        found(&store, &three.user()).await,
        HashSet::from([other]),
        "a touched one is found as long as it lives"
    );
}

pub(in crate::store) async fn a_replaced_session_is_still_found(store: Arc<impl SessionStore>, clock: Clock) {
    let three = three(&store, &clock).await;
    let [one, ..] = three.keys;
    let first = store.load(&one).await.unwrap().unwrap();
    let later = clock.now().plus(IDLE * 3);
    let next = Record { version: 2, idle_end: later, absolute_end: later, ..first };
    assert_eq!(store.replace(&one, 1, &next, Announce::Nobody).await.unwrap(), Swap::Stored);
    clock.advance(IDLE * 2);
    assert_eq!(found(&store, &three.session("one")).await, HashSet::from([one]));
    assert_eq!(store.find(&three.user()).await.unwrap(), [(one, next)]);
}

pub(in crate::store) async fn create_again_belongs_to_the_new_owner_alone(store: Arc<impl SessionStore>, clock: Clock) {
    let three = three(&store, &clock).await;
    let [one, other, third] = three.keys;
    let stranger = fresh_name();
    store.create(&one, &Record { provider: stranger.clone(), ..record(clock.now()) }).await.unwrap();
    assert_eq!(found(&store, &three.user()).await, HashSet::from([other, third]));
    let user = Owner::Subject { provider: &stranger, subject: "alice" };
    assert_eq!(found(&store, &user).await, HashSet::from([one]));
}

pub(in crate::store) async fn all_sessions_of_an_owner_end_at_once(store: Arc<impl SessionStore>, clock: Clock) {
    let three = three(&store, &clock).await;
    let [one, other, third] = three.keys;
    let ended: HashSet<_> =
        store.delete_of(&three.session("one")).await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(ended, HashSet::from([one, other]));
    for key in [one, other] {
        assert!(store.load(&key).await.unwrap().is_none());
    }
    assert!(store.load(&third).await.unwrap().is_some());
    assert!(store.delete_of(&three.session("one")).await.unwrap().is_empty());
    assert_eq!(store.delete_of(&three.user()).await.unwrap().len(), 1);
    assert!(store.load(&third).await.unwrap().is_none());
}
