//! What a route does: `upstream`, `redirect`, `respond` or `files`, exactly one of them.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use url::Url;

use super::headers;
use crate::config::check::Names;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{FILES, REDIRECT, RESPOND};
use crate::config::settings::{Action, Files, Forward, HeaderChanges, HostPattern, Redirect, Respond, Rewrite};
use crate::config::values::{self, DAY};
use crate::config::yaml::{Kind, Node};
use crate::primitives::path::{PathPrefix, canonical};

/// The keys that say what a route does.
const ACTIONS: [&str; 4] = ["upstream", "redirect", "respond", "files"];
/// What only a route to an upstream can have.
const OF_UPSTREAMS: [&str; 7] =
    ["strip_prefix", "replace_prefix", "host", "token", "identity_headers", "request_headers", "compress"];
/// `compress: true`: text in one form or another.
const COMPRESSIBLE: [&str; 12] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/problem+json",
    "application/xml",
    "application/manifest+json",
    "image/svg+xml",
];

/// Reads the one key of [`ACTIONS`] that is there, and what belongs to it.
pub(super) fn action(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &Fields<'_>,
    path: Option<&PathPrefix>,
    upstreams: &mut Names,
) -> Option<Action> {
    let mut there = ACTIONS.iter().filter_map(|key| Some((*key, fields.get(key)?)));
    let Some((key, value)) = there.next() else {
        let help = "write one of `upstream`, `redirect`, `respond`, `files`; for example `upstream: app`";
        reader.note(Code::MissingKey, node, "nothing says what this route does", help);
        return None;
    };
    let others: Vec<_> = there.collect();
    for (other, at) in &others {
        let message = format!("this route has `{key}` already, and can do one thing only");
        reader.note(Code::Contradiction, at, message, format!("remove `{other}` or `{key}`, or make it two routes"));
    }
    if key != "upstream" {
        for (name, at) in OF_UPSTREAMS.iter().filter_map(|name| Some((name, fields.get(name)?))) {
            let help = format!("remove it; only a route with `upstream` can have `{name}`");
            reader.note(Code::NoEffect, at, format!("nothing goes upstream here: this route has `{key}`"), help);
        }
    }
    match key {
        "redirect" => redirect(reader, value).map(Action::Redirect),
        "respond" => respond(reader, value).map(Action::Respond),
        "files" => files(reader, value).map(Action::Files),
        _ => forward(reader, value, fields, path, upstreams).map(Action::Upstream),
    }
}

fn forward(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &Fields<'_>,
    path: Option<&PathPrefix>,
    upstreams: &mut Names,
) -> Option<Forward> {
    let upstream = upstreams.refer(reader, node);
    let strip = fields.maybe(reader, "strip_prefix", |reader, node| strip_prefix(reader, node, path));
    let replace = fields.maybe(reader, "replace_prefix", values::path);
    if let (Some(_), Some(at)) = (fields.get("strip_prefix"), fields.get("replace_prefix")) {
        let help = "`replace_prefix` puts another path in the place of the route's; remove `strip_prefix`";
        reader.note(Code::Contradiction, at, "the front of the path is taken off already", help);
    }
    let host = fields.maybe(reader, "host", host);
    let request_headers = fields.optional(reader, "request_headers", HeaderChanges::default(), headers::of_request);
    let compress = fields.optional(reader, "compress", Vec::new(), compress);
    let rewrite = match (strip?, replace?) {
        (Some(from), _) => Some(Rewrite { from, to: PathPrefix::root() }),
        (None, Some(to)) => path.map(|path| Rewrite { from: path.clone(), to }),
        (None, None) => None,
    };
    Some(Forward { upstream: upstream?, rewrite, host: host?, request_headers: request_headers?, compress: compress? })
}

fn strip_prefix(reader: &mut Reader<'_>, node: &Node, path: Option<&PathPrefix>) -> Option<PathPrefix> {
    let prefix = values::path(reader, node)?;
    if let Some(path) = path.filter(|path| prefix.rest(path.as_str()).is_none()) {
        let help = format!("write `{path}` or a shorter part of it that ends with a whole segment");
        reader.note(Code::NotAPrefix, node, format!("`{prefix}` is no prefix of `{path}`"), help);
    }
    Some(prefix)
}

/// `Host` for the upstream: a host, perhaps with a port.
fn host(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderValue> {
    if let Kind::Text(text) = &node.kind
        && text.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        let (endpoint, scheme) = values::endpoint(reader, node)?;
        if scheme.is_some() {
            reader.note(Code::BadHost, node, "`Host` has no scheme", "write for example `api.internal:8080`");
            return None;
        }
        let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host };
        return HeaderValue::from_str(&format!("{host}:{}", endpoint.port)).ok();
    }
    match values::host_pattern(reader, node)? {
        HostPattern::Exact(host) => HeaderValue::from_str(&host).ok(),
        HostPattern::Wildcard(_) | HostPattern::Any => {
            reader.note(Code::BadHost, node, "one host is needed here", "write for example `api.internal`");
            None
        }
    }
}

fn compress(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    if let Kind::List(_) = node.kind {
        return reader.list_of_some(node, media_type);
    }
    let all = || COMPRESSIBLE.iter().map(|kind| (*kind).to_owned()).collect();
    reader.boolean(node).map(|on| if on { all() } else { Vec::new() })
}

