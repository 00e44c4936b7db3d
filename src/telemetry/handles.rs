//! Metric handles for the hot path: labels are looked up once a series, afterwards counting is one atomic addition.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::metrics::Metrics;

/// Status codes with a slot of their own; the others are looked up by label each time.
const CODES: [u16; 24] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503,
    504,
];

/// Values of the label `state` of `upstream_endpoints`.
pub(super) const STANDINGS: [&str; 3] = ["in_service", "unhealthy", "ejected"];

/// Values of the label `method`.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"];

/// The label of a method: its name if it is a known one, else `OTHER`.
#[must_use]
pub fn method_label(method: &Method) -> &'static str {
    METHODS.get(method_slot(method)).copied().unwrap_or("OTHER")
}

fn method_slot(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        _ => 7,
    }
}

/// One counter a status code, made when the code is first seen: an unused route costs a pointer and a half a slot, and
/// no series on the metrics page.
type CodeSlots = [OnceLock<IntCounter>; CODES.len()];

/// Counts with the cached counter, or asks `make` for it. `make` gets the code as label text.
fn count(slots: &CodeSlots, code: StatusCode, make: impl FnOnce(&str) -> IntCounter) {
    let slot = CODES.binary_search(&code.as_u16()).ok().and_then(|at| slots.get(at));
    match slot {
        Some(slot) => slot.get_or_init(|| make(code.as_str())).inc(),
        None => make(code.as_str()).inc(),
    }
}

/// Counts what happens on one route.
#[derive(Debug)]
pub struct RouteMetrics {
    site: Box<str>,
    route: Box<str>,
    requests: IntCounterVec,
    counters: Box<[CodeSlots; METHODS.len()]>,
    duration: Histogram,
    bytes: [IntCounter; 2],
    in_flight: IntGauge,
}

impl RouteMetrics {
    pub(super) fn new(metrics: &Metrics, site: &str, route: &str) -> Self {
        Self {
            site: site.into(),
            route: route.into(),
            requests: metrics.http_requests_total.clone(),
            counters: Box::default(),
            duration: metrics.http_request_duration_seconds.with_label_values(&[site, route]),
            bytes: [&metrics.http_request_bytes_total, &metrics.http_response_bytes_total]
                .map(|counter| counter.with_label_values(&[site])),
            in_flight: metrics.http_requests_in_flight.with_label_values(&[site]),
        }
    }

    /// Its site and route, as labels.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        (&self.site, &self.route)
    }

    /// A request has begun; it is in flight until the returned guard is dropped, however it ends.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.inc();
        InFlight(Arc::clone(self))
    }

    /// A request had a body of so many bytes, and its answer another. Call it once a request.
    pub fn transferred(&self, request: u64, answer: u64) {
        for (counter, bytes) in self.bytes.iter().zip([request, answer]) {
            // Most requests have no body, and the counter is one for all threads.
            if bytes > 0 {
                counter.inc_by(bytes);
            }
        }
    }

    /// A request was answered with `code` after `elapsed`. Call it once a request.
    pub fn finished(&self, method: &Method, code: StatusCode, elapsed: Duration) {
        self.duration.observe(elapsed.as_secs_f64());
        if let Some(slots) = self.counters.get(method_slot(method)) {
            count(slots, code, |code| {
                self.requests.with_label_values(&[&*self.site, &*self.route, method_label(method), code])
            });
        }
    }
}

/// A request under way on a route.
#[derive(Debug)]
pub struct InFlight(Arc<RouteMetrics>);

impl InFlight {
    /// The metrics of its route.
    #[must_use]
    pub fn route(&self) -> &Arc<RouteMetrics> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// Counts what an upstream answers.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: Box<str>,
    requests: IntCounterVec,
    counters: Box<CodeSlots>,
    duration: Histogram,
    refused: IntCounterVec,
    retries: IntCounterVec,
    /// In service, unhealthy, ejected.
    endpoints: [IntGauge; 3],
    ejections: IntCounter,
    checks: IntCounterVec,
}

