//! What a client may ask for, and how long it may take.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{HTTP2, LIMITS};
use crate::config::settings::{Http2, Limits, Most};
use crate::config::values::{self, DAY, HOUR, MILLISECOND, SECOND};
use crate::config::yaml::Node;

/// Pingora reads no request header beyond this; what is below it can be refused with an answer.
const LARGEST_HEADER: u64 = 512 << 10;
/// Pingora reads no more fields than this.
const MOST_FIELDS: u64 = 255;
/// Least memory that a limit makes sense for.
const LEAST_MEMORY: u64 = 32 << 20;

pub(super) fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<Limits> {
    let fields = reader.fields(node, &LIMITS)?;
    let default = Limits::default();
    let mut time = |key: &str, default: Duration, least: Duration, most: Duration| {
        fields.optional(reader, key, default, |reader, node| values::duration(reader, node, least, most))
    };
    let header_timeout = time("header_timeout", default.header_timeout, MILLISECOND, HOUR);
    let handshake_timeout = time("handshake_timeout", default.handshake_timeout, MILLISECOND, HOUR);
    let keepalive_timeout = time("keepalive_timeout", default.keepalive_timeout, SECOND, DAY);
    let body_timeout = time("body_timeout", default.body_timeout, MILLISECOND, DAY);
    let write_timeout = time("write_timeout", default.write_timeout, MILLISECOND, DAY);
    let mut bytes = |key: &str, default: usize, least: u64, most: u64| {
        fields
            .optional(reader, key, default, |reader, node| usize::try_from(size_from(reader, node, least, most)?).ok())
    };
    let header_size = bytes("header_size", default.header_size, 1 << 10, LARGEST_HEADER);
    let uri_length = bytes("uri_length", default.uri_length, 256, LARGEST_HEADER);
    let body_rate =
        fields.optional(reader, "body_rate", default.body_rate, |reader, node| values::size(reader, node, 1 << 30));
    let header_fields = fields.optional(reader, "header_fields", default.header_fields, |reader, node| {
        usize::try_from(reader.integer(node, 8, MOST_FIELDS)?).ok()
    });
    let requests = fields.optional(reader, "requests_per_connection", default.requests_per_connection, count_or_none);
    let connections = fields.optional(reader, "connections", default.connections, |reader, node| {
        Some(given(reader.integer(node, 0, u64::from(u32::MAX))?))
    });
    let per_address =
        fields.optional(reader, "connections_per_address", default.connections_per_address, |reader, node| {
            Some(given(reader.integer(node, 0, u64::from(u32::MAX))?))
        });
    let memory = fields.optional(reader, "memory", default.memory, |reader, node| {
        let bytes = values::size(reader, node, 1 << 50)?;
        if (1..LEAST_MEMORY).contains(&bytes) {
            let help = "choose at least 32MiB, or 0 for no limit";
            reader.note(Code::OutOfRange, node, "so little memory is always in use", help);
            return None;
        }
        Some(given(bytes))
    });
    let http2 = fields.optional(reader, "http2", default.http2, http2);
    Some(Limits {
        header_timeout: header_timeout?,
        handshake_timeout: handshake_timeout?,
        keepalive_timeout: keepalive_timeout?,
        body_timeout: body_timeout?,
        body_rate: body_rate?,
        write_timeout: write_timeout?,
        header_size: header_size?,
        header_fields: header_fields?,
        uri_length: uri_length?,
        requests_per_connection: requests?,
        connections: connections?,
        connections_per_address: per_address?,
        memory: memory?,
        http2: http2?,
    })
}

fn http2(reader: &mut Reader<'_>, node: &Node) -> Option<Http2> {
    let fields = reader.fields(node, &HTTP2)?;
    let default = Http2::default();
    let streams = fields.optional(reader, "streams", default.streams, |reader, node| {
        u32::try_from(reader.integer(node, 1, 10_000)?).ok()
    });
    let mut bytes = |key: &str, default: u32, least: u64, most: u64| {
        fields.optional(reader, key, default, |reader, node| u32::try_from(size_from(reader, node, least, most)?).ok())
    };
    let header_list = bytes("header_list", default.header_list, 1 << 10, LARGEST_HEADER);
    let window = bytes("window", default.window, (1 << 16) - 1, (1 << 31) - 1);
    let idle =
        fields.optional(reader, "idle", default.idle, |reader, node| values::duration(reader, node, SECOND, DAY));
    Some(Http2 { streams: streams?, header_list: header_list?, window: window?, idle: idle? })
}

/// A size with a lower bound.
fn size_from(reader: &mut Reader<'_>, node: &Node, least: u64, most: u64) -> Option<u64> {
    let size = values::size(reader, node, most)?;
    if size < least {
        let help = format!("choose at least {}", bytesize::ByteSize(least));
        reader.note(Code::OutOfRange, node, format!("{size} bytes are too few"), help);
        return None;
    }
    Some(size)
}

/// A count; 0 = no limit.
fn count_or_none(reader: &mut Reader<'_>, node: &Node) -> Option<Option<NonZeroU32>> {
    let count = u32::try_from(reader.integer(node, 0, u64::from(u32::MAX))?).ok()?;
    Some(NonZeroU32::new(count))
}

fn given(most: u64) -> Most {
    if most == 0 { Most::Unlimited } else { Most::Given(most) }
}
