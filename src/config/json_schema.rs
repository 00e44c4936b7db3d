//! The settings as a JSON Schema, for editors: which keys there are, what they take, what they mean.
//!
//! It follows `cloakroom check` in keys, words and ranges of numbers. What lies between settings, and what texts must look
//! like in detail, only `check` knows.

use serde_json::{Map, Value, json};

use super::reference::{Row, below, rows};
use super::schema::{CREDENTIALS, PROVIDER, ROOT, SECRET, Section};

/// Keys of which a mapping has exactly one.
const ONE_OF: [(&str, &[&str]); 2] = [
    ("sites[].routes[]", &["upstream", "redirect", "respond", "files"]),
    ("sites[].routes[].allow[]", &["any_of", "all_of", "equals", "matches"]),
];

/// The schema (JSON Schema 2020-12).
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = object(&ROOT);
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "Settings of Cloakroom".into());
        map.insert("$defs".into(), definitions());
    }
    schema
}

/// What is used again and again.
fn definitions() -> Value {
    let one = |key: &str| json!({ "required": [key] });
    json!({
        "variable": { "type": "string", "pattern": r"\$\{", "description": "`${NAME}` or `${NAME:-default}`" },
        "secret": {
            "description": "`{ env: NAME }`, `{ file: PATH }`, or, with a warning, the text itself",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "env": { "type": "string" }, "file": { "type": "string" } },
                    "additionalProperties": false,
                    "oneOf": SECRET.keys.iter().map(|key| one(key)).collect::<Vec<_>>(),
                },
            ],
        },
        "duration": {
            "type": "string",
            "pattern": r"^\s*([0-9]+\s*[A-Za-zµ]+\s*)+$|^0$|\$\{",
            "description": "with a unit: `500ms`, `30s`, `15m`, `1h 30m`, `7d`",
        },
        "size": {
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^\s*[0-9.]+\s*[A-Za-z]*\s*$|\$\{" },
            ],
            "description": "`512KiB`, `10MiB`, or a number of bytes",
        },
    })
}

fn object(section: &Section) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let one_of = ONE_OF.iter().find(|(path, _)| *path == section.path).map_or(&[][..], |(_, keys)| *keys);
    for row in rows(section) {
        properties.insert(row.key.to_owned(), property(section, row));
        if row.is_required() && !one_of.contains(&row.key) {
            required.push(row.key);
        }
    }
    let mut out = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let Some(map) = out.as_object_mut() {
        if !required.is_empty() {
            map.insert("required".into(), required.into());
        }
        if !one_of.is_empty() {
            map.insert("oneOf".into(), one_of.iter().map(|key| json!({ "required": [key] })).collect());
        }
    }
    out
}

fn property(section: &Section, row: &Row) -> Value {
    let mut out = match below(section, row.key) {
        Some((inner, true)) if inner.path == PROVIDER.path => providers(),
        Some((inner, true)) if inner.path == "upstreams[].endpoints[]" => {
            list(json!({ "anyOf": [{ "type": "string" }, object(inner)] }))
        }
        Some((inner, true)) => list(object(inner)),
        Some((inner, false)) => object(inner),
        None => value(row.kind),
    };
    if let Some(map) = out.as_object_mut() {
        let meaning = row.description();
        let plain = ["text", "list", "mapping", "secret", "boolean"].contains(&row.kind) || row.kind.starts_with('`');
        let description = match (plain, meaning.is_empty()) {
            (true, _) => meaning,
            (false, true) => row.kind.to_owned(),
            (false, false) => format!("{meaning} ({})", row.kind),
        };
        map.insert("description".into(), description.into());
        // Editors write the first one in.
        if let [only] = row.literals().as_slice()
            && let Ok(default) = serde_json::to_value(row.value(only))
        {
            map.insert("default".into(), default);
        }
    }
    out
}

