//! The access log of the real program: one line a request, with the fields of the reference, and never in a request's way.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use cloakroom::demo::CLIENT_SECRET;
use reqwest::header::USER_AGENT;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Browser, Wishes, World, eventually};
use crate::kit::*;
use crate::process::{PROGRAM, Process, free_address};
use crate::wire::{Wire, ask, h2c_client};

const ENVIRONMENT: [(&str, &str); 2] =
    [("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("TEST_SECRET", CLIENT_SECRET)];

fn settings(world: &World, address: SocketAddr, admin: SocketAddr, telemetry: &str) -> String {
    let yaml = world.yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
    format!("{yaml}\ntelemetry: {telemetry}\n")
}

async fn is_ready(admin: SocketAddr) {
    eventually("the program is ready", || async {
        match reqwest::get(format!("http://{admin}/readyz?verbose")).await {
            Ok(answer) => answer.text().await.unwrap_or_default().contains("demo: ready"),
            Err(_) => false,
        }
    })
    .await;
}

fn lines(output: &str) -> Vec<Value> {
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["stream"] == "access").collect()
}

/// The one line about a path.
fn about<'l>(lines: &'l [Value], path: &str) -> &'l Value {
    let found: Vec<_> = lines.iter().filter(|line| line["path"] == path).collect();
    assert_eq!(found.len(), 1, "{path}: {found:#?}");
    found[0]
}

