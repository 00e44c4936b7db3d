//! What a login must bring because it was asked for: how fresh the user's authentication is, and of which class
//! (Core §3.1.2.1, §5.5.1.1; behaviour T3, L16).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::rules;

/// Made from the parameters that were sent, kept with the login, compared with its ID token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    /// Seconds since the user's authentication, at most.
    max_age: Option<u32>,
    /// Classes of which the authentication must be one; an empty list: any, but told.
    acr: Option<Vec<String>>,
    /// Classes that a step-up asks for, with blanks between, of which it must be one as well.
    #[serde(default)]
    contexts: Option<String>,
}

impl Demands {
    /// Of the parameters of an authorization request. What cannot be read demands nothing: it was checked before.
    pub(super) fn of<'p>(parameters: impl Iterator<Item = (&'p str, &'p str)>) -> Self {
        let mut demands = Self::default();
        for (name, value) in parameters {
            match name {
                "max_age" => demands.max_age = value.parse().ok(),
                "claims" => demands.acr = rules::claims(value).flatten(),
                _ => {}
            }
        }
        demands
    }

    /// The same, and one of these classes, as `acr_values` has them (RFC 9470 §4).
    pub(super) fn with_contexts(self, contexts: &str) -> Self {
        Self { contexts: Some(contexts.to_owned()), ..self }
    }

    /// Seconds since the user's authentication, at most.
    pub(crate) fn max_age_seconds(&self) -> Option<u32> {
        self.max_age
    }

    pub(crate) fn max_age(&self) -> Option<Duration> {
        self.max_age.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Whether an `acr` will do.
    pub(crate) fn accept_class(&self, acr: Option<&str>) -> bool {
        let essential = match &self.acr {
            None => true,
            Some(any) if any.is_empty() => acr.is_some(),
            Some(values) => acr.is_some_and(|acr| values.iter().any(|value| value == acr)),
        };
        let stepped_up = match &self.contexts {
            None => true,
            Some(contexts) => acr.is_some_and(|acr| contexts.split(' ').any(|one| one == acr)),
        };
        essential && stepped_up
    }
}
