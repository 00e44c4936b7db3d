//! Where a request belongs: its host, its site, its route, and the addresses that serve it. Knows nothing of hooks.

pub mod discovery;
pub mod host;
pub mod table;
mod tunnel;
pub mod upstream;
