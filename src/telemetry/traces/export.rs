//! Sends spans to a collector: OTLP 1 over HTTP, in its JSON encoding (`POST …/v1/traces`).

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use prometheus::IntCounter;
use reqwest::{Client, StatusCode, Url};

use super::span::{Attribute, Value, attributes};
use super::{Span, Tracer};
use crate::telemetry::{Metrics, Throttle};

/// How often spans are sent.
const EVERY: Duration = Duration::from_millis(250);
/// Most spans in one request.
const BATCH: usize = 512;
/// Longest wait for a collector.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where spans are sent.
pub struct Target {
    /// The whole address.
    pub url: Url,
    /// `service.name`.
    pub service: String,
}

/// Sends what a [`Tracer`] has got.
pub struct Exporter {
    tracer: Tracer,
    client: Client,
    url: Url,
    /// What stands in front of the spans.
    head: Vec<u8>,
    sent: IntCounter,
    failed: IntCounter,
}

impl Exporter {
    /// Ties the parts together. Nothing is sent yet.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(tracer: Tracer, target: Target, metrics: &Metrics) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(concat!("cloakroom/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|error| error.to_string())?;
        let resource: [Attribute; 2] = [
            ("service.name", Value::Text(target.service)),
            ("service.version", Value::Word(env!("CARGO_PKG_VERSION"))),
        ];
        let mut head = b"{\"resourceSpans\":[{\"resource\":{\"attributes\":".to_vec();
        attributes(&mut head, &resource);
        head.extend_from_slice(b"},\"scopeSpans\":[{\"scope\":{\"name\":\"cloakroom\"},\"spans\":[");
        Ok(Self {
            tracer,
            client,
            url: target.url,
            head,
            sent: metrics.trace_spans_total.with_label_values(&["sent"]),
            failed: metrics.trace_spans_total.with_label_values(&["failed"]),
        })
    }

    /// Sends spans, for ever.
    pub async fn run(&self) {
        loop {
            let _ = tokio::time::timeout(EVERY, self.tracer.0.many.notified()).await;
            self.send_all().await;
        }
    }

    /// Sends what waits.
    pub async fn send_all(&self) {
        loop {
            let mut body = self.head.clone();
            let count = self.take(&mut body);
            if count == 0 {
                return;
            }
            body.extend_from_slice(b"]}]}]}");
            let result = self.send(body).await;
            let counter = if result.is_ok() { &self.sent } else { &self.failed };
            counter.inc_by(count);
            if let Err(error) = result {
                static FAILURES: Throttle = Throttle::new();
                if let Some(held_back) = FAILURES.pass() {
                    tracing::warn!(error, held_back, "spans could not be sent to the collector");
                }
                return;
            }
        }
    }

    /// Appends spans, and says how many.
    fn take(&self, body: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        let spans = std::iter::from_fn(|| self.tracer.0.queue.pop()).take(BATCH);
        spans.for_each(|span: Box<Span>| {
            if count > 0 {
                body.push(b',');
            }
            span.write(body);
            count += 1;
        });
        count
    }

    /// Lost spans are not sent again: a collector that is away would be flooded when it is back.
    async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let request =
            self.client.post(self.url.clone()).header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The address may hold a password.
        let answer = request.body(body).send().await.map_err(|error| error.without_url().to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("status {}", StatusCode::as_u16(&status))),
        }
    }
}
