//! Cloakroom, the edge proxy that keeps OAuth tokens out of the browser.
//!
//! The map, top to bottom; dependencies point downwards only:
//! - [`oidc`]: one OpenID provider, as its client;
//! - [`config`]: the settings, parsed and checked;
//! - [`primitives`]: small checked types that everything uses.

pub mod config;
pub mod oidc;
pub mod primitives;
pub mod session;
pub mod store;
