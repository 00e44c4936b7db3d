//! All settings with their defaults filled in, and nothing secret shown.
//!
//! The defaults are those of the reference. They are put into the file as if somebody had written them, and the result is
//! read again: a default that may not be written there, because another setting rules it out, is taken back. So what is
//! shown is a settings file that means what the given one means; a test holds that for every example.

use std::collections::BTreeSet;
use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::decode::Reader;
use super::env::expand;
use super::reference::{Row, below, rows};
use super::schema::{CREDENTIALS, PROVIDER, ROOT, Section};
use super::yaml::{Kind, Node};
use super::{Diagnostics, Env, load_and, load_str, read};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";
/// Most times that defaults are taken back. Once will nearly always do.
const ROUNDS: usize = 20;

/// All settings.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Every key that has a value, in the order of the reference where the file does not name it.
    pub settings: Value,
    /// Keys whose default depends on where the program runs or what stands around, with words for it.
    pub open: Vec<(String, &'static str)>,
    /// Warnings about the file.
    pub warnings: Diagnostics,
}

impl Effective {
    /// As a settings file; what is secret cannot be read back from it.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut out = serde_yaml::to_string(&self.settings).unwrap_or_default();
        if !self.open.is_empty() {
            out.push_str("# Not written above:\n");
        }
        for (setting, words) in &self.open {
            out.push_str(&format!("# {setting}: {words}\n"));
        }
        out
    }
}

/// Reads a settings file and, if that is asked for, fills its defaults in.
///
/// # Errors
/// Every mistake in it.
pub fn effective(path: &Path, env: &Env, fill: bool) -> Result<Effective, Diagnostics> {
    completed(&path.display().to_string(), &read(path)?, env, fill).map(|(effective, _)| effective)
}

/// The settings to be shown, and as a file that can be read, secrets and variables as they stand there.
pub(super) fn completed(name: &str, text: &str, env: &Env, fill: bool) -> Result<(Effective, String), Diagnostics> {
    let (loaded, (written, secret)) = load_and(name, text, env, |reader, root| {
        let mut secret = BTreeSet::new();
        (raw(reader, root, &mut secret), secret)
    })?;
    let root = Place { setting: String::new(), section: Some(&ROOT), kind: "" };
    let mut refused: BTreeSet<(String, usize)> = BTreeSet::new();
    let rounds = if fill { ROUNDS } else { 0 };
    for _ in 0..rounds {
        let mut filler = Filler { refused: &refused, added: Vec::new(), open: Vec::new() };
        let mut settings = written.clone();
        filler.fill(&mut settings, &ROOT, "");
        let Filler { added, open, .. } = filler;
        let file = serde_yaml::to_string(&settings).unwrap_or_default();
        let said = match load_str(name, &file, env) {
            Ok(again) => again.warnings,
            Err(found) => found,
        };
        let news: Vec<&str> = said
            .iter()
            .filter(|one| !loaded.warnings.iter().any(|old| old.code == one.code && old.setting == one.setting))
            .map(|one| one.setting.as_str())
            .collect();
        let taken = refused.len();
        for setting in &news {
            let exact = |one: &&(String, usize)| one.0 == **setting;
            let around = |one: &&(String, usize)| is_below(&one.0, setting) || is_below(setting, &one.0);
            match added.iter().find(exact) {
                Some(one) => drop(refused.insert(one.clone())),
                None => refused.extend(added.iter().filter(around).cloned()),
            }
        }
        if refused.len() == taken {
            show(&mut settings, &root, &secret, env);
            return Ok((Effective { settings, open, warnings: loaded.warnings }, file));
        }
    }
    // Nothing was to be filled in, or nothing that could be was taken: what the file itself says is right in any case.
    let file = serde_yaml::to_string(&written).unwrap_or_default();
    let mut settings = written;
    show(&mut settings, &root, &secret, env);
    Ok((Effective { settings, open: Vec::new(), warnings: loaded.warnings }, file))
}

