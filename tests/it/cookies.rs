//! S2–S6, S10, S12: our cookies stay between the browser and us, the others pass as they came.

use http::Request;
use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, Seen, World, XSRF};
use crate::wire::{H2, ask};

async fn world() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

fn get(world: &World, path: &str, cookie_lines: &[&str]) -> String {
    let lines: String = cookie_lines.iter().map(|line| format!("Cookie: {line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{lines}\r\n", world.proxy.address)
}

async fn raw(world: &World, path: &str, cookie_lines: &[&str]) -> Seen {
    ask(world.proxy.address, get(world, path, cookie_lines)).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_s10_attributes_are_exact_when_set_and_when_cleared() {
    let world = world().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    let login = browser.received.first().expect("an answer").set_cookies();
    let binding = browser.cookie(LOGIN).expect("a binding");
    assert_eq!(login, [format!("{LOGIN}={binding}; HttpOnly; SameSite=Lax; Secure; Path=/")]);

    let page = browser.navigate(&callback).await;
    let (session, token) = (browser.cookie(SESSION).expect("a session"), browser.cookie(XSRF).expect("a token"));
    assert!(session.len() <= 64 && token.len() <= 64);
    let expected = [
        format!("{SESSION}={session}; HttpOnly; SameSite=Strict; Secure; Path=/"),
        format!("{XSRF}={token}; SameSite=Strict; Secure; Path=/"),
    ];
    assert_eq!(page.set_cookies(), expected);

    let out = browser.write(Method::POST, "/auth/logout", "").await;
    let expected = [
        format!("{SESSION}=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0"),
        format!("{XSRF}=; SameSite=Strict; Secure; Path=/; Max-Age=0"),
    ];
    assert_eq!(out.set_cookies(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_ours_never_reach_an_upstream_and_foreign_ones_pass_in_order() {
    let world = world().await;
    let browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    let session = browser.cookie(SESSION).expect("a session");
    let ours = format!("{SESSION}={session}; {XSRF}=t; {LOGIN}=b");
    let cases = [
        (ours.clone(), None),
        (format!("z=1; {ours}; a=\"x y\"; odd; a=2; e="), Some("z=1; a=\"x y\"; odd; a=2; e=")),
        (format!("a=1;{ours};b=2"), Some("a=1; b=2")),
        (format!("  {ours}  ;; b==c"), Some("b==c")),
        (
            format!("x{SESSION}=1; {ours}; __host-session=2; xsrf-token=3"),
            Some("x__Host-session=1; __host-session=2; xsrf-token=3"),
        ),
    ];
    for path in ["/open/x", "/maybe/x", "/api/x", "/bare/x", "/small/x"] {
        for (line, foreign) in &cases {
            let before = recorder.count();
            assert_eq!(raw(&world, path, &[line]).await.status, StatusCode::OK, "{path} {line}");
            assert_eq!(recorder.count(), before + 1);
            let received = recorder.last().expect("a request");
            assert_eq!(received.header_all("cookie"), foreign.iter().copied().collect::<Vec<_>>(), "{path} {line}");
            let all = format!("{:?}", received.headers);
            assert!(!all.contains(session), "{path} {line}");
        }
        let untouched = "a=1;b=2 ;  c=\"3\"";
        let status = raw(&world, path, &[untouched]).await.status;
        if status == StatusCode::OK {
            assert_eq!(recorder.last().expect("a request").header_all("cookie"), [untouched]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_s12_odd_session_cookies_are_no_session_and_nothing_is_cleared() {
    let world = world().await;
    let browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    let id = browser.cookie(SESSION).expect("a session").to_owned();
    let cut = &id[..42];
    // The last character of 43 carries two bits of padding: its neighbour decodes to the same bytes for a lax decoder.
    let last = id.chars().last().expect("a character");
    let alias = (b'A'..=b'z').map(char::from).find(|c| *c as u32 == last as u32 + 1).unwrap_or('_');
    let odd = [
        String::new(),
        cut.to_owned(),
        format!("{id}A"),
        format!("{id}="),
        format!("{cut}{alias}"),
        format!("\"{id}\""),
        format!(" x{cut}"),
        id.to_lowercase(),
        "%00".into(),
        "null".into(),
        "18446744073709551615".into(),
        "A".repeat(43),
        "A".repeat(16 * 1024),
        "\u{e9}\u{fffd}".into(),
    ];
    for value in &odd {
        let line = format!("{SESSION}={value}");
        let shown: String = line.chars().take(80).collect();
        for path in ["/api/x", "/"] {
            let answer = raw(&world, path, &[&line]).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{path} {shown}");
            assert!(answer.set_cookies().is_empty(), "{answer:?}");
        }
        let state = raw(&world, "/auth/session", &[&line]).await;
        assert_eq!(state.json()["authenticated"], false);
        assert!(state.set_cookies().is_empty(), "{state:?}");
        let answer = raw(&world, "/maybe/x", &[&line]).await;
        assert!(answer.status == StatusCode::OK && answer.set_cookies().is_empty(), "{answer:?}");
        assert!(recorder.last().is_some_and(|received| received.bearer().is_none()), "{shown}");
    }
    let before = recorder.count();
    let (good, bad) = (format!("{SESSION}={id}"), format!("{SESSION}={}", "A".repeat(43)));
    let doubled = [
        vec![format!("{good}; {good}")],
        vec![format!("{good}; {bad}")],
        vec![format!("{bad}; a=1; {good}")],
        vec![good.clone(), good.clone()],
        vec![format!("{SESSION}=; {good}")],
        vec![format!("{SESSION}; {good}")],
    ];
    for lines in doubled {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let answer = raw(&world, "/api/x", &lines).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{lines:?}");
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
    }
    assert_eq!(recorder.count(), before);
    assert_eq!(raw(&world, "/api/x", &[&good]).await.status, StatusCode::OK, "the session itself still lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_split_fields_are_read_and_forwarded_as_one() {
    let world = world().await;
    let browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    let ours = format!("{SESSION}={}", browser.cookie(SESSION).expect("a session"));
    let connection = H2::connect(world.proxy.address).await;
    for (path, lines, foreign) in [
        ("/api/x", vec!["z=1", &ours, "a=2", "b=3"], "z=1; a=2; b=3"),
        ("/api/x", vec![&ours, "z=1; y=0", "a=2"], "z=1; y=0; a=2"),
        ("/open/x", vec!["z=1", "a=2"], "z=1; a=2"),
        ("/open/x", vec!["z=1", &ours, "a=2"], "z=1; a=2"),
    ] {
        let before = recorder.count();
        let mut request = Request::get(format!("http://{}{path}", world.proxy.address));
        for line in &lines {
            request = request.header("cookie", *line);
        }
        let answer = connection.ask(request.body(()).expect("a request"), &[], None).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{path} {lines:?}");
        assert_eq!(raw(&world, path, &lines).await.status, StatusCode::OK, "{path} {lines:?}");
        let all = recorder.all();
        assert_eq!(all.len(), before + 2);
        for received in &all[before..] {
            assert_eq!(received.header_all("cookie"), [foreign], "{path} {lines:?}");
            assert_eq!(received.bearer().is_some(), path == "/api/x");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_an_upstream_cannot_set_cookies_of_our_names() {
    let world = world().await;
    let mut browser = world.logged_in().await;
    let session = browser.cookie(SESSION).map(str::to_owned);
    let lines = [
        "first=1; Path=/; HttpOnly",
        "__Host-session=evil; Path=/; Secure",
        "second=2",
        "XSRF-TOKEN=evil; Path=/",
        "  __Host-login = evil",
        "=XSRF-TOKEN=evil",
        "= __Host-session=evil",
        "XSRF-TOKEN",
        "__Host-session=; Max-Age=0",
        "x__Host-session=3; Path=/",
        "third=__Host-session",
    ];
    let query: Vec<String> = lines.iter().map(|line| format!("raw={}", percent(line))).collect();
    for path in ["/api/set-cookie", "/stripped/api/set-cookie"] {
        let answer = browser.fetch(&format!("{path}?{}", query.join("&"))).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let kept = ["first=1; Path=/; HttpOnly", "second=2", "x__Host-session=3; Path=/", "third=__Host-session"];
        assert_eq!(answer.set_cookies(), kept);
    }
    assert_eq!(browser.cookie(SESSION).map(str::to_owned), session);
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
