//! Where a login comes back to: a path of this site, or the root (behaviour L10).

use percent_encoding::percent_decode_str;
use url::Url;

use super::endpoint::{Endpoint, SiteAuth};
use crate::primitives::path;

/// Longest accepted value, in bytes.
const LONGEST: usize = 2_048;

/// A path of this site with query and fragment, safe in a `Location` header and in a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// The root of the site.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Takes what a page asked for if it cannot leave the site, else the root.
    #[must_use]
    pub fn parse(wish: &str, site: &SiteAuth) -> Self {
        Self::checked(wish, site).unwrap_or_else(Self::root)
    }

    /// Path, query and fragment.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn checked(wish: &str, site: &SiteAuth) -> Option<Self> {
        if wish.len() > LONGEST || !wish.is_ascii() || wish.bytes().any(|b| b <= b' ' || b == b'\\' || b == 0x7f) {
            return None;
        }
        let end = wish.find(['?', '#']).unwrap_or(wish.len());
        let (path, rest) = wish.split_at_checked(end)?;
        let once = percent_decode_str(path).decode_utf8().ok()?;
        let twice = percent_decode_str(&once).decode_utf8().ok()?;
        if ![path, &once, &twice].into_iter().all(stays) {
            return None;
        }
        let canonical = path::canonical(path).ok()?;
        if matches!(site.endpoint(&canonical), Some(Some(Endpoint::Login | Endpoint::Logout | Endpoint::Callback))) {
            return None;
        }
        let value = format!("{canonical}{rest}");
        let base = Url::parse("https://site.invalid").ok()?;
        let resolved = base.join(&value).ok()?;
        (resolved.origin() == base.origin()).then_some(Self(value))
    }
}

/// One leading slash, no second one anywhere, nothing that some parser takes for one, no dot segment.
fn stays(path: &str) -> bool {
    let mut segments = path.split('/');
    segments.next() == Some("")
        && !path.contains("//")
        && !path.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ') || is_trick(c))
        && segments.all(|segment| segment != "." && segment != "..")
}

/// Backslash, the full-width forms of `/ \ .`, and signs that show nothing.
fn is_trick(c: char) -> bool {
    matches!(c, '\\' | '\u{ff0f}' | '\u{ff3c}' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}' | '\u{2044}' | '\u{2215}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::config::settings::Aliases;
    use crate::primitives::path::PathPrefix;
    use crate::session::profile::Profile;

    fn site() -> SiteAuth {
        SiteAuth {
            profile: Arc::new(Profile { site: "app".into(), ..Profile::default() }),
            providers: Vec::new(),
            auth_path: PathPrefix::parse("/auth").unwrap(),
            aliases: Aliases { login: PathPrefix::parse("/login").ok(), ..Aliases::default() },
            origins: vec![],
        }
    }

    fn parse(wish: &str) -> String {
        ReturnTo::parse(wish, &site()).as_str().to_owned()
    }

    #[test]
    fn paths_of_the_site_are_kept() {
        for wish in ["/", "/x", "/deep/er/?a=1&b=//evil", "/x#part", "/caf%C3%A9", "/a%20b?c=https://elsewhere"] {
            assert_eq!(parse(wish), wish);
        }
    }

    #[test]
    fn l10_tricks_go_to_the_root() {
        let tricks = [
            "",
            "x",
            "//evil",
            "///evil",
            "/\\evil",
            "\\\\evil",
            "/%5cevil",
            "/%2fevil",
            "/%2Fevil",
            "/%09/evil",
            "/\t/evil",
            "/\r\n/evil",
            "/\0",
            "https:evil",
            "https:/evil",
            "https://evil",
            "javascript:alert(1)",
            "data:text/html,x",
            "//user@evil",
            "/.//evil",
            "/x/..//evil",
            "app.example.com.evil",
            "evilapp.example.com",
            "/\u{ff0f}evil",
            "\u{3002}evil",
            "/\u{200b}/evil",
            "/%252fevil",
            "/%255cevil",
            "/%25252fevil/%2f",
            " /x",
            "/x ",
            "/%EF%BC%8Fevil",
            "/%E2%80%8B/evil",
            "/..",
            "/a/../b",
            "/%2e%2e//evil",
            "/auth/login",
            "/auth/logout",
            "/auth/callback?code=1",
            "/login",
            "/%6cogin",
            "/auth//login",
        ];
        for trick in tricks {
            assert_eq!(parse(trick), "/", "{trick:?}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(LONGEST))), "/");
    }

    /// F22: tricks generated from prefixes, hosts and encodings; none may leave the origin in a browser's parser.
    #[test]
    fn f22_no_generated_trick_leaves_the_origin() {
        let starts =
            ["", "/", "//", "///", "/\\", "\\", "/.", "/..", "/x/..", "/;", "https:", "/%2f", "/%5c", "/%252f"];
        let joints = ["", "/", "//", "\\", "@", "%40", "\t", "%09", "%00", "%0d%0a", ".", "。", "／"];
        let hosts = ["evil.example", "user@evil.example", "[::1]", "%65vil.example", "evil.example:443", "0x7f000001"];
        let app = Url::parse("https://app.example.com/auth/callback").unwrap();
        let mut tried = 0;
        for start in starts {
            for joint in joints {
                for host in hosts {
                    let result = parse(&format!("{start}{joint}{host}"));
                    assert_eq!(app.join(&result).unwrap().origin(), app.origin(), "{start}{joint}{host} -> {result}");
                    assert!(!result.starts_with("//") && !result.contains('\\'));
                    tried += 1;
                }
            }
        }
        assert!(tried >= 800, "{tried}");
    }

    proptest! {
        #[test]
        fn whatever_comes_the_result_stays(wish in "\\PC{0,60}") {
            let app = Url::parse("https://app.example.com/").unwrap();
            let result = parse(&wish);
            prop_assert_eq!(app.join(&result).unwrap().origin(), app.origin());
            prop_assert!(result.starts_with('/'));
        }
    }
}
