//! Sessions: what they are, how they are named, sealed, cached and looked up.

pub mod key_ring;
pub mod model;
pub mod seal;
