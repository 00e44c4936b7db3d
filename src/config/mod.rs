//! The settings: the YAML model, its checks, secrets.
//!
//! The way of a file: [`load`] reads the text, `yaml` makes a tree of values that know their place, `check` walks the
//! tree section by section and makes [`settings::Settings`] of it. No step stops at the first mistake; all of them
//! come back together as [`Diagnostics`], with line and column. A key without value (`admin:`) counts as left out.

mod check;
mod decode;
mod defaults;
mod diagnostic;
mod effective;
mod env;
mod json_schema;
mod reference;
mod render;
pub mod rules;
pub mod schema;
mod secrets;
pub mod settings;
mod source;
#[cfg(test)]
mod tests;
mod values;
mod yaml;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use diagnostic::{Code, Diagnostic, Diagnostics, Severity};
pub use effective::{Effective, effective};
pub use env::Env;
pub use json_schema::json_schema;
use settings::Settings;
pub use source::Span;

use decode::Reader;
use source::{Lines, Region};
use yaml::{Kind, Node, Outline};

/// Largest settings file.
const LARGEST: u64 = 1 << 20;

/// Settings that can be used, and what there is to say about them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings only.
    pub warnings: Diagnostics,
    /// Files they were completed from (secrets, certificates): who watches the settings watches these too.
    pub files: Vec<PathBuf>,
}

/// Reads and checks a settings file. Paths in it are relative to its folder.
///
/// # Errors
/// Every mistake in it.
pub fn load(path: &Path, env: &Env) -> Result<Loaded, Diagnostics> {
    load_str(&path.display().to_string(), &read(path)?, env)
}

/// Where the admin listener of a settings file is, whatever else the file says; `None` = it has none.
///
/// # Errors
/// The file cannot be read, is no YAML, or has no usable address there.
pub fn admin_address(path: &Path, env: &Env) -> Result<Option<SocketAddr>, Diagnostics> {
    let name = path.display().to_string();
    let look = |reader: &mut Reader<'_>, root: &Node| {
        fn value<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
            let Kind::Map(entries) = &node.kind else { return None };
            let value = entries.iter().find(|entry| entry.name == key).map(|entry| &entry.value)?;
            (!matches!(value.kind, Kind::Null)).then_some(value)
        }
        let Some(address) = value(root, "admin").and_then(|admin| value(admin, "address")) else { return Some(None) };
        values::socket_address(reader, address).map(Some)
    };
    let (address, found) = reading(&name, &read(path)?, env, look);
    address.ok_or(found)
}

/// The text of a settings file.
fn read(path: &Path) -> Result<String, Diagnostics> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read.map_err(|error| error.to_string()) {
        Ok(_) => String::from_utf8(bytes)
            .map_err(|_| unreadable(name, Code::Unreadable, "the file is not UTF-8 text", "save it as UTF-8")),
        Err(error) => Err(unreadable(
            name,
            Code::Unreadable,
            &format!("the file cannot be read: {error}"),
            "check path and rights",
        )),
    }
}

/// Checks the text of a settings file. `name` stands in the messages, and paths are relative to its folder.
///
/// # Errors
/// Every mistake in it.
pub fn load_str(name: &str, text: &str, env: &Env) -> Result<Loaded, Diagnostics> {
    load_and(name, text, env, |_, _| ()).map(|(loaded, ())| loaded)
}

/// The same; `also` sees the tree, and what was found out about it.
fn load_and<T>(
    name: &str,
    text: &str,
    env: &Env,
    also: impl FnOnce(&Reader<'_>, &Node) -> T,
) -> Result<(Loaded, T), Diagnostics> {
    let mut files = Vec::new();
    let (read, found) = reading(name, text, env, |reader, root| {
        let settings = check::settings(reader, root);
        files = reader.files.iter().cloned().collect();
        Some((settings?, also(reader, root)))
    });
    match read {
        Some((settings, seen)) if found.errors() == 0 => Ok((Loaded { settings, warnings: found, files }, seen)),
        _ => Err(found),
    }
}

/// Makes a tree of the text and shows it to `look`; what that gives, and all that was noted.
fn reading<T>(
    name: &str,
    text: &str,
    env: &Env,
    look: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
) -> (Option<T>, Diagnostics) {
    if text.len() as u64 > LARGEST {
        let help = "is it the right file?";
        return (None, unreadable(name.to_owned(), Code::TooLarge, "the file is larger than 1 MiB", help));
    }
    // A byte order mark is not counted as a column by any editor.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    let base = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut reader = Reader {
        env,
        base,
        found: Vec::new(),
        files: BTreeSet::new(),
        shown: BTreeSet::new(),
        secret: BTreeSet::new(),
    };
    let (seen, masked) = match yaml::parse(text, &lines, &mut reader.found) {
        Some((root, outline)) => {
            let seen = look(&mut reader, &root);
            (seen, masked(&lines, &outline, &reader))
        }
        None => (None, lines.masked_blindly()),
    };
    let Reader { found: mut list, .. } = reader;
    list.sort_by_key(|diagnostic| diagnostic.span);
    list.dedup();
    (seen, Diagnostics { file: name.to_owned(), masked, list })
}

/// The text with everything masked that was not read as something harmless.
fn masked(lines: &Lines, outline: &Outline, reader: &Reader<'_>) -> String {
    let harmless = |id: &usize| reader.shown.contains(id) && !reader.secret.contains(id);
    let (shown, hidden): (Vec<_>, Vec<_>) = outline.scalars().partition(|(id, _)| harmless(id));
    let regions = |scalars: Vec<(usize, Region)>| scalars.into_iter().map(|(_, region)| region).collect::<Vec<_>>();
    lines.masked(&regions(hidden), &regions(shown))
}

/// A mistake that leaves no text to point at.
fn unreadable(file: String, code: Code, message: &str, help: &str) -> Diagnostics {
    let span = Span { line: 1, column: 1, length: 1 };
    let (message, help) = (message.to_owned(), Some(help.to_owned()));
    Diagnostics {
        file,
        masked: String::new(),
        list: vec![Diagnostic { code, span, setting: String::new(), message, help }],
    }
}
