//! The API over real HTTP.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::Upstream;
use crate::demo::support::{base64url, fingerprint};

fn start() -> (Upstream, Client, String) {
    // Somebody else may have installed it; both are ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let upstream = Upstream::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let base = format!("http://{}", upstream.address());
    (upstream, Client::new(), base)
}

fn token() -> String {
    let claims = r#"{"sub":"a11ce","preferred_username":"alice","exp":1999999999,"realm_access":{"roles":["user"]}}"#;
    format!("{}.{}.{}", base64url("{}"), base64url(claims), base64url("signature"))
}

#[tokio::test]
async fn whoami_tells_who_but_never_the_token() {
    let (upstream, http, base) = start();
    let token = token();
    let request = http.get(format!("{base}/api/whoami")).bearer_auth(&token);
    let request = request.header("cookie", "theme=secret-theme; odd").header("x-copy", format!("<{token}>"));
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(!text.contains(&token) && !text.contains("secret-theme"), "{text}");
    assert!(!text.contains(token.split('.').nth(1).unwrap()), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["user"], "alice");
    assert_eq!(answer["expires_at"], 1_999_999_999);
    assert_eq!(answer["token_fingerprint"], fingerprint(&token));
    assert_eq!(answer["token_fingerprint"].as_str().unwrap().len(), 8);
    assert!(text.contains("theme=(hidden); (hidden)"), "{text}");

    let received = upstream.recorder().last().unwrap();
    assert_eq!(received.bearer(), Some(token.as_str()));
    assert_eq!(received.header("cookie"), Some("theme=secret-theme; odd"));
}

#[tokio::test]
async fn other_credentials_are_hidden_too() {
    let (_upstream, http, base) = start();
    for value in ["Basic c2VjcmV0OnNlY3JldA==", "c2VjcmV0OnNlY3JldA==", "bearer c2VjcmV0OnNlY3JldA==", "Bearer"] {
        for name in ["authorization", "proxy-authorization"] {
            let text = http.get(format!("{base}/x")).header(name, value).send().await.unwrap().text().await.unwrap();
            assert!(!text.contains("c2VjcmV0"), "{name} {value}: {text}");
        }
    }
}

#[tokio::test]
async fn a_stranger_is_nobody() {
    let (_upstream, http, base) = start();
    for odd in ["", "no-jwt", "a.b.c", "a.%%%.c"] {
        let answer = http.get(format!("{base}/api/whoami")).bearer_auth(odd).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(answer["subject"], Value::Null, "{odd}");
    }
}

#[tokio::test]
async fn echo_describes_what_came() {
    let (upstream, http, base) = start();
    let request =
        http.post(format!("{base}/some/%41/path?a=1&a=2")).header("x-twice", "1").header("x-twice", "2").body("hello");
    let answer: Value = serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&answer["method"], &answer["path"], &answer["query"]),
        (&"POST".into(), &"/some/%41/path".into(), &"a=1&a=2".into())
    );
    assert_eq!(answer["body_bytes"], 5);
    let received = upstream.recorder().last().unwrap();
    assert_eq!(received.header_all("x-twice"), ["1", "2"]);
    assert_eq!(&received.body[..], b"hello");
    assert_eq!(upstream.recorder().count(), 1);
}

#[tokio::test]
async fn answers_on_demand() {
    let (_upstream, http, base) = start();
    let status = |code: &str| http.get(format!("{base}/api/status/{code}")).send();
    assert_eq!(status("503").await.unwrap().status(), 503);
    assert_eq!(status("204").await.unwrap().status(), 204);
    for odd in ["100", "99", "1000", "70000", "x"] {
        assert_eq!(status(odd).await.unwrap().status(), 400, "{odd}");
    }
    let cookies = http
        .get(format!("{base}/api/set-cookie?a=1&raw=__Host-session%3Devil%3B%20Secure&b=%0d%0a"))
        .send()
        .await
        .unwrap();
    let lines: Vec<_> = cookies.headers().get_all("set-cookie").iter().collect();
    assert_eq!(lines, ["a=1; Path=/", "__Host-session=evil; Secure"]);
    let header = http.get(format!("{base}/api/set-header?X-User-Context-Update=%7B%7D")).send().await.unwrap();
    assert_eq!(header.headers()["x-user-context-update"], "{}");
    let large = http.get(format!("{base}/api/large?bytes=100001")).send().await.unwrap();
    assert_eq!(large.content_length(), Some(100_001));
    assert_eq!(large.bytes().await.unwrap().len(), 100_001);
    assert_eq!(http.get(format!("{base}/api/large?bytes=99999999999")).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn it_refuses_tokens_when_told() {
    let (upstream, http, base) = start();
    let call = |token: &'static str| {
        let request = http.get(format!("{base}/api/whoami")).bearer_auth(token);
        async move { request.send().await.unwrap().status() }
    };
    upstream.refuse_next(1);
    assert_eq!(call("a").await, StatusCode::UNAUTHORIZED);
    assert_eq!(call("a").await, StatusCode::OK);
    upstream.refuse_token("a");
    assert_eq!(call("a").await, StatusCode::UNAUTHORIZED);
    assert_eq!(call("b").await, StatusCode::OK);
    upstream.stop().await;
    assert!(http.get(&base).send().await.is_err());
    upstream.restart().unwrap();
    assert_eq!(call("b").await, StatusCode::OK);
}

#[tokio::test]
async fn the_page_allows_nothing_inline() {
    let (_upstream, http, base) = start();
    for path in ["/", "/app.js", "/style.css", "/icon.svg"] {
        let answer = http.get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let html = http.get(&base).send().await.unwrap().text().await.unwrap();
    assert!(!html.contains("style=") && !html.contains("onclick") && !html.contains("<style"));
    let script = http.get(format!("{base}/app.js")).send().await.unwrap().text().await.unwrap();
    assert!(!script.contains("innerHTML") && !script.contains("insertAdjacentHTML"));
}
