//! Every replica gets fifty requests of a session at the moment its token has expired.

use std::collections::BTreeSet;

use crate::harness::Wishes;
use crate::kit::*;
use crate::postgres_server::PostgresServer;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Scale, Tally, client, get, postgres_at, progress};

const SESSIONS: usize = 10;
const REQUESTS: usize = 50;

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let redis = RedisServer::start();
    let on_redis = on("Redis", store_at(&redis), scale).await;
    let postgres = PostgresServer::start();
    vec![on_redis, on("PostgreSQL", postgres_at(&postgres), scale).await]
}

async fn on(name: &str, store: String, scale: Scale) -> Row {
    let fleet = Fleet::start(Wishes { store, session: STEADY_TICKET.into(), ..ticking() }).await;
    let tickets = fleet.log_in(SESSIONS).await;
    let client = client();
    let rounds = scale.of(2_000 / SESSIONS, 10);
    let (mut tally, mut off, mut codes) = (Tally::default(), 0, BTreeSet::new());
    for round in 0..rounds {
        fleet.world.clock.advance(OVER);
        let before = token_calls(&fleet.world);
        let mut volleys = tokio::task::JoinSet::new();
        for ticket in &tickets {
            for address in fleet.addresses() {
                let (client, ticket) = (client.clone(), ticket.clone());
                volleys.spawn(async move {
                    let calls = (0..REQUESTS).map(|_| get(&client, address, &ticket));
                    futures::future::join_all(calls).await
                });
            }
        }
        while let Some(volley) = volleys.join_next().await {
            for got in volley.expect("a task") {
                tally.add(got.status);
                codes.insert(got.code);
            }
        }
        off += (token_calls(&fleet.world) - before).abs_diff(SESSIONS);
        if round % 20 == 19 {
            progress(&format!("{name}: {} expiries, {:?} {codes:?}", (round + 1) * SESSIONS, tally.0));
        }
    }
    let again = fleet.shown_again();
    Row {
        run: "expiry",
        done: format!(
            "{} expiries on {name}; each time {REQUESTS} requests at each of 3 replicas; strict rotation",
            rounds * SESSIONS
        ),
        criterion: "one token call an expiry, each refresh token shown once, every request served".to_owned(),
        measured: format!(
            "{} requests: {} served, {} 5xx, {} lost; token calls off by {off}; {again} tokens shown again",
            tally.all(),
            tally.of(200),
            tally.0.range(500..).map(|(_, count)| count).sum::<usize>(),
            tally.of(401),
        ),
        passed: tally.bad() == 0 && off == 0 && again == 0,
    }
    .tell()
}
