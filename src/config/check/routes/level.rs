//! How well the users of a route must be known, and whether its upstream is told.

use http::header::HeaderName;

use crate::config::check::child;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::settings::{Access, ClaimPath, Level, Settings};
use crate::config::values;
use crate::config::yaml::{Kind, Node};

/// Reads `level` and `level_header`.
pub(super) fn level(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    access: Option<Access>,
    identity: Option<&[(HeaderName, ClaimPath)]>,
) -> (Option<Level>, Option<Option<HeaderName>>) {
    let words = [("returning", Level::Returning), ("logged_on", Level::LoggedOn)];
    let level = fields.optional(reader, "level", Level::LoggedOn, |r, n| r.choice(n, &words));
    let header = fields.maybe(reader, "level_header", values::header_name);
    if access == Some(Access::Public) {
        for at in [fields.get("level"), fields.get("level_header")].into_iter().flatten() {
            let help = "write `access: optional`, which lets everyone pass too, or remove it";
            reader.note(Code::Contradiction, at, "a public route looks up no session, so it knows no user", help);
        }
    }
    if let (Some(at), Some(Some(name)), Some(identity)) = (fields.get("level_header"), &header, identity)
        && identity.iter().any(|(other, _)| other == name)
    {
        let message = format!("`{name}` is one of the `identity_headers` as well");
        reader.note(Code::Duplicate, at, message, "choose another name");
    }
    (level, header)
}

/// A route for users who return is for nobody if none are recognised.
pub(in crate::config::check) fn note_nobody_returns(reader: &mut Reader<'_>, sites: &Node, settings: &Settings) {
    if !settings.session.returning_timeout.is_zero() {
        return;
    }
    for route in list(sites).iter().filter_map(|site| child(site, "routes")).flat_map(list) {
        let Some(level) = child(route, "level") else { continue };
        if matches!(&level.kind, Kind::Text(text) if text == "returning") {
            let help = "set `session.returning_timeout`, or remove this";
            reader.note(Code::NoEffect, level, "nobody is recognised once the session is over", help);
        }
    }
}

fn list(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => &[],
    }
}
