//! Faults on purpose: the proof that sessions are not lost. Minutes of work, so `make faults` runs it, not `cargo test`.
//!
//! One module a run. Each counts what it did and compares with a criterion that is written down beforehand; the numbers
//! shrink with `SCALE`, the criteria do not.
#![allow(missing_docs, dead_code, clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod abort;
#[path = "../it/backchannel_kit.rs"]
mod backchannel_kit;
mod crash;
mod expiry;
#[path = "../support/harness.rs"]
mod harness;
mod herd;
#[path = "../support/kit.rs"]
mod kit;
mod logout;
mod many;
mod memory;
mod outage;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
#[path = "../support/process.rs"]
mod process;
mod provider_down;
mod quick;
#[path = "../support/redis_group.rs"]
mod redis_group;
#[path = "../support/redis_server.rs"]
mod redis_server;
mod report;
mod seed;
#[path = "../support/shared_store.rs"]
mod shared_store;
mod throughput;
mod window;
mod yard;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::report::Row;
use crate::yard::Scale;

// As the program itself, or memory would be measured with another allocator than the one that is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Run = fn(Scale) -> BoxFuture<'static, Vec<Row>>;

const RUNS: [(&str, Run); 11] = [
    ("expiry", |scale| expiry::run(scale).boxed()),
    ("abort", |scale| abort::run(scale).boxed()),
    ("crash", |scale| crash::run(scale).boxed()),
    ("window", |scale| window::run(scale).boxed()),
    ("outage", |scale| outage::run(scale).boxed()),
    ("provider", |scale| provider_down::run(scale).boxed()),
    ("logout", |scale| logout::run(scale).boxed()),
    ("many", |scale| many::run(scale).boxed()),
    ("memory", |scale| memory::run(scale).boxed()),
    ("throughput", |scale| throughput::run(scale).boxed()),
    ("herd", |scale| herd::run(scale).boxed()),
];

/// No run takes longer, whatever happens.
const LONGEST: Duration = Duration::from_secs(20 * 60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", "provider", latency] => runtime.block_on(quick::serve(latency)),
        ["child", "memory", sessions] => runtime.block_on(memory::measure(sessions)),
        ref names => runtime.block_on(all(names)),
    }
}

async fn all(names: &[&str]) -> ExitCode {
    // First, so that the harness cannot keep every line of every request.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    if let Some(unknown) = names.iter().find(|name| RUNS.iter().all(|(known, _)| known != *name)) {
        eprintln!("no such run: {unknown}; there are {}", RUNS.map(|(name, _)| name).join(", "));
        return ExitCode::FAILURE;
    }
    let scale = Scale::from_env();
    let mut rows = Vec::new();
    for (name, run) in RUNS.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        eprintln!("== {name}");
        let begun = Instant::now();
        // In a task of its own, so that a panic fails this run and no other.
        let work = tokio::spawn(run(scale));
        match tokio::time::timeout(LONGEST, work).await {
            Ok(Ok(done)) => rows.extend(done),
            Ok(Err(panic)) => rows.push(Row::broken(name, &panic.to_string())),
            Err(_) => rows.push(Row::broken(name, "did not end in time")),
        }
        eprintln!("== {name}: {} s", begun.elapsed().as_secs());
    }
    report::publish(&rows, scale, names);
    if rows.iter().all(|row| row.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
