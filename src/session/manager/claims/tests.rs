use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::json;

use super::*;
use crate::config::settings::{Refresh, SealingKey, Session};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::secret::{Key256, SecretText};
use crate::session::key_ring::KeyRing;
use crate::session::manager::NewSession;
use crate::session::profile::Profile;
use crate::session::ticket::TicketSeed;
use crate::session::vigil::Vigil;
use crate::store::Announce;
use crate::store::memory::MemoryStore;
use crate::store::record::Intent;
use crate::telemetry::Metrics;

const START: Timestamp = Timestamp::from_secs(1_900_000_000);

fn claims(department: &str) -> Map<String, Value> {
    Map::from_iter([("department".to_owned(), json!(department))])
}

#[tokio::test]
async fn r2_claims_that_come_late_change_nothing_else() {
    let clock = Clock::manual(START);
    let ring = KeyRing::new(&[SealingKey { id: "test".into(), secret: Key256::new([7; 32]) }]).unwrap();
    let (store, metrics) = (Arc::new(MemoryStore::new(clock.clone())), Arc::new(Metrics::new().unwrap()));
    let (sessions, _touches) = Sessions::new(&Session::default(), &Refresh::default(), store, ring, clock, metrics);
    let sessions = Arc::new(sessions);
    let profile = Profile { site: "app".into(), providers: vec!["demo".into()], ..Profile::default() };
    let secrets = Secrets {
        access_token: SecretText::new("at".into()),
        bound: false,
        access_issued: START,
        access_expires: None,
        forced: None,
        max_age: None,
        refresh_token: Some(SecretText::new("rt".into())),
        refresh_expires: None,
        offline: false,
        id_token: None,
        claims: claims("sales"),
        context: Map::new(),
        csrf_token: SecretText::new("csrf".into()),
        tickets: TicketSeed::generate().unwrap(),
    };
    let (provider, subject) = ("demo".to_owned(), "alice".to_owned());
    let new = NewSession { provider, subject, provider_session: None, secrets };
    let open = sessions.begin(&new, &Arc::new(profile)).await.unwrap();
    let key = *open.key();

    // Another replica is at the provider, with the same refresh token.
    let intent = Intent { owner: 7, begun: START, until: START };
    let (read, _) = sessions.read(&key).await.unwrap().unwrap();
    let written = sessions.amend(&key, &read, Announce::Nobody, |record| {
        record.intent = Some(intent);
        (record.refresh_in_doubt, record.retry_at, record.due) = (Some(8), Some(START), Some(START));
    });
    let (_, before) = written.await.unwrap();
    let mut vigil = Vigil::new(sessions.clone(), open);
    assert!(vigil.next().now_or_never().is_none());

    let (told, secrets) = sessions.change_claims(&key, before.generation, &claims("law")).await.unwrap().unwrap();
    let (now, stored) = sessions.read(&key).await.unwrap().unwrap();
    assert_eq!((told.version, now.version), (before.version + 1, before.version + 1));
    assert_eq!((&secrets.claims, &stored.claims), (&claims("law"), &claims("law")));
    assert_eq!(now.generation, before.generation, "the tokens are the same");
    assert_eq!((now.intent, now.refresh_in_doubt), (Some(intent), Some(8)));
    assert_eq!((now.retry_at, now.due), (Some(START), Some(START)));
    sessions.hear(crate::store::Change::Replaced(key, now.version));
    assert!(vigil.next().now_or_never().is_none(), "that is no new token to tell of");

    // That replica has stored its tokens: their claims are newer.
    let (_, newer) = sessions.write(&key, &now, &stored, None).await.unwrap();
    let (told, secrets) = sessions.change_claims(&key, before.generation, &claims("sales")).await.unwrap().unwrap();
    assert_eq!((told.version, secrets.claims), (newer.version, claims("law")));
    sessions.end(&key).await.unwrap();
    assert!(sessions.change_claims(&key, newer.generation, &claims("sales")).await.unwrap().is_none());
}
