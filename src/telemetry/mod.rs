//! What the process tells about itself: metrics, the audit log, and a brake for its log.

pub mod audit;
pub mod handles;
pub mod metrics;
pub mod throttle;

pub use audit::Audit;
pub use metrics::Metrics;
pub use throttle::Throttle;
