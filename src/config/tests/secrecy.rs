//! Secrets come from where they should, and leave nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What must not be seen.
const WORD: &str = "hunter2";

fn nowhere(outcome: Result<Loaded, Diagnostics>) -> Vec<&'static str> {
    let codes = codes(&outcome);
    let (found, debug) = match &outcome {
        Ok(loaded) => (&loaded.warnings, format!("{loaded:?}")),
        Err(found) => (found, format!("{found:?}")),
    };
    for text in [found.plain(), found.fancy(100, false), found.to_json().to_string(), debug] {
        assert!(!text.contains(WORD), "{text}");
    }
    codes
}

#[test]
fn a_secret_in_the_file_is_warned_of_and_not_shown() {
    for (new, expected) in [
        ("secret: hunter2 }", &["W0001"] as &[_]),
        ("secret: 'hunter2' }  # was hunter2", &["W0001"]),
        ("secret: \"hunter2\", method: none }", &["W0001", "E0005"]),
        ("secret: hunter2, sekret: hunter2 }", &["W0001", "E0101"]),
        ("secrte: hunter2 }", &["E0102", "E0101"]),
        ("secret: { env: hunter2-with-dash } }", &["E0201"]),
        ("secret: { env: hunter2butlongerandlonger } }", &["E0301"]),
        ("secret: { hunter2: hunter2, hunter2: x } }", &["E0101", "E0102", "E0005"]),
        ("secret: {{ hunter2 }} }", &["E0006", "E0102"]),
        ("secret: { hunter2 } }", &["E0101", "E0102"]),
        ("secret: [hunter2] }", &["E0103"]),
        ("secret: { value: hunter2 } }", &["E0101", "E0102"]),
        ("secret: 'hunter2${' }", &["E0106"]),
        ("secret: 'hunter2${NOT_SET}' }", &["E0106"]),
        ("secret: { env: [hunter2] } }", &["E0103"]),
    ] {
        let mut found = nowhere(with("secret: { env: CLIENT_SECRET } }", new));
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{new}");
    }
    nowhere(with(
        "client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }",
        "client_auth: hunter2",
    ));
    nowhere(with("    secret: { env: CLOAKROOM_KEY }", "    secret: hunter2"));
    nowhere(with("    secret: { env: CLOAKROOM_KEY }", "    secret: |\n      hunter2\n      hunter2\n    other: 1"));
    nowhere(with(
        "  address: 127.0.0.1:9090",
        "  address: 0.0.0.0:9090\n  token: hunter2\n  tokn: 'a\n    hunter2 # hunter2'",
    ));
    nowhere(with("  - id: one", "  - id: one # hunter2\n    idd: &hunter hunter2\n    oops: *hunter"));
}

#[test]
fn yaml_that_breaks_off_shows_no_secret() {
    for tail in
        ["x: y: z", "\"", "]", "b: [", "*none", "a: !x y", "---\na: hunter2", "'hunter2", "? [hunter2", "%", "\t"]
    {
        let text = format!(
            "{}\nsecret: hunter2 {tail}\nsecret: \"hunter2 {tail}\n- hunter2",
            GOOD.replace("{ env: CLIENT_SECRET }", "hunter2")
        );
        nowhere(load_text(&text));
        nowhere(load_text(&format!("{}\n{tail}\n", GOOD.replace("{ env: CLIENT_SECRET }", "hunter2"))));
    }
}

#[test]
fn secrets_of_the_environment() {
    let old = "secret: { env: CLIENT_SECRET } }";
    expect(
        old,
        &[
            ("secret: { env: BREAK } }", &[]),
            ("secret: { env: EMPTY } }", &["E0301"]),
            ("secret: { env: MISSING_ONE } }", &["E0301"]),
            ("secret: { env: CLIENT_SECRET, file: x } }", &["E0408"]),
            ("secret: {} }", &["E0102"]),
            ("secret: '' }", &["E0301"]),
            ("secret: \"${CLIENT_SECRET}\" }", &[]),
            ("secret: 12 }", &["E0103"]),
        ],
    );
    let found = with(old, "secret: { env: MISSING_ONE } }").unwrap_err();
    assert!(found.plain().contains("cloakroom.yaml:20:64"), "{found}");
    assert!(found.plain().contains("`MISSING_ONE` is not set"), "{found}");
}

