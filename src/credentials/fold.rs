//! Two spellings that some reader takes for the same.
//!
//! A decoder of JSON may find a field by case folding (Go's takes `ſ` for `s`), a database may compare names without case,
//! accents and trailing blanks. Names of fields that are folded to one are refused as ambiguous; accounts are counted by
//! what is [coarser still](super::alike).

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::canonical_combining_class;

/// A name without case, accents, forms of compatibility (NFKD), invisible characters and blanks around it.
pub(super) fn fold(text: &str) -> String {
    // To lower case and back again, for some letters meet only there: `ẞ` and `ß` at `SS`, `ı` and `i` at `I`.
    let upper = text.nfkd().flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    let plain = upper.flat_map(char::to_lowercase).nfkd();
    let seen: String = plain.filter(|c| canonical_combining_class(*c) == 0 && !is_invisible(*c)).collect();
    seen.trim().to_owned()
}

/// What collations ignore (`Default_Ignorable_Code_Point` of Unicode, without letters of scripts).
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_that_some_reader_takes_for_one_are_one() {
        for (one, spellings) in [
            ("username", &["USERNAME", "u\u{17f}ername", "user\u{200b}name", " username\u{a0}", "ｕsername"][..]),
            ("kim", &["\u{212a}im", "KIM", "K\u{131}m", "K\u{130}M", "ki\u{307}m"]),
            ("strasse", &["straße", "STRASSE", "STRA\u{1e9e}E"]),
            ("zoe", &["zoé", "zoe\u{301}", "ZOÉ", "Zoë"]),
            ("σασ", &["ΣΑΣ", "σας"]),
            ("office", &["o\u{fb03}ce", "ＯＦＦＩＣＥ"]),
        ] {
            for spelling in spellings {
                assert_eq!(fold(spelling), one, "{spelling:?}");
            }
        }
    }

    #[test]
    fn names_that_differ_stay_apart() {
        for (one, other) in [("alice", "alice2"), ("a b", "ab"), ("कि", "कु"), ("가", "각"), ("a@x", "a+1@x")]
        {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
        assert_eq!(fold(&fold("Ｚoë\u{130}ß")), fold("Ｚoë\u{130}ß"));
    }
}
