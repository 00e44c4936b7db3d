//! The provider as its clients see it, over real HTTP.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod flow;
mod guest;
mod id_token;
mod manners;
mod refresh;
