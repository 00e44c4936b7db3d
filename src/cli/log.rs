//! Which log lines are written.

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::Filter;

/// Where Pingora tells of broken requests to the admin listener and quotes them.
const QUOTES_REQUESTS: &str = "pingora_core::apps::http_app";

/// What `RUST_LOG` asks for, or else `usual`, without the lines that could hold a secret.
pub(super) fn filter<S: Subscriber>(usual: &str) -> impl Filter<S> {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    chosen.and(filter_fn(holds_no_secret))
}

/// At `debug` and `trace` the libraries below write whole header fields, cookies and tokens among them (behaviour D3).
/// Our own lines never do.
fn holds_no_secret(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target == "cloakroom"
        || target.starts_with("cloakroom::")
        || (*metadata.level() <= Level::INFO && !target.starts_with(QUOTES_REQUESTS))
}