fn is_below(setting: &str, other: &str) -> bool {
    setting.strip_prefix(other).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// The tree as it was written; the settings whose values are not known to be harmless go to `secret`.
fn raw(reader: &Reader<'_>, node: &Node, secret: &mut BTreeSet<String>) -> Value {
    let harmless = node.scalar.is_some_and(|id| reader.shown.contains(&id) && !reader.secret.contains(&id));
    match &node.kind {
        Kind::List(items) => return Value::Sequence(items.iter().map(|item| raw(reader, item, secret)).collect()),
        Kind::Map(entries) => {
            let entries = entries.iter().filter(|entry| !matches!(entry.value.kind, Kind::Null));
            let entry =
                |entry: &super::yaml::Entry| (Value::from(entry.name.clone()), raw(reader, &entry.value, &mut *secret));
            return Value::Mapping(entries.map(entry).collect());
        }
        _ if !harmless => drop(secret.insert(node.setting.clone())),
        _ => {}
    }
    match &node.kind {
        Kind::Bool(value) => Value::from(*value),
        Kind::Integer(value) => i64::try_from(*value).map_or_else(|_| Value::from(value.to_string()), Value::from),
        Kind::Text(text) => Value::from(text.clone()),
        // No setting takes a fraction.
        Kind::Null | Kind::Float | Kind::List(_) | Kind::Map(_) => Value::Null,
    }
}

/// Puts defaults in.
struct Filler<'f> {
    /// Which of a setting's defaults may not stand there.
    refused: &'f BTreeSet<(String, usize)>,
    /// What was put in: the setting, and which of its defaults.
    added: Vec<(String, usize)>,
    open: Vec<(String, &'static str)>,
}

impl Filler<'_> {
    fn fill(&mut self, value: &mut Value, section: &'static Section, at: &str) {
        let section = match (section.path == PROVIDER.path, value.get("kind").and_then(Value::as_str)) {
            (true, Some("credentials")) => &CREDENTIALS,
            _ => section,
        };
        let Value::Mapping(map) = value else { return };
        for row in rows(section) {
            let setting = if at.is_empty() { row.key.to_owned() } else { format!("{at}.{}", row.key) };
            let inner = below(section, row.key);
            if !map.contains_key(row.key) && !self.add(map, row, &setting, inner.is_some()) {
                continue;
            }
            let Some(value) = map.get_mut(row.key) else { continue };
            match (inner, &mut *value) {
                (Some((inner, true)), Value::Sequence(items)) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.fill(item, inner, &format!("{setting}[{index}]"));
                    }
                }
                (Some((inner, false)), Value::Mapping(_)) => self.fill(value, inner, &setting),
                _ => {}
            }
            // Nothing of it could be put in.
            if row.is_all_defaults() && value.as_mapping().is_some_and(Mapping::is_empty) {
                map.remove(row.key);
            }
        }
    }

    /// Whether something stands there now.
    fn add(&mut self, map: &mut Mapping, row: &Row, setting: &str, section: bool) -> bool {
        if section && row.is_all_defaults() {
            map.insert(row.key.into(), Value::Mapping(Mapping::new()));
            return true;
        }
        let literals = row.literals();
        let fitting =
            literals.iter().enumerate().find(|(index, _)| !self.refused.contains(&(setting.to_owned(), *index)));
        match fitting {
            Some((index, text)) => {
                map.insert(row.key.into(), row.value(text));
                self.added.push((setting.to_owned(), index));
                true
            }
            None => {
                if literals.is_empty() && !matches!(row.default, "–" | "none" | "nothing" | "all defaults") {
                    self.open.push((setting.to_owned(), row.default));
                }
                false
            }
        }
    }
}

/// Where something is shown.
struct Place<'p> {
    setting: String,
    section: Option<&'static Section>,
    /// Its type in the reference, or [`FREE`].
    kind: &'p str,
}

/// The type of what stands in a mapping with keys of the operator's own.
const FREE: &str = "free";

/// Hides what is secret, and replaces variables by what they hold.
fn show(value: &mut Value, place: &Place<'_>, secret: &BTreeSet<String>, env: &Env) {
    match value {
        Value::Mapping(map) => {
            let section = match (place.section, map.get("kind").and_then(Value::as_str)) {
                (Some(section), Some("credentials")) if section.path == PROVIDER.path => Some(&CREDENTIALS),
                (section, _) => section,
            };
            for (key, value) in map.iter_mut() {
                let key = key.as_str().unwrap_or_default();
                let setting =
                    if place.setting.is_empty() { key.to_owned() } else { format!("{}.{key}", place.setting) };
                let row = section.and_then(|section| rows(section).iter().find(|row| row.key == key));
                let kind = if section.is_some() { row.map_or("", |row| row.kind) } else { FREE };
                let inner = section.and_then(|section| below(section, key)).map(|(inner, _)| inner);
                show(value, &Place { setting, section: inner, kind }, secret, env);
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let setting = format!("{}[{index}]", place.setting);
                show(item, &Place { setting, section: place.section, kind: "" }, secret, env);
            }
        }
        _ if secret.contains(&place.setting) => *value = Value::from(HIDDEN),
        // A variable in a header or parameter may well hold a secret: who looks sees which one, not what is in it.
        Value::String(text) if text.contains('$') && place.kind != FREE => {
            if let Ok(whole) = expand(text, env) {
                // A number or truth value came as a text only because a variable held it.
                let typed = place.kind == "boolean" || place.kind.starts_with(|sign: char| sign.is_ascii_digit());
                *value = match serde_yaml::from_str(&whole) {
                    Ok(bare @ (Value::Bool(_) | Value::Number(_))) if typed => bare,
                    _ => Value::from(whole.replace("$$", "$$$$").replace("${", "$${")),
                };
            }
        }
        _ => {}
    }
}
