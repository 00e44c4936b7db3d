//! Options by name, each of which is asked for once; what nobody asks for is known in the end.

use std::collections::BTreeMap;

use serde_json::Value;

/// Options of another program.
#[derive(Debug, Default)]
pub(super) struct Source(BTreeMap<String, Value>);

impl Source {
    pub(super) fn new(options: BTreeMap<String, Value>) -> Self {
        Self(options)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null() && *value != "")
    }

    /// A text; numbers and truth values as text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other @ (Value::Bool(_) | Value::Number(_)) => Some(other.to_string()),
            _ => None,
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A list of texts; a single text is one, also with commas.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match self.take(name) {
            Some(Value::Array(items)) => items.into_iter().filter_map(text).collect(),
            Some(Value::String(text)) => {
                text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The names of what begins so and says something; a `false`, an empty list are nothing.
    pub(super) fn take_like(&mut self, beginnings: &[&str], but: &[&str]) -> Vec<String> {
        let says = |value: &Value| {
            !value.is_null()
                && *value != ""
                && *value != false
                && value.as_array().is_none_or(|items| !items.is_empty())
        };
        let like = |name: &str| beginnings.iter().any(|start| name.starts_with(start)) && !but.contains(&name);
        let found: Vec<String> =
            self.0.iter().filter(|(name, value)| like(name) && says(value)).map(|(name, _)| name.clone()).collect();
        self.0.retain(|name, _| !found.contains(name));
        found
    }

    /// What was not asked for.
    pub(super) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter().filter(|(_, value)| !value.is_null())
    }
}