/// Two kinds of things in one list.
fn providers() -> Value {
    list(json!({
        "type": "object",
        "if": { "properties": { "kind": { "const": "credentials" } }, "required": ["kind"] },
        "then": object(&CREDENTIALS),
        "else": object(&PROVIDER),
    }))
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn any(choices: Vec<Value>) -> Value {
    json!({ "anyOf": choices })
}

/// `${NAME}` may stand in the place of any value.
fn or_variable(schema: Value) -> Value {
    any(vec![schema, json!({ "$ref": "#/$defs/variable" })])
}

/// What a type of the reference means. One that is not known means any text, number or truth value.
fn value(kind: &str) -> Value {
    let scalar = json!({ "type": ["string", "integer", "boolean"] });
    match kind {
        "secret" => json!({ "$ref": "#/$defs/secret" }),
        "boolean" => or_variable(json!({ "type": "boolean" })),
        "boolean or port" => or_variable(any(vec![
            json!({ "type": "boolean" }),
            json!({ "type": "integer", "minimum": 1, "maximum": 65535 }),
        ])),
        "boolean, or list of media types" => {
            or_variable(any(vec![json!({ "type": "boolean" }), list(json!({ "type": "string" }))]))
        }
        "list" => list(json!({ "type": "string" })),
        "list of values" => list(scalar),
        "text, whole number or boolean" => scalar,
        "mapping of header to text or `true`" => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "integer", "boolean"] } })
        }
        _ if kind.starts_with("mapping") => json!({ "type": "object", "additionalProperties": scalar }),
        _ if kind.starts_with("list of ") => listed(kind.trim_start_matches("list of ")),
        _ if kind.starts_with('`') => words(kind),
        _ if kind.contains('%') => json!({ "type": "string", "pattern": r"^[0-9]+\s*%$|\$\{" }),
        _ => number(kind).unwrap_or_else(|| json!({ "type": "string" })),
    }
}

/// `` `a`, `b` ``, `scheme://host`, `400 to 499`, also `…, or "*"`.
fn listed(items: &str) -> Value {
    match items.split_once(", or `\"*\"`") {
        Some((items, _)) => any(vec![listed(items), json!({ "const": "*" })]),
        None if items.starts_with('`') && !items.contains("://") => list(words(items)),
        None => list(number(items).unwrap_or_else(|| json!({ "type": "string" }))),
    }
}

/// `` `a`, `b`, list of … ``.
fn words(kind: &str) -> Value {
    let mut words = Vec::new();
    let mut choices = Vec::new();
    for part in kind.split(", ") {
        match part.strip_prefix('`').and_then(|part| part.strip_suffix('`')) {
            Some(word) => words.push(word.trim_matches('"')),
            None => choices.push(list(json!({ "type": "string" }))),
        }
    }
    choices.insert(0, json!({ "enum": words }));
    choices.push(json!({ "$ref": "#/$defs/variable" }));
    any(choices)
}

/// `1 to 1,000`, `301, 302`, `1ms to 1h`, `up to 1GiB`.
fn number(kind: &str) -> Option<Value> {
    let whole = |text: &str| text.replace(',', "").parse::<u64>().ok();
    let statuses: Option<Vec<u64>> = kind.split(", ").map(|part| part.parse().ok()).collect();
    if let Some(statuses) = statuses {
        return Some(or_variable(json!({ "enum": statuses })));
    }
    let (least, most) = match kind.rsplit_once(" to ") {
        Some((least, most)) => (least, most),
        None => ("0", kind.strip_prefix("up to ")?),
    };
    if let (Some(least), Some(most)) = (whole(least), whole(most)) {
        return Some(or_variable(json!({ "type": "integer", "minimum": least, "maximum": most })));
    }
    let unit = most.trim_start_matches(|sign: char| sign.is_ascii_digit());
    match unit {
        "ms" | "s" | "m" | "h" | "d" => Some(json!({ "$ref": "#/$defs/duration" })),
        "B" | "KiB" | "MiB" | "GiB" | "TiB" | "PiB" => Some(json!({ "$ref": "#/$defs/size" })),
        _ => None,
    }
}
