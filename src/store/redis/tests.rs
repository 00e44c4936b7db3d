//! The conformance suite and the outages, on a real `redis-server` each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::primitives::secret::SecretText;
use crate::store::conformance::{self, fresh_key, record};

#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;
use redis_server::{RedisServer, free_port};
#[path = "../../../tests/support/redis_group.rs"]
mod redis_group;

mod changes;
mod cluster;
mod content;
mod misconfigured;
mod outages;
mod sentinel;
mod tls;

/// The default of the settings.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(200);

/// What a busy machine may add to a bound; usual are 10 ms.
const SLACK: Duration = Duration::from_millis(500);

/// A Redis that returns is to be found within this time; usual are 10 to 400 ms.
const RECOVERY: Duration = Duration::from_secs(1);

/// A refusal while Redis is known to be away; behaviour D1 allows 250 ms.
const AT_ONCE: Duration = Duration::from_millis(250);

conformance::suite!(async {
    let server = RedisServer::start();
    // Redis expires keys by its own clock, so ours begins there.
    let clock = Clock::manual(Clock::system().now());
    (store_apart(&server.url(), clock.clone()), clock, server)
});

fn store(url: &str, clock: Clock) -> RedisStore {
    store_with(url, clock, "cloakroom:", COMMAND_TIMEOUT)
}

/// A store that no other test sees anything of.
fn store_apart(url: &str, clock: Clock) -> RedisStore {
    let prefix = base64url(&crate::primitives::random::bytes::<9>().unwrap());
    // Servers of several tests at once share two cores with them.
    store_with(url, clock, &format!("{prefix}:"), Duration::from_secs(5))
}

fn store_with(url: &str, clock: Clock, prefix: &str, command_timeout: Duration) -> RedisStore {
    let settings = settings::RedisStore {
        url: SecretText::new(url.to_owned()),
        prefix: prefix.to_owned(),
        command_timeout,
        ca: None,
    };
    RedisStore::new(&settings, clock).unwrap()
}

/// The outcome of one load, and how long it took.
async fn timed_load(store: &RedisStore, key: &SessionKey) -> (Result<Option<Record>, StoreError>, Duration) {
    let begun = Instant::now();
    (store.load(key).await, begun.elapsed())
}

fn assert_unavailable(outcome: (Result<Option<Record>, StoreError>, Duration), within: Duration) {
    let (result, took) = outcome;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(took <= within, "took {took:?}, allowed {within:?}");
}

/// Asks until it answers, and tells how long that took.
async fn time_to_recover(store: &RedisStore) -> Duration {
    let begun = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// Asks until it refuses at once, as it must when the outage is known.
async fn until_known_down(store: &RedisStore, key: &SessionKey) {
    let begun = Instant::now();
    loop {
        let (result, took) = timed_load(store, key).await;
        if result.is_err() && took < Duration::from_millis(20) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "never known to be down");
    }
}
