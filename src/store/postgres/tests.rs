//! The conformance suite and what only this store has, on a real PostgreSQL.

mod outages;
mod races;
mod rights;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::primitives::secret::SecretText;
use crate::store::conformance::{self, fresh_key, record};

#[path = "../../../tests/support/postgres_server.rs"]
mod postgres_server;
use postgres_server::{PostgresServer, shared};

const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);

conformance::suite!(async {
    let clock = Clock::manual(Clock::system().now());
    // Two cores run this and everything else.
    let store = store(settings(shared(), "postgres", &shared().fresh_schema()), &clock);
    (store, clock, ())
});

fn settings(server: &PostgresServer, user: &str, schema: &str) -> settings::PostgresStore {
    settings::PostgresStore {
        url: SecretText::new(server.url_of(user)),
        schema: schema.to_owned(),
        command_timeout: Duration::from_secs(10),
        connections: 8,
    }
}

fn store(settings: settings::PostgresStore, clock: &Clock) -> PostgresStore {
    PostgresStore::new(&settings, clock.clone()).unwrap()
}

/// A store with the timeouts of a production, over tables of its own.
fn impatient(server: &PostgresServer) -> PostgresStore {
    let settings = settings(server, "postgres", &server.fresh_schema());
    store(settings::PostgresStore { command_timeout: COMMAND_TIMEOUT, ..settings }, &Clock::system())
}

/// Asks until it answers, and tells how long that took.
async fn time_to_recover(store: &PostgresStore) -> Duration {
    let begun = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// Asks until it refuses for this reason.
async fn until_refused(store: &PostgresStore, reason: &str) -> String {
    let begun = Instant::now();
    loop {
        let text = store.ping().await.map_or_else(|error| error.to_string(), |()| "it answers".to_owned());
        if text.contains(reason) {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "wanted: {reason}; got: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
