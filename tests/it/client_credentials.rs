//! Tokens of our own for requests of nobody's (RFC 6749 §4.4): one for all of them, and without one nothing goes upstream.

use cloakroom::demo::Fault;
use cloakroom::demo::provider::{Endpoint, Recorded};
use reqwest::header::ORIGIN;
use reqwest::{Client, Method, StatusCode};

use crate::harness::{Wishes, World, eventually};
use crate::kit::*;

const ROUTES: &str = r#"
      - { path: /open/, upstream: demo, access: public, token: { kind: client_credentials, audience: catalogue, scope: [read, list] } }
      - { path: /also/, upstream: demo, access: public, token: { kind: client_credentials, audience: catalogue, scope: [read, list] } }
      - { path: /maybe/, upstream: demo, access: optional, token: { kind: client_credentials, resource: "https://maybe.example.com/" } }
      - { path: /app/, upstream: demo, access: optional, accept: [bearer], token: { kind: client_credentials, audience: catalogue } }
      - { path: /plain/, upstream: demo, access: public }
      - { path: /back/, upstream: demo, access: optional, level: returning, token: { kind: client_credentials, audience: back } }
      - { path: /, upstream: demo }
"#;

const SERIES: &str = "cloakroom_upstream_tokens_total{kind=\"client_credentials\",provider=\"demo\",result=\"ok\"";
const UNAVAILABLE: &str =
    "cloakroom_upstream_tokens_total{kind=\"client_credentials\",provider=\"demo\",result=\"unavailable\"";

const SITE: &str = "    bearer: { audiences: [demo-api] }";

/// Our own tokens live for a minute, and are replaced twenty seconds before that.
async fn start() -> World {
    let (routes, site) = (ROUTES.into(), SITE.into());
    world(Wishes { routes, site, refresh: "{ ahead: 20s }".into(), ..ticking() }).await
}

/// What the provider was asked for, refused requests too.
fn asked(world: &World) -> Vec<Recorded> {
    let all = world.demo.provider.ledger().requests(Endpoint::Token);
    all.into_iter().filter(|request| request.parameter("grant_type") == Some("client_credentials")).collect()
}

