//! The audit log of the real program: what is in it, whatever `RUST_LOG` says, and what is not (behaviour D3).

use std::collections::BTreeSet;

use cloakroom::demo::CLIENT_SECRET;
use cloakroom::demo::provider::{LogoutTokenFault, send_logout_token};
use reqwest::{Method, StatusCode};

use crate::backchannel_kit::{ALICE, spoiled, token};
use crate::harness::{Browser, LOGIN, SESSION, XSRF, eventually};
use crate::kit::*;
use crate::process::{Process, free_address};
use crate::secrets_found::Secrets;

const FIELDS: [&str; 20] = [
    "timestamp",
    "level",
    "target",
    "stream",
    "schema",
    "id",
    "time",
    "event",
    "result",
    "reason",
    "actor",
    "site",
    "provider",
    "sub",
    "session",
    "client_ip",
    "sessions",
    "applied",
    "needs_restart",
    "request_id",
];

#[tokio::test(flavor = "multi_thread")]
async fn d3_the_audit_log_tells_everything_and_no_secret() {
    let world = world(crate::harness::Wishes::default()).await;
    world.demo.provider.switches().set(|switch| switch.canary = Some("canary-a0d1-of-the-audit-log".to_owned()));
    let (address, admin) = (free_address(), free_address());
    let yaml = world.yaml.replace("@PROXY@", &address.to_string());
    let yaml = yaml.replace(
        &"admin: { address: \"@ADMIN@\" }".to_owned(),
        &format!("admin: {{ address: \"{admin}\", token: an-admin-token }}"),
    );
    let environment = [
        ("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("TEST_SECRET", CLIENT_SECRET),
        ("RUST_LOG", "off"),
    ];
    let mut process = Process::start(&yaml, &environment);
    eventually("the program is ready", || async {
        match reqwest::get(format!("http://{admin}/readyz?verbose")).await {
            Ok(answer) => answer.text().await.unwrap_or_default().contains("demo: ready"),
            Err(_) => false,
        }
    })
    .await;

    let mut secrets = Secrets::default();
    let mut know = |browser: &Browser| {
        for (kind, name) in [("session id", SESSION), ("CSRF token", XSRF), ("binding", LOGIN)] {
            if let Some(value) = browser.cookie(name) {
                secrets.add(kind, value);
            }
        }
    };
    let mut browser = Browser::new(address);
    browser.log_in("/").await;
    know(&browser);
    let refused = browser.draft(Method::POST, "/api/whoami");
    assert_eq!(browser.send(refused).await.status, StatusCode::FORBIDDEN);
    log_out(&mut browser).await;
    browser.navigate("/auth/callback?code=a-code-that-nobody-gave&state=a-state-that-nobody-has").await;

    let mut second = Browser::new(address);
    second.log_in("/").await;
    know(&second);
    let url = format!("http://{address}/auth/backchannel-logout");
    let bad = spoiled(&world, Some(ALICE), None, &[LogoutTokenFault::BadSignature]);
    let good = token(&world, Some(ALICE), None);
    for (logout, status) in [(&bad, 400), (&good, 200)] {
        assert_eq!(send_logout_token(&url, logout).await.expect("an answer").status, status);
    }
    // A logout that came in the same second as the login that follows would count for it.
    tokio::time::sleep(secs(2)).await;
    let mut third = Browser::new(address);
    third.log_in("/").await;
    know(&third);
    assert_eq!(third.fetch("/api/whoami").await.status, StatusCode::OK);
    let client = reqwest::Client::new();
    let answer = client.delete(format!("http://{admin}/sessions?user={ALICE}")).bearer_auth("an-admin-token").send();
    let listed: serde_json::Value =
        serde_json::from_str(&answer.await.expect("an answer").text().await.expect("it")).expect("JSON");
    let key = listed["revoked"][0]["id"].as_str().expect("an id").to_owned();
    for logout in [&bad, &good] {
        secrets.add("logout token", logout);
    }
    secrets.add("key in the store", &key);
    let changed = yaml
        .replace("an-admin-token", "another-admin-token")
        .replace("path: /bare/", "path: /path-of-a-new-route/")
        .replace("threads: 2", "threads: 3\ntrusted_proxies: [198.51.100.99]");
    let page = || client.get(format!("http://{admin}/metrics")).bearer_auth("an-admin-token").send();
    let reloads = async || match page().await {
        Ok(answer) => {
            let page = answer.text().await.unwrap_or_default();
            page.lines()
                .find_map(|line| line.strip_prefix("cloakroom_config_reloads_total{result=\"ok\"} ")?.parse().ok())
        }
        Err(_) => None,
    };
    // The second time there is nothing new in it.
    for count in [1, 2] {
        process.write_settings(&changed);
        process.signal("-HUP");
        eventually("the settings are read", async || reloads().await.is_some_and(|seen: usize| seen >= count)).await;
    }
    secrets.add("admin token", "an-admin-token");
    secrets.add("admin token of the changed settings", "another-admin-token");
    secrets.add("path in the changed settings", "path-of-a-new-route");
    secrets.add("address in the changed settings", "198.51.100.99");
    secrets.add("code", "a-code-that-nobody-gave");
    secrets.add("state", "a-state-that-nobody-has");
    secrets.add("canary", "canary-a0d1-of-the-audit-log");
    secrets.add_all_of(&world);

    let output = process.interrupted();
    secrets.assert_none_in("the audit log", &output, &[]);
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let (access, lines): (Vec<serde_json::Value>, Vec<_>) = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .partition(|line: &serde_json::Value| line["stream"] == "access");
    assert!(!access.is_empty() && lines.iter().all(|line| line["stream"] == "audit"), "no app log: {output}");
    let mut ids = BTreeSet::new();
    for line in &lines {
        let line = line.as_object().expect("an object");
        for name in line.keys() {
            assert!(FIELDS.contains(&name.as_str()), "an undocumented field {name}");
        }
        for name in ["schema", "id", "time", "event", "result", "actor"] {
            assert!(line.contains_key(name), "{name}: {line:?}");
        }
        assert!(ids.insert(line["id"].as_str().expect("an id").to_owned()), "{line:?}");
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line:?}");
    }
    let told: Vec<_> = lines
        .iter()
        .map(|line| ["event", "result", "reason", "actor"].map(|name| line[name].as_str().unwrap_or("-").to_owned()))
        .collect();
    let told: Vec<_> = told.iter().map(|words| words.join(" ")).collect();
    let expected = [
        "login_success success - user",
        "session_created success - user",
        "csrf_rejected failure origin user",
        "logout success user user",
        "session_ended success user user",
        "login_failure failure unknown_state user",
        "login_success success - user",
        "session_created success - user",
        "backchannel_logout failure signature idp",
        "session_ended success backchannel idp",
        "backchannel_logout success ended idp",
        "login_success success - user",
        "session_created success - user",
        "session_ended success admin admin",
        "admin_revoked success user admin",
        "config_changed success - system",
    ];
    assert_eq!(told, expected, "{output}");
    // One session has one name from its beginning to its end, and no other has it.
    let sessions: Vec<_> = [0, 1, 2, 3, 4].map(|n| lines[n]["session"].as_str().expect("a session")).into();
    assert!(sessions.iter().all(|session| *session == sessions[0] && session.len() == 22), "{sessions:?}");
    assert_ne!(lines[6]["session"], lines[0]["session"]);
    let named = |name: &serde_json::Value| access.iter().filter(|line| line["auth"]["session"] == *name).count();
    assert!(named(&lines[12]["session"]) > 0, "the access log has the same names: {output}");
    assert_eq!(lines[9]["sub"], ALICE);
    assert_eq!(lines[10]["sessions"], 1);
    assert_eq!(lines[0]["client_ip"], "127.0.0.1");
    assert_eq!(
        (&lines[15]["applied"], &lines[15]["needs_restart"]),
        (&"trusted_proxies,sites".into(), &"threads,admin".into())
    );
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/audit.md")).expect("it");
    let published = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/audit.schema.json"));
    let published: serde_json::Value = serde_json::from_str(&published.expect("it")).expect("JSON");
    let published: BTreeSet<_> =
        published["properties"].as_object().expect("fields").keys().map(String::as_str).collect();
    assert_eq!(published, FIELDS.into_iter().collect());
    for name in FIELDS.iter().filter(|name| !["timestamp", "level", "target"].contains(name)) {
        assert!(schema.contains(&format!("| `{name}` |")), "{name} is not in docs/reference/audit.md");
    }
}
