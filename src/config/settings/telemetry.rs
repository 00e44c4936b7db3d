//! What the process tells of itself.

use url::Url;

use crate::telemetry::access::Fields;

/// What the process tells of itself, beside metrics and its own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// One line a request.
    pub access_log: AccessLog,
    /// Traces; `None` = none are made.
    pub traces: Option<Traces>,
}

/// Traces that are told to a collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Where spans are sent, over HTTP.
    pub endpoint: Url,
    /// How many of a hundred traces that begin here are told of; default 100.
    pub sample: u8,
    /// Whose traces are gone on with; default those of trusted proxies.
    pub trust: TraceTrust,
    /// `service.name`; default `cloakroom`.
    pub service_name: String,
}

/// Whose `traceparent` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceTrust {
    /// Nobody's: each request begins a trace.
    Never,
    /// That of peers in `trusted_proxies`.
    TrustedProxies,
    /// Everybody's.
    Always,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether there is one; default true.
    pub enabled: bool,
    /// What is left out of its lines; default nothing.
    pub omit: Fields,
}
