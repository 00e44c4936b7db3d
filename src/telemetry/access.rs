//! The access log: one line of JSON for each request, see `docs/reference/access-log.md`.
//!
//! The request copies a few small values ([`Entry`]) and hands them over; everything that costs time, from the canonical
//! path to the hash that names the session, is done by the thread that writes ([`Format`]). No query and no header field
//! but `User-Agent` is ever in it, so neither is a token, cookie or code (behaviour D3).

mod format;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Pseudonyms;
use super::handles::RouteMetrics;
use super::lines::Lines;
pub use format::Format;
pub(super) use format::Now;

/// Most bytes of a path that are kept.
pub const PATH: usize = 1024;
/// Most bytes of a `User-Agent` that are kept.
const USER_AGENT: usize = 256;

macro_rules! fields {
    ($($name:ident $word:literal;)*) => {
        /// A field of a line that may be left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $(#[doc = concat!("`", $word, "`")] $name,)*
        }

        impl Field {
            /// All of them, with their names in the line, in its order.
            pub const ALL: &[(&'static str, Self)] = &[$(($word, Self::$name)),*];

            const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

fields! {
    TraceId "trace_id";
    Site "site";
    Route "route";
    ClientIp "client_ip";
    Method "method";
    Path "path";
    Protocol "protocol";
    Status "status";
    Reason "reason";
    BytesIn "bytes_in";
    BytesOut "bytes_out";
    Duration "duration_ms";
    Upstream "upstream";
    UpstreamAddress "upstream_address";
    UpstreamTime "upstream_ms";
    UserAgent "user_agent";
    Sni "sni";
    Auth "auth";
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u32);

impl Fields {
    /// Whether it holds the field.
    #[must_use]
    pub const fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<I: IntoIterator<Item = Field>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |set, field| set | 1 << field as u32))
    }
}

/// A request that is over, as far as a line tells of it.
pub struct Entry {
    /// When it began.
    pub began: Instant,
    /// From its header to its end.
    pub took: Duration,
    /// Site and route.
    pub route: Arc<RouteMetrics>,
    /// Who asked.
    pub client_ip: IpAddr,
    /// A known method, or `OTHER`.
    pub method: &'static str,
    /// As servers write it: `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'static str,
    /// What was answered; `None` = nothing.
    pub status: Option<u16>,
    /// Why it was answered otherwise than asked; `None` = it was not.
    pub reason: Option<&'static str>,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Where it went.
    pub upstream: Option<Hop>,
    /// The name in the TLS handshake.
    pub sni: Option<Arc<str>>,
    /// By what it knows its user; `None` = that was never looked at.
    pub auth: Option<Auth>,
    /// Its trace.
    pub trace: Option<u128>,
    /// Path and `User-Agent`, as they came.
    texts: Box<[u8]>,
    path: usize,
    /// The path was longer.
    cut: bool,
}

/// The last upstream that a request was sent to.
pub struct Hop {
    /// Its name.
    pub name: Arc<str>,
    /// Which of its addresses, if it has one.
    pub address: Option<SocketAddr>,
    /// From the request to the header of its answer, if one came.
    pub took: Option<Duration>,
}

/// By what a request knows its user.
pub struct Auth {
    /// `none`, `session`, `proxy_token`, `bearer`.
    pub state: &'static str,
    /// Of the session.
    pub session: Option<Known>,
    /// It waited for new tokens.
    pub refreshed: bool,
    /// What the CSRF check said; `None` = nothing was checked.
    pub csrf: Option<&'static str>,
}

/// A session as a line tells of it.
pub struct Known {
    /// Who made it.
    pub provider: Arc<str>,
    /// How well its user is known by it.
    pub level: &'static str,
    /// Its key in the store; only the keyed hash of it is written.
    pub key: [u8; 32],
}

impl Entry {
    /// An entry with nothing in it yet but what a request has from the beginning. `path` stands as it came, without query.
    #[must_use]
    pub fn new(
        (began, took): (Instant, Duration),
        route: Arc<RouteMetrics>,
        client_ip: IpAddr,
        (method, protocol): (&'static str, &'static str),
        path: &[u8],
        user_agent: Option<&[u8]>,
    ) -> Self {
        let whole = path.len() <= PATH;
        let kept = path.get(..PATH).unwrap_or(path);
        // Cut between two segments, which no escape crosses.
        let kept = if whole { kept } else { kept.rsplitn(2, |byte| *byte == b'/').last().unwrap_or_default() };
        let user_agent = user_agent.unwrap_or_default();
        let user_agent = user_agent.get(..USER_AGENT).unwrap_or(user_agent);
        let mut texts = Vec::with_capacity(kept.len() + user_agent.len());
        texts.extend_from_slice(kept);
        texts.extend_from_slice(user_agent);
        Self {
            began,
            took,
            route,
            client_ip,
            method,
            protocol,
            status: None,
            reason: None,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            sni: None,
            auth: None,
            trace: None,
            texts: texts.into(),
            path: kept.len(),
            cut: !whole,
        }
    }

    fn texts(&self) -> (&[u8], &[u8]) {
        self.texts.split_at_checked(self.path).unwrap_or_default()
    }
}

/// Where requests that are over are handed to.
#[derive(Clone)]
pub struct AccessLog {
    lines: Lines,
    omit: Fields,
}

impl AccessLog {
    /// Writes to `lines`, all fields but those in `omit`.
    #[must_use]
    pub fn new(lines: Lines, omit: Fields, pseudonyms: Pseudonyms) -> Self {
        lines.set_format(Format { omit, pseudonyms });
        Self { lines, omit }
    }

    /// Whether a field is in the lines.
    #[must_use]
    pub fn tells(&self, field: Field) -> bool {
        !self.omit.has(field)
    }

    /// Takes a request that is over.
    pub fn take(&self, entry: Box<Entry>) {
        self.lines.request(entry);
    }
}

/// A request that may be cut off at any time, without a hook that would see it: it is told of then.
pub struct Draft {
    log: AccessLog,
    entry: Option<Box<Entry>>,
}

impl Draft {
    /// As it would be told of now.
    #[must_use]
    pub fn new(log: AccessLog, entry: Box<Entry>) -> Self {
        Self { log, entry: Some(entry) }
    }

    /// Its end is seen by others.
    pub fn withdraw(mut self) {
        self.entry = None;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            (entry.took, entry.reason) = (entry.began.elapsed(), Some("cut"));
            self.log.take(entry);
        }
    }
}
