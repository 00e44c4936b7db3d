//! From the cookie to the session: what the local cache gives, and what it saves.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::config::settings::{Cache, ClaimPath, Refresh, SealingKey, Session};
use cloakroom::primitives::clock::{Clock, Timestamp};
use cloakroom::primitives::secret::{Key256, SecretText};
use cloakroom::session::cookie::Ticket;
use cloakroom::session::key_ring::KeyRing;
use cloakroom::session::manager::{NewSession, Sessions};
use cloakroom::session::model::Secrets;
use cloakroom::session::profile::Profile;
use cloakroom::session::seal::{Context, Purpose};
use cloakroom::session::ticket::TicketSeed;
use cloakroom::store::memory::MemoryStore;
use cloakroom::telemetry::metrics::Metrics;
use criterion::Criterion;
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

pub(crate) fn bench(criterion: &mut Criterion) {
    let key = SealingKey { id: "bench".into(), secret: Key256::new([7; 32]) };
    let (Ok(ring), Ok(metrics)) = (KeyRing::new(std::slice::from_ref(&key)), Metrics::new()) else { return };
    seal(criterion, &ring);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let (sessions, _touches) = Sessions::new(&settings(), &Refresh::default(), store, ring, clock, Arc::new(metrics));
    let profile = Arc::new(Profile {
        site: "app".into(),
        providers: vec!["demo".into()],
        claims: vec![ClaimPath(vec!["sub".into()])],
        ..Profile::default()
    });
    let Ok(tickets) = TicketSeed::generate() else { return };
    let new = NewSession {
        provider: "demo".into(),
        subject: "alice".into(),
        provider_session: None,
        secrets: secrets(tickets),
    };
    let Ok(open) = runtime.block_on(sessions.begin(&new, &profile)) else { return };
    let line = format!("theme=dark; __Host-session={}; XSRF-TOKEN={}", open.id().expose(), open.csrf_token());
    let Ok(value) = HeaderValue::from_str(&line) else { return };
    let headers = HeaderMap::from_iter([(COOKIE, value)]);
    criterion.bench_function("session/cookie to cached session", |bencher| {
        bencher.iter(|| {
            let sorted = sessions.cookies().sort(black_box(&headers));
            let Ticket::One(id) = sorted.ticket else { return None };
            runtime.block_on(sessions.lookup(&id, &profile)).ok().flatten()
        });
    });
}

fn seal(criterion: &mut Criterion, ring: &KeyRing) {
    let context = Context {
        purpose: Purpose::Session,
        key: &[1; 32],
        provider: "demo",
        owner: [b"app", b"alice"],
        generation: 1,
    };
    let plain = vec![0x5a; 2048];
    let Ok(sealed) = ring.seal(&context, &plain) else { return };
    criterion.bench_function("seal/2 KiB", |bencher| bencher.iter(|| ring.seal(&context, black_box(&plain))));
    criterion.bench_function("open/2 KiB", |bencher| bencher.iter(|| ring.open(&context, black_box(&sealed))));
}

fn secrets(tickets: TicketSeed) -> Secrets {
    Secrets {
        access_token: SecretText::new("a".repeat(1024)),
        bound: false,
        access_issued: Timestamp::from_secs(0),
        access_expires: None,
        forced: None,
        max_age: None,
        refresh_token: Some(SecretText::new("r".repeat(512))),
        refresh_expires: None,
        offline: false,
        id_token: Some(SecretText::new("i".repeat(512))),
        claims: serde_json::Map::from_iter([("sub".to_owned(), "alice".into())]),
        context: serde_json::Map::new(),
        csrf_token: SecretText::new("c".repeat(43)),
        tickets,
    }
}

fn settings() -> Session {
    let default = Session::default();
    Session { cache: Cache { ttl: Duration::from_secs(3600), ..default.cache }, ..default }
}
