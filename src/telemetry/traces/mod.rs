//! Traces: what a request and the work for it took, as spans of OpenTelemetry, told over OTLP.
//!
//! Spans are told of when they are over, with what they were: nothing is kept open meanwhile. A [`Trace`] belongs to one
//! request. Work for it far below, at the store or at a provider, finds it by the task that it runs in ([`child`]), so that
//! rooms which know nothing of requests need not pass it on. Without `telemetry.traces` a request pays one branch.

mod context;
mod export;
mod span;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use futures::future::Either;
use http::HeaderMap;
use prometheus::IntCounter;
use tokio::sync::Notify;

use super::{Metrics, Pseudonyms};
use context::Context;
pub use export::{Exporter, Target};
pub use span::{Attribute, Kind, Span, Value};

/// Most spans that wait to be sent.
const SPANS: usize = 4096;
/// So many wait, and they are sent at once.
const MANY: usize = 1024;

tokio::task_local! {
    /// The request that this task works for, if its trace is told of.
    static CURRENT: Scope;
}

/// Makes traces. Clones share it.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    queue: ArrayQueue<Box<Span>>,
    many: Notify,
    /// Of 2³² traces, so many are told of.
    sampled: u64,
    pseudonyms: Pseudonyms,
    dropped: IntCounter,
}

/// The trace of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    /// The span that its client has for it.
    parent: Option<u64>,
    /// The span of the request.
    span: u64,
    sampled: bool,
}

/// A request, for the work that is done for it.
#[derive(Clone)]
pub struct Scope {
    tracer: Tracer,
    trace: Trace,
}

impl Tracer {
    /// `percent` of the traces that begin here are told of. `pseudonyms` names sessions.
    #[must_use]
    pub fn new(percent: u8, pseudonyms: Pseudonyms, metrics: &Metrics) -> Self {
        Self(Arc::new(Shared {
            queue: ArrayQueue::new(SPANS),
            many: Notify::new(),
            sampled: (u64::from(percent.min(100)) << 32) / 100,
            pseudonyms,
            dropped: metrics.trace_spans_total.with_label_values(&["dropped"]),
        }))
    }

    /// The trace of a request that begins. That of the client is gone on with where it is believed (`trusted`), with the
    /// client's word on whether it is told of; a stranger's is begun afresh.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, trusted: bool) -> Trace {
        let span = some_id();
        match Context::of(headers).filter(|_| trusted) {
            Some(Context { trace, span: parent, sampled }) => Trace { id: trace, parent: Some(parent), span, sampled },
            None => {
                let sampled = u64::from(fastrand::u32(..)) < self.0.sampled;
                Trace { id: fastrand::u128(1..), parent: None, span, sampled }
            }
        }
    }

    /// Takes a span that is over.
    pub fn tell(&self, span: Box<Span>) {
        if self.0.queue.push(span).is_err() {
            self.0.dropped.inc();
        } else if self.0.queue.len() == MANY {
            self.0.many.notify_one();
        }
    }

    /// The name of a session in attributes.
    #[must_use]
    pub fn name_of(&self, session: &[u8; 32]) -> String {
        self.0.pseudonyms.of(session)
    }
}

impl Trace {
    /// Its id, which is written with 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.id
    }

    /// The span of the request.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Whether it is told of.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// A span of the request itself.
    #[must_use]
    pub fn own_span(&self, name: String, began: Instant, took: Duration) -> Box<Span> {
        Box::new(Span::new(self.id, self.span, self.parent, Kind::Server, name.into(), (began, took)))
    }

    /// A span of work for the request, under the id `span`.
    #[must_use]
    pub fn child_span(&self, span: u64, name: &'static str, began: Instant, took: Duration) -> Box<Span> {
        Box::new(Span::new(self.id, span, Some(self.span), Kind::Client, name.into(), (began, took)))
    }

    /// Puts the trace into the header of a request to an upstream, whose span is `span`.
    pub fn write(&self, headers: &mut HeaderMap, span: u64) {
        let context = Context { trace: self.id, span, sampled: self.sampled };
        context.write(headers, self.parent.is_some());
    }

    /// What is done for the request in this scope is told of, if the request is.
    #[must_use]
    pub fn scope(&self, tracer: &Tracer) -> Option<Scope> {
        self.sampled.then(|| Scope { tracer: tracer.clone(), trace: *self })
    }
}

