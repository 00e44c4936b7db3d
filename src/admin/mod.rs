//! The admin listener: probes, which are open, and metrics, which may ask for a token.

pub mod readiness;
pub mod server;
