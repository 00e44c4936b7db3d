//! Where a request belongs: its host, its site, its route, and the addresses that serve it. Knows nothing of hooks.

pub mod cors;
pub mod discovery;
mod frames;
pub mod host;
pub mod rates;
pub mod retries;
pub mod route;
pub mod security;
pub mod table;
pub mod tunnel;
pub mod upstream;