fn folder_with(name: &str, content: &[u8], mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    folder
}

#[test]
fn secrets_of_files_lie_beside_the_settings() {
    let text = GOOD.replace("{ env: CLIENT_SECRET }", "{ file: kc.secret }");
    for (content, mode, expected) in [
        (b"hunter2\r\n".as_slice(), 0o600, &[] as &[&str]),
        (b"hunter2", 0o640, &[]),
        (b"hunter2", 0o644, &["E0303"]),
        (b"hunter2", 0o602, &["E0303"]),
        (b"\n", 0o600, &["E0301"]),
        (b"", 0o600, &["E0301"]),
        (b"\xff\xfe", 0o600, &["E0302"]),
    ] {
        let folder = folder_with("kc.secret", content, mode);
        let path = folder.path().join("cloakroom.yaml");
        fs::write(&path, &text).unwrap();
        let outcome = load(&path, &env());
        if let Ok(loaded) = &outcome {
            assert_eq!(loaded.files, [folder.path().join("kc.secret")]);
            let settings::ClientAuth::Basic(secret) = &loaded.settings.providers[0].oidc().unwrap().client_auth else {
                panic!()
            };
            assert_eq!(secret.expose(), WORD);
        }
        assert_eq!(nowhere(outcome), expected);
    }
    assert_eq!(codes(&load_text(&text)), ["E0302"], "not there");
    assert_eq!(codes(&load_text(&text.replace("kc.secret", "."))), ["E0302"], "a folder");
    assert_eq!(codes(&load_text(&text.replace("kc.secret", "/dev/zero"))), ["E0302"], "a device");
}

#[test]
fn sealing_keys_are_32_bytes() {
    expect(
        "    secret: { env: CLOAKROOM_KEY }",
        &[
            ("    secret: { env: CLIENT_SECRET }", &["E0304"]),
            ("    secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", &["W0001"]),
            ("    secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &["W0001", "E0304"]),
        ],
    );
}

#[test]
fn certificates_are_read_and_compared() {
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["app.example.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let ((certificate, key), (_, other)) = (make(), make());
    let tls = "  - address: 127.0.0.1:8080\n    tls: { certificates: [{ certificate: tls.crt, key: tls.key }] }";
    let text = GOOD.replace("  - address: 127.0.0.1:8080", tls);
    for (certificate, key, mode, expected) in [
        (certificate.as_str(), key.as_str(), 0o600, &[] as &[&str]),
        (&certificate, &key, 0o644, &["E0303"]),
        (&certificate, &other, 0o600, &["E0305"]),
        (&key, &certificate, 0o600, &["E0305", "E0305"]),
        ("", "", 0o600, &["E0305", "E0305"]),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, 0o600, &["E0305"]),
    ] {
        let folder = folder_with("tls.key", key.as_bytes(), mode);
        fs::write(folder.path().join("tls.crt"), certificate).unwrap();
        let path = folder.path().join("cloakroom.yaml");
        fs::write(&path, &text).unwrap();
        let outcome = load(&path, &env());
        assert_eq!(codes(&outcome), expected, "{:?}", outcome.err());
    }
    // The authorities of clients' certificates.
    for (authorities, expected) in [(certificate.as_str(), &[] as &[&str]), (&key, &["E0305"]), ("", &["E0305"])] {
        let folder = folder_with("tls.key", key.as_bytes(), 0o600);
        fs::write(folder.path().join("tls.crt"), &certificate).unwrap();
        fs::write(folder.path().join("clients.crt"), authorities).unwrap();
        let path = folder.path().join("cloakroom.yaml");
        fs::write(&path, text.replace("tls.key }] }", "tls.key }], client_ca: clients.crt }")).unwrap();
        let outcome = load(&path, &env());
        assert_eq!(codes(&outcome), expected, "{:?}", outcome.err());
    }
    expect(
        "  - address: 127.0.0.1:8080",
        &[
            (tls, &["E0302", "E0302"]),
            ("  - address: 127.0.0.1:8080\n    tls: {}", &["E0102"]),
            ("  - address: 127.0.0.1:8080\n    tls: { certificates: [] }", &["E0105"]),
            ("  - address: 127.0.0.1:8080\n    tls: true", &["E0103"]),
        ],
    );
}
