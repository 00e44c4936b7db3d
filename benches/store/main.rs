//! What the layer of a store costs beside the raw calls of its client: the same commands without records, keeper,
//! pool and breaker. One module a store; each needs its server's program on this machine.
//!
//! `cargo bench --bench store -- redis` runs those of Redis.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use criterion::Criterion;

mod common;
mod file;
mod postgres;
mod redis;

fn main() {
    let criterion = Criterion::default().sample_size(30);
    let criterion = criterion.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    let mut criterion = criterion.configure_from_args();
    file::bench(&mut criterion);
    postgres::bench(&mut criterion);
    redis::bench(&mut criterion);
    criterion.final_summary();
}