async fn strangers(world: &World, path: &str, count: usize) -> Vec<StatusCode> {
    let (client, url) =
        (Client::builder().no_proxy().build().expect("client"), format!("{}{path}", world.browser().origin()));
    let calls = (0..count).map(|_| async { client.get(&url).send().await.expect("an answer").status() });
    futures::future::join_all(calls).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_requests_bring_one_token_of_ours_and_a_users_bring_the_users() {
    let world = start().await;
    for path in ["/open/x", "/open/y", "/also/z"] {
        let mut guest = world.browser();
        let draft = guest.draft(Method::GET, path).header("authorization", "Bearer mine");
        let answer = guest.send(draft).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert!(answer.set_cookies().is_empty());
    }
    let [request] = &asked(&world)[..] else { panic!("one for all of them") };
    assert_eq!((request.parameter("audience"), request.parameter("scope")), (Some("catalogue"), Some("read list")));
    assert_eq!((request.parameter("resource"), request.parameter("subject_token")), (None, None));
    assert!(request.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
    let ours = relayed(&world);
    assert!(ours.split('.').count() == 3 && ours != "mine");
    let mut guest = world.browser();
    guest.fetch("/maybe/x").await;
    assert_ne!(relayed(&world), ours, "another target");
    guest.fetch("/plain/x").await;
    assert_eq!(world.demo.upstream.recorder().last().expect("a request").bearer(), None);

    let mut browser = world.logged_in().await;
    browser.fetch("/maybe/x").await;
    assert_eq!(relayed(&world), newest(&world).access_token);
    browser.fetch("/open/x").await;
    assert_eq!(relayed(&world), ours, "a public route knows no user");
    let token = newest(&world).access_token;
    let draft = guest.draft(Method::GET, "/app/x").header("authorization", &format!("Bearer {token}"));
    guest.send(draft).await;
    assert_eq!(relayed(&world), token);
    guest.fetch("/app/x").await;
    assert_ne!(relayed(&world), token);
    assert_eq!(asked(&world).len(), 3);

    // What is answered to a preflight is for everybody to read.
    let draft = guest.draft(Method::OPTIONS, "/open/x").header(ORIGIN.as_str(), "https://a.example");
    guest.send(draft.header("access-control-request-method", "GET")).await;
    let last = world.demo.upstream.recorder().last().expect("a request");
    assert_eq!((last.method.as_str(), last.bearer()), ("OPTIONS", None));
    assert_eq!(world.metric(SERIES).await, 3.0);
    // Other settings change nothing about it.
    world.proxy.reload("path: /plain/", "path: /simple/").await.expect("applied");
    guest.fetch("/open/x").await;
    assert_eq!((relayed(&world), asked(&world).len()), (ours, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_strangers_are_one_call() {
    let world = start().await;
    let gate = hold_tokens(&world, false);
    let (statuses, ()) = tokio::join!(strangers(&world, "/open/x", 50), async {
        let waiting = || async { world.metric("cloakroom_upstream_token_waiters{").await >= 50.0 };
        eventually("all of them wait", waiting).await;
        gate.open();
    });
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!(asked(&world).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_replaced_ahead_of_its_end_and_nobody_waits_for_it() {
    let world = start().await;
    let mut guest = world.browser();
    guest.fetch("/open/x").await;
    let first = relayed(&world);
    world.clock.advance(secs(39));
    guest.fetch("/open/x").await;
    assert_eq!((relayed(&world), asked(&world).len()), (first.clone(), 1));
    // Twenty seconds are left: the provider takes its time, and requests go on with the old one.
    let gate = hold_tokens(&world, false);
    world.clock.advance(secs(2));
    for _ in 0..5 {
        assert_eq!(guest.fetch("/open/x").await.status, StatusCode::OK);
        assert_eq!(relayed(&world), first);
    }
    gate.arrived(1).await;
    assert!(strangers(&world, "/open/x", 20).await.iter().all(|status| *status == StatusCode::OK));
    gate.open();
    eventually("the new one is there", || async {
        strangers(&world, "/open/x", 1).await;
        relayed(&world) != first
    })
    .await;
    assert_eq!(asked(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_use_is_replaced_though_nobody_asks_just_then() {
    let world = start().await;
    let mut guest = world.browser();
    guest.fetch("/open/x").await;
    guest.fetch("/maybe/x").await;
    // One after the other, each before its end: whoever comes next finds one that is new.
    for (calls, counted) in [(4, 4.0), (6, 6.0), (8, 8.0)] {
        let old = relayed(&world);
        world.clock.advance(secs(41));
        eventually("both are replaced", || async { world.metric(SERIES).await >= counted }).await;
        guest.fetch("/maybe/x").await;
        assert_ne!(relayed(&world), old);
        assert_eq!(asked(&world).len(), calls, "nobody had to ask");
    }
    // A provider that wants to be left alone is, and the old token serves meanwhile.
    token_fault(&world, Fault::retry_after(503, 30));
    world.clock.advance(secs(41));
    let calls = world.demo.provider.ledger().count(Endpoint::Token);
    eventually("it is tried", || async { world.metric(UNAVAILABLE).await >= 1.0 }).await;
    assert_eq!(guest.fetch("/maybe/x").await.status, StatusCode::OK);
    assert!(world.demo.provider.ledger().count(Endpoint::Token) <= calls + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_costs_nothing_while_the_token_lives_and_503_afterwards() {
    let world = start().await;
    let mut guest = world.browser();
    guest.fetch("/open/x").await;
    let first = relayed(&world);
    token_fault(&world, Fault::status(503));
    for after in [41, 10, 5] {
        world.clock.advance(secs(after));
        assert_eq!(guest.fetch("/open/x").await.status, StatusCode::OK);
        assert_eq!(relayed(&world), first, "{after}");
    }
    world.demo.upstream.recorder().clear();
    world.clock.advance(REST);
    for _ in 0..5 {
        assert_not_now(&guest.fetch("/open/x").await, "provider_unavailable");
    }
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    heal(&world);
    world.clock.advance(secs(2));
    assert_eq!(guest.fetch("/open/x").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_ours_and_not_the_strangers() {
    for code in ["access_denied", "invalid_scope", "unauthorized_client", "invalid_request"] {
        let world = start().await;
        world.demo.provider.switches().set(|switch| switch.refuse_service_tokens = Some(code.into()));
        let mut guest = world.browser();
        for _ in 0..5 {
            let answer = guest.fetch("/open/x").await;
            assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_token_refused"), "{code}");
        }
        assert_eq!((asked(&world).len(), world.demo.upstream.recorder().count()), (1, 0), "{code}");
        assert_eq!(world.metric("cloakroom_audit_events_total{event=\"upstream_token_refused\"}").await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_upstream_that_refuses_our_token_gets_another_once() {
    let world = start().await;
    let mut guest = world.browser();
    guest.fetch("/open/x").await;
    let refused = relayed(&world);
    world.demo.upstream.refuse_token(&refused);
    assert!(strangers(&world, "/open/x", 20).await.iter().all(|status| *status == StatusCode::OK));
    assert_ne!(relayed(&world), refused);
    world.demo.upstream.refuse_next(usize::MAX);
    for _ in 0..5 {
        assert_eq!(guest.fetch("/open/x").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(asked(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_only_returns_is_nobody_in_particular() {
    let session = "  returning_timeout: 30d\n  returning_tokens: keep".into();
    let world = world(Wishes { routes: ROUTES.into(), site: SITE.into(), session, ..ticking() }).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/back/x").await;
    assert_eq!((relayed(&world), asked(&world).len()), (newest(&world).access_token, 0));
    world.clock.advance(secs(3_600));
    assert_eq!(browser.fetch("/back/x").await.status, StatusCode::OK);
    assert_ne!(relayed(&world), newest(&world).access_token);
    assert_eq!(asked(&world).len(), 1);
}
