//! H4, H5: one canonical path decides and is forwarded; nothing beside host, method and path decides.

use std::collections::BTreeSet;

use reqwest::StatusCode;

use crate::harness::{Seen, Wishes, World};
use crate::wire::{Wire, ask};

/// A public site with one locked room in it, all on one upstream: the worst case for a path that two parsers read
/// differently.
async fn world() -> World {
    let routes = r#"
      - { path: /, upstream: demo, access: public }
      - { path: /locked/, upstream: demo, access: required }
      - { path: /locked/lobby/, upstream: demo, access: public }
      - { path: /cut/deep/, upstream: demo, access: public, strip_prefix: /cut }
"#;
    let world = World::with(Wishes { routes: routes.into(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    world
}

async fn get(world: &World, target: &[u8]) -> Option<Seen> {
    let host = world.proxy.address.to_string();
    let head = [b"GET ", target, b" HTTP/1.1\r\nHost: ", host.as_bytes(), b"\r\nConnection: close\r\n\r\n"].concat();
    ask(world.proxy.address, head).await
}

/// Ways to write paths that reach into `/locked` for one server or another.
fn corpus() -> BTreeSet<Vec<u8>> {
    let slashes = ["/", "//", "/./", "/%2e/", "\\", "%2f", "%5c", "/;/", "/;x=1/", "/.;/", "%2F%2f", "/%20/", "/\t/"];
    let ups =
        ["..", "%2e%2e", ".%2e", "%2E.", "..;", "..;x", "..%00", "%252e%252e", "...", "%c0%ae%c0%ae", "..%20", "..%3b"];
    let rooms = [
        "locked",
        "%6cocked",
        "l%6Fcked",
        "locked;v=1",
        "locked%3bv",
        ";v/locked",
        "./locked",
        "locked%00",
        "locked.",
        "LOCKED",
        "locked%2e",
    ];
    let mut all: BTreeSet<String> = BTreeSet::new();
    for slash in slashes {
        for room in rooms {
            all.insert(format!("{slash}{room}{slash}secret"));
            all.insert(format!("/{room}{slash}secret"));
        }
        for up in ups {
            all.insert(format!("/open{slash}{up}{slash}locked/secret"));
            all.insert(format!("/locked/lobby/{up}{slash}secret"));
        }
    }
    for tail in [
        "",
        "/",
        "?x",
        "#x",
        "/#/../..",
        "#/../../open",
        "?/../open",
        "%3f/../open",
        "/..%3f",
        "%23",
        "/.",
        "/..",
        "/%2e",
    ] {
        all.insert(format!("/locked{tail}"));
        all.insert(format!("/locked/secret{tail}"));
        all.insert(format!("/open/../locked/secret{tail}"));
    }
    let mut all: BTreeSet<Vec<u8>> = all.into_iter().map(String::into_bytes).collect();
    for odd in [
        &b"/locked/\xff"[..],
        b"/\xfflocked/secret",
        b"/op\x01en/../locked/x",
        b"/o/\xc0\xaf../locked/x",
        b"/locked\x7f/x",
        b"*",
        b"locked/x",
        b"/../locked",
    ] {
        all.insert(odd.to_vec());
    }
    all
}

/// How servers read a path: each of them decodes once; some cut `;` parameters, some take `\` for `/`.
fn readings(path: &str) -> Vec<String> {
    let without = |path: &str| {
        path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect::<Vec<_>>().join("/")
    };
    let decoded_first = without(&path.replace("%3B", ";").replace("%3b", ";"));
    let mut all = Vec::new();
    for form in [path.to_owned(), without(path), decoded_first] {
        let decoded = percent_encoding::percent_decode_str(&form).decode_utf8_lossy().into_owned();
        for form in [form, decoded.replace('\\', "/"), decoded] {
            let mut kept: Vec<&str> = Vec::new();
            for segment in form.split('/') {
                match segment {
                    "" | "." => {}
                    ".." => drop(kept.pop()),
                    other => kept.push(other),
                }
            }
            all.push(format!("/{}", kept.join("/")));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn h4_no_way_of_writing_a_path_opens_a_locked_route() {
    let world = world().await;
    let recorder = world.demo.upstream.recorder();
    let (corpus, mut passed) = (corpus(), 0);
    assert!(corpus.len() >= 400, "{}", corpus.len());
    for target in &corpus {
        let shown = target.escape_ascii().to_string();
        let before = recorder.count();
        let Some(answer) = get(&world, target).await else { continue };
        let reached = recorder.count() - before;
        match answer.status.as_u16() {
            200 => {
                passed += 1;
                assert_eq!(reached, 1, "{shown}");
                let path = recorder.last().expect("a request").path;
                for reading in readings(&path) {
                    let locked = reading == "/locked" || reading.starts_with("/locked/");
                    let lobby = reading == "/locked/lobby" || reading.starts_with("/locked/lobby/");
                    assert!(!locked || lobby, "{shown} went upstream as {path}, which may be read as {reading}");
                }
                let canonical = cloakroom::primitives::path::canonical(&path).expect("canonical").into_owned();
                assert_eq!(canonical, path, "{shown} is forwarded in one form");
            }
            400 | 401 => assert_eq!(reached, 0, "{shown}"),
            other => panic!("{shown}: {other}"),
        }
    }
    assert!(passed > 20, "{passed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h4_the_forwarded_path_is_the_canonical_one() {
    let world = world().await;
    let recorder = world.demo.upstream.recorder();
    for (target, forwarded) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("//a///b", "/a/b"),
        ("/%61%2D%7e", "/a-~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/100%25", "/100%25"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a%3Bb", "/a%3Bb"),
        ("/x/..", "/"),
        ("/lockedx/y", "/lockedx/y"),
        ("/locked/lobby", "/locked/lobby"),
        ("/locked/x/../lobby/z", "/locked/lobby/z"),
        ("/cut/deep", "/deep"),
        ("/cut/deep/", "/deep/"),
        ("/cut/deep/x/../y", "/deep/y"),
        ("/cut/deeper", "/cut/deeper"),
        ("/cut", "/cut"),
    ] {
        for query in ["", "?", "?a=1&b=%2F..%2f&c=//../\\|{}[]^`é&&=;"] {
            let line = format!("{target}{query}");
            let answer = get(&world, line.as_bytes()).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{line}");
            let received = recorder.last().expect("a request");
            assert_eq!(received.path, forwarded, "{line}");
            let sent = query.strip_prefix('?');
            assert_eq!(received.query.as_deref(), sent, "{line}");
        }
    }
    for target in [
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%00b",
        "/..",
        "/a/../..",
        "/%2e%2e/",
        "/%",
        "/%zz",
        "/%0d%0aX:%201",
        "/x/..;/y",
        "*",
        "/a#b",
        "/a?x=1#b",
        "/#",
    ] {
        let before = recorder.count();
        let answer = get(&world, target.as_bytes()).await.expect("an answer");
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad_request"), "{target}");
        assert_eq!(recorder.count(), before, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h4_absolute_form_is_the_same_request() {
    let world = world().await;
    let (recorder, host) = (world.demo.upstream.recorder(), world.proxy.address.to_string());
    for (target, status, path) in [
        ("/a/b?q=1", 200, "/a/b"),
        ("/a/../c?q=1", 200, "/c"),
        ("?q=1", 200, "/"),
        ("/cut/deep/x?q=1", 200, "/deep/x"),
        ("/locked/x?q=1", 401, ""),
        ("/open/../locked/x?q=1", 401, ""),
    ] {
        let before = recorder.count();
        let answer = get(&world, format!("http://{host}{target}").as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(recorder.count() - before, usize::from(status == 200));
        if status == 200 {
            let received = recorder.last().expect("a request");
            assert_eq!((received.path.as_str(), received.query.as_deref()), (path, Some("q=1")), "{target}");
            assert_eq!(received.header("host"), Some(host.as_str()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_query_user_agent_and_other_headers_never_change_the_decision() {
    let world = world().await;
    let (recorder, host) = (world.demo.upstream.recorder(), world.proxy.address);
    let mut wire = Wire::connect(host).await;
    let agents = ["", "Mozilla/5.0", "curl/8", "Googlebot/2.1", "kube-probe/1.30", "ELB-HealthChecker/2.0"];
    let headers = [
        "X-Skip-Auth: 1",
        "X-Original-URL: /open",
        "X-Forwarded-Uri: /open",
        "X-Auth-Request-Redirect: /open",
        "Referer: /open",
        "X-Requested-With: XMLHttpRequest",
        "Accept: application/json",
        "Sec-Fetch-Mode: cors",
    ];
    let mut state = 0x9e37_79b9_u32;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    let signs: Vec<char> = (33..127_u8).map(char::from).filter(|sign| !"#\"<>".contains(*sign)).collect();
    for round in 0..300 {
        let query: String = (0..random(40)).map(|_| signs[random(signs.len())]).collect();
        let query = match round % 4 {
            0 => format!("/open/{query}"),
            1 => format!("path=/open/&access=public&{query}"),
            _ => query,
        };
        for (path, status) in [("/locked/x", 401), ("/open/x", 200)] {
            let before = recorder.count();
            let (agent, header) = (agents[random(agents.len())], headers[random(headers.len())]);
            wire.send(format!(
                "GET {path}?{query} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{header}\r\n\r\n"
            ))
            .await;
            let answer = wire.answer().await.expect("an answer");
            assert_eq!(answer.status, status, "{path}?{query} {agent} {header}");
            assert_eq!(recorder.count() - before, usize::from(status == 200));
            if status == 200 {
                let received = recorder.last().expect("a request");
                assert_eq!((received.path.as_str(), received.query.as_deref()), (path, Some(query.as_str())));
            }
        }
    }
}
