//! Changes of a header: which names are free, and whether one is changed twice.

use http::header::{HeaderName, HeaderValue};

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{REQUEST_HEADERS, RESPONSE_HEADERS, Section};
use crate::config::settings::{Action, HeaderChanges, Site};
use crate::config::values;
use crate::config::yaml::Node;
use crate::primitives::reserved::{dashed, is_reserved};

/// Fields that frame a message, belong to one connection, or are Cloakroom's to set, in answers.
const OF_ANSWERS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads `request_headers`: what goes to the upstream.
pub(super) fn of_request(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderChanges> {
    changes(reader, node, &REQUEST_HEADERS, |text| {
        let name = values::free_header(text).map_err(|why| match text.to_ascii_lowercase().as_str() {
            "host" => "`host` beside `upstream` sets it",
            "content-type" | "origin" => "it speaks of what the client has sent",
            _ => why,
        })?;
        if is_reserved(&name) { Err("only Cloakroom itself sets this header") } else { Ok(name) }
    })
}

/// Reads `response_headers`: what goes to the client.
pub(super) fn of_response(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderChanges> {
    changes(reader, node, &RESPONSE_HEADERS, |text| {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| "this is no valid header name")?;
        match name.as_str() {
            "set-cookie" => Err("cookies are the upstream's and Cloakroom's own to set"),
            name if name.starts_with("access-control-") => Err("`cors` says what other origins may do"),
            name if OF_ANSWERS.contains(&name) || name.starts_with("cloakroom-") => {
                Err("this header has a meaning of its own")
            }
            _ => Ok(name),
        }
    })
}

/// A header value.
pub(super) fn value(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderValue> {
    let text = reader.text(node)?;
    let value = HeaderValue::from_str(&text).ok().filter(|_| text.is_ascii() && text.trim() == text);
    if value.is_none() {
        let help = "use printable ASCII characters, without blanks at the ends";
        reader.note(Code::BadValue, node, "this cannot be the value of a header", help);
    }
    value
}

/// No client may be taken for a user by a header that a route sets: identity headers of any route are no one's to
/// change.
pub(in crate::config::check) fn reserved(reader: &mut Reader<'_>, node: &Node, sites: &[Site], csrf: &HeaderName) {
    let routes = || sites.iter().flat_map(|site| &site.routes);
    let names =
        routes().flat_map(|route| route.identity_headers.iter().map(|(name, _)| name).chain(&route.level_header));
    let names = names.chain([csrf]);
    let identity: Vec<String> = names.map(|name| dashed(name.as_str())).collect();
    for route in routes() {
        let Action::Upstream(forward) = &route.action else { continue };
        let changes = &forward.request_headers;
        let set = changes.set.iter().chain(&changes.add).map(|(name, _)| name).chain(&changes.remove);
        for name in set.filter(|name| identity.contains(&dashed(name.as_str()))) {
            let message = format!("the route `{}` changes `{name}` in `request_headers`", route.path);
            let help = "this header tells who the user is, or that a request is genuine: choose another name";
            reader.note(Code::BadHeader, node, message, help);
        }
    }
}

fn changes(
    reader: &mut Reader<'_>,
    node: &Node,
    section: &'static Section,
    free: impl Fn(&str) -> Result<HeaderName, &'static str> + Copy,
) -> Option<HeaderChanges> {
    let fields = reader.fields(node, section)?;
    let set = fields.optional(reader, "set", Vec::new(), |r, n| pairs(r, n, free));
    let add = fields.optional(reader, "add", Vec::new(), |r, n| pairs(r, n, free));
    let remove = fields.optional(reader, "remove", Vec::new(), |reader, node| {
        reader.list(node, |reader, item| {
            let text = reader.word(item)?;
            free(&text).map_err(|why| bad_name(reader, item, &text, why)).ok()
        })
    });
    let changes = HeaderChanges { set: set?, add: add?, remove: remove? };
    if let Some((name, _)) = changes.set.iter().find(|(name, _)| changes.remove.contains(name)) {
        let help = "`set` replaces what is there: take it out of `remove`";
        reader.note(Code::Contradiction, node, format!("`{name}` is removed and set"), help);
    }
    Some(changes)
}

fn bad_name(reader: &mut Reader<'_>, node: &Node, text: &str, why: &str) {
    reader.note(Code::BadHeader, node, format!("`{text}`: {why}"), "choose another name, or remove it");
}

fn pairs(
    reader: &mut Reader<'_>,
    node: &Node,
    free: impl Fn(&str) -> Result<HeaderName, &'static str>,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut out: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for entry in reader.free_map(node)? {
        let value = value(reader, &entry.value);
        match free(&entry.name) {
            Err(why) => bad_name(reader, &entry.value, &entry.name, why),
            Ok(name) if out.iter().any(|(other, _)| *other == name) => {
                let message = format!("the header `{name}` stands here twice (case makes no difference)");
                reader.note_at(Code::Duplicate, entry.at, &entry.value.setting, message, "remove one of them");
            }
            Ok(name) => out.extend(value.map(|value| (name, value))),
        }
    }
    Some(out)
}
