//! What each request pays for, one module a step of the way.

use criterion::Criterion;

mod routing;
mod session;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    routing::bench(&mut criterion);
    session::bench(&mut criterion);
    criterion.final_summary();
}
