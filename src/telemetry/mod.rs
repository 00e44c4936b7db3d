//! What the process tells about itself: metrics, and a brake for its log.

pub mod handles;
pub mod metrics;
pub mod throttle;

pub use metrics::Metrics;
pub use throttle::Throttle;
