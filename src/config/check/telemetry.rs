//! What the process tells of itself.

use url::Url;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{ACCESS_LOG, TELEMETRY, TRACES};
use crate::config::settings::{AccessLog, Telemetry, TraceTrust, Traces};
use crate::config::values;
use crate::config::yaml::Node;
use crate::telemetry::access::Field;

pub(super) fn telemetry(reader: &mut Reader<'_>, node: &Node) -> Option<Telemetry> {
    let fields = reader.fields(node, &TELEMETRY)?;
    let access_log = fields.optional(reader, "access_log", AccessLog::default(), access_log);
    let traces = fields.maybe(reader, "traces", traces);
    Some(Telemetry { access_log: access_log?, traces: traces? })
}

fn access_log(reader: &mut Reader<'_>, node: &Node) -> Option<AccessLog> {
    let fields = reader.fields(node, &ACCESS_LOG)?;
    let default = AccessLog::default();
    let enabled = fields.optional(reader, "enabled", default.enabled, |reader, node| reader.boolean(node));
    let omit = fields.optional(reader, "omit", default.omit, |reader, node| {
        let words = reader.list(node, |reader, item| reader.choice(item, Field::ALL))?;
        Some(words.into_iter().collect())
    });
    Some(AccessLog { enabled: enabled?, omit: omit? })
}

fn traces(reader: &mut Reader<'_>, node: &Node) -> Option<Traces> {
    let fields = reader.fields(node, &TRACES)?;
    let endpoint = fields.required(reader, "endpoint", "\"http://127.0.0.1:4318\"", collector);
    let sample = fields.optional(reader, "sample", 100, values::percent);
    let trust = fields.optional(reader, "trust", TraceTrust::TrustedProxies, |reader, node| {
        reader.choice(
            node,
            &[
                ("never", TraceTrust::Never),
                ("trusted_proxies", TraceTrust::TrustedProxies),
                ("always", TraceTrust::Always),
            ],
        )
    });
    let service_name =
        fields.optional(reader, "service_name", "cloakroom".to_owned(), |reader, node| reader.word(node));
    Some(Traces { endpoint: endpoint?, sample: sample?, trust: trust?, service_name: service_name? })
}

/// The address of a collector. Without a path the usual one of OTLP over HTTP is meant.
fn collector(reader: &mut Reader<'_>, node: &Node) -> Option<Url> {
    let text = reader.word(node)?;
    let plain = |url: &Url| url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
    let Some(mut url) = Url::parse(&text).ok().filter(|url| web(url) && plain(url)) else {
        let help = "write for example `http://127.0.0.1:4318`: OTLP over HTTP, without user and password";
        reader.note(Code::BadUrl, node, "this is no address of a collector", help);
        return None;
    };
    if url.port() == Some(4317) {
        let help = "OTLP over HTTP has port 4318 as a rule; 4317 is that of gRPC, which is not spoken here";
        reader.note(Code::NoEffect, node, "this looks like a collector that speaks gRPC", help);
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Some(url)
}
