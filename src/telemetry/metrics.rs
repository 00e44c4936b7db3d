//! Every metric there is, in one place: names, labels and help texts.
//!
//! Label values come from the settings or from a fixed list, never from a path, host, user or session, so the number
//! of series is bounded by the settings. The registry is our own: tests make as many as they like.

use std::cell::RefCell;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use super::handles::{RouteMetrics, STANDINGS, UpstreamMetrics};

/// Upper bounds of every duration histogram, in seconds.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// First part of every name.
const NAMESPACE: &str = "cloakroom";

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Handles of all metrics. Clones of a handle share their values.
///
/// Each field is named as the metric is, without the prefix `cloakroom_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    descriptions: Vec<Description>,
    /// Requests answered; count through [`RouteMetrics`]. Labels: site, route, method, code.
    pub http_requests_total: IntCounterVec,
    /// From the parsed request header to the last byte of the answer. Labels: site, route.
    pub http_request_duration_seconds: HistogramVec,
    /// Requests under way. Label: site.
    pub http_requests_in_flight: IntGaugeVec,
    /// Bytes of request bodies; count through [`RouteMetrics`]. Label: site.
    pub http_request_bytes_total: IntCounterVec,
    /// Bytes of answers' bodies; count through [`RouteMetrics`]. Label: site.
    pub http_response_bytes_total: IntCounterVec,
    /// Open client connections. Labels: listener, protocol (`new` until the first request, then `http1` or `h2`).
    pub connections_open: IntGaugeVec,
    /// Requests refused before a route was found. Label: reason.
    pub requests_rejected_total: IntCounterVec,
    /// Connections refused before anything was read from them. Label: reason (`connections`, `address`, `memory`,
    /// `proxy_protocol`).
    pub connections_rejected_total: IntCounterVec,
    /// When a certificate of a listener ends, in seconds since 1970. Label: name, its file.
    pub tls_certificate_not_after_timestamp_seconds: IntGaugeVec,
    /// Changed certificate files that were read. Labels: listener, result.
    pub tls_reloads_total: IntCounterVec,
    /// Resident memory of the process.
    pub memory_bytes: IntGauge,
    /// From where on new work is refused; 0 = never.
    pub memory_limit_bytes: IntGauge,
    /// Requests that needed a session and had none. Label: answer (`redirect`, `401`, `503`).
    pub unauthenticated_total: IntCounterVec,
    /// Answers of upstreams; count through [`UpstreamMetrics`]. Labels: upstream, code.
    pub upstream_requests_total: IntCounterVec,
    /// From the request sent to the response header. Label: upstream.
    pub upstream_request_duration_seconds: HistogramVec,
    /// Failed attempts that were followed by another, or were not for want of budget; count through [`UpstreamMetrics`].
    /// Labels: upstream, result.
    pub upstream_retries_total: IntCounterVec,
    /// Answers that refused a token of ours; count through [`UpstreamMetrics`]. Labels: upstream, result.
    pub upstream_unauthorized_retries_total: IntCounterVec,
    /// Addresses of upstreams; set through [`UpstreamMetrics`]. Labels: upstream, state.
    pub upstream_endpoints: IntGaugeVec,
    /// Addresses left alone for a while. Label: upstream.
    pub upstream_ejections_total: IntCounterVec,
    /// Health checks of addresses. Labels: upstream, result.
    pub upstream_health_checks_total: IntCounterVec,
    /// Logins that ended. Labels: provider, result, reason.
    pub logins_total: IntCounterVec,
    /// From the start of a login to its callback. Label: provider.
    pub login_duration_seconds: HistogramVec,
    /// Sessions ended. Labels: provider, kind.
    pub logouts_total: IntCounterVec,
    /// From a provider's logout to the end of its sessions here.
    pub revocation_lag_seconds: Histogram,
    /// Living sessions by the key that sealed them. Label: key.
    pub sessions_by_key: IntGaugeVec,
    /// Lines of the audit log. Label: event.
    pub audit_events_total: IntCounterVec,
    /// Lines that could not be written fast enough, or not at all. Label: stream.
    pub log_lines_dropped_total: IntCounterVec,
    /// Spans of traces. Label: result.
    pub trace_spans_total: IntCounterVec,
    /// Sessions looked up. Labels: source (`cache`, `store`), result.
    pub session_lookups_total: IntCounterVec,
    /// Sessions in the local cache.
    pub session_cache_entries: IntGauge,
    /// About how much memory they take.
    pub session_cache_bytes: IntGauge,
    /// Event streams open.
    pub event_streams_open: IntGauge,
    /// Streams, tunnels and long answers ended because their session was over. Label: kind.
    pub streams_ended_total: IntCounterVec,
    /// Changes of the user context that upstreams asked for. Label: result.
    pub user_context_updates_total: IntCounterVec,
    /// Token refreshes. Labels: provider, mode, result.
    pub token_refreshes_total: IntCounterVec,
    /// Time of one token refresh. Label: provider.
    pub token_refresh_duration_seconds: HistogramVec,
    /// Requests that wait for a refresh. Label: provider.
    pub token_refresh_waiters: IntGaugeVec,
    /// Refreshes in the background that this replica has claimed and not finished.
    pub token_refresh_queue_depth: IntGauge,
    /// 1 while a token endpoint is left alone because it failed. Labels: provider.
    pub idp_breaker_open: IntGaugeVec,
    /// How far behind its plan a refresh in the background begins. Labels: provider.
    pub token_refresh_lag_seconds: HistogramVec,
    /// Refresh tokens that may have been used up without our hearing of it. Labels: provider.
    pub token_refresh_in_doubt_total: IntCounterVec,
    /// Failed CSRF checks. Labels: reason, mode (`enforce`, `report`).
    pub csrf_rejections_total: IntCounterVec,
    /// Access tokens of clients that were judged. Label: result.
    pub bearer_tokens_total: IntCounterVec,
    /// Tokens for single upstreams that providers were asked for. Labels: provider, kind, result.
    pub upstream_tokens_total: IntCounterVec,
    /// Requests that wait for such a token. Label: provider.
    pub upstream_token_waiters: IntGaugeVec,
    /// Requests to OpenID providers. Labels: provider, endpoint, result.
    pub idp_requests_total: IntCounterVec,
    /// Time of one request to an OpenID provider. Labels: provider, endpoint.
    pub idp_request_duration_seconds: HistogramVec,
    /// Fetches of a provider's keys. Labels: provider, result.
    pub jwks_refreshes_total: IntCounterVec,
    /// When a provider's keys were fetched last, in seconds since 1970. Label: provider.
    pub jwks_last_success_timestamp_seconds: IntGaugeVec,
    /// Settings read again while the process runs. Label: result.
    pub config_reloads_total: IntCounterVec,
    /// 1 if the settings read last hold, 0 if they were refused.
    pub config_last_reload_successful: IntGauge,
    /// When settings that hold were read last, in seconds since 1970.
    pub config_last_reload_success_timestamp_seconds: IntGauge,
    /// 1 while the process is about to stop.
    pub draining: IntGauge,
    /// Commands to the session store. Labels: op, result.
    pub store_operations_total: IntCounterVec,
    /// Time of one command to the session store. Label: op.
    pub store_operation_duration_seconds: HistogramVec,
}

