//! A complete surrounding for the proxy on one machine: an OpenID provider, a sample API, a sample page.
//!
//! `cloakroom demo` starts it so that nothing has to be installed to see the proxy work, and the integration
//! tests start it because every part of it records what reached it and can be told to misbehave.

pub mod api;
pub mod backend;
pub mod faults;
mod page;
pub mod proof;
pub mod provider;
mod recorder;
mod server;
mod support;

use std::io;
use std::net::SocketAddr;

pub use api::Upstream;
pub use backend::Backend;
pub use faults::{Fault, Faults, Gate};
pub use provider::{Provider, ProviderConfig};
pub use recorder::{Received, Recorder};

/// The client that the demo's provider knows.
pub const CLIENT_ID: &str = "cloakroom-demo";
/// Its secret; worth nothing outside the demo.
pub const CLIENT_SECRET: &str = "demo-secret-for-this-machine-only";
/// The login names of the demo's users, each logged in by one click.
pub const USERS: [&str; 2] = ["alice", "bob"];

/// The demo's surrounding: provider and API, well behaved. It stops when it is dropped.
pub struct Demo {
    /// The OpenID provider.
    pub provider: Provider,
    /// The sample API with the sample page.
    pub upstream: Upstream,
}

/// Starts provider and API on loopback addresses (port 0 picks a free one).
///
/// The provider knows [`CLIENT_ID`] with [`CLIENT_SECRET`] and sends browsers back to `/auth/callback` on any
/// port of this machine. Must be called on a tokio runtime.
///
/// # Errors
/// If an address is not a loopback address or is taken.
pub fn start(provider: SocketAddr, upstream: SocketAddr) -> io::Result<Demo> {
    let provider = Provider::start(ProviderConfig { address: provider, ..ProviderConfig::default() })?;
    let upstream = Upstream::start(upstream)?;
    Ok(Demo { provider, upstream })
}
