//! Fresh access tokens: one refresh for all who wait, in this process and among replicas.

mod attempt;
pub mod engine;
mod flight;
mod lease;

pub use engine::{Failure, Refreshed, Refresher};
