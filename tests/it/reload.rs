//! New settings while requests go on: none of them fails, and what has not changed stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Wishes, World, eventually};
use crate::kit::ticket;
use crate::process::{Process, free_address};
use crate::wire::h2c_client;

const TWO: &str = "      - { path: /api/, upstream: demo, access: required, identity_headers: { X-User-Id: sub, X-User-Name: name } }\n      - { path: /, upstream: demo, access: public }";

async fn world() -> World {
    let world = World::with(Wishes { routes: TWO.into(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_settings_change_every_100_ms() {
    let world = world().await;
    let mut browser = world.browser();
    browser.log_in("/api/").await;
    let (done, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let cookie = format!("{SESSION}={}", ticket(&browser));
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let (done, answers, cookie, home) = (done.clone(), answers.clone(), cookie.clone(), browser.home);
            tokio::spawn(async move {
                let client = if number % 2 == 0 { h2c_client() } else { browser_client() };
                while !done.load(Ordering::SeqCst) {
                    let request = client.get(format!("http://{home}/api/whoami")).header("cookie", &cookie);
                    let answer = request.send().await.expect("an answer");
                    assert_eq!(answer.status(), StatusCode::OK);
                    answer.bytes().await.expect("a body");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let changes = [
        // The demo upstream is made anew each time, its connections too.
        ("name: demo, endpoints", "name: demo, balance: random, endpoints"),
        ("X-User-Name: name", "X-User-Mail: email"),
        ("threads: 2", "threads: 2\ntrusted_proxies: [10.0.0.0/8]"),
        ("path: /api/,", "path: /api,"),
        ("X-User-Id: sub", "X-Subject: sub"),
    ];
    let begun = Instant::now();
    for round in 0.. {
        if begun.elapsed() > Duration::from_secs(4) {
            break;
        }
        let (old, new) = changes[round % changes.len()];
        world.proxy.reload(old, new).await.expect("applied");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no request has failed");
    }
    assert!(answers.load(Ordering::SeqCst) > 100);
    assert_eq!(world.metric("cloakroom_http_requests_total{code=\"503\"").await, 0.0);
}

fn browser_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("client")
}

/// Sessions in the local cache are prepared for the headers of their site; after a change each header must still say what
/// it is named for.
#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_of_a_living_session_follow_the_settings() {
    let world = world().await;
    let mut browser = world.browser();
    browser.log_in("/api/").await;
    let recorder = world.demo.upstream.recorder();
    browser.fetch("/api/x").await;
    let before = recorder.last().expect("a request");
    let (id, name) =
        (before.header("x-user-id").expect("an id").to_owned(), before.header("x-user-name").map(str::to_owned));
    let lookups = "cloakroom_session_lookups_total{result=\"found\",source=\"store\"}";
    let stored = world.metric(lookups).await;

    // Another order: what was the first claim is the second now.
    let swapped = "X-User-Name: name, X-User-Id: sub";
    let outcome = world.proxy.reload("X-User-Id: sub, X-User-Name: name", swapped).await.expect("applied");
    assert_eq!((outcome.applied, outcome.needs_restart), (vec!["sites"], vec![]));
    for _ in 0..3 {
        assert_eq!(browser.fetch("/api/x").await.status, StatusCode::OK);
        let now = recorder.last().expect("a request");
        assert_eq!(now.header("x-user-id"), Some(id.as_str()));
        assert_eq!(now.header("x-user-name").map(str::to_owned), name);
    }
    assert_eq!(world.metric(lookups).await, stored + 1.0, "the session is prepared anew once");

    // What does not touch the site leaves the cache alone.
    world
        .proxy
        .reload(
            "X-User-Id: sub, X-User-Name: name",
            &format!("{swapped} }}, max_body: 1MiB, csrf: true, on_missing: auto, token: {{ kind: access"),
        )
        .await
        .expect("applied");
    browser.fetch("/api/x").await;
    assert_eq!(world.metric(lookups).await, stored + 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_named_and_the_rest_holds() {
    let world = world().await;
    let mut browser = world.browser();
    assert_eq!(browser.write(Method::POST, "/x", "0123456789").await.status, StatusCode::OK);
    let outcome =
        world.proxy.reload("threads: 2", "threads: 3\ntrusted_proxies: [127.0.0.0/8]").await.expect("applied");
    assert_eq!((outcome.applied, outcome.needs_restart), (vec!["trusted_proxies"], vec!["threads"]));
    let changed = "path: /, upstream: demo, access: public, max_body: 5";
    world.proxy.reload("path: /, upstream: demo, access: public", changed).await.expect("applied");
    assert_eq!(browser.write(Method::POST, "/x", "0123456789").await.status, StatusCode::PAYLOAD_TOO_LARGE);

    let other =
        "  - { name: other, issuer: \"http://127.0.0.1:9\", client_id: x, client_auth: { method: none } }\nupstreams:";
    let mut yaml = world.yaml.replacen("upstreams:", other, 1);
    yaml = yaml.replacen("provider: demo", "provider: other", 1);
    let error = world
        .proxy
        .reload(
            &world
                .yaml
                .replace("@PROXY@", &world.proxy.address.to_string())
                .replace("@ADMIN@", &world.proxy.admin.to_string()),
            &yaml
                .replace("@PROXY@", &world.proxy.address.to_string())
                .replace("@ADMIN@", &world.proxy.admin.to_string()),
        )
        .await;
    assert!(error.expect_err("refused").to_string().contains("provider other is new"));
    assert_eq!(browser.write(Method::POST, "/x", "0123456789").await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reads_a_changed_file_and_a_bad_one_changes_nothing() {
    let world = world().await;
    let (address, admin) = (free_address(), free_address());
    let yaml = world.yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
    let environment =
        [("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("TEST_SECRET", cloakroom::demo::CLIENT_SECRET)];
    let process = Process::start(&yaml, &environment);
    let page = async |path: &str| match reqwest::get(format!("http://{admin}{path}")).await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    eventually("the program is ready", async || page("/readyz").await == "ready\n").await;
    let mut browser = Browser::new(address);
    assert_eq!(browser.fetch("/x").await.status, StatusCode::OK);
    assert!(page("/metrics").await.contains("cloakroom_config_last_reload_successful 1\n"));

    // By itself.
    let gone = yaml.replace("path: /, upstream", "path: /elsewhere, upstream");
    process.write_settings(&gone);
    eventually("the file is read", async || {
        page("/metrics").await.contains("cloakroom_config_reloads_total{result=\"ok\"} 1\n")
    })
    .await;
    assert_eq!(browser.fetch("/x").await.status, StatusCode::NOT_FOUND);

    // On SIGHUP, and wrong.
    process.write_settings(&yaml.replace("upstreams:", "upstraems:"));
    process.signal("-HUP");
    eventually("the mistake is told", async || {
        page("/metrics").await.contains("cloakroom_config_last_reload_successful 0\n")
    })
    .await;
    assert_eq!(browser.fetch("/x").await.status, StatusCode::NOT_FOUND);
    eventually("the log says so", async || {
        let output = process.output();
        output.contains("upstraems") && output.contains("the old ones stay")
    })
    .await;

    process.write_settings(&yaml);
    process.signal("-HUP");
    eventually("all is well again", async || {
        page("/metrics").await.contains("cloakroom_config_last_reload_successful 1\n")
    })
    .await;
    assert_eq!(browser.fetch("/x").await.status, StatusCode::OK);
}
