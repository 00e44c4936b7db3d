//! Redis, beside fred's own calls of the same commands on one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom::config::settings;
use cloakroom::primitives::clock::Clock;
use cloakroom::primitives::secret::SecretText;
use cloakroom::store::redis::RedisStore;
use cloakroom::store::{Announce, SessionStore as _, Swap};
use criterion::Criterion;
use fred::clients::Client;
use fred::interfaces::{ClientLike as _, HashesInterface as _, LuaInterface as _};
use fred::types::Value;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig};

use super::common::{crowd, key, record, runtime};

#[path = "../../tests/support/redis_server.rs"]
mod redis_server;
use redis_server::RedisServer;

const CREATE: &str = concat!(
    include_str!("../../src/store/redis/scripts/common.lua"),
    include_str!("../../src/store/redis/scripts/create.lua")
);
const REPLACE: &str = concat!(
    include_str!("../../src/store/redis/scripts/common.lua"),
    include_str!("../../src/store/redis/scripts/replace.lua")
);

/// Sessions that are there.
const SESSIONS: u64 = 1_000;

fn store(server: &RedisServer) -> Arc<RedisStore> {
    let settings = settings::RedisStore {
        url: SecretText::new(server.url()),
        prefix: "b:".to_owned(),
        command_timeout: Duration::from_secs(5),
        ca: None,
    };
    Arc::new(RedisStore::new(&settings, Clock::system()).expect("a store"))
}

/// A client as the store has it, and the names of the scripts.
async fn raw(server: &RedisServer) -> (Client, String, String) {
    let mut connection =
        ConnectionConfig { max_command_attempts: 1, max_command_buffer_len: 5_000, ..Default::default() };
    connection.tcp.nodelay = Some(true);
    let performance =
        PerformanceConfig { default_command_timeout: Duration::from_millis(4_600), ..PerformanceConfig::default() };
    let config = Config::from_url(&server.url()).expect("a URL");
    let client = Client::new(config, Some(performance), Some(connection), None);
    client.init().await.expect("a connection");
    let create = client.script_load(CREATE).await.expect("a script");
    let replace = client.script_load(REPLACE).await.expect("a script");
    (client, create, replace)
}

fn session_name(n: u64) -> String {
    let key = key(n);
    format!("b:{{{:02}}}:s:{}", key.as_bytes()[0] % 64, key.to_text())
}

