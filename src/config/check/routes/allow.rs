//! Rules on the claims of a user.

use std::sync::Arc;

use super::when::whole;
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::ALLOW;
use crate::config::settings::{Access, ClaimCondition, ClaimTest, ClaimValue, Pattern, Rule};
use crate::config::values;
use crate::config::yaml::{Kind, Node};

/// Longest name of a rule, in bytes.
const LONGEST_NAME: usize = 128;

/// Reads `allow`: at least one rule, and only where there is always a user to judge.
pub(super) fn rules(reader: &mut Reader<'_>, node: &Node, access: Option<Access>) -> Option<Vec<Rule>> {
    if let Some(Access::Public | Access::Optional) = access {
        let help = "write `access: required`, or remove the rules";
        let message = "this route lets requests without a session pass, so its rules would keep nobody out";
        reader.note(Code::Contradiction, node, message, help);
    }
    // A rule that could not be read must not be missing.
    whole(node, reader.list_of_some(node, rule)?)
}

fn rule(reader: &mut Reader<'_>, node: &Node) -> Option<Rule> {
    let fields = reader.fields(node, &ALLOW)?;
    let name = fields.maybe(reader, "name", name);
    let claim = fields.required(reader, "claim", "realm_access.roles", |reader, node| {
        Some((values::claim_path(reader, node)?, reader.text(node)?))
    });
    let mut tests: Vec<(&str, Option<ClaimTest>)> = Vec::new();
    for key in ["any_of", "all_of", "equals", "matches"] {
        let Some(node) = fields.get(key) else { continue };
        let mut list = || whole(node, reader.list_of_some(node, value)?);
        let test = match key {
            "any_of" => list().map(ClaimTest::AnyOf),
            "all_of" => list().map(ClaimTest::AllOf),
            "equals" => value(reader, node).map(ClaimTest::Equals),
            _ => pattern(reader, node).map(ClaimTest::Matches),
        };
        tests.push((key, test));
    }
    if tests.len() != 1 {
        let (code, message) = match tests.as_slice() {
            [] => (Code::MissingKey, "this rule does not say what the claim must be".to_owned()),
            several => {
                let keys: Vec<String> = several.iter().map(|(key, _)| format!("`{key}`")).collect();
                (Code::Contradiction, format!("one rule asks one thing, not {}", keys.join(" and ")))
            }
        };
        let help = "write exactly one of `any_of`, `all_of`, `equals` and `matches`; all rules of the list must hold";
        reader.note(code, node, message, help);
        return None;
    }
    let (_, test) = tests.pop()?;
    let (claim, text) = claim?;
    let name = name?.unwrap_or(text);
    Some(Rule { name: Arc::from(name), condition: ClaimCondition { claim, test: test? } })
}

fn name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.word(node)?;
    if name.len() > LONGEST_NAME {
        let message = format!("this name has {} bytes", name.len());
        reader.note(Code::OutOfRange, node, message, format!("choose one of at most {LONGEST_NAME}"));
        return None;
    }
    Some(name)
}

fn value(reader: &mut Reader<'_>, node: &Node) -> Option<ClaimValue> {
    match &node.kind {
        Kind::Bool(value) => {
            reader.show(node);
            Some(ClaimValue::Boolean(*value))
        }
        Kind::Integer(value) => {
            reader.show(node);
            let value = i64::try_from(*value).ok();
            if value.is_none() {
                reader.note(Code::OutOfRange, node, "this number is too large", "put it in quotes if it is a text");
            }
            value.map(ClaimValue::Integer)
        }
        Kind::Text(_) => reader.text(node).map(ClaimValue::Text),
        _ => {
            reader.wrong_type(node, "a text, whole number or truth value", "claims are compared with single values");
            None
        }
    }
}

fn pattern(reader: &mut Reader<'_>, node: &Node) -> Option<Pattern> {
    let text = reader.text(node)?;
    Pattern::new(&text)
        .map_err(|why| {
            let help = "write a regular expression that takes the whole text, for example `team-[a-z]+`";
            reader.note(Code::BadValue, node, format!("`{text}` is no regular expression: {why}"), help);
        })
        .ok()
}
