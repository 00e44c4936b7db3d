//! What the targets share: a gate to ask, tokens to forge, and how a text is cut into the parts of an input.

pub mod tokens;
pub mod world;

/// At most `most` lines; each may be any bytes.
pub fn lines(input: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == b'\n').take(most)
}

/// Without blanks and tabs around it.
#[must_use]
pub fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(first) = text.iter().position(|byte| !blank(byte)) else { return &[] };
    let last = text.iter().rposition(|byte| !blank(byte)).unwrap_or(first);
    &text[first..=last]
}

/// Whether nothing about a path is in doubt for anybody: segments of unreserved characters that begin with no dot.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let plain = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(unreserved);
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}
