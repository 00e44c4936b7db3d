//! `GET /auth/events`: what happens to the session, as it happens, for pages that will not poll. A stream is no use of the
//! session (behaviour S9).

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::ORIGIN;
use prometheus::IntCounter;
use serde_json::{Value, json};

use super::info::no_session;
use super::streams::Place;
use super::{Logins, Reply, Visit, store_failed};
use crate::answer::{Answer, Code};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::random;
use crate::session::csrf;
use crate::session::vigil::{News, Vigil};

/// A sign of life this often, so that nobody on the way takes the stream for dead.
const BEAT: Duration = Duration::from_secs(15);
/// How long a browser waits before it asks again, in milliseconds.
const RETRY: u64 = 3_000;
/// When the process stops, its pages come back to the others over so many milliseconds more.
const SPREAD: u64 = 4_000;

/// One stream of events.
pub struct Events {
    vigil: Vigil,
    clock: Clock,
    state: State,
    ended: IntCounter,
    _place: Place,
}

enum State {
    Opening,
    /// The next sign of life is due then.
    Open(Timestamp),
    Over,
}

impl Logins {
    pub(super) async fn events(&self, visit: Visit<'_>) -> Reply {
        if !may_listen(visit.headers, visit.site.trusted_origins(visit.origin)) {
            self.metrics.csrf_rejections_total.with_label_values(&["origin", "enforce"]).inc();
            return Answer::problem(Code::CsrfFailed, Some("Events are for pages of this site."), None).into();
        }
        let open = match self.session_of(&visit).await {
            Ok(Some(open)) => open,
            Ok(None) => return no_session(&visit).into(),
            Err(error) => return store_failed(&visit, &error).into(),
        };
        let Some(place) = self.streams.take(open.key()) else {
            let detail = "Share one stream among the parts of a page, and close those that are not needed.";
            return Answer::problem(Code::TooManyStreams, Some(detail), None).into();
        };
        let events = Events {
            vigil: Vigil::new(self.sessions.clone(), open),
            clock: self.sessions.clock().clone(),
            state: State::Opening,
            ended: self.metrics.streams_ended_total.with_label_values(&["events"]),
            _place: place,
        };
        Reply::Stream(Answer::event_stream(), Box::new(events))
    }
}

/// Whether a page of this site asks, as far as the browser says: old ones, and all without TLS, say nothing on a GET to
/// their own origin.
fn may_listen<'o>(headers: &HeaderMap, origins: impl IntoIterator<Item = &'o str>) -> bool {
    let silent = !headers.contains_key(ORIGIN) && !headers.contains_key("sec-fetch-site");
    silent || csrf::check_origin(headers, origins).is_ok()
}

impl Events {
    /// The next piece of the stream; `None` after the last. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Option<Bytes> {
        let beat = match self.state {
            State::Opening => {
                self.state = State::Open(self.clock.now().plus(BEAT));
                return Some(Bytes::from(format!("retry: {RETRY}\n\n")));
            }
            State::Open(beat) => beat,
            State::Over => return None,
        };
        let news = tokio::select! {
            news = self.vigil.next() => news,
            () = self.clock.until(beat) => {
                self.state = State::Open(self.clock.now().plus(BEAT));
                return Some(Bytes::from_static(b":\n\n"));
            }
        };
        let now = self.clock.now();
        Some(match news {
            News::Expiring(limit, at) => event(
                "expiring",
                &json!({ "limit": limit.as_str(), "at": at.as_secs(), "seconds": at.since(now).as_secs() }),
            ),
            News::Refreshed(end) => event("refreshed", &json!({ "token_expires_at": end.map(Timestamp::as_secs) })),
            News::Over(reason) => {
                self.state = State::Over;
                self.ended.inc();
                event("logged_out", &json!({ "reason": reason.as_str() }))
            }
        })
    }

    /// The last piece when the process stops: the session goes on elsewhere, and not all pages come back at once.
    #[must_use]
    pub fn farewell() -> Bytes {
        let jitter = random::bytes::<2>().map_or(0, u16::from_be_bytes);
        Bytes::from(format!("retry: {}\n\n", 1_000 + u64::from(jitter) % SPREAD))
    }
}

fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_pages_of_this_site_may_listen() {
        let may = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            may_listen(&pairs.collect(), ["https://app.example.com"])
        };
        assert!(may(&[]), "a browser without Fetch Metadata");
        assert!(may(&[("sec-fetch-site", "same-origin")]));
        assert!(may(&[("origin", "https://app.example.com")]));
        for refused in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example.com")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!may(refused), "{refused:?}");
        }
    }

    #[test]
    fn a_farewell_spreads_the_return() {
        let times: std::collections::BTreeSet<_> = (0..50).map(|_| Events::farewell()).collect();
        assert!(times.len() > 10);
        for text in times {
            let text = std::str::from_utf8(&text).unwrap();
            let millis: u64 = text.strip_prefix("retry: ").unwrap().strip_suffix("\n\n").unwrap().parse().unwrap();
            assert!((1_000..5_000).contains(&millis), "{millis}");
        }
    }
}