/// An id for a span; never zero, which would be none (W3C Trace Context §3.2.2.4).
#[must_use]
pub fn some_id() -> u64 {
    fastrand::u64(1..)
}

/// Runs `work` for a request.
pub async fn within<F: Future>(scope: Scope, work: F) -> F::Output {
    CURRENT.scope(scope, work).await
}

/// `work` in a task of its own is still for the request of this task, if there is one.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    match CURRENT.try_with(Scope::clone) {
        Ok(scope) => Either::Left(CURRENT.scope(scope, work)),
        Err(_) => Either::Right(work),
    }
}

/// Tells of work that is over, if it was for a request whose trace is told of. `describe` completes the span.
pub fn child(name: &'static str, (began, took): (Instant, Duration), describe: impl FnOnce(&mut Span)) {
    let _ = CURRENT.try_with(|Scope { tracer, trace }| {
        let mut span = trace.child_span(some_id(), name, began, took);
        describe(&mut span);
        tracer.tell(span);
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn tracer(percent: u8) -> Tracer {
        Tracer::new(percent, Pseudonyms::new(&zeroize::Zeroizing::new([1; 32])), &Metrics::new().unwrap())
    }

    fn headers(traceparent: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static(traceparent));
        headers.insert("tracestate", HeaderValue::from_static("theirs=1"));
        headers
    }

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_trace_is_gone_on_with_where_its_client_is_believed_and_begun_afresh_elsewhere() {
        let tracer = tracer(100);
        let trace = tracer.begin(&headers(GIVEN), true);
        assert_eq!((trace.id, trace.parent), (0x0af7651916cd43dd8448eb211c80319c, Some(0xb7ad6b7169203331)));
        assert!(!trace.sampled, "the client's word counts");
        let mut onward = headers(GIVEN);
        trace.write(&mut onward, 7);
        assert_eq!(onward["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-00");
        assert_eq!(onward["tracestate"], "theirs=1");

        let trace = tracer.begin(&headers(GIVEN), false);
        assert!(trace.id != 0x0af7651916cd43dd8448eb211c80319c && trace.parent.is_none() && trace.sampled);
        let mut onward = headers(GIVEN);
        trace.write(&mut onward, 7);
        assert_eq!(onward["traceparent"], format!("00-{:032x}-0000000000000007-01", trace.id));
        assert!(!onward.contains_key("tracestate"), "it belongs to the other trace");
    }

    #[test]
    fn as_many_are_told_of_as_were_asked_for() {
        let count = |percent| {
            let tracer = tracer(percent);
            (0..10_000).filter(|_| tracer.begin(&HeaderMap::new(), false).sampled).count()
        };
        assert_eq!((count(0), count(100)), (0, 10_000));
        assert!((800..1200).contains(&count(10)));
    }

    #[tokio::test]
    async fn work_in_other_tasks_is_told_of_under_its_request() {
        let tracer = tracer(100);
        let trace = tracer.begin(&HeaderMap::new(), false);
        let work = || async { child("x", (Instant::now(), Duration::ZERO), |_| ()) };
        work().await;
        within(trace.scope(&tracer).unwrap(), async {
            work().await;
            tokio::spawn(carried(work())).await.unwrap();
            tokio::spawn(work()).await.unwrap();
        })
        .await;
        let told: Vec<_> = std::iter::from_fn(|| tracer.0.queue.pop()).collect();
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|span| span.is_child_of(trace.id, trace.span)));
    }
}
