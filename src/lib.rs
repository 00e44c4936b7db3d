//! Cloakroom, the edge proxy that keeps OAuth tokens out of the browser.
//!
//! The map, top to bottom; dependencies point downwards only:
//! - [`cli`]: the command line, one file a subcommand;
//! - [`app`]: the composition root;
//! - [`demo`]: an embedded OpenID provider, a sample API and page, for `cloakroom demo` and for tests;
//! - [`listener`]: a connection before it is a request: deadlines, TLS, counting;
//! - [`admin`]: probes and metrics on a listener of their own;
//! - [`proxy`]: the hooks of Pingora, thin;
//! - [`gate`]: what happens to a request before it goes upstream;
//! - [`login`]: login, callback, logout, who am I;
//! - [`revocation`]: the end of sessions that comes from outside;
//! - [`grants`]: tokens for single upstreams, one request for all who wait;
//! - [`refresh`]: fresh access tokens, one refresh for all who wait;
//! - [`answer`]: the pages and errors that Cloakroom writes itself;
//! - [`provider`]: who logs users in and gives tokens, whatever its kind;
//! - [`credentials`]: a backend that logs users in with what they type, as its client;
//! - [`oidc`]: one OpenID provider, as its client;
//! - [`routing`]: which site, route and upstream a request belongs to;
//! - [`files`]: a folder of files as answers;
//! - [`session`]: what a session is; sealed, cached, looked up;
//! - [`store`]: where sessions live;
//! - [`config`]: the settings, parsed and checked;
//! - [`telemetry`]: what the process tells about itself;
//! - [`primitives`]: small checked types that everything uses.

pub mod admin;
pub mod answer;
pub mod app;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod demo;
pub mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod grants;
pub mod listener;
pub mod login;
pub mod oidc;
pub mod primitives;
pub mod provider;
pub mod proxy;
pub mod refresh;
pub mod revocation;
pub mod routing;
pub mod session;
pub mod store;
pub mod telemetry;
