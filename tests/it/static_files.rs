//! A single-page application without a server of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use reqwest::{Method, StatusCode};

use crate::harness::{SESSION, Wishes, World, XSRF};
use crate::wire::Wire;

fn app(folder: &Path) {
    let root = folder.join("app");
    fs::create_dir_all(root.join("assets")).expect("a folder");
    fs::create_dir_all(root.join("docs")).expect("a folder");
    for (name, content) in [
        ("app/index.html", "<!doctype html><title>App</title>"),
        ("app/docs/index.html", "docs"),
        ("app/assets/app-DiwrgT4a.js", "console.log(1)"),
        ("app/assets/app-DiwrgT4a.js.gz", "packed"),
        ("app/.env", "secret"),
        ("secret.txt", "secret"),
    ] {
        fs::write(folder.join(name), content).expect("a file");
    }
    symlink("../secret.txt", root.join("link.txt")).expect("a link");
    let film: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(root.join("film.bin"), film).expect("a file");
}

async fn world(folder: &Path, more: &str) -> World {
    app(folder);
    let files = format!("files: {{ root: \"{}/app\", fallback: index.html }}", folder.display());
    let routes = format!(
        "      - {{ path: /api/, upstream: demo }}\n      - {{ path: /inner/, {files}, access: required }}\n      - {{ path: /outer/, {files}, access: public }}\n      - {{ path: /, {files}, {more} }}"
    );
    let world = World::with(Wishes { routes, ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_served_beside_its_api() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path(), "access: optional").await;
    let mut browser = world.browser();
    for path in ["/", "/users/7", "/index.html"] {
        let page = browser.navigate(path).await;
        assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"), "{path}");
        assert!(page.body.contains("<title>App"), "{path}");
        assert_eq!((page.header("cache-control"), page.header("x-frame-options")), ("no-cache", "SAMEORIGIN"));
    }
    let script = browser.fetch("/assets/app-DiwrgT4a.js").await;
    assert_eq!((script.status, script.body.as_str()), (StatusCode::OK, "console.log(1)"));
    assert_eq!(script.header("cache-control"), "private, max-age=31536000, immutable");
    let draft = browser.draft(Method::GET, "/assets/app-DiwrgT4a.js").header("accept-encoding", "gzip, br");
    let packed = browser.send(draft).await;
    assert_eq!((packed.body.as_str(), packed.header("content-encoding")), ("packed", "gzip"));
    for path in
        ["/assets/old.js", "/.env", "/link.txt", "/..;/secret.txt", "/app/../../secret.txt", "/%2e%2e/secret.txt"]
    {
        let missing = browser.navigate(path).await;
        assert!(missing.status.is_client_error() && !missing.body.contains("secret"), "{path}: {missing:?}");
    }
    assert_eq!(browser.fetch("/users/7").await.code(), "not_found");
    assert_eq!(browser.navigate("/docs?x=1").await.location(), "/docs/?x=1");
    assert_eq!(browser.navigate("/outer").await.location(), "/outer/");
    let draft = browser.draft(Method::POST, "/users/7").body("x");
    let refused = browser.send(draft).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD"));
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    assert_eq!(browser.fetch("/api/x").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_obey_access_and_bring_the_cookies_of_the_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path(), "access: optional").await;
    let mut browser = world.browser();
    assert!(browser.navigate("/inner/users").await.location().contains("/authorize"));
    assert_eq!(browser.fetch("/inner/film.bin").await.status, StatusCode::UNAUTHORIZED);
    browser.log_in("/inner/").await;
    let page = browser.navigate("/inner/users").await;
    assert!(page.body.contains("<title>App"), "{page:?}");
    // A page that lost its CSRF cookie gets it with the next one, which no cache may give to anybody else then.
    browser.jars.values_mut().for_each(|jar| drop(jar.remove(XSRF)));
    let page = browser.navigate("/").await;
    assert!(page.set_cookies().iter().any(|line| line.starts_with("XSRF-TOKEN=")), "{page:?}");
    assert_eq!(page.header("cache-control"), "private, no-cache");
    assert_eq!(browser.write(Method::POST, "/api/x", "").await.status, StatusCode::OK);
    assert!(browser.cookie(SESSION).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wire_is_as_it_should_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path(), "access: public").await;
    let host = world.proxy.address;
    let mut wire = Wire::connect(host).await;
    let mut exchange = async |method: &str, path: &str, fields: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        wire.send(request).await;
        wire.any_answer(method == "HEAD").await.expect("an answer")
    };
    // All on one connection: each answer ends where it says.
    let whole = exchange("GET", "/film.bin", "").await;
    assert_eq!((whole.status.as_u16(), whole.header("content-length")), (200, "4000000"));
    assert_eq!(whole.header("cache-control"), "no-cache");
    let tag = whole.header("etag").to_owned();
    let head = exchange("HEAD", "/film.bin", "").await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (200, "4000000", 0));
    let known = exchange("GET", "/film.bin", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((known.status.as_u16(), known.header("etag")), (304, tag.as_str()));
    let part = exchange("GET", "/film.bin", "Range: bytes=100000-299999\r\n").await;
    assert_eq!((part.status.as_u16(), part.header("content-range")), (206, "bytes 100000-299999/4000000"));
    assert_eq!(part.header("content-length"), "200000");
    let beyond = exchange("GET", "/film.bin", "Range: bytes=4000000-\r\n").await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */4000000"));
    let page = exchange("GET", "/", "").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "<!doctype html><title>App</title>"));
}