impl UpstreamMetrics {
    pub(super) fn new(metrics: &Metrics, name: &str) -> Self {
        Self {
            name: name.into(),
            requests: metrics.upstream_requests_total.clone(),
            counters: Box::default(),
            duration: metrics.upstream_request_duration_seconds.with_label_values(&[name]),
            refused: metrics.upstream_unauthorized_retries_total.clone(),
            retries: metrics.upstream_retries_total.clone(),
            endpoints: STANDINGS.map(|state| metrics.upstream_endpoints.with_label_values(&[name, state])),
            ejections: metrics.upstream_ejections_total.with_label_values(&[name]),
            checks: metrics.upstream_health_checks_total.clone(),
        }
    }

    /// So many addresses are in service, out of it for their health checks, and out of it for failed requests.
    pub fn standing(&self, in_service: usize, unhealthy: usize, ejected: usize) {
        for (gauge, count) in self.endpoints.iter().zip([in_service, unhealthy, ejected]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// An address is left alone for a while, because requests to it failed.
    pub fn ejected(&self) {
        self.ejections.inc();
    }

    /// A health check was done.
    pub fn checked(&self, good: bool) {
        self.checks.with_label_values(&[&*self.name, if good { "ok" } else { "error" }]).inc();
    }

    /// The upstream answered with `code`, its response header came after `elapsed`.
    pub fn answered(&self, code: StatusCode, elapsed: Duration) {
        self.duration.observe(elapsed.as_secs_f64());
        count(&self.counters, code, |code| self.requests.with_label_values(&[&*self.name, code]));
    }

    /// An attempt failed that might be followed by another, and this became of it.
    pub fn retried(&self, result: &'static str) {
        self.retries.with_label_values(&[&*self.name, result]).inc();
    }

    /// The upstream refused a token of ours, and this became of it.
    pub fn refused_token(&self, result: &'static str) {
        self.refused.with_label_values(&[&*self.name, result]).inc();
    }

    /// The upstream gave no answer: `reason` is one of a fixed list (`connect`, `timeout`, `reset`, …) and stands where
    /// a code would.
    pub fn failed(&self, reason: &'static str) {
        self.requests.with_label_values(&[&*self.name, reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_for_the_binary_search() {
        assert!(CODES.is_sorted());
    }

    #[test]
    fn requests_are_counted_once_with_or_without_a_slot() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("app.example.com", "/api");
        for code in [200, 200, 418] {
            route.finished(&Method::GET, StatusCode::from_u16(code).unwrap(), Duration::from_millis(2));
        }
        route.finished(&Method::from_bytes(b"BREW").unwrap(), StatusCode::OK, Duration::from_millis(2));
        let page = metrics.render();
        for line in [
            r#"cloakroom_http_requests_total{code="200",method="GET",route="/api",site="app.example.com"} 2"#,
            r#"cloakroom_http_requests_total{code="418",method="GET",route="/api",site="app.example.com"} 1"#,
            r#"cloakroom_http_requests_total{code="200",method="OTHER",route="/api",site="app.example.com"} 1"#,
            r#"cloakroom_http_request_duration_seconds_count{route="/api",site="app.example.com"} 4"#,
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_dropped_request_is_no_longer_in_flight() {
        let metrics = Metrics::new().unwrap();
        let route = Arc::new(metrics.route("s", "/"));
        let guard = route.enter();
        assert_eq!(metrics.http_requests_in_flight.with_label_values(&["s"]).get(), 1);
        drop(guard);
        assert_eq!(metrics.http_requests_in_flight.with_label_values(&["s"]).get(), 0);
    }

    #[test]
    fn upstream_answers_and_failures_are_told_apart() {
        let metrics = Metrics::new().unwrap();
        let upstream = metrics.upstream("api");
        upstream.answered(StatusCode::OK, Duration::from_millis(1));
        upstream.failed("connect");
        let page = metrics.render();
        assert!(page.contains(r#"cloakroom_upstream_requests_total{code="200",upstream="api"} 1"#), "{page}");
        assert!(page.contains(r#"cloakroom_upstream_requests_total{code="connect",upstream="api"} 1"#), "{page}");
    }
}