impl Metrics {
    /// A fresh registry with every metric in it.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics share a name or a name is malformed; a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker { registry: &registry, descriptions: RefCell::default() };
        let metrics = Self {
            http_requests_total: make.counter(
                "http_requests_total",
                "Requests answered.",
                &["site", "route", "method", "code"],
            )?,
            http_request_duration_seconds: make.histogram(
                "http_request_duration_seconds",
                "Time from the request header to the last byte of the answer.",
                &["site", "route"],
            )?,
            http_requests_in_flight: make.gauge("http_requests_in_flight", "Requests under way.", &["site"])?,
            http_request_bytes_total: make.counter(
                "http_request_bytes_total",
                "Bytes of request bodies.",
                &["site"],
            )?,
            http_response_bytes_total: make.counter(
                "http_response_bytes_total",
                "Bytes of the bodies of answers.",
                &["site"],
            )?,
            connections_open: make.gauge("connections_open", "Open client connections.", &["listener", "protocol"])?,
            requests_rejected_total: make.counter(
                "requests_rejected_total",
                "Requests refused before a route was found.",
                &["reason"],
            )?,
            connections_rejected_total: make.counter(
                "connections_rejected_total",
                "Connections refused before anything was read from them.",
                &["reason"],
            )?,
            tls_certificate_not_after_timestamp_seconds: make.gauge(
                "tls_certificate_not_after_timestamp_seconds",
                "When a certificate of a listener ends, in seconds since 1970.",
                &["name"],
            )?,
            tls_reloads_total: make.counter(
                "tls_reloads_total",
                "Changed certificate files that were read.",
                &["listener", "result"],
            )?,
            memory_bytes: make.single_gauge("memory_bytes", "Resident memory of the process.")?,
            memory_limit_bytes: make.single_gauge(
                "memory_limit_bytes",
                "Resident memory from which on new work is refused; 0 = no limit.",
            )?,
            unauthenticated_total: make.counter(
                "unauthenticated_total",
                "Requests that needed a session and had none.",
                &["answer"],
            )?,
            upstream_requests_total: make.counter(
                "upstream_requests_total",
                "Answers of upstreams.",
                &["upstream", "code"],
            )?,
            upstream_request_duration_seconds: make.histogram(
                "upstream_request_duration_seconds",
                "Time from the request sent upstream to the response header.",
                &["upstream"],
            )?,
            upstream_endpoints: make.gauge("upstream_endpoints", "Addresses of upstreams.", &["upstream", "state"])?,
            upstream_ejections_total: make.counter(
                "upstream_ejections_total",
                "Addresses left alone for a while because requests to them failed.",
                &["upstream"],
            )?,
            upstream_health_checks_total: make.counter(
                "upstream_health_checks_total",
                "Health checks of addresses.",
                &["upstream", "result"],
            )?,
            upstream_retries_total: make.counter(
                "upstream_retries_total",
                "Requests to be sent to an upstream again after an attempt that failed.",
                &["upstream", "result"],
            )?,
            upstream_unauthorized_retries_total: make.counter(
                "upstream_unauthorized_retries_total",
                "Answers of upstreams that refused a token of ours.",
                &["upstream", "result"],
            )?,
            logins_total: make.counter("logins_total", "Logins that ended.", &["provider", "result", "reason"])?,
            login_duration_seconds: make.histogram(
                "login_duration_seconds",
                "Time from the start of a login to its callback.",
                &["provider"],
            )?,
            logouts_total: make.counter("logouts_total", "Sessions ended.", &["provider", "kind"])?,
            revocation_lag_seconds: make.single_histogram(
                "revocation_lag_seconds",
                "Time from a provider's logout to the end of its sessions here.",
            )?,
            sessions_by_key: make.gauge("sessions_by_key", "Living sessions by the key that sealed them.", &["key"])?,
            audit_events_total: make.counter("audit_events_total", "Lines of the audit log.", &["event"])?,
            log_lines_dropped_total: make.counter(
                "log_lines_dropped_total",
                "Lines of logs that were not written.",
                &["stream"],
            )?,
            trace_spans_total: make.counter("trace_spans_total", "Spans of traces.", &["result"])?,
            session_lookups_total: make.counter(
                "session_lookups_total",
                "Sessions looked up.",
                &["source", "result"],
            )?,
            session_cache_entries: make.single_gauge("session_cache_entries", "Sessions in the local cache.")?,
            session_cache_bytes: make.single_gauge("session_cache_bytes", "About the memory of the local cache.")?,
            event_streams_open: make.single_gauge("event_streams_open", "Event streams open.")?,
            streams_ended_total: make.counter(
                "streams_ended_total",
                "Event streams, tunnels and long answers ended because their session was over.",
                &["kind"],
            )?,
            user_context_updates_total: make.counter(
                "user_context_updates_total",
                "Changes of the user context that upstreams asked for.",
                &["result"],
            )?,
            token_refreshes_total: make.counter(
                "token_refreshes_total",
                "Token refreshes.",
                &["provider", "mode", "result"],
            )?,
            token_refresh_duration_seconds: make.histogram(
                "token_refresh_duration_seconds",
                "Time of one token refresh.",
                &["provider"],
            )?,
            token_refresh_waiters: make.gauge(
                "token_refresh_waiters",
                "Requests that wait for a token refresh.",
                &["provider"],
            )?,
            token_refresh_queue_depth: make.single_gauge(
                "token_refresh_queue_depth",
                "Refreshes in the background that are claimed and not finished.",
            )?,
            idp_breaker_open: make.gauge(
                "idp_breaker_open",
                "1 while a token endpoint is left alone because it failed.",
                &["provider"],
            )?,
            token_refresh_lag_seconds: make.histogram(
                "token_refresh_lag_seconds",
                "How far behind its plan a refresh in the background begins.",
                &["provider"],
            )?,
            token_refresh_in_doubt_total: make.counter(
                "token_refresh_in_doubt_total",
                "Refresh tokens that may have been used up without our hearing of it.",
                &["provider"],
            )?,
            csrf_rejections_total: make.counter("csrf_rejections_total", "Failed CSRF checks.", &["reason", "mode"])?,
            bearer_tokens_total: make.counter(
                "bearer_tokens_total",
                "Access tokens of clients that were judged.",
                &["result"],
            )?,
            upstream_tokens_total: make.counter(
                "upstream_tokens_total",
                "Tokens for single upstreams that providers were asked for.",
                &["provider", "kind", "result"],
            )?,
            upstream_token_waiters: make.gauge(
                "upstream_token_waiters",
                "Requests that wait for a token for a single upstream.",
                &["provider"],
            )?,
            idp_requests_total: make.counter(
                "idp_requests_total",
                "Requests to OpenID providers.",
                &["provider", "endpoint", "result"],
            )?,
            idp_request_duration_seconds: make.histogram(
                "idp_request_duration_seconds",
                "Time of one request to an OpenID provider.",
                &["provider", "endpoint"],
            )?,
            jwks_refreshes_total: make.counter(
                "jwks_refreshes_total",
                "Fetches of a provider's keys.",
                &["provider", "result"],
            )?,
            jwks_last_success_timestamp_seconds: make.gauge(
                "jwks_last_success_timestamp_seconds",
                "When a provider's keys were fetched last, in seconds since 1970.",
                &["provider"],
            )?,
            config_reloads_total: make.counter(
                "config_reloads_total",
                "Settings read again while the process runs.",
                &["result"],
            )?,
            config_last_reload_successful: make
                .single_gauge("config_last_reload_successful", "1 if the settings read last hold.")?,
            config_last_reload_success_timestamp_seconds: make.single_gauge(
                "config_last_reload_success_timestamp_seconds",
                "When settings that hold were read last.",
            )?,
            draining: make.single_gauge("draining", "1 while the process is about to stop.")?,
            store_operations_total: make.counter(
                "store_operations_total",
                "Commands to the session store.",
                &["op", "result"],
            )?,
            store_operation_duration_seconds: make.histogram(
                "store_operation_duration_seconds",
                "Time of one command to the session store.",
                &["op"],
            )?,
            registry: registry.clone(),
            descriptions: Vec::new(),
        };
        make.gauge("build_info", "Always 1; the labels tell which build runs.", &["version", "revision"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("CLOAKROOM_REVISION").unwrap_or("unknown")])
            .set(1);
        Ok(Self { descriptions: make.descriptions.into_inner(), ..metrics })
    }

    /// Every metric there is, whether there is a series of it yet or not.
    #[must_use]
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// The handle of one route, to be made once when the settings are put to work.
    #[must_use]
    pub fn route(&self, site: &str, route: &str) -> RouteMetrics {
        RouteMetrics::new(self, site, route)
    }

    /// The handle of one upstream, to be made once when the settings are put to work.
    #[must_use]
    pub fn upstream(&self, upstream: &str) -> UpstreamMetrics {
        UpstreamMetrics::new(self, upstream)
    }

    /// There is such a provider. What is rare is counted from zero on: of a counter that appears with its first event nobody
    /// sees that it has risen.
    pub fn expect_provider(&self, provider: &str) {
        self.token_refresh_in_doubt_total.with_label_values(&[provider]);
        for mode in ["background", "inline", "forced"] {
            for result in ["ok", "invalid_grant", "client_error", "throttled", "error", "timeout"] {
                self.token_refreshes_total.with_label_values(&[provider, mode, result]);
            }
        }
    }

    /// An upstream is no more: its addresses are none.
    pub fn forget_upstream(&self, upstream: &str) {
        for state in STANDINGS {
            // An error means that it was not there.
            let _ = self.upstream_endpoints.remove_label_values(&[upstream, state]);
        }
    }

    /// Whether there is neither a request nor a connection.
    #[must_use]
    pub fn nothing_under_way(&self) -> bool {
        [&self.http_requests_in_flight, &self.connections_open]
            .into_iter()
            .flat_map(Collector::collect)
            .all(|family| family.get_metric().iter().all(|metric| metric.get_gauge().get_value() <= 0.0))
    }

    /// All values in Prometheus' text format 0.0.4 ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // Cannot happen with checked names; half a page would be read as counters that went back to zero.
            tracing::error!(%error, "metrics cannot be written");
            text.clear();
        }
        text
    }
}

