//! The settings: the YAML model, its checks, secrets.
//!
//! The way of a file: [`load`] reads the text, `yaml` makes a tree of values that know their place, `check` walks the
//! tree section by section and makes [`settings::Settings`] of it. No step stops at the first mistake; all of them
//! come back together as [`Diagnostics`], with line and column. A key without value (`admin:`) counts as left out.

mod check;
mod decode;
mod defaults;
mod diagnostic;
mod env;
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
use std::path::{Path, PathBuf};

pub use diagnostic::{Code, Diagnostic, Diagnostics, Severity};
pub use env::Env;
use settings::Settings;
pub use source::Span;

use decode::Reader;
use source::{Lines, Region};
use yaml::Outline;

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
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read.map_err(|error| error.to_string()) {
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => load_str(&name, &text, env),
            Err(_) => Err(unreadable(name, Code::Unreadable, "the file is not UTF-8 text", "save it as UTF-8")),
        },
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
    if text.len() as u64 > LARGEST {
        return Err(unreadable(
            name.to_owned(),
            Code::TooLarge,
            "the file is larger than 1 MiB",
            "is it the right file?",
        ));
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
    let (settings, masked) = match yaml::parse(text, &lines, &mut reader.found) {
        Some((root, outline)) => {
            let settings = check::settings(&mut reader, &root);
            (settings, masked(&lines, &outline, &reader))
        }
        None => (None, lines.masked_blindly()),
    };
    let Reader { found: mut list, files, .. } = reader;
    list.sort_by_key(|diagnostic| diagnostic.span);
    list.dedup();
    let found = Diagnostics { file: name.to_owned(), masked, list };
    match settings {
        Some(settings) if found.errors() == 0 => {
            Ok(Loaded { settings, warnings: found, files: files.into_iter().collect() })
        }
        _ => Err(found),
    }
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
