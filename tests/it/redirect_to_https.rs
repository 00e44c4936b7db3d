//! A plain listener that sends everybody to https.

use reqwest::StatusCode;

use crate::harness::{Wishes, World};
use crate::wire::{H2, Wire};

async fn world(listener: &str, more: &str) -> World {
    let world = World::with(Wishes {
        listener: format!(", {listener}"),
        hosts: "[app.test, \"*.app.test\", \"[::1]\"]".into(),
        routes: "      - { path: /, upstream: demo }
      - { path: /.well-known/acme-challenge/, upstream: demo, access: public }"
            .into(),
        more: more.into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn served_hosts_are_sent_to_https_and_nothing_else_is_answered() {
    for (setting, port) in [("redirect_to_https: true", ""), ("redirect_to_https: 8443", ":8443")] {
        let world = world(setting, "").await;
        for (method, target, host, location) in [
            ("GET", "/a%20b/c?d=e&f=%2F", "app.test", format!("https://app.test{port}/a%20b/c?d=e&f=%2F")),
            ("POST", "/", "App.Test:80", format!("https://app.test{port}/")),
            ("GET", "/auth/login", "x.app.test", format!("https://x.app.test{port}/auth/login")),
            ("GET", "//evil.test/", "app.test", format!("https://app.test{port}/evil.test/")),
            ("GET", "http://app.test/x", "app.test", format!("https://app.test{port}/x")),
            ("GET", "/x", "[::1]:8080", format!("https://[::1]{port}/x")),
        ] {
            let mut wire = Wire::connect(world.proxy.address).await;
            wire.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")).await;
            let answer = wire.answer().await.expect("an answer");
            if target == "//evil.test/" && answer.status == StatusCode::BAD_REQUEST {
                continue;
            }
            assert_eq!((answer.status, answer.location()), (StatusCode::PERMANENT_REDIRECT, &*location), "{target}");
            assert_eq!((answer.header("cache-control"), answer.set_cookies().len()), ("no-store", 0));
        }
        for (target, host, status) in [
            ("/", "other.test", StatusCode::MISDIRECTED_REQUEST),
            ("/", "app.test@evil.test", StatusCode::BAD_REQUEST),
            ("/%2f", "app.test", StatusCode::BAD_REQUEST),
        ] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = Wire::connect(world.proxy.address).await.exchange(request).await;
            assert_eq!(answer.status, status, "{host}");
        }
        let h2 = H2::connect(world.proxy.address).await;
        let request = http::Request::get("http://app.test/x").body(()).expect("a request");
        let answer = h2.ask(request, &[], None).await.expect("an answer");
        assert_eq!(answer.location(), format!("https://app.test{port}/x"));
        assert_eq!(world.demo.upstream.recorder().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_of_an_authority_pass() {
    let world = world("redirect_to_https: true", "").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let mut wire = Wire::connect(world.proxy.address).await;
    let answer = wire.exchange(get("/.well-known/acme-challenge/token")).await;
    assert_eq!(answer.status, StatusCode::OK);
    for path in ["/.well-known/acme-challengex", "/.well-known/", "/.well-known/acme-challenge/../x"] {
        assert_eq!(wire.exchange(get(path)).await.status, StatusCode::PERMANENT_REDIRECT, "{path}");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_got_over_https_is_not_sent_there_again() {
    let get = |proto: &str| format!("GET /x HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
    let trusting = world("redirect_to_https: true", "trusted_proxies: [127.0.0.1]").await;
    let mut wire = Wire::connect(trusting.proxy.address).await;
    assert_eq!(wire.exchange(get("https")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(wire.exchange(get("http")).await.status, StatusCode::PERMANENT_REDIRECT);
    let other = world("redirect_to_https: true", "").await;
    let answer = Wire::connect(other.proxy.address).await.exchange(get("https")).await;
    assert_eq!(answer.status, StatusCode::PERMANENT_REDIRECT, "a stranger's word is none");
}
