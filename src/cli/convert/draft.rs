//! Settings in the making, and what is left to do by hand.

use serde_yaml::{Mapping, Value};

/// Settings that `check` takes, and a list of what they do not say.
#[derive(Debug)]
pub(super) struct Draft {
    /// What they were made of.
    source: String,
    pub(super) settings: Mapping,
    left: Vec<String>,
}

impl Draft {
    pub(super) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), settings: Mapping::new(), left: Vec::new() }
    }

    /// Notes what is to be done by hand, once.
    pub(super) fn leave(&mut self, what: impl Into<String>) {
        // What stands in the file must neither end a comment nor steer the terminal.
        let what: String = what.into().chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
        if !self.left.contains(&what) {
            self.left.push(what);
        }
    }

    /// Sets a key of the top level.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.settings.insert(key.into(), value.into());
    }

    /// The settings file; what is left stands in front as a comment.
    pub(super) fn yaml(&self) -> String {
        let mut out = format!("# Made of {} by `cloakroom convert`.\n", self.source.replace(char::is_control, " "));
        if !self.left.is_empty() {
            out.push_str("# Left to do:\n");
        }
        for one in &self.left {
            out.push_str(&format!("# - {one}\n"));
        }
        out.push('\n');
        out + &serde_yaml::to_string(&plain(&Value::Mapping(self.settings.clone()))).unwrap_or_default()
    }

    /// The same list for the terminal.
    pub(super) fn report(&self) -> String {
        if self.left.is_empty() {
            return "everything was translated; look it over with `cloakroom check`\n".to_owned();
        }
        let mut out = format!("left to do by hand ({}):\n", self.left.len());
        for one in &self.left {
            out.push_str(&format!("- {one}\n"));
        }
        out + "then look it over with `cloakroom check`\n"
    }
}

/// A rule that nobody meets, for one that is still to be written.
pub(super) fn nobody() -> Value {
    map([("name", "to be written".into()), ("claim", "email".into()), ("any_of", list(["write-me@invalid"]))])
}

/// A `$` of the source names no variable of Cloakroom's environment.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('$', "$$").into(),
        Value::Sequence(items) => items.iter().map(plain).collect::<Vec<_>>().into(),
        Value::Mapping(entries) => {
            Value::Mapping(entries.iter().map(|(key, value)| (plain(key), plain(value))).collect())
        }
        other => other.clone(),
    }
}

/// A mapping in this order; what is null is left out.
pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let entries = entries.into_iter().filter(|(_, value)| !value.is_null());
    Value::Mapping(entries.map(|(key, value)| (Value::from(key), value)).collect())
}

/// A list of texts.
pub(super) fn list<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Value {
    Value::Sequence(items.into_iter().map(|item| Value::from(item.into())).collect())
}

/// `{ env: NAME }`
pub(super) fn from_variable(name: &str) -> Value {
    map([("env", name.into())])
}

/// `10s` of a number of seconds, within what settings take.
pub(super) fn seconds(seconds: u64) -> String {
    format!("{}s", seconds.clamp(1, 24 * 3600))
}
