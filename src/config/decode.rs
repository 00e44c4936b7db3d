//! Reading values out of the tree. Nothing here stops at a mistake: it is noted down, `None` is returned, and the
//! caller reads on, so that one run finds them all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::diagnostic::{Code, Diagnostic, did_you_mean};
use super::env::{Env, ExpandError, expand};
use super::schema::{self, Section};
use super::source::Span;
use super::yaml::{Entry, Kind, Node};

/// What is known and noted down while a file is read.
pub(super) struct Reader<'r> {
    pub(super) env: &'r Env,
    /// The folder of the settings file.
    pub(super) base: &'r Path,
    pub(super) found: Vec<Diagnostic>,
    /// Files the settings were completed from.
    pub(super) files: BTreeSet<PathBuf>,
    /// Scalars, keys included, read as something that is no secret, by their number in the outline.
    pub(super) shown: BTreeSet<usize>,
    /// Scalars read as a secret.
    pub(super) secret: BTreeSet<usize>,
}

impl Reader<'_> {
    /// Notes a mistake or warning about a value.
    pub(super) fn note(&mut self, code: Code, node: &Node, message: impl Into<String>, help: impl Into<String>) {
        self.note_at(code, node.label(), &node.setting, message, help);
    }

    /// The same at another place.
    pub(super) fn note_at(
        &mut self,
        code: Code,
        span: Span,
        setting: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help: &String| !help.is_empty());
        self.found.push(Diagnostic { code, span, setting: setting.to_owned(), message: message.into(), help });
    }

    /// Notes that a value is of the wrong type.
    pub(super) fn wrong_type(&mut self, node: &Node, expected: &str, help: &str) {
        let found = node.describe();
        self.note(Code::WrongType, node, format!("{expected} is expected here, not {found}"), help);
    }

    /// Marks a scalar as fit to be shown.
    pub(super) fn show(&mut self, node: &Node) {
        self.shown.extend(node.scalar);
    }

    /// The keys of a mapping; unknown ones are noted.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, section: &'static Section) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            let keys = section.keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            self.wrong_type(node, "a mapping", &format!("its keys are {keys}"));
            return None;
        };
        for entry in entries {
            let name = &entry.name;
            let known = section.keys.contains(&name.as_str());
            // `secret: {hunter2}` is a mapping too, and its key no name of a setting.
            let harmless = known || section.path != schema::SECRET.path;
            self.shown.extend(entry.key.filter(|_| harmless));
            if known {
                continue;
            }
            if !harmless {
                self.note_at(Code::UnknownKey, entry.at, &node.setting, "unknown key", "known here: `env`, `file`");
                continue;
            }
            let help = did_you_mean(name, section.keys.iter().copied())
                .or_else(|| schema::home_of(name).map(|home| format!("`{name}` belongs into {home}")))
                .unwrap_or_else(|| format!("known here: {}", section.keys.join(", ")));
            self.note_at(Code::UnknownKey, entry.at, &entry.value.setting, "unknown key", help);
        }
        Some(Fields { node, section, entries })
    }

    /// The entries of a mapping whose keys are free.
    pub(super) fn free_map<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        if let Kind::Map(entries) = &node.kind {
            self.shown.extend(entries.iter().filter_map(|entry| entry.key));
            return Some(entries);
        }
        self.wrong_type(node, "a mapping", "");
        None
    }

    /// The items of a list that could be read; `None` if it is no list.
    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        if let Kind::List(items) = &node.kind {
            return Some(items.iter().filter_map(|item| read(self, item)).collect());
        }
        self.wrong_type(node, "a list", "write `[…]`, or one item a line behind `- `");
        None
    }

    /// The same, with at least one item.
    pub(super) fn list_of_some<T>(
        &mut self,
        node: &Node,
        read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(&node.kind, Kind::List(items) if items.is_empty()) {
            self.note(Code::Empty, node, "the list is empty", "at least one item is needed");
            return None;
        }
        self.list(node, read)
    }

    /// A text that is no secret, variables replaced.
    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        self.show(node);
        match &node.kind {
            Kind::Text(text) => self.expand(node, text),
            Kind::Bool(_) | Kind::Integer(_) | Kind::Float => {
                self.wrong_type(node, "a text", "put it in quotes");
                None
            }
            _ => {
                self.wrong_type(node, "a text", "");
                None
            }
        }
    }

    /// A text that is not empty and has no blanks around it.
    pub(super) fn word(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if text.is_empty() {
            self.note(Code::Empty, node, "the text is empty", "write a value or leave the key out");
            return None;
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            self.note(
                Code::BadValue,
                node,
                "the text begins or ends with a blank or has control characters",
                "remove them",
            );
            return None;
        }
        Some(text)
    }

    /// A text, number or truth value as text.
    pub(super) fn scalar_text(&mut self, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Bool(value) => {
                self.show(node);
                Some(value.to_string())
            }
            Kind::Integer(value) => {
                self.show(node);
                Some(value.to_string())
            }
            _ => self.text(node),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        self.show(node);
        let value = match &node.kind {
            Kind::Bool(value) => return Some(*value),
            // `${VAR}` gives a text; a text that the file itself holds is a mistake.
            Kind::Text(text) if text.contains('$') => self.expand(node, text)?.parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type(
                node,
                "`true` or `false`",
                "write it without quotes; `yes`, `no`, `on` and `off` are texts",
            );
        }
        value
    }

    /// A whole number within bounds.
    pub(super) fn integer(&mut self, node: &Node, least: u64, most: u64) -> Option<u64> {
        self.show(node);
        let value: Option<i128> = match &node.kind {
            Kind::Integer(value) => Some(*value),
            Kind::Text(text) if text.contains('$') => self.expand(node, text)?.parse().ok(),
            _ => None,
        };
        let Some(value) = value else {
            self.wrong_type(node, "a whole number", "write it without quotes and units");
            return None;
        };
        match u64::try_from(value) {
            Ok(value) if (least..=most).contains(&value) => Some(value),
            _ => {
                let help = format!("choose a number from {least} to {most}");
                self.note(Code::OutOfRange, node, format!("{value} is out of range"), help);
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, choices: &[(&'static str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let allowed = words().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        if !matches!(node.kind, Kind::Text(_)) {
            self.show(node);
            self.wrong_type(node, "a word", &format!("one of {allowed}"));
            return None;
        }
        let text = self.text(node)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let help = match did_you_mean(&text, words()) {
            Some(help) => format!("{help} Allowed here: {allowed}"),
            None => format!("allowed here: {allowed}"),
        };
        self.note(Code::UnknownWord, node, format!("`{text}` is not allowed here"), help);
        None
    }

    /// Replaces `${…}`.
    pub(super) fn expand(&mut self, node: &Node, text: &str) -> Option<String> {
        let (message, help) = match expand(text, self.env) {
            Ok(text) => return Some(text),
            Err(ExpandError::Unclosed) => ("`${` without `}`".to_owned(), "write `$$` for a plain `$`".to_owned()),
            Err(ExpandError::BadName) => (
                "the name in `${…}` is not one a variable can have".to_owned(),
                "write `$$` for a plain `$`".to_owned(),
            ),
            Err(ExpandError::Unset(name)) => (
                format!("the environment variable `{name}` is not set"),
                format!("set it, or give a default: `${{{name}:-value}}`"),
            ),
        };
        self.note(Code::Variable, node, message, help);
        None
    }
}

/// The keys of one mapping.
pub(super) struct Fields<'n> {
    pub(super) node: &'n Node,
    section: &'static Section,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of a key. A key without a value counts as left out: it is what remains when all below it is made a
    /// comment.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        debug_assert!(self.section.keys.contains(&key), "{key} is not in the schema");
        let value = self.entries.iter().find(|entry| entry.name == key).map(|entry| &entry.value)?;
        (!matches!(value.kind, Kind::Null)).then_some(value)
    }

    /// A key that must be there; `example` is what to write.
    pub(super) fn required<T>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        example: &str,
        read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
    ) -> Option<T> {
        if let Some(value) = self.get(key) {
            return read(reader, value);
        }
        let help = format!("write for example `{key}: {example}`");
        reader.note(Code::MissingKey, self.node, format!("`{key}` is missing"), help);
        None
    }

    /// A key with a default. `None` only if there is a value and it is wrong.
    pub(super) fn optional<T>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        default: T,
        read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(value) => read(reader, value),
            None => Some(default),
        }
    }

    /// A key that may be left out. `None` only if there is a value and it is wrong.
    pub(super) fn maybe<T>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(key) {
            Some(value) => read(reader, value).map(Some),
            None => Some(None),
        }
    }
}