fn media_type(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.word(node)?;
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    if !text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype)) {
        let help = "write for example `application/json`, without parameters";
        reader.note(Code::BadValue, node, format!("`{text}` is no media type"), help);
        return None;
    }
    let text = text.to_ascii_lowercase();
    if text == "text/event-stream" || text.starts_with("application/grpc") {
        let help = "what has to arrive at once cannot wait for a compressor: remove it";
        reader.note(Code::Contradiction, node, format!("`{text}` is a stream of messages"), help);
    }
    Some(text)
}

fn redirect(reader: &mut Reader<'_>, node: &Node) -> Option<Redirect> {
    let fields = reader.fields(node, &REDIRECT)?;
    let to = fields.required(reader, "to", "https://www.example.com", |reader, node| {
        let text = reader.word(node)?;
        let good = match text.as_bytes() {
            [b'/', rest @ ..] => {
                !matches!(rest, [b'/' | b'\\', ..]) && is_uri(&text) && canonical(before_query(&text)).is_ok()
            }
            _ => is_uri(&text) && Url::parse(&text).is_ok_and(|url| is_web_address(&url)),
        };
        if !good {
            let help = "write a path of this site (`/new`) or an `https://` address, without `#`";
            reader.note(Code::BadUrl, node, format!("`{text}` is nowhere to go"), help);
        }
        good.then_some(text)
    });
    let status = fields.optional(reader, "status", StatusCode::FOUND, |reader, node| {
        let code = reader.integer(node, 301, 308)?;
        if matches!(code, 301 | 302 | 303 | 307 | 308) {
            return StatusCode::from_u16(u16::try_from(code).ok()?).ok();
        }
        let help = "301 and 308 are for good, 302, 303 and 307 for now; 307 and 308 keep the method";
        reader.note(Code::OutOfRange, node, format!("{code} is no redirect with a target"), help);
        None
    });
    let keep_path = fields
        .optional(reader, "path", false, |reader, node| reader.choice(node, &[("replace", false), ("keep", true)]));
    if let (Some(true), Some(to), Some(at)) = (keep_path, &to, fields.get("to"))
        && to.contains('?')
    {
        let help = "remove `?` and what follows, or write `path: replace`";
        reader.note(Code::Contradiction, at, "what is kept of the path cannot follow a query", help);
    }
    let keep_path = keep_path?;
    let mut to = to?;
    if keep_path {
        to.truncate(to.trim_end_matches('/').len());
    }
    Some(Redirect { to, status: status?, keep_path })
}

fn before_query(text: &str) -> &str {
    text.split('?').next().unwrap_or(text)
}

/// Printable ASCII without what no URI has (RFC 3986 §2), and without a fragment.
fn is_uri(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte))
}

fn is_web_address(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() && url.password().is_none()
}

fn respond(reader: &mut Reader<'_>, node: &Node) -> Option<Respond> {
    let fields = reader.fields(node, &RESPOND)?;
    let status = fields.optional(reader, "status", StatusCode::OK, |reader, node| {
        let code = reader.integer(node, 200, 599)?;
        StatusCode::from_u16(u16::try_from(code).ok()?).ok()
    });
    let body = fields.optional(reader, "body", String::new(), |reader, node| reader.text(node));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let content_type = fields.optional(reader, "content_type", plain, headers::value);
    if let (Some(status), Some(at)) = (status, fields.get("body"))
        && matches!(status.as_u16(), 204 | 205 | 304)
    {
        let help = "remove the body, or answer with another status";
        reader.note(Code::Contradiction, at, format!("an answer with status {} has no body", status.as_u16()), help);
    }
    Some(Respond { status: status?, body: Bytes::from(body?), content_type: content_type? })
}

fn files(reader: &mut Reader<'_>, node: &Node) -> Option<Files> {
    let fields = reader.fields(node, &FILES)?;
    let root = fields.required(reader, "root", "/srv/app", |reader, node| {
        let path = reader.base.join(reader.word(node)?);
        if !path.is_dir() {
            let message = format!("there is no folder `{}`", path.display());
            reader.note(Code::FileUnreadable, node, message, "check path and rights");
        }
        Some(path)
    });
    let fallback = fields.maybe(reader, "fallback", |reader, node| {
        let text = reader.word(node)?;
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || part.starts_with('.')) {
            let help = "write a name below `root`, for example `index.html`";
            reader.note(Code::BadValue, node, format!("`{text}` is no file that is served"), help);
            return None;
        }
        if let Some(root) = root.as_ref().filter(|root| root.is_dir() && !root.join(&text).is_file()) {
            let message = format!("there is no file `{}`", root.join(&text).display());
            reader.note(Code::FileUnreadable, node, message, "check path and rights");
        }
        Some(text)
    });
    let precompressed = fields.optional(reader, "precompressed", true, |r, n| r.boolean(n));
    let mut age = |key: &str, default: Duration| {
        fields.optional(reader, key, default, |r, n| values::duration(r, n, Duration::ZERO, 366 * DAY))
    };
    let fingerprinted = age("fingerprinted", 365 * DAY);
    let max_age = age("max_age", Duration::ZERO);
    Some(Files {
        root: root?,
        fallback: fallback?,
        precompressed: precompressed?,
        fingerprinted: fingerprinted?,
        max_age: max_age?,
    })
}
