//! What the process tells about itself: metrics.

pub mod handles;
pub mod metrics;

pub use metrics::Metrics;
