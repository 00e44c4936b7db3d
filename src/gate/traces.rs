//! Which trace a request belongs to.

use super::{Client, Gate, Request};
use crate::config::settings::TraceTrust;
use crate::telemetry::access::Fields;
use crate::telemetry::traces::{Trace, Tracer};

/// Makes the traces of requests.
#[derive(Clone)]
pub struct Traces {
    /// Where they are told.
    pub tracer: Tracer,
    /// Whose are gone on with.
    pub trust: TraceTrust,
    /// What no span holds, as no line of the access log does.
    pub omit: Fields,
}

impl Gate {
    /// The trace of a request that begins; `None` = there are no traces.
    #[must_use]
    pub fn trace(&self, request: &Request<'_>) -> Option<(Tracer, Trace)> {
        let Traces { tracer, trust, .. } = self.traces.as_ref()?;
        let trusted = match trust {
            TraceTrust::Never => false,
            TraceTrust::TrustedProxies => Client::is_believed(request.connection, &self.trusted_proxies),
            TraceTrust::Always => true,
        };
        Some((tracer.clone(), tracer.begin(request.headers, trusted)))
    }
}
