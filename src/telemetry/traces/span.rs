//! One span, and how it is written in OTLP's JSON encoding.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::telemetry::json;

/// Which side of a call it is; the number is OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that came here.
    Server = 2,
    /// A request that went out from here.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word of a fixed list.
    Word(&'static str),
    /// A name of the settings.
    Name(Arc<str>),
    /// Any other text.
    Text(String),
    /// A number.
    Number(u64),
}

/// Name and value.
pub type Attribute = (&'static str, Value);

/// Something that took its time. Attributes carry what the access log does, never more (behaviour D3).
pub struct Span {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    kind: Kind,
    name: Cow<'static, str>,
    began: Instant,
    took: Duration,
    attributes: Vec<Attribute>,
    failed: bool,
}

impl Span {
    pub(super) fn new(
        trace: u128,
        id: u64,
        parent: Option<u64>,
        kind: Kind,
        name: Cow<'static, str>,
        (began, took): (Instant, Duration),
    ) -> Self {
        Self { trace, id, parent, kind, name, began, took, attributes: Vec::with_capacity(12), failed: false }
    }

    /// Adds an attribute.
    pub fn set(&mut self, name: &'static str, value: Value) {
        self.attributes.push((name, value));
    }

    /// It failed, and in this way.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        self.failed = true;
        let error = match error.into() {
            Cow::Borrowed(word) => Value::Word(word),
            Cow::Owned(text) => Value::Text(text),
        };
        self.set("error.type", error);
    }

    #[cfg(test)]
    pub(super) fn is_child_of(&self, trace: u128, parent: u64) -> bool {
        self.trace == trace && self.parent == Some(parent) && self.id != parent
    }

    /// Appends it as OTLP/JSON has it: ids in hexadecimal digits, 64-bit numbers as texts.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let began = SystemTime::now().checked_sub(self.began.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A vector takes whatever is written.
        let _ = write!(out, "{{\"traceId\":\"{:032x}\",\"spanId\":\"{:016x}\"", self.trace, self.id);
        if let Some(parent) = self.parent {
            let _ = write!(out, ",\"parentSpanId\":\"{parent:016x}\"");
        }
        out.extend_from_slice(b",\"name\":");
        json::string(out, &self.name);
        let (start, end) = (began.as_nanos(), (began + self.took).as_nanos());
        let kind = self.kind as u8;
        let _ = write!(out, ",\"kind\":{kind},\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{end}\"");
        out.extend_from_slice(b",\"attributes\":");
        attributes(out, &self.attributes);
        out.extend_from_slice(if self.failed { b",\"status\":{\"code\":2}}" } else { b"}" });
    }
}

/// Appends a list of attributes.
pub(super) fn attributes(out: &mut Vec<u8>, all: &[Attribute]) {
    out.push(b'[');
    for (position, (name, value)) in all.iter().enumerate() {
        out.extend_from_slice(if position == 0 { b"{\"key\":" } else { b",{\"key\":" });
        json::string(out, name);
        let text = match value {
            Value::Word(text) => text,
            Value::Name(text) => &**text,
            Value::Text(text) => text,
            Value::Number(number) => {
                let _ = write!(out, ",\"value\":{{\"intValue\":\"{number}\"}}}}");
                continue;
            }
        };
        out.extend_from_slice(b",\"value\":{\"stringValue\":");
        json::string(out, text);
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}
