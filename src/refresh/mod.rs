//! Fresh access tokens: one refresh for all who wait, in this process and among replicas.

mod attempt;
pub mod background;
pub mod engine;
mod flight;
mod keep;
mod lease;
mod need;
mod pace;
mod refusal;
mod unsettled;

pub use engine::{Failure, Refreshed, Refresher};
pub(crate) use flight::Flights;
pub use unsettled::Unsettled;
