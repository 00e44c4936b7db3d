//! How endpoints are watched: checks and ejection.

use std::time::Duration;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{EJECTION, HEALTH_CHECK};
use crate::config::settings::{Ejection, HealthCheck};
use crate::config::values::{self, HOUR, MILLISECOND};
use crate::config::yaml::Node;

/// Most checks, failures or answers in a row that make sense.
const MOST: u64 = 1000;

pub(super) fn check(reader: &mut Reader<'_>, node: &Node) -> Option<HealthCheck> {
    let fields = reader.fields(node, &HEALTH_CHECK)?;
    let default = HealthCheck::default();
    let path = fields.maybe(reader, "path", target);
    let mut time = |key: &str, default: Duration| {
        fields.optional(reader, key, default, |reader, node| values::duration(reader, node, 10 * MILLISECOND, HOUR))
    };
    let (interval, timeout) = (time("interval", default.interval), time("timeout", default.timeout));
    let mut times = |key: &str, default: u32| {
        fields.optional(reader, key, default, |reader, node| u32::try_from(reader.integer(node, 1, MOST)?).ok())
    };
    let healthy_after = times("healthy_after", default.healthy_after);
    let unhealthy_after = times("unhealthy_after", default.unhealthy_after);
    let expect = fields.optional(reader, "expect", Vec::new(), |reader, node| {
        reader.list_of_some(node, |reader, item| u16::try_from(reader.integer(item, 100, 599)?).ok())
    });
    let check = HealthCheck {
        path: path?,
        interval: interval?,
        timeout: timeout?,
        healthy_after: healthy_after?,
        unhealthy_after: unhealthy_after?,
        expect: expect?,
    };
    if let (None, Some(expect)) = (&check.path, fields.get("expect")) {
        reader.note(Code::NoEffect, expect, "without `path` nothing is asked", "add `path`, or remove `expect`");
    }
    Some(check)
}

/// A path, perhaps with a query.
fn target(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.word(node)?;
    if text.starts_with('/') && !text.contains(['#', ' ']) && text.parse::<http::uri::PathAndQuery>().is_ok() {
        return Some(text);
    }
    reader.note(Code::BadPath, node, format!("`{text}` cannot be asked for"), "write for example `/healthz`");
    None
}

/// `after: 0` = never. `None` only if a mistake was noted.
pub(super) fn ejection(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Option<Ejection>> {
    let default = Ejection::default();
    let Some(node) = node else { return Some(Some(default)) };
    let fields = reader.fields(node, &EJECTION)?;
    let after = fields
        .optional(reader, "after", default.after, |reader, node| u32::try_from(reader.integer(node, 0, MOST)?).ok());
    let on_5xx = fields.optional(reader, "on_5xx", default.on_5xx, |reader, node| reader.boolean(node));
    let mut time = |key: &str, default: Duration| {
        fields.optional(reader, key, default, |reader, node| values::duration(reader, node, 10 * MILLISECOND, HOUR))
    };
    let (pause, longest_pause) = (time("pause", default.pause), time("longest_pause", default.longest_pause));
    let (after, on_5xx, pause, longest_pause) = (after?, on_5xx?, pause?, longest_pause?);
    let longest_pause = longest_pause.max(pause);
    Some((after > 0).then_some(Ejection { after, on_5xx, pause, longest_pause }))
}
