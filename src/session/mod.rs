//! Sessions: what they are, how they are named, sealed, cached and looked up.

pub mod cookie;
pub mod csrf;
pub mod key_ring;
pub mod manager;
pub mod model;
pub mod open;
pub mod seal;
