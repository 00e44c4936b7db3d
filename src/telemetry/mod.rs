//! What the process tells about itself: metrics, the lines of its logs, traces, and a brake for what would be too much.

pub mod access;
pub mod audit;
pub mod handles;
mod json;
pub mod lines;
pub mod metrics;
pub mod pseudonym;
pub mod throttle;
pub mod traces;

use std::sync::Arc;

pub use audit::Audit;
pub use lines::Lines;
pub use metrics::Metrics;
pub use pseudonym::Pseudonyms;
pub use throttle::Throttle;

/// How a process tells of itself.
#[derive(Clone)]
pub struct Telemetry {
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Where its lines go; `None` = requests are not told one by one.
    pub lines: Option<Lines>,
}

impl Telemetry {
    /// Metrics alone.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn quiet() -> Result<Self, prometheus::Error> {
        Ok(Self { metrics: Arc::new(Metrics::new()?), lines: None })
    }
}
