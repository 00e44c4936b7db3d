//! H1, H3, H8, C4: identity headers are ours alone, whatever a client sends and however it spells it.

use std::collections::BTreeSet;

use cloakroom::demo::provider::{ProviderConfig, User};
use http::Request;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Wishes, World};
use crate::wire::{H2, Peer, Wire, ask, h2c_client};

const EVIL: &str = "evil-7f3a";
const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";

/// Names that must never reach an upstream with a client's value.
const NAMES: [&str; 24] = [
    "Authorization",
    "X-User-Id",
    "X-User-Name",
    "X-User-Roles",
    "X-User-Context",
    "X-User-Context-Update",
    "Cloakroom-Error",
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Forwarded-Access-Token",
    "X-Real-IP",
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
    "True-Client-IP",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
];

/// The spellings that one server or another takes for the same name.
fn spellings(name: &str) -> BTreeSet<String> {
    let first_only = name.replacen('-', "_", 1);
    let last_only = name.rsplit_once('-').map_or_else(|| name.to_owned(), |(head, tail)| format!("{head}_{tail}"));
    let mixed: String = name
        .chars()
        .enumerate()
        .map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    [
        name.to_owned(),
        name.to_lowercase(),
        name.to_uppercase(),
        mixed,
        name.replace('-', "_"),
        name.to_uppercase().replace('-', "_"),
        name.replace('-', "."),
        name.replace('-', "+"),
        first_only,
        last_only,
    ]
    .into()
}

