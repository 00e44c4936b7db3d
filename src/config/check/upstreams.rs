//! Upstreams: endpoints, how to choose among them, time limits.

mod health;
mod security;

pub(super) use security::{authorities, certified};

use std::time::Duration;

use super::{Names, duplicate};
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{ENDPOINT, RETRIES, TIMEOUTS, UPSTREAM};
use crate::config::settings::{
    Balance, Endpoint, HashOn, MOST_ATTEMPTS, Protocol, Retries, Upstream, UpstreamTimeouts,
};
use crate::config::source::Span;
use crate::config::values::{self, DAY, HOUR, MILLISECOND, SECOND};
use crate::config::yaml::{Kind, Node};

/// Most requests at a time that can be asked for.
const MOST_REQUESTS: u64 = 1_000_000;
/// Largest weight: beyond it the smallest share is too small to matter.
const MOST_WEIGHT: u64 = 100;

pub(super) fn upstream(reader: &mut Reader<'_>, node: &Node, names: &mut Names) -> Option<Upstream> {
    let Some(fields) = reader.fields(node, &UPSTREAM) else {
        names.incomplete = true;
        return None;
    };
    names.incomplete |= fields.get("name").is_none();
    let name = fields.required(reader, "name", "app", |reader, node| names.define(reader, node));
    let mut schemes = Vec::new();
    let endpoints = fields
        .required(reader, "endpoints", "[\"127.0.0.1:3000\"]", |reader, node| endpoints(reader, node, &mut schemes));
    let balance = balance(reader, &fields);
    let words = [("http1", Protocol::Http1), ("h2", Protocol::H2), ("h2c", Protocol::H2c)];
    let protocol = fields.optional(reader, "protocol", Protocol::Http1, |reader, node| reader.choice(node, &words));
    let tls = security::tls(reader, &fields, &schemes, endpoints.as_deref());
    let health_check = fields.maybe(reader, "health_check", health::check);
    let ejection = health::ejection(reader, fields.get("ejection"));
    let max_requests = fields
        .maybe(reader, "max_requests", |reader, node| usize::try_from(reader.integer(node, 1, MOST_REQUESTS)?).ok());
    let timeouts = fields.optional(reader, "timeouts", UpstreamTimeouts::default(), timeouts);
    let retries = fields.optional(reader, "retries", Retries::default(), retries);
    let upstream = Upstream {
        name: name?,
        endpoints: endpoints?,
        balance: balance?,
        protocol: protocol?,
        tls: tls?,
        health_check: health_check?,
        ejection: ejection?,
        max_requests: max_requests?,
        timeouts: timeouts?,
        retries: retries?,
    };
    protocol_fits(reader, &fields, &upstream).then_some(upstream)
}

/// `schemes` gets what each endpoint says of TLS, and where.
fn endpoints(reader: &mut Reader<'_>, node: &Node, schemes: &mut Vec<security::Scheme>) -> Option<Vec<Endpoint>> {
    let mut seen: Vec<(Endpoint, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| {
        let (endpoint, scheme) = endpoint(reader, item)?;
        let same = |other: &Endpoint| (&other.host, other.port) == (&endpoint.host, endpoint.port);
        if let Some((_, first)) = seen.iter().find(|(other, _)| same(other)) {
            duplicate(reader, item, "this endpoint is listed twice", *first);
        }
        schemes.push(security::Scheme { tls: scheme, at: item.label(), setting: item.setting.clone() });
        seen.push((endpoint.clone(), item.label()));
        Some(endpoint)
    })
}

/// `host:port`, or a mapping with a weight.
fn endpoint(reader: &mut Reader<'_>, item: &Node) -> Option<(Endpoint, Option<bool>)> {
    if !matches!(item.kind, Kind::Map(_)) {
        return values::endpoint(reader, item);
    }
    let fields = reader.fields(item, &ENDPOINT)?;
    let address = fields.required(reader, "address", "\"127.0.0.1:3000\"", values::endpoint);
    let weight = fields.optional(reader, "weight", 1, |reader, node| reader.integer(node, 1, MOST_WEIGHT));
    let ((endpoint, scheme), weight) = (address?, weight?);
    Some((Endpoint { weight: u32::try_from(weight).ok()?, ..endpoint }, scheme))
}

fn balance(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Balance> {
    #[derive(Clone, Copy)]
    enum On {
        Session,
        Address,
        Header,
    }
    let words = [
        ("round_robin", Some(Balance::RoundRobin)),
        ("random", Some(Balance::Random)),
        ("least_requests", Some(Balance::LeastRequests)),
        ("consistent_hash", None),
    ];
    let choices: Vec<_> = words.iter().enumerate().map(|(index, (word, _))| (*word, index)).collect();
    let kind = fields.optional(reader, "balance", 0, |reader, node| reader.choice(node, &choices));
    let ons = [("session", On::Session), ("address", On::Address), ("header", On::Header)];
    let on = fields.optional(reader, "hash_on", On::Session, |reader, node| reader.choice(node, &ons));
    let header = fields.maybe(reader, "hash_header", |reader, node| {
        let text = reader.word(node)?;
        http::HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| {
                let message = format!("`{text}` is no valid header name");
                reader.note(Code::BadHeader, node, message, "write for example `X-Tenant`");
            })
            .ok()
    });
    let (kind, on, header) = (kind?, on?, header?);
    let no_effect = |reader: &mut Reader<'_>, key: &str, needs: &str| {
        if let Some(node) = fields.get(key) {
            reader.note(Code::NoEffect, node, format!("`{key}` counts with `{needs}` alone"), "remove it");
        }
    };
    if let Some((_, Some(balance))) = words.into_iter().nth(kind) {
        no_effect(reader, "hash_on", "balance: consistent_hash");
        no_effect(reader, "hash_header", "balance: consistent_hash");
        return Some(balance);
    }
    let on = match (on, header) {
        (On::Header, Some(name)) => HashOn::Header(name),
        (On::Header, None) => {
            let help = "write for example `hash_header: X-Tenant`";
            reader.note(Code::MissingKey, fields.node, "`hash_on: header` needs `hash_header`", help);
            return None;
        }
        (other, _) => {
            no_effect(reader, "hash_header", "hash_on: header");
            if matches!(other, On::Address) { HashOn::Address } else { HashOn::Session }
        }
    };
    Some(Balance::ConsistentHash(on))
}

/// HTTP/2 is agreed upon within TLS, or known beforehand.
fn protocol_fits(reader: &mut Reader<'_>, fields: &Fields<'_>, upstream: &Upstream) -> bool {
    let (message, help) = match (upstream.protocol, &upstream.tls) {
        (Protocol::H2, None) => ("`h2` is HTTP/2 over TLS", "add `tls: {…}` or `https://` endpoints, or write `h2c`"),
        (Protocol::H2c, Some(_)) => ("`h2c` is HTTP/2 without TLS", "write `h2`"),
        _ => return true,
    };
    reader.note(Code::Contradiction, fields.get("protocol").unwrap_or(fields.node), message, help);
    false
}

fn timeouts(reader: &mut Reader<'_>, node: &Node) -> Option<UpstreamTimeouts> {
    let fields = reader.fields(node, &TIMEOUTS)?;
    let default = UpstreamTimeouts::default();
    let mut limit = |key: &str, default: Duration, most: Duration| {
        fields.optional(reader, key, default, |reader, node| values::duration(reader, node, MILLISECOND, most))
    };
    let connect = limit("connect", default.connect, 300 * SECOND);
    let read = limit("read", default.read, DAY);
    let write = limit("write", default.write, DAY);
    let idle = limit("idle", default.idle, HOUR);
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
