//! The file store, beside redb's own calls for the same entries of the same tables: in the caller's own thread, which
//! the proxy must never let wait for the disk, one transaction a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cloakroom::config::settings;
use cloakroom::primitives::clock::Clock;
use cloakroom::store::SessionStore as _;
use cloakroom::store::file::FileStore;
use criterion::Criterion;
use redb::{Database, TableDefinition, WriteTransaction};

use super::common::{crowd, key, record, runtime};

const SESSIONS: u64 = 1_000;
const TABLE: TableDefinition<'static, [u8; 32], &[u8]> = TableDefinition::new("raw");
/// By its end, and by when it is due.
const MOMENTS: [TableDefinition<'static, [u8; 40], ()>; 2] =
    [TableDefinition::new("ends"), TableDefinition::new("dues")];
/// By user, and by session of the provider.
const OWNERS: TableDefinition<'static, [u8; 64], ()> = TableDefinition::new("owners");

/// The pages of a session.
const BYTES: [u8; 2_400] = [0x5a; 2_400];

fn read(database: &Database, n: u64) -> usize {
    let transaction = database.begin_read().expect("a transaction");
    let table = transaction.open_table(TABLE).expect("a table");
    let found = table.get(key(n).as_bytes()).expect("an answer").expect("a session");
    found.value().len()
}

fn write(database: &Database, n: u64) {
    let mut transaction = database.begin_write().expect("a transaction");
    transaction.set_two_phase_commit(true);
    insert(&transaction, n);
    transaction.commit().expect("on the disk");
}

fn insert(transaction: &WriteTransaction, n: u64) {
    let key = key(n);
    let (mut moment, mut owner) = ([0; 40], [0; 64]);
    // As time goes on.
    moment[..8].copy_from_slice(&n.to_be_bytes());
    moment[8..].copy_from_slice(key.as_bytes());
    owner[..32].copy_from_slice(key.as_bytes());
    transaction.open_table(TABLE).expect("a table").insert(key.as_bytes(), &BYTES[..]).expect("written");
    for table in MOMENTS {
        transaction.open_table(table).expect("a table").insert(moment, ()).expect("written");
    }
    let mut owners = transaction.open_table(OWNERS).expect("a table");
    for kind in [0, 1] {
        owner[0] ^= kind;
        owners.insert(owner, ()).expect("written");
    }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let (folder, runtime) = (tempfile::tempdir().expect("a folder"), runtime());
    let settings = settings::FileStore { path: folder.path().join("sessions") };
    let store = Arc::new(FileStore::open(&settings, Clock::system()).expect("a store"));
    let raw = Arc::new(Database::create(folder.path().join("raw")).expect("a database"));
    crowd(&runtime, SESSIONS, {
        let store = store.clone();
        move |n| {
            let store = store.clone();
            async move { store.create(&key(n), &record(n, 1)).await.expect("a session") }
        }
    });
    let mut transaction = raw.begin_write().expect("a transaction");
    transaction.set_two_phase_commit(true);
    for n in 0..SESSIONS {
        insert(&transaction, n);
    }
    transaction.commit().expect("on the disk");
    let next = Arc::new(AtomicU64::new(1 << 40));

    let mut group = criterion.benchmark_group("file");
    group.bench_function("load, raw, in the caller's thread", |bencher| {
        bencher.iter_custom(|calls| {
            let begun = Instant::now();
            for n in 0..calls {
                assert_eq!(read(&raw, n % SESSIONS), BYTES.len());
            }
            begun.elapsed()
        });
    });
    group.bench_function("load, 64 callers, raw, spawn_blocking", |bencher| {
        bencher.iter_custom(|calls| {
            let raw = raw.clone();
            crowd(&runtime, calls, move |n| {
                let raw = raw.clone();
                async move {
                    tokio::task::spawn_blocking(move || read(&raw, n % SESSIONS)).await.expect("a task");
                }
            })
        });
    });
    group.bench_function("load, 64 callers, store", |bencher| {
        bencher.iter_custom(|calls| {
            let store = store.clone();
            crowd(&runtime, calls, move |n| {
                let store = store.clone();
                async move { assert!(store.load(&key(n % SESSIONS)).await.expect("an answer").is_some()) }
            })
        });
    });
    group.bench_function("create, raw, one after the other", |bencher| {
        bencher.iter_custom(|calls| {
            let begun = Instant::now();
            for _ in 0..calls {
                write(&raw, next.fetch_add(1, Ordering::Relaxed));
            }
            begun.elapsed()
        });
    });
    group.bench_function("create, one caller, store", |bencher| {
        bencher.iter_custom(|calls| {
            runtime.block_on(async {
                let begun = Instant::now();
                for _ in 0..calls {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    store.create(&key(n), &record(n, 1)).await.expect("written");
                }
                begun.elapsed()
            })
        });
    });
    group.bench_function("create, 64 callers, store", |bencher| {
        bencher.iter_custom(|calls| {
            let (store, next) = (store.clone(), next.clone());
            crowd(&runtime, calls, move |_| {
                let (store, n) = (store.clone(), next.fetch_add(1, Ordering::Relaxed));
                async move { store.create(&key(n), &record(n, 1)).await.expect("written") }
            })
        });
    });
    group.finish();
}
