//! PostgreSQL, beside tokio-postgres' own calls of like statements, prepared, on as many connections.
//!
//! The raw calls are made in two ways: one call at a time on a connection, as the store and every pool make them, and as
//! many as there are callers, one behind the other, which costs less as long as no statement has to wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloakroom::config::settings;
use cloakroom::primitives::clock::Clock;
use cloakroom::primitives::secret::SecretText;
use cloakroom::store::postgres::PostgresStore;
use cloakroom::store::{Announce, SessionStore as _, Swap};
use criterion::Criterion;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls, Statement};

use super::common::{crowd, key, record, runtime};

#[path = "../../tests/support/postgres_server.rs"]
mod postgres_server;
use postgres_server::PostgresServer;

const SESSIONS: u64 = 1_000;
const CONNECTIONS: usize = 8;

const LOAD: &str =
    "SELECT key, version, last_seen, idle_end, absolute_end, returning_end, meta, sealed FROM bench.sessions
    WHERE key = $1::bytea AND ends > $2::bigint";
const CREATE: &str = "INSERT INTO bench.sessions (key, version, last_seen, idle_end, absolute_end, returning_end, due,
    sealing_key, meta, sealed, subject, provider_session)
    VALUES ($1::bytea, 1, $2::bigint, $2::bigint, $2::bigint, 0, $2::bigint, 'k', $3::bytea, $4::bytea, $1::bytea, $1::bytea)
    ON CONFLICT (key) DO UPDATE SET version = 1";
const REPLACE: &str = "WITH done AS (
        UPDATE bench.sessions SET version = version + 1, last_seen = GREATEST(last_seen, $2::bigint),
            idle_end = GREATEST(idle_end, $2::bigint), absolute_end = $2::bigint,
            returning_end = GREATEST(returning_end, 0), due = $2::bigint, sealing_key = 'k',
            meta = $3::bytea, sealed = $4::bytea
        WHERE key = $1::bytea AND ends > 0 RETURNING key, version
    ), told AS MATERIALIZED (
        SELECT pg_notify('bench_raw', 'r' || version || ':' || encode(key, 'hex')) FROM done WHERE version < 0
    )
    SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM told),
           (SELECT version FROM bench.sessions WHERE key = $1::bytea AND ends > 0)";

struct Raw {
    clients: Vec<(Client, [Statement; 3])>,
    /// Connections that nobody uses.
    free: Semaphore,
    idle: Mutex<Vec<usize>>,
    alone: bool,
}

impl Raw {
    async fn connect(server: &PostgresServer, alone: bool) -> Self {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.expect("a connection");
            tokio::spawn(connection);
            let set_up = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";
            client.batch_execute(set_up).await.expect("settings");
            let mut statements = Vec::new();
            for text in [LOAD, CREATE, REPLACE] {
                statements.push(client.prepare(text).await.expect("a statement"));
            }
            clients.push((client, statements.try_into().expect("three")));
        }
        Self { clients, free: Semaphore::new(CONNECTIONS), idle: Mutex::new((0..CONNECTIONS).collect()), alone }
    }

    async fn load(&self, n: u64) {
        let turn = self.turn(n).await;
        let (client, [load, ..]) = &self.clients[turn.connection];
        let key = key(RAW + n % SESSIONS);
        let row = client.query_one(load, &[&&key.as_bytes()[..], &0_i64]).await.expect("a row");
        let sealed: &[u8] = row.get(7);
        assert_eq!(sealed.len(), 2048);
    }

    async fn write(&self, statement: usize, n: u64) {
        let turn = self.turn(n).await;
        let (client, statements) = &self.clients[turn.connection];
        let (key, end) = (key(RAW + n), i64::MAX);
        let (meta, sealed) = (&[b'm'; 300][..], &[0x5a_u8; 2048][..]);
        let now = if statement == 2 { i64::try_from(Clock::system().now().as_millis()).expect("fits") } else { end };
        client.query(&statements[statement], &[&&key.as_bytes()[..], &now, &meta, &sealed]).await.expect("a write");
    }

    async fn turn(&self, n: u64) -> Turn<'_> {
        if self.alone {
            let permit = self.free.acquire().await.expect("never closed");
            let connection = self.idle.lock().expect("no panic").pop().expect("one for each permit");
            return Turn { connection, of: Some((permit, &self.idle)) };
        }
        Turn { connection: usize::try_from(n).expect("small") % CONNECTIONS, of: None }
    }
}

/// The use of a connection.
struct Turn<'a> {
    connection: usize,
    of: Option<(SemaphorePermit<'a>, &'a Mutex<Vec<usize>>)>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((_permit, idle)) = &self.of {
            idle.lock().expect("no panic").push(self.connection);
        }
    }
}

/// Sessions of the raw calls: what they write is no record that the store could read.
const RAW: u64 = 1 << 50;

