//! The example files are good, and the documentation knows every key and code.

use std::fs;
use std::path::PathBuf;

use super::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_example_loads_without_mistakes_and_warnings() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("conf")).unwrap() {
        let path = entry.unwrap().path();
        let loaded = load(&path, &env()).map_err(|found| found.plain()).unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        seen += 1;
    }
    assert!(seen >= 7);
}

#[test]
fn the_full_example_names_every_key() {
    let text = fs::read_to_string(root().join("conf/cloakroom.yaml")).unwrap();
    for key in schema::ALL.iter().flat_map(|section| section.keys) {
        assert!(text.contains(&format!("{key}:")), "{key} is missing in conf/cloakroom.yaml");
    }
}

/// What the example shows as a comment is right too: every such block, switched on, loads.
#[test]
fn the_commented_parts_of_the_full_example_load() {
    let text = fs::read_to_string(root().join("conf/cloakroom.yaml")).unwrap();
    let block = |text: &str| {
        text.lines().take_while(|line| line.starts_with("#  ")).map(|line| format!("{}\n", &line[2..])).collect()
    };
    let stores: Vec<String> = text.split("# store:\n").skip(1).map(block).collect();
    // Everything else is indented as it would stand without its comment sign.
    let mut all: String = String::new();
    for line in text.replace("store:\n  kind: memory\n", "").lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let bare = trimmed.strip_prefix("# ").unwrap_or(trimmed);
        let key = bare.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default();
        let setting = bare.contains(':')
            && schema::ALL.iter().any(|section| section.keys.contains(&key))
            && !bare.starts_with("store");
        let free = ["audience:", "X-User-Id:", "X-User-Roles:"].iter().any(|key| bare.trim_start().starts_with(key));
        let store = stores.iter().flat_map(|store| store.lines()).any(|other| other.trim() == bare.trim());
        // Files that are not there, and a key that stands there already.
        let tls = [
            "tls:",
            "certificates:",
            "- certificate:",
            "certificate:",
            "key:",
            "min_version:",
            "client_ca:",
            "client_certificate:",
            "- address: 0.0.0.0:8443",
            "ca:",
            "server_name:",
            "endpoints:",
            "- address: api.internal",
            "weight:",
            "client_auth:",
            "method: private_key_jwt",
            "keys: # the first signs, all are published",
            "- key:",
            "id:",
            "algorithm:",
        ]
        .iter()
        .any(|p| bare.trim_start().starts_with(p));
        // In the place of an upstream, and of a folder that is not here.
        let files = ["files:", "root:", "fallback:", "precompressed:", "fingerprinted:", "max_age: 0s"]
            .iter()
            .any(|p| bare.trim_start().starts_with(p));
        if line.is_empty() || !trimmed.starts_with('#') {
            all.push_str(line);
        } else if (setting || free) && !store && !tls && !files {
            all.push_str(&format!("{indent}{bare}"));
        }
        all.push('\n');
    }
    let mut kinds = Vec::new();
    for store in &stores {
        let all = format!("{all}store:\n{store}");
        let loaded = load_text(&all).map_err(|found| format!("{}\n{all}", found.plain())).unwrap();
        kinds.push(match loaded.settings.store {
            settings::Store::Memory => "memory",
            settings::Store::File(_) => "file",
            settings::Store::Redis(_) => "redis",
            settings::Store::Postgres(_) => "postgres",
        });
    }
    assert_eq!(kinds, ["file", "redis", "postgres"]);
    let loaded = load_text(&all).map_err(|found| format!("{}\n{all}", found.plain())).unwrap();
    assert_eq!(loaded.settings.sites[0].routes[0].identity_headers.len(), 2);
    assert_eq!(loaded.settings.trusted_proxies.len(), 2);
    let site = &loaded.settings.sites[0];
    assert!(site.aliases.userinfo.is_some() && site.routes[0].cors.is_some() && site.routes[1].when.headers.len() == 2);
}

#[test]
fn the_reference_names_every_key_and_code() {
    let text = fs::read_to_string(root().join("docs/reference/settings.md")).unwrap();
    for section in schema::ALL.iter().filter(|section| section.path != "(secret)") {
        let heading =
            if section.path.is_empty() { "## Top level\n".to_owned() } else { format!("### `{}`\n", section.path) };
        let (_, body) = text.split_once(&heading).unwrap_or_else(|| panic!("no heading {heading}"));
        let body = body.split("\n#").next().unwrap_or_default();
        let documented: Vec<&str> =
            body.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(key, _)| key).collect();
        assert_eq!(documented, section.keys, "{heading}");
    }
    for code in Code::ALL {
        let row = format!("| `{code}` | {} |", code.title());
        assert!(text.contains(&row), "add to docs/reference/settings.md: {row}");
    }
}