/// Keys and values as the store sends them; the owners' sets have names of the same length.
fn parts(n: u64, version: Option<u64>) -> (Vec<String>, Vec<Value>) {
    let record = record(n, version.map_or(1, |version| version + 1));
    let text = key(n).to_text();
    let partition = key(n).as_bytes()[0] % 64;
    let owner = |kind: char| format!("b:{{{partition:02}}}:o:{kind}{}", &text[1..]);
    let keys = vec![session_name(n), format!("b:{{{partition:02}}}:due"), owner('u'), owner('s')];
    let millis = |time: cloakroom::primitives::clock::Timestamp| Value::from(time.as_millis().to_string());
    let mut values = vec![millis(record.last_seen)];
    values.extend(version.map(|version| Value::from(version.to_string())));
    values.extend([
        record.version.to_string().into(),
        millis(record.last_seen),
        millis(record.idle_end),
        millis(record.absolute_end),
        millis(record.returning_end),
        // As long as the real one.
        format!("{{\"f\":1,\"rest\":\"{}\"}}", "x".repeat(230)).into(),
        Value::from(bytes::Bytes::from(record.sealed)),
        text.into(),
        millis(record.due.expect("it is due")),
    ]);
    match version {
        None => values.push("0".into()),
        Some(version) => values.extend([Value::from("b:changes"), format!("r:{}:{version}", key(n).to_text()).into()]),
    }
    (keys, values)
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let server = RedisServer::start();
    let (here, ours) = (runtime(), store(&server));
    let store_at = store;
    let store = ours;
    here.block_on(async {
        for n in 0..SESSIONS {
            store.create(&key(n), &record(n, 1)).await.expect("created");
        }
    });
    let (client, create, replace) = here.block_on(raw(&server));

    let mut group = criterion.benchmark_group("redis/load/alone");
    group.bench_function("store", |b| {
        b.to_async(&here).iter(async || store.load(&key(7)).await.expect("an answer").expect("a session"));
    });
    group.bench_function("client", |b| {
        b.to_async(&here).iter(async || {
            let values: Vec<Option<bytes::Bytes>> =
                client.hmget(session_name(7), vec!["v", "t", "meta", "sealed"]).await.expect("an answer");
            values
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("redis/load/crowd");
    group.bench_function("store", |b| b.iter_custom(|calls| loads(&here, &store, calls)));
    group.bench_function("client", |b| {
        b.iter_custom(|calls| {
            let client = client.clone();
            crowd(&here, calls, move |n| {
                let client = client.clone();
                async move {
                    let values: Vec<Option<bytes::Bytes>> = client
                        .hmget(session_name(n % SESSIONS), vec!["v", "t", "meta", "sealed"])
                        .await
                        .expect("an answer");
                    std::hint::black_box(values);
                }
            })
        });
    });
    // The same store, but its connection lives on a runtime of its own.
    let (there, elsewhere) = (tokio_one(), store_at(&server));
    there.block_on(elsewhere.ping()).expect("a sign of life");
    group.bench_function("store, client on a runtime of its own", |b| {
        b.iter_custom(|calls| loads(&here, &elsewhere, calls));
    });
    group.finish();
    let mut group = criterion.benchmark_group("redis/load/alone");
    group.bench_function("store, client on a runtime of its own", |b| {
        b.iter_custom(|calls| {
            let store = Arc::clone(&elsewhere);
            here.block_on(async move {
                tokio::spawn(async move {
                    let begun = std::time::Instant::now();
                    for _ in 0..calls {
                        std::hint::black_box(store.load(&key(7)).await.expect("an answer"));
                    }
                    begun.elapsed()
                })
                .await
                .expect("a task that ends well")
            })
        });
    });
    group.bench_function("store, from a task", |b| {
        b.iter_custom(|calls| {
            let store = Arc::clone(&store);
            here.block_on(async move {
                tokio::spawn(async move {
                    let begun = std::time::Instant::now();
                    for _ in 0..calls {
                        std::hint::black_box(store.load(&key(7)).await.expect("an answer"));
                    }
                    begun.elapsed()
                })
                .await
                .expect("a task that ends well")
            })
        });
    });
    group.finish();

    let next = AtomicU64::new(1 << 32);
    let mut group = criterion.benchmark_group("redis/create/alone");
    group.bench_function("store", |b| {
        b.to_async(&here).iter(async || {
            let n = next.fetch_add(1, Ordering::Relaxed);
            store.create(&key(n), &record(n, 1)).await.expect("created");
        });
    });
    group.bench_function("client", |b| {
        b.to_async(&here).iter(async || {
            let (keys, values) = parts(next.fetch_add(1, Ordering::Relaxed), None);
            let _: i64 = client.evalsha(create.as_str(), keys, values).await.expect("created");
        });
    });
    group.finish();

    let (ours, theirs) = (AtomicU64::new(1), AtomicU64::new(1));
    here.block_on(async {
        let (keys, values) = parts(1 << 48, None);
        let _: i64 = client.evalsha(create.as_str(), keys, values).await.expect("created");
    });
    let mut group = criterion.benchmark_group("redis/replace/alone");
    group.bench_function("store", |b| {
        b.to_async(&here).iter(async || {
            let version = ours.fetch_add(1, Ordering::Relaxed);
            let swap = store.replace(&key(3), version, &record(3, version + 1), Announce::Everyone).await;
            assert_eq!(swap.expect("an answer"), Swap::Stored);
        });
    });
    group.bench_function("client", |b| {
        b.to_async(&here).iter(async || {
            let (keys, values) = parts(1 << 48, Some(theirs.fetch_add(1, Ordering::Relaxed)));
            let stored: i64 = client.evalsha(replace.as_str(), keys, values).await.expect("an answer");
            assert_eq!(stored, 1);
        });
    });
    group.finish();

    // What a replica asks once a second when nothing is due.
    let empty = RedisServer::start();
    let idle = store_at(&empty);
    let now = Clock::system().now();
    let claim = cloakroom::store::Claim { due: now, active_since: now, lease: now, limit: 64 };
    criterion.bench_function("redis/claim_due/idle", |b| {
        b.to_async(&here).iter(async || idle.claim_due(&claim).await.expect("an answer"));
    });
}

fn loads(runtime: &tokio::runtime::Runtime, store: &Arc<RedisStore>, calls: u64) -> Duration {
    let store = Arc::clone(store);
    crowd(runtime, calls, move |n| {
        let store = Arc::clone(&store);
        async move {
            std::hint::black_box(store.load(&key(n % SESSIONS)).await.expect("an answer").expect("a session"));
        }
    })
}

fn tokio_one() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}
