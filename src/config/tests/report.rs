//! All mistakes in one go, each at its place.

use super::*;

const BAD: &str = r#"listeners:
  - adress: 0.0.0.0:8080
threads: two
keys:
  - id: "a b"
    secret: { env: NOT_THERE }
store: { kind: reddis }
session:
  idle_timeout: 13h
  cookie:
    secure: false
    same_site: nome
  csrf: { cookie: "a;b" }
  cache: { ttl: 5, capacity: 0 }
providers:
  - name: main
    issuer: http://id.example.com/?x
    client_id: 42
    client_auth: { method: client_secret_basic }
    authorization_params: { state: x }
upstreams:
  - name: api
    endpoints: ["imap://api:3000", "api"]
sites:
  - hosts: [app.example.com:443]
    provider: mian
    auth_path: auth
    routes:
      - path: /api/../x
        upstream: apo
        acess: required
        identity_headers:
          Host: sub
      - path: /b
        upstream: api
        strip_prefix: /c
        max_body: lots
      - path: /b/
        upstream: api
        access: 3
extra: 1
"#;

#[test]
fn a_file_full_of_mistakes_yields_all_of_them() {
    let outcome = load_text(BAD);
    assert_eq!(
        places(&outcome),
        [
            "2:5 E0101",
            "2:5 E0102",
            "3:10 E0103",
            "5:9 E0201",
            "6:20 E0301",
            "7:16 E0104",
            "9:17 E0404",
            "11:13 E0403",
            "12:16 E0104",
            "13:19 E0205",
            "14:17 E0201",
            "14:30 E0202",
            "17:13 E0206",
            "18:16 E0103",
            "19:5 E0102",
            "20:29 E0208",
            "23:17 E0207",
            "23:36 E0207",
            "25:13 E0207",
            "26:15 E0402",
            "27:16 E0203",
            "29:15 E0203",
            "30:19 E0402",
            "31:9 E0101",
            "33:11 E0204",
            "36:23 E0407",
            "37:19 E0201",
            "38:15 E0401",
            "40:17 E0103",
            "41:1 E0101",
        ]
    );
}

#[test]
fn the_plain_form_shows_line_caret_and_next_step() {
    let found = with("        access: required", "        acess: required").unwrap_err();
    assert_eq!(
        found.plain(),
        "cloakroom.yaml:34:9: error[E0101]: sites[0].routes[0].acess: unknown key\n\
         \x20 34 |         acess: ********\n\
         \x20    |         ^^^^^\n\
         \x20 help: did you mean `access`?\n"
    );
}

#[test]
fn the_fancy_form_shows_the_same() {
    let found = with("        access: required", "        acess: required").unwrap_err();
    let text = found.fancy(80, false);
    for part in [
        "E0101",
        "sites[0].routes[0].acess: unknown key",
        "cloakroom.yaml:34:9",
        "acess: ********",
        "did you mean `access`?",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    assert!(found.fancy(80, true).contains('\u{1b}'));
}

#[test]
fn the_json_form_has_one_object_each() {
    let json = load_text(BAD).unwrap_err().to_json();
    let first = &json[0];
    assert_eq!(first["code"], "E0101");
    assert_eq!(
        (first["line"].as_u64(), first["column"].as_u64(), first["length"].as_u64()),
        (Some(2), Some(5), Some(6))
    );
    assert_eq!(first["setting"], "listeners[0].adress");
    assert_eq!(first["help"], "did you mean `address`?");
}

#[test]
fn a_key_at_the_wrong_level_is_sent_home() {
    let found = with("refresh: { minimum_lifetime: 10s }", "idle_timeout: 10s").unwrap_err();
    assert_eq!(found.iter().next().unwrap().help.as_deref(), Some("`idle_timeout` belongs into `session`"));
}

#[test]
fn missing_sections_are_named_with_an_example() {
    let found = load_text("threads: 1\n").unwrap_err();
    let missing: Vec<_> = found.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(missing, ["`listeners` is missing", "`keys` is missing", "`sites` is missing"]);
    assert!(found.iter().all(|d| d.help.as_deref().is_some_and(|help| help.starts_with("write for example `"))));
    assert_eq!(codes(&load_text("")), ["E0105"]);
    assert_eq!(codes(&load_text("# nothing\n")), ["E0105"]);
    assert_eq!(codes(&load_text("- a\n")), ["E0103"]);
}

#[test]
fn yaml_that_settings_do_not_take() {
    for (text, expected) in [
        ("a: b: c\n", "1:5 E0002"),
        ("a: \"x\n", "1:4 E0002"),
        ("a: [1\nb: 2", "2:2 E0002"),
        ("listeners:\n  - address: x\n - y\n", "3:2 E0002"),
        ("a: *nowhere\n", "1:4 E0002"),
        ("a: 1\n---\nb: 2\n", "2:1 E0003"),
        ("a: &x [*x]\n", "1:8 E0004"),
        ("threads: !!int \"2\"\n", "1:10 E0006"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "2:5 E0006"),
    ] {
        let places = places(&load_text(text));
        assert_eq!(places.first().map(String::as_str), Some(expected), "{text:?}: {places:?}");
    }
}

#[test]
fn a_duplicate_key_hides_nothing_else() {
    let outcome = with(
        "refresh: { minimum_lifetime: 10s }",
        "refresh: { minimum_lifetime: 10s }\nthreads: 1\nthreads: 2\nthreds: 3",
    );
    assert_eq!(places(&outcome), ["17:1 E0005", "18:1 E0101"]);
}

#[test]
fn relations_are_looked_at_although_other_sections_are_wrong() {
    let text = GOOD.replace("127.0.0.1:9090", "127.0.0.1:8080").replace("kind: memory", "kind: redys, url: 'http://x'");
    assert_eq!(places(&load_text(&text)), ["4:12 E0401", "8:16 E0104", "8:28 E0206"]);
}

#[test]
fn anchors_and_aliases_work_and_point_at_the_alias() {
    let loaded = with(
        "    secret: { env: CLOAKROOM_KEY }",
        "    secret: &key { env: CLOAKROOM_KEY }\n  - { id: two, secret: *key }",
    )
    .unwrap();
    assert_eq!(loaded.settings.keys.len(), 2);
    let text = GOOD.replace("  - name: main\n", "  - name: &name main\n").replace("upstream: api", "upstream: *name");
    assert_eq!(places(&load_text(&text)), ["33:19 E0402"]);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_no_place() {
    let text = format!("\u{feff}{}", GOOD.replace("access: required", "acess: required").replace('\n', "\r\n"));
    assert_eq!(places(&load_text(&text)), ["34:9 E0101"]);
}

#[test]
fn a_file_that_is_not_there_is_a_diagnostic_too() {
    let found = load(Path::new("/nowhere/cloakroom.yaml"), &env()).unwrap_err();
    assert!(found.plain().starts_with("/nowhere/cloakroom.yaml:1:1: error[E0001]: the file cannot be read"), "{found}");
    assert!(found.fancy(80, false).contains("E0001"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.yaml");
    std::fs::write(&path, b"a: \xff\n").unwrap();
    assert_eq!(codes(&load(&path, &env())), ["E0001"]);
}
