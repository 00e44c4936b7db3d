//! The commands that look at settings and at a running server, as processes of their own.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Wishes, World};
use crate::kit::*;
use crate::process::{PROGRAM, free_address};
use crate::wire::Wire;

const SECRETS: [(&str, &str); 2] =
    [("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("TEST_SECRET", cloakroom::demo::CLIENT_SECRET)];

fn cloakroom(line: &[&str]) -> Output {
    Command::new(PROGRAM).args(line).envs(SECRETS).stdin(Stdio::null()).output().expect("the program")
}

/// Exit code, standard output, standard error.
fn said(line: &[&str]) -> (Option<i32>, String, String) {
    let output = cloakroom(line);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The settings of a world in a file.
fn settings_of(world: &World, folder: &Path, proxy: &str) -> String {
    let file = folder.join("cloakroom.yaml");
    let yaml = world.yaml.replace("@PROXY@", proxy).replace("@ADMIN@", &world.proxy.admin.to_string());
    std::fs::write(&file, yaml).expect("a file");
    file.to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_asks_a_server() {
    let world = world(Wishes::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings_of(&world, folder.path(), "127.0.0.1:1");
    let admin = format!("http://{}", world.proxy.admin);
    assert_eq!(said(&["healthcheck", "-c", &file]), (Some(0), "ready\n".to_owned(), String::new()));
    assert_eq!(said(&["healthcheck", "--admin", &admin, "--live"]).1, "alive\n");
    // A running server keeps its settings when a new file has mistakes: it is well all the same.
    let text = std::fs::read_to_string(&file).expect("settings");
    std::fs::write(&file, format!("{text}\nnonsense: true\n")).expect("settings");
    assert_eq!(said(&["healthcheck", "-c", &file]).0, Some(0));
    assert_eq!(said(&["check", "-c", &file]).0, Some(1));

    let nobody = format!("http://{}", free_address());
    let elsewhere = format!("http://{}", world.proxy.address);
    for (line, code, hint) in [
        (&["healthcheck", "--admin", &nobody][..], 1, "does the server run"),
        (&["healthcheck", "--admin", &elsewhere], 1, "admin.address"),
        (&["healthcheck", "-c", "/no/such/file"], 1, "/no/such/file"),
        (&["healthcheck"], 2, "--admin"),
    ] {
        let (found, out, err) = said(line);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{line:?}: {err}");
        assert!(err.contains(hint), "{line:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connect_looks_for_all_that_the_settings_name() {
    let dead = free_address();
    let world = world(Wishes {
        upstreams: format!("  - {{ name: dead, endpoints: [\"{dead}\"] }}"),
        routes: "      - { path: /, upstream: demo }\n      - { path: /dead, upstream: dead }".into(),
        ..Wishes::default()
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings_of(&world, folder.path(), "127.0.0.1:1");
    let (code, out, err) = said(&["check", "-c", &file, "--connect"]);
    assert_eq!(code, Some(1), "{out}{err}");
    for line in ["ok       store memory", "ok       provider demo: metadata and keys", "ok       upstream demo at"] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    assert!(out.contains(&format!("failed   upstream dead at {dead}")) && out.contains("next: does it run"), "{out}");
    assert!(!out.contains('\u{1b}') && !err.contains("looking"), "plain text in a pipe: {out}{err}");

    let (code, out, _) = said(&["check", "-c", &file, "--connect", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, document["good"].as_bool()), (Some(1), Some(false)), "{document}");
    let results = document["connections"].as_array().expect("a list");
    assert_eq!(results.iter().filter(|one| one["result"] == "failed").count(), 1, "{document}");
    // Without the dead one all is well; without `--connect` nobody looks.
    assert_eq!(said(&["check", "-c", &file]).0, Some(0));
    let yaml =
        std::fs::read_to_string(&file).expect("settings").replace(&dead.to_string(), &world.proxy.admin.to_string());
    std::fs::write(&file, yaml).expect("settings");
    let (code, out, err) = said(&["check", "-c", &file, "--connect"]);
    assert_eq!(code, Some(0), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_agrees_with_the_proxy() {
    let world = world(Wishes {
        routes: "      - { path: /api, upstream: demo, strip_prefix: /api }\n      - { path: /open, upstream: demo, access: public, when: { methods: [GET] } }\n      - { path: /away, redirect: { to: /open }, access: public }".into(),
        ..Wishes::default()
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings_of(&world, folder.path(), "127.0.0.1:1");
    for (method, target) in [
        ("GET", "/api/x"),
        ("POST", "/api/x"),
        ("GET", "/open/a"),
        ("POST", "/open/a"),
        ("GET", "/away"),
        ("GET", "/nowhere"),
        ("GET", "/api%2fx"),
        ("GET", "/open;a/b"),
        ("GET", "/open/%2e%2e/api"),
        ("TRACE", "/open"),
        ("GET", "/auth/nothing"),
    ] {
        let url = format!("http://127.0.0.1{target}");
        let (code, out, err) = said(&["explain", "-c", &file, method, &url, "--format", "json"]);
        assert_eq!(code, Some(0), "{err}");
        let facts: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        // By the wire: a client would tidy the path up.
        let mut wire = Wire::connect(world.proxy.address).await;
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")).await;
        let answer = wire.answer().await.expect("an answer");
        if facts["answer"]["by"] != "upstream" {
            let status = u64::from(answer.status.as_u16());
            assert_eq!(Some(status), facts["answer"]["status"].as_u64(), "{method} {target}: {facts}");
        }
        let code = answer.headers.get("cloakroom-error").map(|code| code.to_str().expect("text"));
        assert_eq!(code, facts["answer"]["code"].as_str(), "{method} {target}: {facts}");
    }
    let (code, out, _) = said(&["explain", "-c", &file, "GET", "http://127.0.0.1/api/x"]);
    assert!(code == Some(0) && out.contains("401 session_missing") && out.contains("takes it"), "{out}");
    assert_eq!(said(&["explain", "-c", &file, "GET", "/api/x"]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_with_their_defaults() {
    let world = world(Wishes::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings_of(&world, folder.path(), "127.0.0.1:1");
    let (code, out, err) = said(&["config", "show", "--effective", "-c", &file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("rotation_grace:") && out.contains("env: TEST_KEY"), "{out}");
    assert!(!out.contains(SECRETS[0].1) && !out.contains(SECRETS[1].1), "{out}");
    // What is shown can be read again and says the same.
    let shown = folder.path().join("shown.yaml");
    std::fs::write(&shown, &out).expect("a file");
    let (code, again, err) = said(&["config", "show", "--effective", "-c", shown.to_str().expect("text")]);
    assert_eq!((code, &again), (Some(0), &out), "{err}");
    let (_, json, _) = said(&["config", "show", "--effective", "-c", &file, "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(document["limits"]["header_timeout"], "10s", "{document}");
    assert_eq!(said(&["config", "show", "-c", "/no/such/file"]).0, Some(1));
}

#[test]
fn what_editors_shells_and_man_want() {
    let (code, out, _) = said(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, schema["$schema"].as_str()), (Some(0), Some("https://json-schema.org/draft/2020-12/schema")));
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef cloakroom"), ("fish", "complete -c cloakroom")] {
        let (code, out, _) = said(&["completions", shell]);
        assert!(code == Some(0) && out.contains(part) && out.contains("healthcheck"), "{shell}: {out}");
    }
    let (code, out, _) = said(&["man"]);
    assert!(code == Some(0) && out.contains(".TH cloakroom 1") && out.contains("SESSIONS REVOKE"), "{out}");
}

#[test]
fn converted_settings_pass_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/convert");
    for (what, file) in [
        ("oauth2-proxy", "oauth2-proxy.cfg"),
        ("oauth2-proxy", "oauth2-proxy-alpha.yaml"),
        ("ingress-nginx", "ingress.yaml"),
    ] {
        let from = fixtures.join(file);
        let (code, out, err) = said(&["convert", what, from.to_str().expect("text")]);
        assert_eq!(code, Some(0), "{file}: {err}");
        assert!(err.contains("left to do by hand") && out.contains("# Left to do:"), "{file}: {err}");
        let made = folder.path().join("made.yaml");
        std::fs::write(&made, &out).expect("a file");
        let mut check = Command::new(PROGRAM);
        check.arg("check").arg("-c").arg(&made).env("CLOAKROOM_KEY", SECRETS[0].1);
        let output = check.env("CLIENT_SECRET", "x").env("REDIS_URL", "redis://redis").output().expect("the program");
        assert_eq!(output.status.code(), Some(0), "{file}: {}\n{out}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(said(&["convert", "oauth2-proxy", "/no/such/file"]).0, Some(1));
    assert_eq!(
        said(&["convert", "ingress-nginx", fixtures.join("oauth2-proxy.cfg").to_str().expect("text")]).0,
        Some(1)
    );
}
