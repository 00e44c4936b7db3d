//! What the settings take from outside the file: environment variables.

use std::collections::BTreeMap;
use std::fmt;

/// Finds the value of a variable.
type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Looks environment variables up by name, so that tests bring their own.
pub struct Env(Box<Lookup>);

impl Env {
    /// The environment of this process.
    #[must_use]
    pub fn process() -> Self {
        Self(Box::new(|name| std::env::var(name).ok()))
    }

    /// A fixed environment.
    #[must_use]
    pub fn fixed<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let map: BTreeMap<String, String> = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self(Box::new(move |name| map.get(name).cloned()))
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }
}

/// Values of variables are nobody's business.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env(…)")
    }
}

/// Why `${…}` in a value could not be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// No closing brace.
    Unclosed,
    /// Not a name a variable can have. The text is left out: it may be anything.
    BadName,
    /// Neither a value nor a default.
    Unset(String),
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$$` stands for `$`, any other `$` for itself. As in a shell, an empty
/// variable takes the default.
pub(super) fn expand(text: &str, env: &Env) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) = after.split_once('}').ok_or(ExpandError::Unclosed)?;
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            if !is_variable_name(name) {
                return Err(ExpandError::BadName);
            }
            match (env.get(name), default) {
                (Some(value), None) => out.push_str(&value),
                (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
                (_, Some(default)) => out.push_str(default),
                (None, None) => return Err(ExpandError::Unset(name.to_owned())),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a shell would take this as the name of a variable.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_once() {
        let env = Env::fixed([("A", "x"), ("EMPTY", ""), ("NESTED", "${A}")]);
        for (text, expected) in [
            ("plain", "plain"),
            ("${A}", "x"),
            ("<${A}${A}>", "<xx>"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("${NO:-http://d:1/}", "http://d:1/"),
            ("${NO:-}", ""),
            ("$$A $${A} $5 $", "$A ${A} $5 $"),
            ("${NESTED}", "${A}"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(expand("${NO}", &env), Err(ExpandError::Unset("NO".into())));
        assert_eq!(expand("${A", &env), Err(ExpandError::Unclosed));
        assert_eq!(expand("${a-b}", &env), Err(ExpandError::BadName));
        assert_eq!(expand("${1A}", &env), Err(ExpandError::BadName));
    }
}