/// What is to be known of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The whole name.
    pub name: String,
    /// `counter`, `gauge`, `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<String>,
}

/// Makes metrics and registers them.
struct Maker<'r> {
    registry: &'r Registry,
    descriptions: RefCell<Vec<Description>>,
}

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let made = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.register(made, "counter", name, labels)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let made = IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.register(made, "gauge", name, labels)
    }

    fn single_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let made = IntGauge::with_opts(Opts::new(name, help).namespace(NAMESPACE))?;
        self.register(made, "gauge", name, &[])
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(BUCKETS.to_vec());
        self.register(HistogramVec::new(opts, labels)?, "histogram", name, labels)
    }

    fn single_histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(BUCKETS.to_vec());
        self.register(Histogram::with_opts(opts)?, "histogram", name, &[])
    }

    fn register<C: Collector + Clone + 'static>(
        &self,
        collector: C,
        kind: &'static str,
        name: &str,
        labels: &[&str],
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))?;
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.descriptions.borrow_mut().push(Description { name: format!("{NAMESPACE}_{name}"), kind, labels });
        Ok(collector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_page_names_the_build() {
        let page = Metrics::new().unwrap().render();
        assert!(page.contains("# TYPE cloakroom_build_info gauge"), "{page}");
        assert!(page.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{page}");
    }

    #[test]
    fn a_connection_or_a_request_is_something_under_way() {
        let metrics = Metrics::new().unwrap();
        assert!(metrics.nothing_under_way());
        for gauge in [
            metrics.connections_open.with_label_values(&["a", "http1"]),
            metrics.http_requests_in_flight.with_label_values(&["s"]),
        ] {
            gauge.inc();
            assert!(!metrics.nothing_under_way());
            gauge.dec();
            assert!(metrics.nothing_under_way());
        }
    }

    #[test]
    fn the_reference_names_every_metric_with_its_kind_and_labels() {
        let text = include_str!("../../docs/reference/metrics.md");
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `cloakroom_")?.split(" | ");
            let name = format!("cloakroom_{}", cells.next()?.trim_end_matches('`'));
            let kind = cells.next()?.to_owned();
            let labels = cells.next()?.split('`').filter(|label| label.chars().all(|c| c.is_ascii_alphabetic()));
            Some((name, kind, labels.filter(|label| !label.is_empty()).map(str::to_owned).collect::<Vec<_>>()))
        };
        let mut documented: Vec<_> = text.lines().filter_map(row).collect();
        let metrics = Metrics::new().unwrap();
        let mut there: Vec<_> = metrics
            .descriptions()
            .iter()
            .map(|one| (one.name.clone(), one.kind.to_owned(), one.labels.clone()))
            .collect();
        documented.sort();
        there.sort();
        assert_eq!(documented, there);
    }

    #[test]
    fn registries_do_not_share_values() {
        let (one, two) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.requests_rejected_total.with_label_values(&["host"]).inc();
        assert!(one.render().contains("cloakroom_requests_rejected_total{reason=\"host\"} 1"));
        assert!(!two.render().contains("reason=\"host\""));
    }
}
