//! What is made of the reference: the JSON schema, and settings with their defaults filled in.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::super::effective::completed;
use super::*;

/// Every example, with its name.
fn examples() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// What the schema has against a file.
fn objections(text: &str) -> Option<String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("settings.json", json_schema()).unwrap();
    let schema = compiler.compile("settings.json", &mut schemas).unwrap();
    let value: Value = serde_yaml::from_str(text).unwrap();
    schemas.validate(&value, schema).err().map(|error| format!("{error:#}"))
}

#[test]
fn the_schema_takes_every_example() {
    assert_eq!(objections(GOOD), None);
    for (name, text) in examples() {
        assert_eq!(objections(&text), None, "{name}");
    }
}

#[test]
fn the_schema_refuses_what_check_refuses() {
    for (old, new) in [
        ("access: required", "acess: required"),
        ("access: required", "access: none"),
        ("idle_timeout: 30m", "idle_timeout: 30"),
        ("idle_timeout: 30m", "idle_timeout: soon"),
        ("capacity: 1000", "capacity: 0"),
        ("capacity: 1000", "capacity: many"),
        ("secret: { env: CLOAKROOM_KEY }", "secret: { environment: CLOAKROOM_KEY }"),
        ("secret: { env: CLOAKROOM_KEY }", "secret: { env: A, file: b }"),
        ("    client_id: cloakroom\n", ""),
        ("  - name: main\n", "  - name: main\n    kind: credentials\n"),
        ("max_body: 10MiB", "max_body: [10MiB]"),
        ("upstream: api", "upstream: api\n        redirect: { to: / }"),
        ("origins: []", "origins: [1]"),
        ("session:\n", "sessions:\n"),
    ] {
        assert_eq!(GOOD.matches(old).count(), 1, "{old}");
        let text = GOOD.replace(old, new);
        assert!(objections(&text).is_some(), "{new}");
        assert!(load_text(&text).is_err(), "{new}");
    }
    for (old, new) in [("capacity: 1000", "capacity: \"${N}\""), ("access: required", "access: ${A:-public}")] {
        assert_eq!(objections(&GOOD.replace(old, new)), None, "{new}");
    }
}

#[test]
fn every_key_of_the_schema_says_what_it_means() {
    let schema = json_schema();
    let access = &schema["properties"]["sites"]["items"]["properties"]["routes"]["items"]["properties"]["access"];
    assert_eq!(access["default"], "required");
    assert!(access["description"].as_str().unwrap().contains("looks up no session"), "{access}");
    let text = schema.to_string();
    assert!(!text.contains("](") && text.contains(r#""default":"10s""#));
}

/// The heart of it: what is filled in is what holds anyway.
#[test]
fn defaults_that_are_filled_in_change_nothing() {
    for (name, text) in examples().into_iter().chain([("good.yaml".to_owned(), GOOD.to_owned())]) {
        let (effective, file) = completed(&name, &text, &env(), true).map_err(|found| found.plain()).unwrap();
        let (before, after) = (load_str(&name, &text, &env()).unwrap(), load_str(&name, &file, &env()));
        let after = after.map_err(|found| format!("{}\n{file}", found.plain())).unwrap();
        assert_eq!(format!("{:#?}", before.settings), format!("{:#?}", after.settings), "{name}");
        assert!(after.warnings.errors() == 0 && after.warnings.warnings() == before.warnings.warnings(), "{name}");
        assert!(file.lines().count() > text.lines().filter(|line| !line.trim().starts_with('#')).count(), "{name}");
        let shown = effective.yaml();
        assert!(shown.contains("keepalive_timeout: 60s") && shown.contains("rotation_grace: "), "{shown}");
    }
}

#[test]
fn what_is_shown_hides_secrets_and_replaces_variables() {
    let text = GOOD
        .replace("{ env: CLIENT_SECRET }", "hunter2-hunter2")
        .replace("{ kind: memory }", "{ kind: redis, url: \"redis://:hunter3@redis\" }")
        .replace("client_id: cloakroom", "client_id: \"${ID}\"")
        .replace("capacity: 1000", "capacity: \"${N:-7}\"")
        .replace("        access: required\n", "        request_headers: { set: { X-Api-Key: \"${API_KEY}\" } }\n");
    let env = Env::fixed([("CLOAKROOM_KEY", KEY), ("ID", "42"), ("API_KEY", "hunter4")]);
    for fill in [false, true] {
        let (effective, _) = completed("x.yaml", &text, &env, fill).map_err(|found| found.plain()).unwrap();
        let shown = effective.yaml();
        assert!(!shown.contains("hunter") && !shown.contains(KEY), "{shown}");
        for part in [
            "secret: '***'",
            "url: '***'",
            "env: CLOAKROOM_KEY",
            "client_id: '42'",
            "capacity: 7",
            "X-Api-Key: ${API_KEY}",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        assert_eq!(shown.contains("lame_duck: 5s"), fill);
        assert_eq!(shown.contains("# threads: one a core"), fill, "{shown}");
    }
}

#[test]
fn a_default_that_another_setting_rules_out_is_not_written() {
    let text = GOOD.replace("        access: required\n", "        access: public\n");
    let (effective, _) = completed("x.yaml", &text, &env(), true).map_err(|found| found.plain()).unwrap();
    let route = &effective.settings["sites"][0]["routes"][0];
    assert_eq!(route["token"]["kind"].as_str(), Some("none"), "{route:?}");
    assert_eq!(route["access"].as_str(), Some("public"));
}
