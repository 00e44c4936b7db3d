//! Cloakroom, the edge proxy that keeps OAuth tokens out of the browser.
//!
//! The map, top to bottom; dependencies point downwards only:
//! - [`config`]: the settings, parsed and checked;
//! - [`routing`]: which site, route and upstream a request belongs to;
//! - [`telemetry`]: what the process tells about itself;
//! - [`primitives`]: small checked types that everything uses.

pub mod config;
pub mod primitives;
pub mod routing;
pub mod session;
pub mod store;
pub mod telemetry;
//! Cloakroom keeps OAuth tokens out of the browser.

pub mod demo;
