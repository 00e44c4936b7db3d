//! CPU time of one proxied request, beside a bare Pingora proxy that gets the same request, built with the same profile
//! and allocator, in one run on the same cores. Absolute times on a shared machine mean nothing; the ratio does.
//!
//! `cargo bench --bench side_by_side` starts an upstream, a bare proxy and Cloakroom as processes of their own, lets
//! wrk load each in turn for a few rounds, and reads from `/proc` what each process used. Each proxy has one worker
//! thread on the first core; load, upstream and Redis have the second: two hungry programs on one core would measure the
//! scheduler.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::expect_used, clippy::panic)]

mod bare;
mod world;

use std::fs;
use std::process::Command;

use mimalloc::MiMalloc;
use world::{Case, World};

/// The allocator that Cloakroom has, or the comparison would be one of allocators.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Many short rounds: other work on the machine then disturbs all cases alike.
const ROUNDS: usize = 15;
const SECONDS: u32 = 1;
const CONNECTIONS: u32 = 32;

/// What one run of wrk cost the proxy.
struct Cost {
    requests: u64,
    micros_per_request: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("upstream") => bare::upstream(&arguments),
        Some("bare") => bare::proxy(&arguments),
        Some("login") => world::hold_login(&arguments),
        // `cargo test --all-targets` starts benches without this word, to see that they build.
        _ if arguments.iter().any(|word| word == "--bench") => compare(),
        _ => println!("side_by_side measures only under `cargo bench`"),
    }
}

fn compare() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let world = runtime.block_on(World::start());
    println!("{ROUNDS} rounds, wrk with {CONNECTIONS} connections for {SECONDS} s each; CPU of the proxy alone\n");
    let mut costs: Vec<Vec<Cost>> = world.cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (case, costs) in world.cases.iter().zip(&mut costs) {
            costs.push(load(case));
        }
    }
    println!("{:<40} {:>10} {:>14} {:>13} {:>13}", "", "requests", "CPU µs/request", "same request", "first line");
    for (case, of_case) in world.cases.iter().zip(&costs) {
        let mut micros: Vec<f64> = of_case.iter().map(|cost| cost.micros_per_request).collect();
        let requests: u64 = of_case.iter().map(|cost| cost.requests).sum();
        let (same, first) = (ratio(of_case, costs.get(case.bare)), ratio(of_case, costs.first()));
        println!("{:<40} {requests:>10} {:>14.2} {same:>13.3} {first:>13.3}", case.name, median(&mut micros));
    }
}

/// The median of the ratios of each round.
fn ratio(costs: &[Cost], bare: Option<&Vec<Cost>>) -> f64 {
    let pairs = costs.iter().zip(bare.into_iter().flatten());
    let mut ratios: Vec<f64> = pairs.map(|(cost, bare)| cost.micros_per_request / bare.micros_per_request).collect();
    median(&mut ratios)
}

fn load(case: &Case) -> Cost {
    let before = cpu_ticks(case.process);
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", "1", "wrk", "-t1", &format!("-c{CONNECTIONS}"), &format!("-d{SECONDS}s")]);
    if let Some(cookie) = &case.cookie {
        wrk.args(["-H", &format!("Cookie: {cookie}")]);
    }
    let output = wrk.arg(&case.url).output().expect("wrk (Debian package wrk)");
    let used = cpu_ticks(case.process) - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{}: {text}", case.name);
    let requests = text.lines().find_map(|line| line.split_once(" requests in")).map(|(n, _)| n.trim().parse());
    let requests: u64 = requests.and_then(Result::ok).unwrap_or_else(|| panic!("{}: {text}", case.name));
    // USER_HZ is 100 on Linux: a tick is 10 ms.
    Cost { requests, micros_per_request: used as f64 * 10_000.0 / requests as f64 }
}

/// User and system time of a process, in ticks.
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
