//! The admin listener: probes, which are open, metrics, which may ask for a token, and sessions, which always do.

pub mod readiness;
pub mod server;
pub mod sessions;
