//! One canonical path, decided once, for routing, policy and forwarding (behaviour H4).
//!
//! Unreserved characters are percent-decoded once, the remaining escapes are written in upper case, dot segments are
//! removed and runs of slashes become one. What different servers read differently is refused: encoded or plain
//! backslashes, encoded slashes, NUL and other control characters, `#`, broken escapes, raw non-ASCII, dot segments
//! with a `;` parameter, a climb above the root.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, PercentEncode, percent_encode};

/// Why a path was refused. The text may be shown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    /// A byte that may not stand in a path.
    #[error("the path has a character that must be percent-encoded")]
    Character,
    /// `%` without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    Escape,
    /// An encoded separator or control character.
    #[error("the path has an encoded separator or control character")]
    EncodedSeparator,
    /// `/..;x/` and the like.
    #[error("the path has a dot segment with a parameter")]
    DotParameter,
    /// More `..` than segments.
    #[error("the path climbs above the root")]
    AboveRoot,
    /// It could be read, but is not written as [`canonical`] writes it; settings must be.
    #[error("the path is not in canonical form")]
    NotCanonical,
}

/// The canonical form of a request path (without query).
///
/// # Errors
/// [`PathError`] for whatever is ambiguous; the request gets 400.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let mut plain = true;
    let mut previous = 0_u8;
    for &byte in bytes {
        match byte {
            b'%' => plain = false,
            b'/' | b'.' if previous == b'/' => plain = false,
            b'\\' | b'#' | b'?' | 0..=b' ' | 0x7f.. | b'"' | b'<' | b'>' | b'`' | b'{' | b'}' => {
                return Err(PathError::Character);
            }
            _ => {}
        }
        previous = byte;
    }
    if plain { Ok(Cow::Borrowed(path)) } else { rebuild(&decode_unreserved(bytes)?).map(Cow::Owned) }
}

/// The path as servers read it that take what follows a `;` in a segment for a parameter, not for a part of its name, some
/// of them an escaped one too; `None` if all servers read a canonical path alike.
#[must_use]
pub fn without_parameters(canonical: &str) -> Option<String> {
    // One look settles it for nearly every path.
    memchr::memchr2(b';', b'%', canonical.as_bytes())?;
    if !canonical.contains(';') && !canonical.contains("%3B") {
        return None;
    }
    let name = |segment: &str| segment.split(';').next().and_then(|name| name.split("%3B").next()).map(str::to_owned);
    let bare: Vec<String> = canonical.split('/').map(|segment| name(segment).unwrap_or_default()).collect();
    rebuild(&bare.join("/")).ok()
}

/// A query, as it came, fit to stand in a link or a header: what no URI has in it is escaped.
#[must_use]
pub fn escape_query(query: &str) -> PercentEncode<'_> {
    const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');
    percent_encode(query.as_bytes(), IN_QUERY)
}

/// Decodes unreserved characters (RFC 3986 §2.3) and upper-cases every other escape.
fn decode_unreserved(bytes: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(char::from(byte));
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(PathError::Escape);
        let high = digit(rest.next())?;
        let low = digit(rest.next())?;
        let value = u8::try_from(high * 16 + low).map_err(|_| PathError::Escape)?;
        match value {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(value)),
            b'/' | b'\\' | b'#' | 0..=0x1f | 0x7f => return Err(PathError::EncodedSeparator),
            _ => out.push_str(&format!("%{value:02X}")),
        }
    }
    Ok(out)
}

/// Removes dot segments and empty segments; keeps a final slash.
fn rebuild(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
            }
            s if is_dot_with_parameter(s) => return Err(PathError::DotParameter),
            s => kept.push(s),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if directory || kept.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// `.;x` or `..;x`, also with the `;` escaped: who decodes before he cuts parameters off is left with a dot segment.
fn is_dot_with_parameter(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

/// A canonical path that stands for itself and all below it, by whole segments: `/api` covers `/api` and `/api/x`, not
/// `/apix`. A final slash makes no difference; the root is the empty string.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Parses a prefix as written in the settings.
    ///
    /// # Errors
    /// [`PathError`] if it is not absolute or not in canonical form already.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if canonical(text)? != text {
            return Err(PathError::NotCanonical);
        }
        Ok(Self(text.strip_suffix('/').unwrap_or(text).to_owned()))
    }

    /// All paths.
    #[must_use]
    pub fn root() -> Self {
        Self(String::new())
    }

    /// Without a final slash; the root is `""`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of `path` comes after the prefix (empty, or beginning with `/`); `None` if the prefix does not cover it.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.0.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    /// Number of segments.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.bytes().filter(|b| *b == b'/').count()
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl fmt::Debug for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_paths_stay_and_the_rest_is_rewritten_once() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61pi/%7Euser", "/api/~user"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a//b///c", "/a/b/c"),
            ("/a/..", "/"),
            ("/.hidden", "/.hidden"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%2541", "/%2541"),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for raw in [
            "",
            "a",
            "*",
            "/a\\b",
            "/a%5cb",
            "/a%2fb",
            "/a%00",
            "/a%23b",
            "/a#b",
            "/a b",
            "/é",
            "/..",
            "/a/../..",
            "/%2e%2e/",
            "/a%",
            "/a%2",
            "/a%zz",
            "/x/..;/y",
            "/x/.;v/y",
            "/x/..%3B/y",
            "/x/%2e%3bv/y",
            "/a\0b",
            "/a\u{7f}",
            "/%0d%0a",
            "/a?b",
        ] {
            assert!(canonical(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn parameters_are_cut_from_every_segment() {
        assert_eq!(without_parameters("/a/b"), None);
        for (path, bare) in [
            ("/a;v=1/b", "/a/b"),
            ("/;x/a", "/a"),
            ("/a/;x", "/a/"),
            ("/a;b;c", "/a"),
            ("/;", "/"),
            ("/a%3Bx/b", "/a/b"),
            ("/a%3Bx;y", "/a"),
        ] {
            assert_eq!(without_parameters(path).as_deref(), Some(bare), "{path}");
        }
    }

    #[test]
    fn prefixes_match_whole_segments() {
        let api = PathPrefix::parse("/api/").unwrap();
        assert_eq!(api.rest("/api"), Some(""));
        assert_eq!(api.rest("/api/x"), Some("/x"));
        assert_eq!(api.rest("/apix"), None);
        let root = PathPrefix::parse("/").unwrap();
        assert_eq!(root.rest("/anything"), Some("/anything"));
        for (text, error) in [
            ("/a/../b", PathError::NotCanonical),
            ("/%61", PathError::NotCanonical),
            ("/a?b", PathError::Character),
            ("api", PathError::NotAbsolute),
        ] {
            assert_eq!(PathPrefix::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent_and_clean(raw in "/[ -~]{0,40}") {
            if let Ok(once) = canonical(&raw) {
                let twice = canonical(&once).map(Cow::into_owned);
                prop_assert_eq!(twice, Ok(once.clone().into_owned()));
                prop_assert!(!once.contains("//") && !once.contains("/../") && !once.contains('\\'));
            }
        }

        #[test]
        fn never_panics(raw in "\\PC*") {
            let _ = canonical(&raw);
        }
    }
}
