//! Fresh access tokens: one refresh for all who wait, in a task of its own, stored before anyone uses it.

mod engine;
mod flight;

pub use engine::{Failure, Refreshed, Refresher};
