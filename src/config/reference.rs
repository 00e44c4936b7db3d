//! What `docs/reference/settings.md` says of each key: type, default and meaning. The page is the one place where that is
//! written down, and a test holds it to the keys of [`super::schema`]; so it is read here rather than written twice.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::schema::{self, Section};

const PAGE: &str = include_str!("../../docs/reference/settings.md");

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: &'static str,
    /// For example `1ms to 1h`, or `list of texts`.
    pub(super) kind: &'static str,
    /// As it stands there: `` `10s` ``, `none`, `–`, `the client's`.
    pub(super) default: &'static str,
    /// Markdown.
    pub(super) meaning: &'static str,
}

static TABLES: LazyLock<BTreeMap<&'static str, Vec<Row>>> =
    LazyLock::new(|| schema::ALL.iter().map(|section| (section.path, table(section))).collect());

fn table(section: &Section) -> Vec<Row> {
    let heading =
        if section.path.is_empty() { "## Top level\n".to_owned() } else { format!("### `{}`\n", section.path) };
    let body = PAGE.split_once(&heading).map_or("", |(_, rest)| rest.split("\n#").next().unwrap_or_default());
    body.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect()
}

fn row(line: &'static str) -> Option<Row> {
    let mut cells = line.trim_start_matches("| ").trim_end_matches('|').splitn(4, " | ").map(str::trim);
    let key = cells.next()?.trim_matches('`');
    Some(Row { key, kind: cells.next()?, default: cells.next()?, meaning: cells.next().unwrap_or_default() })
}

/// The rows of a section, in the order of its keys.
pub(super) fn rows(section: &Section) -> &'static [Row] {
    TABLES.get(section.path).map_or(&[], Vec::as_slice)
}

/// What lies below a key: a mapping, or the items of a list.
pub(super) fn below(section: &Section, key: &str) -> Option<(&'static Section, bool)> {
    let parent = section.path.trim_end_matches(" (credentials)");
    let path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
    let find = |path: &str| schema::ALL.iter().find(|section| section.path == path);
    find(&path).map(|section| (section, false)).or_else(|| find(&format!("{path}[]")).map(|section| (section, true)))
}

impl Row {
    /// The defaults, written as in a settings file; more than one if it depends on what stands around which of them holds.
    /// Empty if there is none, or none that can be written down.
    pub(super) fn literals(&self) -> Vec<&'static str> {
        let whole = self.default.strip_prefix('`').and_then(|text| text.strip_suffix('`'));
        if let Some(whole) = whole.filter(|text| !text.contains('`')) {
            return vec![whole];
        }
        let quoted = |part: &'static str| part.trim().strip_prefix('`')?.split_once('`');
        let mut parts = self.default.split("; ").map(quoted);
        match parts.next().flatten() {
            Some((first, "")) => std::iter::once(first).chain(parts.flatten().map(|(text, _)| text)).collect(),
            _ => Vec::new(),
        }
    }

    /// A default as a value.
    pub(super) fn value(&self, literal: &str) -> serde_yaml::Value {
        match serde_yaml::from_str(literal) {
            // `cloakroom:` is a text there, whatever it is to YAML.
            Ok(serde_yaml::Value::Mapping(_)) if !self.kind.starts_with("mapping") => literal.into(),
            Ok(value) => value,
            Err(_) => literal.into(),
        }
    }

    /// Whether the whole mapping may be left out and each of its keys has its default then.
    pub(super) fn is_all_defaults(&self) -> bool {
        matches!(self.default, "all defaults" | "see below")
    }

    /// Whether it must be there.
    pub(super) fn is_required(&self) -> bool {
        // `for …` names the case in which it must.
        self.default == "–" && !self.meaning.starts_with("for ") && self.kind != "`credentials`"
    }

    /// The meaning without the marks of Markdown that an editor does not show.
    pub(super) fn description(&self) -> String {
        let mut out = String::new();
        let mut rest = self.meaning;
        while let Some((before, link)) = rest.split_once('[') {
            out.push_str(before);
            match link.split_once("](").and_then(|(text, rest)| Some((text, rest.split_once(')')?.1))) {
                Some((text, behind)) if !text.contains('[') => {
                    out.push_str(text);
                    rest = behind;
                }
                _ => {
                    out.push('[');
                    rest = link;
                }
            }
        }
        out + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_row() {
        for section in schema::ALL.iter().filter(|section| section.path != "(secret)") {
            let keys: Vec<&str> = rows(section).iter().map(|row| row.key).collect();
            assert_eq!(keys, section.keys, "{}", section.path);
            assert!(rows(section).iter().all(|row| !row.kind.is_empty() && !row.default.is_empty()));
        }
    }

    #[test]
    fn defaults_and_links_are_read() {
        let row = |default, meaning| Row { key: "k", kind: "text", default, meaning };
        assert_eq!(row("`10s`", "").literals(), ["10s"]);
        assert_eq!(row("`text/plain; charset=utf-8`", "").literals(), ["text/plain; charset=utf-8"]);
        assert_eq!(row("", "").value("cloakroom:"), "cloakroom:");
        assert_eq!(row("`access`; `none` on public routes", "").literals(), ["access", "none"]);
        for nothing in ["none", "–", "by the key: `RS256`", "`introspection_endpoint` of the provider's metadata"] {
            assert!(row(nothing, "").literals().is_empty(), "{nothing}");
        }
        let text = row("", "the [page](../x.md#y) of `[openid]`, [a]").description();
        assert_eq!(text, "the page of `[openid]`, [a]");
    }
}
