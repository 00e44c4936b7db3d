//! Sessions: what they are, how they are named, sealed, cached and looked up.

mod cache;
pub mod claims;
pub mod context;
pub mod cookie;
pub mod csrf;
pub mod issued;
pub mod key_ring;
pub mod manager;
pub mod model;
pub mod open;
pub mod plan;
pub mod profile;
pub mod proxy_token;
pub mod rules;
pub mod seal;
pub mod ticket;
pub mod touches;
pub mod upkeep;
pub mod vigil;
pub mod watch;
