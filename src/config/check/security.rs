//! What protects a site's answers in the browser.

use std::time::Duration;

use http::header::HeaderValue;

use super::routes::origin;
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::SECURITY_HEADERS;
use crate::config::settings::{Frames, SecurityHeaders};
use crate::config::values::{self, DAY};
use crate::config::yaml::{Kind, Node};

/// The policies of Referrer Policy §3, and `off` for none.
const REFERRER_POLICIES: [(&str, Option<&str>); 9] = [
    ("off", None),
    ("no-referrer", Some("no-referrer")),
    ("no-referrer-when-downgrade", Some("no-referrer-when-downgrade")),
    ("same-origin", Some("same-origin")),
    ("origin", Some("origin")),
    ("strict-origin", Some("strict-origin")),
    ("origin-when-cross-origin", Some("origin-when-cross-origin")),
    ("strict-origin-when-cross-origin", Some("strict-origin-when-cross-origin")),
    ("unsafe-url", Some("unsafe-url")),
];

/// Reads `security_headers`.
pub(super) fn security_headers(reader: &mut Reader<'_>, node: &Node) -> Option<SecurityHeaders> {
    let fields = reader.fields(node, &SECURITY_HEADERS)?;
    let default = SecurityHeaders::default();
    let hsts =
        fields.optional(reader, "hsts", default.hsts, |r, n| values::duration(r, n, Duration::ZERO, 10 * 366 * DAY));
    let hsts_subdomains = fields.optional(reader, "hsts_subdomains", default.hsts_subdomains, |r, n| r.boolean(n));
    if let (Some(true), Some(at), Some(Duration::ZERO)) = (hsts_subdomains, fields.get("hsts_subdomains"), hsts) {
        reader.note(Code::NoEffect, at, "without `hsts` it is not sent", "remove it, or set `hsts`");
    }
    let nosniff = fields.optional(reader, "nosniff", default.nosniff, |r, n| r.boolean(n));
    let referrer_policy = fields.optional(reader, "referrer_policy", default.referrer_policy, |r, n| {
        r.choice(n, &REFERRER_POLICIES).map(|word| word.map(HeaderValue::from_static))
    });
    let frames = fields.optional(reader, "frame_ancestors", default.frames, frames);
    Some(SecurityHeaders {
        hsts: hsts?,
        hsts_subdomains: hsts_subdomains?,
        nosniff: nosniff?,
        referrer_policy: referrer_policy?,
        frames: frames?,
    })
}

/// `self`, `none`, `any`, or a list of origins with perhaps `self` among them.
fn frames(reader: &mut Reader<'_>, node: &Node) -> Option<Frames> {
    if let Kind::List(_) = node.kind {
        let sources = reader.list_of_some(node, |reader, item| match &item.kind {
            Kind::Text(text) if text == "self" => {
                reader.show(item);
                Some("'self'".to_owned())
            }
            _ => origin(reader, item).and_then(|origin| origin.to_str().map(str::to_owned).ok()),
        })?;
        let policy = format!("frame-ancestors {}", sources.join(" "));
        return HeaderValue::from_str(&policy).ok().map(Frames::Policy);
    }
    let words = [("self", 0), ("none", 1), ("any", 2)];
    reader.choice(node, &words).map(|word| match word {
        0 => Frames::SameOrigin,
        1 => Frames::Nobody,
        _ => Frames::Any,
    })
}
