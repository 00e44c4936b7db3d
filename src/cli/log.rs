//! Which log lines are written, and where.

use std::io;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Filter;

use crate::telemetry::lines::Stream;
use crate::telemetry::{Lines, audit};

/// Where Pingora tells of broken requests to the admin listener and quotes them.
const QUOTES_REQUESTS: &str = "pingora_core::apps::http_app";

/// What `RUST_LOG` asks for, or else `usual`, without the lines that could hold a secret.
pub(super) fn filter<S: Subscriber>(usual: &str) -> impl Filter<S> {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    // The hint keeps the chosen level known: without one, the many `debug` lines that Pingora begins in every request
    // would each be built and then dropped.
    chosen.and(filter_fn(holds_no_secret).with_max_level_hint(LevelFilter::TRACE))
}

/// The same, and the audit log, whatever `RUST_LOG` says.
pub(super) fn filter_with_audit<S: Subscriber>(usual: &str) -> impl Filter<S> {
    let audit = filter_fn(|metadata| metadata.target() == audit::TARGET).with_max_level_hint(LevelFilter::INFO);
    filter(usual).or(audit)
}

/// At `debug` and `trace` the libraries below write whole header fields, cookies and tokens among them (behaviour D3).
/// Our own lines never do.
fn holds_no_secret(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target == "cloakroom"
        || target.starts_with("cloakroom::")
        || (*metadata.level() <= Level::INFO && !target.starts_with(QUOTES_REQUESTS))
}

/// Hands lines of JSON over to [`Lines`], those of the audit log as such.
pub(super) struct ToLines(pub(super) Lines);

/// Takes one line.
pub(super) struct OneLine<'l> {
    lines: &'l Lines,
    stream: Stream,
}

impl<'l> MakeWriter<'l> for ToLines {
    type Writer = OneLine<'l>;

    fn make_writer(&'l self) -> OneLine<'l> {
        OneLine { lines: &self.0, stream: Stream::App }
    }

    fn make_writer_for(&'l self, metadata: &Metadata<'_>) -> OneLine<'l> {
        let stream = if metadata.target() == audit::TARGET { Stream::Audit } else { Stream::App };
        OneLine { lines: &self.0, stream }
    }
}

impl io::Write for OneLine<'_> {
    /// `bytes` is a whole line: so it comes from `tracing_subscriber`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = match bytes.strip_prefix(b"{") {
            // Lines of the audit log name their stream themselves.
            Some(rest) if self.stream == Stream::App => [b"{\"stream\":\"app\",", rest].concat(),
            _ => bytes.to_vec(),
        };
        self.lines.text(self.stream, line.into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{Layer as _, Registry, fmt};

    use super::*;

    #[test]
    fn the_most_detailed_level_is_known_from_outside() {
        let chosen = EnvFilter::new("info");
        let filter = chosen.and(filter_fn(holds_no_secret).with_max_level_hint(LevelFilter::TRACE));
        let subscriber = Registry::default().with(fmt::layer().with_filter(filter));
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::INFO));
        let subscriber = Registry::default().with(fmt::layer().with_filter(filter_with_audit("warn")));
        assert!(subscriber.max_level_hint().is_some());
    }
}
