//! The facts for people: one a line, in the order in which the proxy comes to them.

use serde_json::{Map, Value};

/// Headings, by key.
const ROOT: [(&str, &str); 9] = [
    ("request", "request"),
    ("listener", "listener"),
    ("site", "site"),
    ("path", "path"),
    ("endpoint", "endpoint"),
    ("routes", "routes for this path"),
    ("route", "route"),
    ("answer", "without a session"),
    ("notes", "notes"),
];
const ROUTE: [(&str, &str); 20] = [
    ("path", "path"),
    ("when", "when"),
    ("access", "access"),
    ("accept", "accept"),
    ("scopes", "scopes"),
    ("level", "level"),
    ("provider", "provider"),
    ("rules", "rules"),
    ("on_missing", "without a session"),
    ("csrf", "CSRF"),
    ("action", "then"),
    ("token", "token"),
    ("identity_headers", "identity headers"),
    ("level_header", "level header"),
    ("context", "user context"),
    ("response_headers", "answer's headers"),
    ("cors", "CORS"),
    ("rate_limits", "rate limits"),
    ("max_body", "largest body"),
    ("timeouts", "timeouts"),
];

/// The text, without a final line break.
pub(super) fn told(facts: &Value) -> String {
    let mut out = String::new();
    let Some(facts) = facts.as_object() else { return out };
    for (key, heading) in ROOT {
        let Some(value) = facts.get(key) else { continue };
        match (key, value) {
            ("site", Value::Null) => line(&mut out, 0, heading, "none: no site of the settings has this host"),
            ("path", Value::Null) => line(&mut out, 0, heading, "none: it is ambiguous, see below"),
            ("routes", Value::Array(all)) => {
                line(&mut out, 0, heading, if all.is_empty() { "none" } else { "" });
                for route in all {
                    let part = |key| route.get(key).and_then(Value::as_str).unwrap_or_default();
                    let when = if part("when").is_empty() { String::new() } else { format!(" ({})", part("when")) };
                    line(&mut out, 1, &format!("{}{when}", part("path")), part("says"));
                }
            }
            ("route", Value::Object(route)) => {
                line(&mut out, 0, heading, "");
                for (key, heading) in ROUTE {
                    if let Some(value) = route.get(key) {
                        fact(&mut out, 1, heading, value);
                    }
                }
            }
            ("answer", Value::Object(answer)) => line(&mut out, 0, heading, &answered(answer)),
            _ => fact(&mut out, 0, heading, value),
        }
    }
    out.trim_end().to_owned()
}

fn answered(answer: &Map<String, Value>) -> String {
    let part = |key: &str| answer.get(key).map(plain).filter(|text| !text.is_empty());
    if let Some(upstream) = part("upstream") {
        return format!("goes to the upstream {upstream} as {}", part("request").unwrap_or_default());
    }
    let parts = [
        part("status"),
        part("code"),
        part("what"),
        part("location").map(|place| format!("to {place}")),
        part("allow").map(|methods| format!("allowed: {methods}")),
        part("detail").map(|text| format!("({text})")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn fact(out: &mut String, depth: usize, heading: &str, value: &Value) {
    match value {
        Value::Array(items) if items.len() > 1 && items.iter().any(|item| plain(item).contains(' ')) => {
            line(out, depth, heading, "");
            items.iter().for_each(|item| line(out, depth + 1, "-", &plain(item)));
        }
        Value::Object(map) => {
            let parts = map.iter().map(|(key, value)| (key, plain(value))).filter(|(_, text)| !text.is_empty());
            let parts: Vec<String> = parts.map(|(key, text)| format!("{} {text}", key.replace('_', " "))).collect();
            line(out, depth, heading, &parts.join(", "));
        }
        _ if plain(value).is_empty() => {}
        _ => line(out, depth, heading, &plain(value)),
    }
}

/// One line of text. What came from the command line must not steer the terminal.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null | Value::Object(_) => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(word) => if *word { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
    };
    text.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect()
}

fn line(out: &mut String, depth: usize, heading: &str, text: &str) {
    let indent = "  ".repeat(depth);
    let width = 22_usize.saturating_sub(indent.len());
    let line = if heading == "-" { format!("{indent}- {text}") } else { format!("{indent}{heading:width$} {text}") };
    out.push_str(line.trim_end());
    out.push('\n');
}
