//! Values and places laid over each other.

use std::collections::BTreeSet;

use super::outline::{Outline, Shape};
use super::value::Value;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::source::Span;

/// A value that knows where it stands.
pub(in crate::config) struct Node {
    /// Where the value stands.
    pub(in crate::config) at: Span,
    /// Where its key stands, if it has one.
    pub(in crate::config) key_at: Option<Span>,
    /// For example `sites[0].routes[2].access`.
    pub(in crate::config) setting: String,
    /// Its number in the outline, if it is a scalar and the two parsers agree on it.
    pub(in crate::config) scalar: Option<usize>,
    pub(in crate::config) kind: Kind,
}

pub(in crate::config) enum Kind {
    Null,
    Bool(bool),
    Integer(i128),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
pub(in crate::config) struct Entry {
    pub(in crate::config) name: String,
    pub(in crate::config) at: Span,
    /// The number of the key in the outline.
    pub(in crate::config) key: Option<usize>,
    pub(in crate::config) value: Node,
}

impl Node {
    /// Where to point at for a mistake in the value: the value if it fits on a line, else its key.
    pub(in crate::config) fn label(&self) -> Span {
        match &self.kind {
            Kind::List(_) | Kind::Map(_) => self.key_at.unwrap_or_else(|| self.first_key().unwrap_or(self.at)),
            _ if self.at.length > 0 => self.at,
            _ => self.key_at.unwrap_or(self.at),
        }
    }

    fn first_key(&self) -> Option<Span> {
        if let Kind::Map(entries) = &self.kind { entries.first().map(|entry| entry.at) } else { None }
    }

    /// Words for what it is.
    pub(in crate::config) fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) | Kind::Float => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

pub(super) fn lay_over(value: Value, outline: &Outline, found: &mut Vec<Diagnostic>) -> Node {
    let mut layer = Layer { outline, found };
    layer.node(
        value,
        outline.root,
        Place { setting: String::new(), key_at: None, around: Span { line: 1, column: 1, length: 1 } },
    )
}

/// Where a node lies, seen from above.
struct Place {
    setting: String,
    key_at: Option<Span>,
    /// Used where the outline knows nothing.
    around: Span,
}

struct Layer<'l> {
    outline: &'l Outline,
    found: &'l mut Vec<Diagnostic>,
}

impl<'l> Layer<'l> {
    fn node(&mut self, value: Value, id: Option<usize>, place: Place) -> Node {
        let Place { setting, key_at, around } = place;
        let outline: &'l Outline = self.outline;
        let at = id.and_then(|id| outline.get(id)).map_or(around, |node| node.span);
        let resolved = id.and_then(|id| outline.resolve(id));
        let shape = resolved.map(|(_, node)| &node.shape);
        let scalar = resolved.filter(|(_, node)| matches!(node.shape, Shape::Scalar)).map(|(id, _)| id);
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(value) => Kind::Bool(value),
            Value::Integer(value) => Kind::Integer(value),
            Value::Float => Kind::Float,
            Value::Text(value) => Kind::Text(value),
            Value::List(items) => {
                let ids = if let Some(Shape::List(ids)) = shape { ids.as_slice() } else { &[] };
                let item = |(index, item): (usize, Value)| {
                    let setting = format!("{setting}[{index}]");
                    self.node(item, ids.get(index).copied(), Place { setting, key_at: None, around: at })
                };
                Kind::List(items.into_iter().enumerate().map(item).collect())
            }
            Value::Map(entries) => {
                let ids = if let Some(Shape::Map(ids)) = shape { ids.as_slice() } else { &[] };
                Kind::Map(self.entries(entries, ids, &setting, at))
            }
        };
        Node { at, key_at, setting, scalar, kind }
    }

    fn entries(
        &mut self,
        entries: Vec<(Value, Value)>,
        ids: &[(usize, usize)],
        setting: &str,
        around: Span,
    ) -> Vec<Entry> {
        let mut out: Vec<Entry> = Vec::with_capacity(entries.len());
        let mut names = BTreeSet::new();
        for (index, (key, value)) in entries.into_iter().enumerate() {
            let ids = ids.get(index);
            let at = ids.and_then(|(key, _)| self.outline.get(*key)).map_or(around, |node| node.span);
            let Value::Text(name) = key else {
                let help = Some("put the key in quotes".to_owned());
                let message = "this key is no text".to_owned();
                self.found.push(Diagnostic {
                    code: Code::Unsupported,
                    span: at,
                    setting: setting.to_owned(),
                    message,
                    help,
                });
                continue;
            };
            // A duplicate was reported with the outline; the first one counts.
            if !names.insert(name.clone()) {
                continue;
            }
            let below = if setting.is_empty() { name.clone() } else { format!("{setting}.{name}") };
            let place = Place { setting: below, key_at: Some(at), around: at };
            let value = self.node(value, ids.map(|(_, value)| *value), place);
            out.push(Entry { name, at, key: ids.map(|(key, _)| *key), value });
        }
        out
    }
}