/// All fields are those of the reference.
fn assert_documented(lines: &[Value]) {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/access-log.md")).expect("it");
    for line in lines {
        let line = line.as_object().expect("an object");
        for name in line.keys() {
            assert!(text.contains(&format!("| `{name}` |")), "{name} is not in docs/reference/access-log.md");
        }
        for name in line.get("auth").and_then(Value::as_object).into_iter().flat_map(|auth| auth.keys()) {
            assert!(text.contains(&format!("| `auth.{name}` |")), "auth.{name} is not in docs/reference/access-log.md");
        }
        for name in ["time", "stream", "site", "route", "client_ip", "method", "protocol", "bytes_in", "duration_ms"] {
            assert!(line.contains_key(name), "{name}: {line:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_one_line_and_an_orderly_end_loses_none() {
    let upstreams = format!("  - {{ name: gone, endpoints: [\"{}\"] }}", free_address());
    let wishes = Wishes { upstreams, more: "trusted_proxies: [127.0.0.1]".into(), ..Wishes::default() };
    let world = world(wishes).await;
    let (address, admin) = (free_address(), free_address());
    let yaml = settings(&world, address, admin, "{ access_log: { enabled: true } }");
    let lost = "    routes:\n      - { path: /lost/, upstream: gone, access: public }\n";
    let mut process = Process::start(&yaml.replace("    routes:\n", lost), &ENVIRONMENT);
    is_ready(admin).await;

    let mut browser = Browser::new(address);
    browser.log_in("/").await;
    let agent = "agent \"of\" the test\t1";
    let draft = browser.draft(Method::GET, "/api/one?secret=query").header("user-agent", agent);
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!(browser.write(Method::POST, "/api/two", "12345").await.status, StatusCode::OK);
    let forged = browser.draft(Method::POST, "/api/three").header("origin", "https://evil.example");
    assert_eq!(browser.send(forged).await.status, StatusCode::FORBIDDEN);
    let mut stranger = Browser::new(address);
    let draft = stranger.draft(Method::GET, "/api/four").header("x-forwarded-for", "198.51.100.7");
    assert_eq!(stranger.send(draft).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(Browser::new(address).fetch("/lost/five").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let six = format!("GET /open/./x/%2e%2e/six HTTP/1.1\r\nHost: {address}\r\n\r\n");
    assert_eq!(ask(address, six).await.expect("an answer").status, StatusCode::OK);
    let bad = format!("GET /open/%zz HTTP/1.1\r\nHost: {address}\r\n\r\n");
    assert_eq!(ask(address, bad).await.expect("an answer").status, StatusCode::BAD_REQUEST);
    let h2 = h2c_client().get(format!("http://{address}/open/seven")).header(USER_AGENT, "h2").send().await;
    assert_eq!(h2.expect("an answer").status(), StatusCode::OK);
    let mut wire = Wire::connect(address).await;
    wire.send(format!("POST /open/eight HTTP/1.1\r\nHost: {address}\r\nContent-Length: 9\r\n\r\n123")).await;
    eventually("it is under way", || async {
        let page = reqwest::get(format!("http://{admin}/metrics")).await.expect("an answer").text().await.expect("it");
        page.contains("cloakroom_http_requests_in_flight{site=\"127.0.0.1\"} 1")
    })
    .await;
    drop(wire);
    eventually("it is over", || async {
        let page = reqwest::get(format!("http://{admin}/metrics")).await.expect("an answer").text().await.expect("it");
        page.contains("cloakroom_http_requests_in_flight{site=\"127.0.0.1\"} 0")
    })
    .await;
    let many = 300;
    for _ in 0..many {
        assert_eq!(browser.fetch("/api/many").await.status, StatusCode::OK);
    }
    let output = process.interrupted();
    let lines = lines(&output);
    assert_documented(&lines);
    assert!(!output.contains("secret=query"), "{output}");
    assert_eq!(lines.iter().filter(|line| line["path"] == "/api/many").count(), many);

    let one = about(&lines, "/api/one");
    let time = one["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    for (name, value) in [
        ("site", "127.0.0.1"),
        ("route", "/api"),
        ("client_ip", "127.0.0.1"),
        ("method", "GET"),
        ("protocol", "HTTP/1.1"),
        ("upstream", "demo"),
        ("user_agent", agent),
    ] {
        assert_eq!(one[name], value, "{one}");
    }
    assert_eq!((&one["status"], &one["bytes_in"]), (&200.into(), &0.into()));
    assert!(one["bytes_out"].as_u64().expect("a number") > 0 && one.get("reason").is_none(), "{one}");
    assert_eq!(one["upstream_address"], world.demo.upstream.address().to_string());
    let (whole, part) = (one["duration_ms"].as_f64().expect("a time"), one["upstream_ms"].as_f64().expect("a time"));
    assert!(whole >= part && part > 0.0, "{one}");
    let auth = &one["auth"];
    assert_eq!(
        (&auth["state"], &auth["provider"], &auth["level"]),
        (&"session".into(), &"demo".into(), &"logged_on".into())
    );
    assert_eq!(auth["session"].as_str().expect("a name").len(), 22);

    let two = about(&lines, "/api/two");
    assert_eq!((&two["bytes_in"], &two["auth"]["csrf"]), (&5.into(), &"passed".into()), "{two}");
    assert_eq!(two["auth"]["session"], auth["session"]);
    let three = about(&lines, "/api/three");
    assert_eq!((&three["status"], &three["reason"]), (&403.into(), &"csrf_failed".into()), "{three}");
    let four = about(&lines, "/api/four");
    assert_eq!((&four["status"], &four["reason"]), (&401.into(), &"session_missing".into()), "{four}");
    assert_eq!(four["client_ip"], "198.51.100.7");
    let five = about(&lines, "/lost/five");
    assert_eq!((&five["status"], &five["reason"]), (&503.into(), &"upstream_unavailable".into()), "{five}");
    assert_eq!((&five["upstream"], &five["auth"]["state"]), (&"gone".into(), &"none".into()));
    let six = about(&lines, "/open/six");
    assert!(six.get("user_agent").is_none(), "{six}");
    let bad = lines.iter().find(|line| line["status"] == 400).expect("the bad one");
    assert_eq!((bad.get("path"), &bad["reason"]), (None, &"bad_request".into()), "{bad}");
    let seven = about(&lines, "/open/seven");
    assert_eq!((&seven["protocol"], &seven["user_agent"]), (&"HTTP/2".into(), &"h2".into()), "{seven}");
    let eight = about(&lines, "/open/eight");
    assert_eq!((eight.get("status"), &eight["reason"]), (None, &"client_gone".into()), "{eight}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_cut_off_is_told_of_too() {
    let routes = "      - { path: /slow/, upstream: demo, access: public, timeouts: { request: 1s } }";
    let world = world(Wishes { routes: routes.into(), ..Wishes::default() }).await;
    let (address, admin) = (free_address(), free_address());
    let mut process = Process::start(&settings(&world, address, admin, "{}"), &ENVIRONMENT);
    is_ready(admin).await;
    // The body never comes to its end, and no answer begins.
    let mut wire = Wire::connect(address).await;
    wire.send(format!("POST /slow/x HTTP/1.1\r\nHost: {address}\r\nContent-Length: 9\r\n\r\n123")).await;
    wire.rest().await;
    let lines = lines(&process.interrupted());
    let line = about(&lines, "/slow/x");
    assert!(line["duration_ms"].as_f64().expect("a time") > 900.0, "{line}");
    assert!(line["reason"].is_string() && line["route"] == "/slow", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_and_the_whole_log_can_be_left_out() {
    let world = world(Wishes::default()).await;
    for (telemetry, there) in [
        ("{ access_log: { omit: [client_ip, user_agent, path, auth] } }", true),
        ("{ access_log: { enabled: false } }", false),
    ] {
        let (address, admin) = (free_address(), free_address());
        let mut process = Process::start(&settings(&world, address, admin, telemetry), &ENVIRONMENT);
        is_ready(admin).await;
        let mut browser = Browser::new(address);
        let draft = browser.draft(Method::GET, "/open/x").header("user-agent", "agent");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK);
        let output = process.interrupted();
        let lines = lines(&output);
        assert_eq!(lines.len(), usize::from(there), "{output}");
        for line in lines {
            for name in ["client_ip", "user_agent", "path", "auth"] {
                assert!(line.get(name).is_none(), "{name}: {line}");
            }
            assert_eq!((&line["status"], &line["route"]), (&200.into(), &"/open".into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_the_log_holds_up_no_request() {
    let world = world(Wishes::default()).await;
    let (address, admin) = (free_address(), free_address());
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("settings.yaml");
    std::fs::write(&file, settings(&world, address, admin, "{}")).expect("settings");
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(&file).envs(ENVIRONMENT).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program");
    is_ready(admin).await;
    // A pipe holds 64 KiB, and nobody takes anything out.
    let client = reqwest::Client::new();
    for _ in 0..600 {
        let answer = client.get(format!("http://{address}/open/x")).header(USER_AGENT, "a".repeat(200)).send();
        let answer = tokio::time::timeout(secs(5), answer).await.expect("no wait").expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    child.kill().expect("its end");
    let output = child.wait_with_output().expect("what it has written");
    assert!(output.stdout.len() < 300 * 600, "it was not held up: {} bytes", output.stdout.len());
}
