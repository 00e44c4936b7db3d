//! Text written by strangers, made fit for logs and error values (behaviour D3, D4).

use std::fmt;
use std::sync::Arc;

const LONGEST_DESCRIPTION: usize = 200;
const LONGEST_CODE: usize = 64;
/// Longer words look like tokens; a UUID has 36 characters.
const LONGEST_WORD: usize = 40;

/// An `error` code of RFC 6749 §5.2 or an extension; safe to show to anyone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ErrorCode(Arc<str>);

impl ErrorCode {
    /// Keeps a code of letters, digits and `_.:-`, at most 64; anything else becomes `unrecognized`.
    #[must_use]
    pub fn new(code: &str) -> Self {
        let good = (1..=LONGEST_CODE).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'));
        Self(if good { code } else { "unrecognized" }.into())
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One line of bounded length without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') { ' ' } else { c })
        .take(LONGEST_DESCRIPTION)
        .collect()
}

/// An `error_description` for our own log: some providers repeat what they were sent, so the secrets of the request
/// and every word that may be a token are taken out.
pub(super) fn description(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|s| !s.is_empty()) {
        text = text.replace(secret, "[…]");
    }
    let token_sign = |c: char| c.is_ascii_alphanumeric() || "-._~+/=%".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|c| !token_sign(c)).unwrap_or(rest.len()).max(first.len_utf8());
        let (word, tail) = rest.split_at(length);
        out.push_str(if length > LONGEST_WORD { "[…]" } else { word });
        rest = tail;
    }
    printable(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kept_only_if_harmless() {
        assert_eq!(ErrorCode::new("invalid_grant").as_str(), "invalid_grant");
        for odd in ["", "a b", "<script>", "naïve", "x\ny", &"a".repeat(65)] {
            assert_eq!(ErrorCode::new(odd).as_str(), "unrecognized", "{odd:?}");
        }
    }

    #[test]
    fn d3_descriptions_lose_tokens_and_control_characters() {
        let jwt = format!("{}.{}.{}", "e".repeat(30), "f".repeat(30), "g".repeat(30));
        let text = format!("token 'short-rt' is\r\nbad: {jwt}, trace 123e4567-e89b-12d3-a456-426614174000 ü");
        let clean = description(&text, &["short-rt"]);
        assert_eq!(clean, "token '[…]' is  bad: […], trace 123e4567-e89b-12d3-a456-426614174000 ü");
        assert_eq!(description(&"ab ".repeat(500), &[""]).chars().count(), LONGEST_DESCRIPTION);
    }
}
