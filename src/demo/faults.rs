//! Bad manners that tests give to an endpoint: late, refusing, unreadable, gone.
//!
//! A fault acts before the work of the endpoint is done or after it. The difference is the point of most
//! tests: a refresh token that was *used* before the answer got lost is not the same as one that was never
//! looked at. What an endpoint begins it also ends, even if the caller hangs up meanwhile, as with a real
//! provider.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::server::Line;
use super::support::locked;

/// One bad manner, for a number of requests or until it is taken away.
#[derive(Clone, Debug)]
pub struct Fault {
    manner: Manner,
    after_work: bool,
    remaining: Option<u32>,
}

#[derive(Clone, Debug)]
enum Manner {
    Slow(Duration),
    Hold(Gate),
    Status { status: u16, retry_after: Option<u64> },
    Page(u16),
    CutJson,
    Reset,
}

impl Fault {
    fn new(manner: Manner) -> Self {
        Self { manner, after_work: false, remaining: None }
    }

    /// Waits before it does the work.
    pub fn slow(delay: Duration) -> Self {
        Self::new(Manner::Slow(delay))
    }

    /// Waits before it does the work until `gate` is opened.
    pub fn hold(gate: &Gate) -> Self {
        Self::new(Manner::Hold(gate.clone()))
    }

    /// Answers with `status` and a JSON error in place of doing the work.
    pub fn status(status: u16) -> Self {
        Self::new(Manner::Status { status, retry_after: None })
    }

    /// Answers with `status` and `Retry-After` in place of doing the work.
    pub fn retry_after(status: u16, seconds: u64) -> Self {
        Self::new(Manner::Status { status, retry_after: Some(seconds) })
    }

    /// Answers with `status` and an HTML page, as a broken load balancer does, in place of doing the work.
    pub fn page(status: u16) -> Self {
        Self::new(Manner::Page(status))
    }

    /// Does the work and answers 200 with the first half of the JSON.
    pub fn cut_json() -> Self {
        Self::new(Manner::CutJson).after_work()
    }

    /// Resets the connection without doing the work.
    pub fn reset() -> Self {
        Self::new(Manner::Reset)
    }

    /// The work is done first, then the fault strikes.
    #[must_use]
    pub fn after_work(mut self) -> Self {
        self.after_work = true;
        self
    }

    /// Only the next `count` requests suffer.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.remaining = Some(count);
        self
    }
}

/// A barrier that holds requests until a test opens it.
#[derive(Clone)]
pub struct Gate(Arc<Barrier>);

struct Barrier {
    open: watch::Sender<bool>,
    arrivals: watch::Sender<usize>,
}

impl Gate {
    /// A gate that lets nobody pass yet.
    pub fn closed() -> Self {
        Self(Arc::new(Barrier { open: watch::Sender::new(false), arrivals: watch::Sender::new(0) }))
    }

    /// Lets all pass that wait, and all that come.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Returns when at least `count` requests have come to the gate since it was made.
    pub async fn arrived(&self, count: usize) {
        // The sender lives as long as the gate does, so this ends only by the count.
        let _ = self.0.arrivals.subscribe().wait_for(|arrivals| *arrivals >= count).await;
    }

    /// Waits until the gate opens.
    pub async fn pass(&self) {
        let mut open = self.0.open.subscribe();
        self.0.arrivals.send_modify(|arrivals| *arrivals += 1);
        let _ = open.wait_for(|open| *open).await;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Gate(open: {}, arrivals: {})", *self.0.open.borrow(), *self.0.arrivals.borrow())
    }
}

/// The faults of one endpoint. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Adds a fault to those that already strike.
    pub fn add(&self, fault: Fault) {
        locked(&self.0).push(fault);
    }

    /// The endpoint behaves again.
    pub fn clear(&self) {
        locked(&self.0).clear();
    }

    /// What this request has to suffer; counts it.
    fn take(&self) -> Vec<Fault> {
        let mut faults = locked(&self.0);
        let struck: Vec<Fault> = faults.iter().filter(|fault| fault.remaining != Some(0)).cloned().collect();
        for fault in faults.iter_mut() {
            fault.remaining = fault.remaining.map(|count| count.saturating_sub(1));
        }
        faults.retain(|fault| fault.remaining != Some(0));
        struck
    }

    /// The middleware that lets the faults strike around the work of an endpoint.
    pub(crate) async fn strike(self, request: Request, next: Next) -> Response {
        let line = request.extensions().get::<ConnectInfo<Line>>().map(|info| info.0.clone());
        // In a task of its own: a caller that hangs up does not undo what was begun.
        let work = tokio::spawn(self.suffer(line, request, next));
        work.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    async fn suffer(self, line: Option<Line>, request: Request, next: Next) -> Response {
        let (after, before): (Vec<Fault>, Vec<Fault>) = self.take().into_iter().partition(|fault| fault.after_work);
        for fault in before {
            if let Some(answer) = fault.manner.act(line.as_ref()).await {
                return answer;
            }
        }
        let mut response = next.run(request).await;
        for fault in after {
            response = match fault.manner {
                Manner::CutJson => halved(response).await,
                manner => manner.act(line.as_ref()).await.unwrap_or(response),
            };
        }
        response
    }
}

impl Manner {
    /// The answer that stands in for the real one; none if the request just had to wait.
    async fn act(self, line: Option<&Line>) -> Option<Response> {
        match self {
            Self::Slow(delay) => {
                tokio::time::sleep(delay).await;
                None
            }
            Self::Hold(gate) => {
                gate.pass().await;
                None
            }
            Self::Status { status, retry_after } => {
                let body = r#"{"error":"temporarily_unavailable","error_description":"switched off by a test"}"#;
                let mut response = answer(status, "application/json", body);
                if let Some(seconds) = retry_after {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                Some(response)
            }
            Self::Page(status) => Some(answer(status, "text/html", "<html><body><h1>Bad gateway</h1></body></html>")),
            Self::CutJson => Some(answer(200, "application/json", r#"{"access_token":"ey"#)),
            Self::Reset => {
                if let Some(line) = line {
                    line.cut();
                }
                Some(StatusCode::INTERNAL_SERVER_ERROR.into_response())
            }
        }
    }
}

fn answer(status: u16, media_type: &'static str, body: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// The same answer with the second half of its body missing, framed as if it were whole.
async fn halved(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    bytes.truncate(bytes.len() / 2);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(bytes))
}
