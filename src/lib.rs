//! Cloakroom, the edge proxy that keeps OAuth tokens out of the browser.
//!
//! The map, top to bottom; dependencies point downwards only:
//! - [`config`]: the settings, parsed and checked;
//! - [`listener`]: a connection before it is a request: deadlines, TLS, counting;
//! - [`admin`]: probes and metrics on a listener of their own;
//! - [`routing`]: which site, route and upstream a request belongs to;
//! - [`telemetry`]: what the process tells about itself;
//! - [`primitives`]: small checked types that everything uses.

pub mod admin;
pub mod config;
pub mod listener;
pub mod primitives;
pub mod routing;
pub mod session;
pub mod store;
pub mod telemetry;
