//! What all stores are asked for, and by whom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::primitives::clock::{Clock, Timestamp};
use cloakroom::store::record::{Record, SessionKey};
use tokio::runtime::Runtime;

/// Threads of the proxy's runtime.
const THREADS: usize = 2;

/// Requests that ask at the same time.
pub(crate) const CROWD: u64 = 64;

/// A runtime as the proxy has it.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().expect("a runtime")
}

/// The n-th of many keys that are spread evenly.
pub(crate) fn key(n: u64) -> SessionKey {
    let mut bytes = [0; 32];
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for (byte, from) in bytes.iter_mut().zip(mixed.to_le_bytes().into_iter().chain(n.to_le_bytes())) {
        *byte = from;
    }
    SessionKey::from_bytes(bytes)
}

/// A session with 2 KiB of sealed tokens, of its own user.
pub(crate) fn record(n: u64, version: u64) -> Record {
    let now = Clock::system().now();
    Record {
        version,
        site: "app.example.com".to_owned(),
        provider: "keycloak".to_owned(),
        subject: format!("f7d5d1c4-8d3f-4c55-9a51-{n:012x}"),
        provider_session: Some(format!("0c1d7a9e-51f0-43c5-8a1d-{n:012x}")),
        created: now,
        last_seen: now,
        idle_end: now.plus(Duration::from_secs(30 * 60)),
        absolute_end: now.plus(Duration::from_secs(12 * 3600)),
        returning_end: Timestamp::default(),
        rotation: 0,
        rotated: now,
        intent: None,
        refresh_in_doubt: None,
        retry_at: None,
        due: Some(now.plus(Duration::from_secs(240))),
        sealing_key: "2026-11".to_owned(),
        generation: 1,
        sealed: vec![0x5a; 2048],
    }
}

/// The time that so many calls take in all, made by a crowd of tasks on the runtime, each one after the other.
pub(crate) fn crowd<F, A>(runtime: &Runtime, calls: u64, call: F) -> Duration
where
    F: Fn(u64) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send,
{
    let call = Arc::new(call);
    let each = calls.div_ceil(CROWD);
    runtime.block_on(async {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..CROWD)
            .map(|task| {
                let call = Arc::clone(&call);
                tokio::spawn(async move {
                    for n in 0..each {
                        call(task * each + n).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a task that ends well");
        }
        begun.elapsed().mul_f64(calls as f64 / (each * CROWD) as f64)
    })
}
