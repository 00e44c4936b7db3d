//! What the claims of a user must be.

use std::sync::Arc;

use super::ClaimPath;

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in answers and in the audit log; default: the claim as it is written.
    pub name: Arc<str>,
    /// What must hold.
    pub condition: ClaimCondition,
}

/// What must hold of one claim. A claim that is not there is never as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimCondition {
    /// Which one.
    pub claim: ClaimPath,
    /// What it must be.
    pub test: ClaimTest,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimTest {
    /// It is one of these, or a list that holds one of them.
    AnyOf(Vec<ClaimValue>),
    /// It is a list that holds all of these; a single one may stand alone.
    AllOf(Vec<ClaimValue>),
    /// It is this; a list is not.
    Equals(ClaimValue),
    /// It is a text that the pattern matches, or a list that holds one.
    Matches(Pattern),
}

/// A value that a claim may have; types are not mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
}

/// A regular expression that matches a text as a whole.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// Compiles an expression. What it takes must begin and end with the text: a part that fits is not enough.
    ///
    /// # Errors
    /// The first line of what the compiler has to say.
    pub fn new(expression: &str) -> Result<Self, String> {
        let whole = format!(r"\A(?:{expression})\z");
        // On its own first: an unbalanced one may come out balanced.
        let compiled = regex::Regex::new(expression).and_then(|_| regex::Regex::new(&whole));
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // Behind the expression and a marker of the place.
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })
    }

    /// Whether the whole text fits.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_whole_texts_only() {
        let pattern = Pattern::new("user|admin").unwrap();
        assert!(pattern.is_match("user") && pattern.is_match("admin"));
        for part in ["superuser", "user ", "user\n", "admin-x", ""] {
            assert!(!pattern.is_match(part), "{part:?}");
        }
        assert!(Pattern::new("a)|(?:.*").is_err() && Pattern::new("(?x) a # b").is_err());
        assert_eq!(Pattern::new("(a").unwrap_err(), "unclosed group");
        assert_eq!(Pattern::new("a").unwrap(), Pattern::new("a").unwrap());
        assert_ne!(Pattern::new("a").unwrap(), Pattern::new("b").unwrap());
    }
}
