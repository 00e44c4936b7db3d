//! YAML as the settings see it: a tree of values that know where they stand.
//!
//! `serde_yaml` says what a value is, `saphyr-parser` says where it is; the tree is the two laid over each other.
//! Anchors and aliases work. Merge keys (`<<`) and tags do not: settings must mean what they show, and a merged
//! mapping shows neither its keys nor their place.

mod outline;
mod tree;
mod value;

pub(super) use outline::Outline;
pub(super) use tree::{Entry, Kind, Node};

use super::diagnostic::{Code, Diagnostic};
use super::source::{Lines, Span};

/// Parses the text of a settings file. Duplicate keys are reported and the first one counts, so that the rest of the
/// file is looked at as well. `None` after mistakes that make it pointless to look further.
pub(super) fn parse(text: &str, lines: &Lines, found: &mut Vec<Diagnostic>) -> Option<(Node, Outline)> {
    let outline = outline::read(text, lines, found)?;
    // `serde_yaml` takes a file of comments only for one that breaks off.
    if outline.root.is_none() {
        return Some((tree::lay_over(value::Value::Null, &outline, found), outline));
    }
    match serde_yaml::from_str::<value::Value>(text) {
        Ok(value) => Some((tree::lay_over(value, &outline, found), outline)),
        Err(error) => {
            let start = Span { line: 1, column: 1, length: 1 };
            let span = error.location().map_or(start, |at| lines.place(at.line(), at.column()));
            found.push(syntax(span, &strip_place(&error.to_string())));
            None
        }
    }
}

/// A mistake in the YAML itself. The parsers' messages are fixed texts that quote nothing of the file.
fn syntax(span: Span, message: &str) -> Diagnostic {
    Diagnostic {
        code: Code::Syntax,
        span,
        setting: String::new(),
        message: format!("this is not YAML: {message}"),
        help: Some("look for an indentation, colon or quote gone wrong here or just above".to_owned()),
    }
}

/// `serde_yaml` ends its messages with a place, which stands in front already.
fn strip_place(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}
