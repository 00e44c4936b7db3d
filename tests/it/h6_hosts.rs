//! H6: which site a request is for, and requests that do not say so clearly.

use http::Request;
use reqwest::StatusCode;

use crate::harness::{Seen, Wishes, World};
use crate::wire::{H2, ask};

async fn world() -> World {
    let world = World::with(Wishes {
        hosts: "[app.test, \"*.apps.test\"]".into(),
        routes: "      - { path: /, upstream: demo, access: public }".into(),
        more: String::new(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

async fn get(world: &World, target: &str, fields: &str) -> Seen {
    let request = format!("GET {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    ask(world.proxy.address, request).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_hosts_match_exactly_or_by_one_whole_label() {
    let world = world().await;
    let recorder = world.demo.upstream.recorder();
    for (host, served) in [
        ("app.test", true),
        ("APP.Test", true),
        ("app.test.", true),
        ("app.test:80", true),
        ("app.test:12345", true),
        ("app.test.:443", true),
        ("app.test:", true),
        ("one.apps.test", true),
        ("ONE.apps.test:8080", true),
        ("a.b.apps.test", false),
        ("apps.test", false),
        ("xapps.test", false),
        ("x.xapps.test", false),
        ("xapp.test", false),
        ("app.test.evil", false),
        ("app", false),
        ("127.0.0.1", false),
        ("localhost", false),
        ("[::1]", false),
    ] {
        let before = recorder.count();
        let answer = get(&world, "/x", &format!("Host: {host}\r\n")).await;
        let expected = if served { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST };
        assert_eq!(answer.status, expected, "{host}");
        assert_eq!(recorder.count() - before, usize::from(served), "{host}");
        let h2 = H2::connect(world.proxy.address).await;
        let request = Request::get(format!("http://{host}/x")).body(());
        let answer = h2.ask(request.expect("a request"), &[], None).await.expect("an answer");
        assert_eq!(answer.status, expected, "{host} on HTTP/2");
        assert_eq!(recorder.count() - before, 2 * usize::from(served), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_an_unknown_host_gets_a_page_or_a_problem() {
    let world = world().await;
    let page = get(&world, "/x", "Host: other.test\r\nAccept: text/html\r\n").await;
    assert_eq!((page.status, page.code()), (StatusCode::MISDIRECTED_REQUEST, "unknown_host"));
    assert!(page.header("content-type").starts_with("text/html") && page.body.contains("not served here"), "{page:?}");
    assert!(!page.body.contains("other.test") && !page.body.contains("app.test"), "{page:?}");
    let problem = get(&world, "/x", "Host: other.test\r\nSec-Fetch-Mode: cors\r\n").await;
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!((problem.json()["code"].as_str(), problem.json()["status"].as_u64()), (Some("unknown_host"), Some(421)));
    for answer in [page, problem] {
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    // The auth endpoints exist on known hosts only.
    let login = get(&world, "/auth/login", "Host: other.test\r\nSec-Fetch-Mode: navigate\r\n").await;
    assert_eq!(login.status, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_a_request_with_no_host_or_two_is_refused() {
    let world = world().await;
    for (target, fields) in [
        ("/x", ""),
        ("/x", "Host:\r\n"),
        ("/x", "Host: app.test\r\nHost: app.test\r\n"),
        ("/x", "Host: app.test\r\nHost: other.test\r\n"),
        ("/x", "Host: app.test, other.test\r\n"),
        ("/x", "Host: user@app.test\r\n"),
        ("/x", "Host: app.test/x\r\n"),
        ("/x", "Host: app.test:99999\r\n"),
        ("/x", "Host: app.test:80:80\r\n"),
        ("/x", "Host: app..test\r\n"),
        ("/x", "Host: app.test\u{e9}\r\n"),
        ("http://other.test/x", "Host: app.test\r\n"),
        ("http://app.test/x", "Host: other.test\r\n"),
        ("http://app.test:81/x", "Host: app.test:82\r\n"),
        ("http://user@app.test/x", "Host: app.test\r\n"),
        ("http://app.test\\@other.test/x", "Host: app.test\r\n"),
    ] {
        let answer = get(&world, target, fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{target} {fields:?}");
    }
    for (authority, host) in [("app.test", "other.test"), ("other.test", "app.test"), ("app.test:81", "app.test:82")] {
        let request = Request::get(format!("http://{authority}/x")).header("host", host).body(()).expect("a request");
        let answer = H2::connect(world.proxy.address).await.ask(request, &[], None).await;
        // Refused with a status or with a reset of the stream, whichever the HTTP/2 layer prefers.
        assert!(answer.as_ref().map_or(true, |seen| seen.status == 400), "{authority} {host}: {answer:?}");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}
