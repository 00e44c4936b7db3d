//! Upstreams: endpoints and time limits.

use std::time::Duration;

use super::{Names, duplicate};
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{RETRIES, TIMEOUTS, UPSTREAM};
use crate::config::settings::{Endpoint, MOST_ATTEMPTS, Retries, Upstream, UpstreamTimeouts};
use crate::config::source::Span;
use crate::config::values::{self, DAY, HOUR, MILLISECOND, SECOND};
use crate::config::yaml::Node;

const DEFAULT: UpstreamTimeouts = UpstreamTimeouts {
    connect: Duration::from_secs(2),
    read: Duration::from_secs(60),
    write: Duration::from_secs(60),
    idle: Duration::from_secs(60),
};

pub(super) fn upstream(reader: &mut Reader<'_>, node: &Node, names: &mut Names) -> Option<Upstream> {
    let Some(fields) = reader.fields(node, &UPSTREAM) else {
        names.incomplete = true;
        return None;
    };
    names.incomplete |= fields.get("name").is_none();
    let name = fields.required(reader, "name", "app", |reader, node| names.define(reader, node));
    let endpoints = fields.required(reader, "endpoints", "[\"127.0.0.1:3000\"]", endpoints);
    let timeouts = fields.optional(reader, "timeouts", DEFAULT, timeouts);
    let retries = fields.optional(reader, "retries", Retries::default(), retries);
    Some(Upstream { name: name?, endpoints: endpoints?, timeouts: timeouts?, retries: retries? })
}

fn endpoints(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Endpoint>> {
    let mut seen: Vec<(Endpoint, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| {
        let endpoint = values::endpoint(reader, item)?;
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == endpoint) {
            duplicate(reader, item, "this endpoint is listed twice", *first);
        }
        seen.push((endpoint.clone(), item.label()));
        Some(endpoint)
    })
}

fn timeouts(reader: &mut Reader<'_>, node: &Node) -> Option<UpstreamTimeouts> {
    let fields = reader.fields(node, &TIMEOUTS)?;
    let mut limit = |key: &str, default: Duration, most: Duration| {
        fields.optional(reader, key, default, |reader, node| values::duration(reader, node, MILLISECOND, most))
    };
    let connect = limit("connect", DEFAULT.connect, 300 * SECOND);
    let read = limit("read", DEFAULT.read, DAY);
    let write = limit("write", DEFAULT.write, DAY);
    let idle = limit("idle", DEFAULT.idle, HOUR);
    Some(UpstreamTimeouts { connect: connect?, read: read?, write: write?, idle: idle? })
}

fn retries(reader: &mut Reader<'_>, node: &Node) -> Option<Retries> {
    let fields = reader.fields(node, &RETRIES)?;
    let default = Retries::default();
    let attempts = fields.optional(reader, "attempts", default.attempts, |reader, node| {
        let most = u64::try_from(MOST_ATTEMPTS).unwrap_or(u64::MAX);
        usize::try_from(reader.integer(node, 1, most)?).ok()
    });
    let budget = fields.optional(reader, "budget", default.budget, values::percent);
    if let (Some(at), Some(1)) = (fields.get("budget"), attempts) {
        reader.note(Code::NoEffect, at, "nothing is sent again with one attempt", "remove it, or raise `attempts`");
    }
    Some(Retries { attempts: attempts?, budget: budget? })
}
