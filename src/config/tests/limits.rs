//! Files that mean harm, or nothing at all.

use proptest::prelude::*;

use super::*;

#[test]
fn a_billion_laughs_stay_short() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(codes(&load_text(&text)).contains(&"E0004"));
    // The second line of defence, should the outline ever miss it.
    let error = serde_yaml::from_str::<serde_yaml::Value>(&text).unwrap_err().to_string();
    assert!(error.contains("repetition limit"), "{error}");
}

#[test]
fn many_aliases_of_one_long_list_are_too_large() {
    let items = vec!["x"; 5_000].join(", ");
    let aliases = vec!["*a"; 5_000].join(", ");
    assert_eq!(codes(&load_text(&format!("a: &a [{items}]\nb: [{aliases}]\n"))), ["E0004"]);
}

#[test]
fn deep_nesting_and_large_files_are_refused() {
    let deep = "[".repeat(60) + &"]".repeat(60);
    assert_eq!(codes(&load_text(&format!("a: {deep}\n"))), ["E0004"]);
    let deeper = "- ".repeat(100_000);
    assert!(load_text(&deeper).is_err());
    assert!(load_text(&"[".repeat(100_000)).is_err());
    assert!(load_text(&"{a: ".repeat(100_000)).is_err());
    assert_eq!(codes(&load_text(&"#".repeat(2 << 20))), ["E0004"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        all_forms(&text);
    }

    #[test]
    fn yaml_like_text_is_answered(
        lines in prop::collection::vec(
            "[ ]{0,6}(- |\\? )?(listeners|keys|sites|routes|secret|path|token|a)?(:)?[ ]?([\\[\\]{},&*!|>'\"%@`#é\u{1F600}$a-z0-9:-]{0,12})",
            0..20,
        )
    ) {
        all_forms(&lines.join("\n"));
    }

    /// The good file with something cut out and something put in.
    #[test]
    fn a_damaged_file_is_answered(at in 0..GOOD.len(), cut in 0..40_usize, put in "[ \n\\[\\]{}:,&*!'\"#${}a-z0-9é-]{0,12}") {
        let mut text = GOOD.to_owned();
        text.replace_range(at..(at + cut).min(GOOD.len()), &put);
        all_forms(&text);
    }
}

/// Nothing panics, every place lies in the file.
fn all_forms(text: &str) {
    if let Err(found) = load_text(text) {
        assert!(found.errors() > 0);
        let lines = text.split('\n').count();
        assert!(found.iter().all(|d| d.span.line >= 1 && d.span.line <= lines + 1 && d.span.column >= 1), "{found:?}");
        assert!(!found.plain().is_empty() && !found.fancy(80, true).is_empty());
        assert_eq!(found.to_json().as_array().map(Vec::len), Some(found.iter().count()));
    }
}
