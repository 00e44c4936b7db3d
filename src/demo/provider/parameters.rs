//! Parameters of OAuth requests: a query or a form in which no name may come twice (RFC 6749, 3.1).

use url::form_urlencoded;

/// Parsed parameters, in order.
pub(super) struct Parameters(Vec<(String, String)>);

/// A parameter came twice.
#[derive(Debug)]
pub(super) struct Doubled;

impl From<Vec<(String, String)>> for Parameters {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

impl Parameters {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Doubled> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text).into_owned() {
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Doubled);
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; an empty one counts as absent (RFC 6749, 3.1).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// Whether a space-separated parameter contains `word`.
    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        self.get(name).is_some_and(|value| value.split(' ').any(|known| known == word))
    }

    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// `uri` with `pairs` added to its query.
pub(super) fn with_query(uri: &str, pairs: &[(&str, &str)]) -> String {
    if pairs.is_empty() {
        return uri.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let joint = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{joint}{query}")
}
