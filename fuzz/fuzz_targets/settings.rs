//! The input is a settings file. Every mistake has its place in it, nothing secret is shown, and a file without mistakes
//! makes routes.

#![no_main]

use cloakroom::config::{Diagnostics, Severity, load_str};
use cloakroom::routing::discovery::system_lookup;
use cloakroom::routing::table::Table;
use cloakroom::routing::upstream::Upstreams;
use cloakroom::telemetry::Metrics;
use cloakroom_fuzz::world::env;
use libfuzzer_sys::fuzz_target;

/// In every secret of the environment, in no other.
const SECRET: &str = "horse-battery";

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match load_str("folder/fuzz.yaml", text, &env()) {
        Err(found) => {
            assert!(found.errors() > 0);
            is_well_placed(text, &found);
        }
        Ok(loaded) => {
            assert!(loaded.warnings.errors() == 0);
            is_well_placed(text, &loaded.warnings);
            let metrics = Metrics::new().expect("metrics have names of their own");
            let upstreams = Upstreams::new(&loaded.settings.upstreams, &system_lookup(), &metrics);
            Table::new(&loaded.settings, &upstreams, None, &metrics)
                .expect("checked settings never contradict themselves");
        }
    }
});

fn is_well_placed(text: &str, found: &Diagnostics) {
    let text_lines = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text_lines.split('\n').collect();
    for one in found.iter() {
        let line = one.span.line.checked_sub(1).and_then(|index| lines.get(index));
        let line = line.unwrap_or_else(|| panic!("no line {} in the file: {one:?}", one.span.line));
        let length = line.chars().count();
        // A mistake at the end of a line is behind its last sign.
        assert!((1..=length + 1).contains(&one.span.column), "no column {} in {line:?}: {one:?}", one.span.column);
        assert!(one.span.column + one.span.length <= length + 2, "behind the end of {line:?}: {one:?}");
        assert!(!one.message.is_empty());
        assert_eq!(one.code.severity() == Severity::Error, one.code.as_str().starts_with('E'));
    }
    let shown = [found.plain(), found.fancy(100, true), found.to_json().to_string(), format!("{found:?}")];
    if !text.contains(SECRET) {
        for text in shown {
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}