pub(crate) fn bench(criterion: &mut Criterion) {
    let (server, runtime) = (PostgresServer::start(), runtime());
    let settings = settings::PostgresStore {
        url: SecretText::new(server.url()),
        schema: "bench".to_owned(),
        command_timeout: Duration::from_secs(10),
        connections: CONNECTIONS,
    };
    let store = Arc::new(PostgresStore::new(&settings, Clock::system()).expect("a store"));
    runtime.block_on(async {
        for n in 0..SESSIONS {
            store.create(&key(n), &record(n, 1)).await.expect("a session");
            store.create(&key(RAW + n), &record(n, 1)).await.expect("a session");
        }
    });
    let raw = Arc::new(runtime.block_on(Raw::connect(&server, true)));
    let piped = Arc::new(runtime.block_on(Raw::connect(&server, false)));
    let versions: Arc<Vec<AtomicU64>> = Arc::new((0..SESSIONS).map(|_| AtomicU64::new(1)).collect());
    let (next, conflicts) = (Arc::new(AtomicU64::new(1 << 40)), Arc::new(AtomicU64::new(0)));

    let mut group = criterion.benchmark_group("postgres");
    for (name, many) in [("one caller", false), ("64 callers", true)] {
        let run = |calls: u64, call: Box<dyn Fn(u64) -> futures::future::BoxFuture<'static, ()> + Send + Sync>| {
            if many {
                return crowd(&runtime, calls, call);
            }
            runtime.block_on(async {
                tokio::spawn(async move {
                    let begun = Instant::now();
                    for n in 0..calls {
                        call(n).await;
                    }
                    begun.elapsed()
                })
                .await
                .expect("a task")
            })
        };
        for (way, raw) in [("raw", &raw), ("raw, piped", &piped)] {
            group.bench_function(format!("load, {name}, {way}"), |bencher| {
                bencher.iter_custom(|calls| {
                    let raw = raw.clone();
                    run(
                        calls,
                        Box::new(move |n| {
                            let raw = raw.clone();
                            Box::pin(async move { raw.load(n).await })
                        }),
                    )
                });
            });
        }
        group.bench_function(format!("load, {name}, store"), |bencher| {
            bencher.iter_custom(|calls| {
                let store = store.clone();
                run(
                    calls,
                    Box::new(move |n| {
                        let store = store.clone();
                        Box::pin(
                            async move { assert!(store.load(&key(n % SESSIONS)).await.expect("an answer").is_some()) },
                        )
                    }),
                )
            });
        });
        for (way, raw) in [("raw", &raw), ("raw, piped", &piped)] {
            group.bench_function(format!("create, {name}, {way}"), |bencher| {
                bencher.iter_custom(|calls| {
                    let (raw, next) = (raw.clone(), next.clone());
                    run(
                        calls,
                        Box::new(move |_| {
                            let (raw, n) = (raw.clone(), next.fetch_add(1, Ordering::Relaxed));
                            Box::pin(async move { raw.write(1, n).await })
                        }),
                    )
                });
            });
        }
        group.bench_function(format!("create, {name}, store"), |bencher| {
            bencher.iter_custom(|calls| {
                let (store, next) = (store.clone(), next.clone());
                run(
                    calls,
                    Box::new(move |_| {
                        let (store, n) = (store.clone(), next.fetch_add(1, Ordering::Relaxed));
                        Box::pin(async move { store.create(&key(n), &record(n, 1)).await.expect("written") })
                    }),
                )
            });
        });
        group.bench_function(format!("replace, {name}, store"), |bencher| {
            bencher.iter_custom(|calls| {
                let (store, versions, conflicts) = (store.clone(), versions.clone(), conflicts.clone());
                run(
                    calls,
                    Box::new(move |n| {
                        let (store, versions, conflicts) = (store.clone(), versions.clone(), conflicts.clone());
                        Box::pin(async move {
                            let n = n % SESSIONS;
                            let version = &versions[usize::try_from(n).expect("small")];
                            // In a crowd two may meet, now and then: one of them finds another version.
                            let old = version.load(Ordering::Relaxed);
                            let new = record(n, old + 1);
                            let done = store.replace(&key(n), old, &new, Announce::Nobody).await.expect("an answer");
                            if done == Swap::Stored {
                                version.store(old + 1, Ordering::Relaxed);
                            } else {
                                conflicts.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    }),
                )
            });
        });
        for (way, raw) in [("raw", &raw), ("raw, piped", &piped)] {
            group.bench_function(format!("replace, {name}, {way}"), |bencher| {
                bencher.iter_custom(|calls| {
                    let raw = raw.clone();
                    run(
                        calls,
                        Box::new(move |n| {
                            let raw = raw.clone();
                            Box::pin(async move { raw.write(2, n % SESSIONS).await })
                        }),
                    )
                });
            });
        }
    }
    group.finish();
    println!("{} replacements met another", conflicts.load(Ordering::Relaxed));
    drop((store, raw, piped));
    drop(runtime);
}