/// A request with each spelling twice, and the cookie of the browser if it has one.
fn hostile(name: &str, path: &str, browser: &Browser) -> String {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", browser.home);
    for spelling in spellings(name) {
        for value in [EVIL, "Bearer evil-7f3a"] {
            text += &format!("{spelling}: {value}\r\n");
        }
    }
    if let Some(session) = browser.cookie(SESSION) {
        text += &format!("Cookie: {SESSION}={session}\r\n");
    }
    text + "\r\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_no_spelling_of_a_strangers_header_arrives_over_http1_and_http2() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let (mut alice, mut nobody) = (world.logged_in().await, world.browser());
    let recorder = world.demo.upstream.recorder();
    for (path, with_session) in
        [("/open/x", false), ("/open/x", true), ("/maybe/x", false), ("/maybe/x", true), ("/api/x", true)]
    {
        for name in NAMES {
            let browser = if with_session { &mut alice } else { &mut nobody };
            let before = recorder.count();
            let answer = ask(browser.home, hostile(name, path, browser)).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{name} {path}");
            browser.client = h2c_client();
            let mut draft = browser.draft(Method::GET, path);
            for spelling in spellings(name) {
                draft = draft.header(&spelling, EVIL).header(&spelling, EVIL);
            }
            assert_eq!(browser.send(draft).await.status, StatusCode::OK, "{name} {path}");
            assert_eq!(recorder.count(), before + 2);
            for received in recorder.all().iter().rev().take(2) {
                let evil: Vec<_> = received.headers.iter().filter(|(_, value)| value.contains(EVIL)).collect();
                assert!(evil.is_empty(), "{path} {name}: {evil:?}");
                let id = (path == "/api/x").then_some(ALICE);
                assert_eq!(received.header_all("x-user-id"), id.into_iter().collect::<Vec<_>>());
                assert_eq!(received.header_all("x-forwarded-for"), ["127.0.0.1"]);
                let tokens = usize::from(with_session && path != "/open/x");
                assert_eq!(received.header_all("authorization").len(), tokens, "{path} {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_trailers_bring_no_identity() {
    let peer = Peer::recorder().await;
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: raw, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /, upstream: raw, access: optional, identity_headers: { X-User-Id: sub } }".into(),
        ..Wishes::default()
    })
    .await;
    let home = world.proxy.address;
    let trailing = format!(
        "POST /x HTTP/1.1\r\nHost: {home}\r\nTransfer-Encoding: chunked\r\nTrailer: X-User-Id\r\nConnection: close\r\n\r\n\
         3\r\nabc\r\n0\r\nX-User-Id: {EVIL}\r\nAuthorization: {EVIL}\r\n\r\n"
    );
    assert_eq!(ask(home, trailing).await.expect("an answer").status, StatusCode::OK);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-user-id", HeaderValue::from_static(EVIL));
    let request = Request::post(format!("http://{home}/x")).body(()).expect("a request");
    let answer = H2::connect(home).await.ask(request, &[b"abc"], Some(trailers)).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
    let seen = peer.seen().concat();
    assert_eq!(seen.matches("abc").count(), 2, "{seen}");
    assert!(!seen.contains(EVIL), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h3_the_connection_header_nominates_nothing_of_ours_away() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let browser = world.logged_in().await;
    let recorder = world.demo.upstream.recorder();
    let session = browser.cookie(SESSION).expect("a session");
    for nominated in ["X-User-Id", "Authorization", "X-User-Id, Authorization, X-User-Roles", "Cookie", "X-Real-IP"] {
        let before = recorder.count();
        let request = format!(
            "GET /api/x HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={session}; a=1\r\nConnection: close, {nominated}\r\n\r\n",
            browser.home
        );
        let answer = ask(browser.home, request).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{nominated}");
        assert_eq!(recorder.count(), before + 1);
        let received = recorder.last().expect("a request");
        assert!(received.bearer().is_some(), "{nominated}");
        assert_eq!(received.header("x-user-id"), Some(ALICE), "{nominated}");
        assert_eq!(received.header("x-user-roles"), Some("user,admin"), "{nominated}");
        assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"), "{nominated}");
    }
    for nominated in ["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"] {
        let before = recorder.count();
        let request =
            format!("GET /open/x HTTP/1.1\r\nHost: {}\r\nConnection: close, {nominated}\r\n\r\n", browser.home);
        let answer = ask(browser.home, request).await.expect("an answer");
        assert_eq!((answer.status, recorder.count()), (StatusCode::BAD_REQUEST, before), "{nominated}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h8_claims_that_are_no_header_values_are_encoded_or_left_out() {
    let bad = |name: &str, claim: &str| User {
        login: name.into(),
        subject: format!("subject-of-{name}"),
        name: claim.into(),
        email: "x@example.com".into(),
        roles: vec!["user\r\nX-Evil: 1".into()],
    };
    let mallory = "x\r\nX-Evil: 1\r\nX-User-Id: root";
    let users = vec![
        User::alice(),
        bad("mallory", mallory),
        bad("nul", "a\0b"),
        bad("tab", "a\u{7f}b"),
        bad("lf", "a\nX-Evil: 1"),
    ];
    let world =
        World::with(Wishes { provider: ProviderConfig { users, ..ProviderConfig::default() }, ..Wishes::default() })
            .await;
    world.proxy.knows_provider().await;
    let recorder = world.demo.upstream.recorder();

    let mut alice = world.logged_in().await;
    assert_eq!(alice.fetch("/api/x").await.status, StatusCode::OK);
    let received = recorder.last().expect("a request");
    assert_eq!(received.header("x-user-name"), Some("Alice %C3%86r%C3%B8"));
    assert_eq!(received.header("x-user-id"), Some(ALICE));

    for login in ["mallory", "nul", "tab", "lf"] {
        world.demo.provider.switches().auto_login(login);
        let mut browser = world.logged_in().await;
        let draft = browser.draft(Method::GET, "/api/x").header("x-user-name", "root").header("x-user-roles", "root");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK, "{login}");
        let received = recorder.last().expect("a request");
        assert_eq!(received.header("x-user-id"), Some(format!("subject-of-{login}").as_str()));
        for absent in ["x-evil", "x-user-name", "x-user-roles"] {
            assert_eq!(received.header(absent), None, "{login} {absent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_error_mark_cannot_be_forged_by_an_upstream() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let mut browser = world.logged_in().await;
    let query = "Cloakroom-Error=session_missing&cloakroom-error=twice&X-Other=kept";
    let answer = browser.fetch(&format!("/api/set-header?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!answer.headers.contains_key("cloakroom-error"), "{answer:?}");
    assert_eq!(answer.header("x-other"), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_request_that_asks_for_an_echo_is_refused() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    let browser = world.logged_in().await;
    let session = browser.cookie(SESSION).expect("a session");
    for method in ["TRACE", "trace", "tRaCe", "TRACK", "track"] {
        let mut wire = Wire::connect(browser.home).await;
        let home = browser.home;
        let request = format!("{method} /api/x HTTP/1.1\r\nHost: {home}\r\nCookie: {SESSION}={session}\r\n\r\n");
        let answer = wire.exchange(request).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"), "{method}");
        let h2 = H2::connect(home).await;
        let method = http::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = http::Request::builder().method(method).uri(format!("http://{home}/api/x"));
        let answer = h2.ask(request.body(()).expect("a request"), &[], None).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}
