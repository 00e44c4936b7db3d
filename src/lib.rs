//! Cloakroom, the edge proxy that keeps OAuth tokens out of the browser.
//!
//! The map, top to bottom; dependencies point downwards only:
//! - [`cli`]: the command line, one file a subcommand;
//! - [`config`]: the settings, parsed and checked;
//! - [`primitives`]: small checked types that everything uses.

pub mod cli;
pub mod config;
pub mod primitives;
pub mod session;
pub mod store;
