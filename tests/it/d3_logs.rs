//! D3: what goes wrong is logged without the addresses it went wrong at, for there may be a code or a token in them.

use reqwest::StatusCode;

use crate::harness::{Wishes, World, free_address, logs};
use crate::wire::{Wire, ask};

const CANARY: &str = "canary-5e1f";

/// Lines of ours, and those of Pingora that a server writes by default.
fn told() -> Vec<String> {
    let of_pingora = |line: &str| line.contains(" pingora") && !line.contains("DEBUG") && !line.contains("TRACE");
    logs()
        .lines()
        .filter(|line| line.contains(" cloakroom") || line.contains(" audit") || of_pingora(line))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_neither_query_nor_callback_reach_the_log() {
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: gone, endpoints: [\"{}\"] }}", free_address()),
        routes: "      - { path: /lost-5e1f/, upstream: gone, access: public }".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let home = world.proxy.address;
    let callback = format!("/auth/callback?code={CANARY}&state={CANARY}");
    let request = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: {home}\r\n{fields}\r\n");
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    for (target, fields, status) in [
        (format!("/lost-5e1f/{CANARY}?token={CANARY}"), "", StatusCode::SERVICE_UNAVAILABLE),
        (callback.clone(), "", StatusCode::BAD_REQUEST),
        (callback.clone(), many.as_str(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (format!("/none?code={CANARY}"), "", StatusCode::NOT_FOUND),
    ] {
        let answer = ask(home, request(&target, fields)).await.expect("an answer");
        assert_eq!(answer.status, status, "{target}");
    }
    // A logout token in the wrong place, and one that is none.
    let target = format!("/auth/backchannel-logout?logout_token={CANARY}");
    let form = format!("logout_token={CANARY}.{CANARY}.{CANARY}");
    let fields = format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", form.len());
    let request = format!("POST {target} HTTP/1.1\r\nHost: {home}\r\n{fields}\r\n{form}");
    assert_eq!(ask(home, request).await.expect("an answer").status, StatusCode::BAD_REQUEST);
    // One that goes away in the middle of its body.
    let mut wire = Wire::connect(home).await;
    wire.send(format!("POST {callback} HTTP/1.1\r\nHost: {home}\r\nContent-Length: 9\r\n\r\n123")).await;
    drop(wire);

    let told = told();
    assert!(told.iter().any(|line| line.contains("GET, site 127.0.0.1, route /lost-5e1f")), "the failure is told");
    let leaks: Vec<_> = told.iter().filter(|line| line.contains(CANARY)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
