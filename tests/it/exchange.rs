//! A6: a route gets the token that the user's is exchanged for (RFC 8693, RFC 8707), and without one nothing goes upstream.

use cloakroom::demo::provider::{Endpoint, Recorded};
use cloakroom::demo::{Fault, Gate};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Wishes, World, eventually, logs};
use crate::kit::*;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

const ROUTES: &str = r#"
      - { path: /orders/, upstream: demo, token: { kind: exchange, audience: orders-api, scope: ["orders:read", "orders:write"] } }
      - { path: /also/, upstream: demo, token: { kind: exchange, audience: orders-api, scope: ["orders:read", "orders:write"] } }
      - { path: /stock/, upstream: demo, token: { kind: exchange, resource: "https://stock.example.com/v1" } }
      - { path: /maybe/, upstream: demo, access: optional, token: { kind: exchange, audience: maybe-api } }
      - { path: /app/, upstream: demo, accept: [session, bearer], token: { kind: exchange, audience: orders-api } }
      - { path: /ruled/, upstream: demo, token: { kind: exchange, audience: ruled-api }, allow: [{ name: nobody, claim: realm_access.roles, any_of: [nobody] }] }
      - { path: /back/, upstream: demo, level: returning, token: { kind: exchange, audience: back-api } }
      - { path: /, upstream: demo }
"#;

/// Tokens that last, under a clock of ours.
async fn lasting() -> World {
    world(Wishes { provider: lasting_tokens(), ..wishes() }).await
}

fn wishes() -> Wishes {
    Wishes { routes: ROUTES.into(), site: "    bearer: { audiences: [demo-api] }".into(), ..ticking() }
}

/// The exchanges that the provider was asked for, refused ones too.
fn exchanges(world: &World) -> Vec<Recorded> {
    let all = world.demo.provider.ledger().requests(Endpoint::Token);
    all.into_iter().filter(|request| request.parameter("grant_type") == Some(GRANT)).collect()
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).expect("a JWT");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("claims")
}

/// From now on the provider refuses them with this error, or gives them again.
fn refuse(world: &World, code: Option<&str>) {
    world.demo.provider.switches().set(|switch| switch.refuse_service_tokens = code.map(str::to_owned));
}

async fn tokens_counted(world: &World, result: &str) -> f64 {
    let series = format!("cloakroom_upstream_tokens_total{{kind=\"exchange\",provider=\"demo\",result=\"{result}\"");
    world.metric(&series).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_the_upstream_gets_a_token_of_its_own_which_is_asked_for_once() {
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    let access_token = newest(&world).access_token;
    for path in ["/orders/x", "/orders/y", "/also/z"] {
        assert_eq!(browser.fetch(path).await.status, StatusCode::OK, "{path}");
    }
    let [asked] = &exchanges(&world)[..] else { panic!("one exchange for one target") };
    assert_eq!(asked.parameter("subject_token"), Some(&*access_token));
    assert_eq!(asked.parameter("subject_token_type"), Some(ACCESS_TOKEN));
    assert_eq!(asked.parameter("requested_token_type"), Some(ACCESS_TOKEN));
    assert_eq!(asked.parameter("audience"), Some("orders-api"));
    assert_eq!(asked.parameter("scope"), Some("orders:read orders:write"));
    assert_eq!(asked.parameter("resource"), None);
    assert!(asked.header("authorization").is_some_and(|value| value.starts_with("Basic ")), "who asks is proved");
    let orders = relayed(&world);
    assert_ne!(orders, access_token);
    assert_eq!(claims(&orders)["aud"], "orders-api");
    assert_eq!(world.demo.upstream.recorder().last().expect("a request").header_all("authorization").len(), 1);

    // Another target is another token; the user's own goes where the route says nothing.
    assert_eq!(browser.fetch("/stock/x").await.status, StatusCode::OK);
    assert_eq!(claims(&relayed(&world))["aud"], "https://stock.example.com/v1");
    let asked = exchanges(&world).pop().expect("an exchange");
    assert_eq!(
        (asked.parameter("resource"), asked.parameter("audience")),
        (Some("https://stock.example.com/v1"), None)
    );
    assert_eq!(asked.parameter("scope"), None);
    browser.fetch("/plain").await;
    assert_eq!(relayed(&world), access_token);

    // Another user never gets this one's.
    world.demo.provider.switches().auto_login("bob");
    let mut other = world.logged_in().await;
    other.fetch("/orders/x").await;
    assert_ne!(relayed(&world), orders);
    assert_eq!(claims(&relayed(&world))["preferred_username"], "bob");
    browser.fetch("/orders/x").await;
    assert_eq!(relayed(&world), orders);
    assert_eq!(exchanges(&world).len(), 3);
    assert_eq!(tokens_counted(&world, "ok").await, 3.0);
    // No browser and no log has seen one.
    let signature = orders.rsplit('.').next().expect("a signature");
    assert!(browser.received.iter().all(|seen| !format!("{seen:?}").contains(signature)));
    assert!(logs().lines().filter(|line| line.contains(" cloakroom")).all(|line| !line.contains(signature)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_many_requests_are_one_exchange_and_a_gone_client_cancels_nothing() {
    let world = lasting().await;
    let browser = world.logged_in().await;
    let gate = hold_tokens(&world, false);
    let first = fetch_soon(&browser, "/orders/x");
    gate.arrived(1).await;
    first.abort();
    let (statuses, ()) = tokio::join!(volley(&browser, "/orders/x", 50), async {
        let waiting = || async { world.metric("cloakroom_upstream_token_waiters{").await >= 50.0 };
        eventually("all of them wait", waiting).await;
        gate.open();
    });
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!(exchanges(&world).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_token_ends_with_its_time_with_the_access_token_and_with_the_session() {
    let world = world(wishes()).await;
    let mut browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.access_token_lifetime = Some(secs(3_600)));
    browser.fetch("/orders/x").await;
    let first = relayed(&world);
    // The access token is refreshed: what was made of the old one would live on, and is not used any more.
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK);
    let asked = exchanges(&world);
    assert_eq!((asked.len(), asked[1].parameter("subject_token")), (2, Some(&*newest(&world).access_token)));
    let second = relayed(&world);
    assert_ne!(second, first);

    log_out(&mut browser).await;
    world.demo.upstream.recorder().clear();
    let answer = browser.fetch("/orders/x").await;
    assert_eq!((answer.status, world.demo.upstream.recorder().count()), (StatusCode::UNAUTHORIZED, 0), "{answer:?}");
    browser.log_in("/").await;
    browser.fetch("/orders/x").await;
    assert_ne!(relayed(&world), second);
    assert_eq!(exchanges(&world).len(), 3);

    // Its own time, where the access token lives longer.
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.access_token_lifetime = Some(secs(60)));
    for (after, expected) in [(0, 1), (49, 1), (2, 2), (48, 2), (13, 3)] {
        world.clock.advance(secs(after));
        assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK);
        assert_eq!(exchanges(&world).len(), expected, "{after}");
    }
    // One of which nobody says how long it lives is used for five minutes.
    world.demo.provider.switches().set(|switch| switch.omit_expires_in = true);
    for (path, after, expected) in [("/stock/x", 0, 4), ("/stock/x", 280, 4), ("/stock/x", 15, 5)] {
        world.clock.advance(secs(after));
        assert_eq!(browser.fetch(path).await.status, StatusCode::OK);
        assert_eq!(exchanges(&world).len(), expected, "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_refusal_is_named_told_and_remembered_and_nothing_goes_upstream() {
    for (code, status, name) in [
        ("access_denied", StatusCode::FORBIDDEN, "upstream_token_denied"),
        ("invalid_target", StatusCode::BAD_GATEWAY, "upstream_token_refused"),
        ("invalid_client", StatusCode::BAD_GATEWAY, "upstream_token_refused"),
        ("made_up", StatusCode::BAD_GATEWAY, "upstream_token_refused"),
    ] {
        let world = lasting().await;
        let mut browser = world.logged_in().await;
        world.demo.upstream.recorder().clear();
        refuse(&world, Some(code));
        for _ in 0..5 {
            let answer = browser.fetch("/orders/x").await;
            assert_eq!((answer.status, answer.code()), (status, name), "{code}: {answer:?}");
            assert!(answer.set_cookies().is_empty() && answer.header("content-type").contains("problem+json"));
        }
        let page = browser.navigate("/orders/x").await;
        assert_eq!((page.status, page.code()), (status, name));
        assert!(page.header("content-type").contains("text/html"));
        assert_eq!((exchanges(&world).len(), world.demo.upstream.recorder().count()), (1, 0), "{code}");
        assert_eq!(world.metric("cloakroom_audit_events_total{event=\"upstream_token_refused\"}").await, 1.0);
        assert_eq!(tokens_counted(&world, "refused").await, 1.0);
        // Everything else goes on.
        assert_eq!(browser.fetch("/plain").await.status, StatusCode::OK);
        refuse(&world, None);
        world.clock.advance(secs(9));
        assert_eq!(browser.fetch("/orders/x").await.status, status);
        world.clock.advance(secs(1));
        assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK, "{code}");
    }
    let known = logs();
    let line = known.lines().find(|line| line.contains("upstream_token_refused") && line.contains("invalid_target"));
    let line = line.expect("a line in the audit log");
    assert!(line.contains("failure") && line.contains("demo"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_another_kind_of_token_is_none() {
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    world.demo.upstream.recorder().clear();
    world.demo.provider.switches().set(|switch| switch.service_token_type = Some("N_A".into()));
    let answer = browser.fetch("/orders/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_token_refused"), "{answer:?}");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_provider_that_is_down_is_503_and_a_token_that_lives_is_used_to_its_end() {
    for fault in [Fault::status(503), Fault::reset(), Fault::cut_json(), Fault::page(502)] {
        let world = lasting().await;
        let mut browser = world.logged_in().await;
        let what = format!("{fault:?}");
        world.demo.upstream.recorder().clear();
        token_fault(&world, fault);
        for _ in 0..5 {
            let answer = browser.fetch("/orders/x").await;
            assert_not_now(&answer, "provider_unavailable");
        }
        assert_eq!((token_calls(&world), world.demo.upstream.recorder().count()), (2, 0), "{what}");
        heal(&world);
        world.clock.advance(secs(11));
        assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK, "{what}");
    }
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.access_token_lifetime = Some(secs(60)));
    browser.fetch("/orders/x").await;
    let token = relayed(&world);
    token_fault(&world, Fault::status(503));
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), token, "it lives for five seconds yet");
    world.demo.upstream.recorder().clear();
    world.clock.advance(REST);
    assert_not_now(&browser.fetch("/orders/x").await, "provider_unavailable");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_an_access_token_that_the_provider_knows_no_more_is_refreshed_or_ends_the_session() {
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    let revoked = newest(&world).access_token;
    let form = format!("token={revoked}");
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let call = client.post(format!("{}/oauth/revoke", world.demo.provider.issuer()));
    let call = call.basic_auth(cloakroom::demo::CLIENT_ID, Some(cloakroom::demo::CLIENT_SECRET));
    let call = call.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(call.send().await.expect("an answer").status(), StatusCode::OK);
    assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK);
    let asked = exchanges(&world);
    let shown: Vec<_> = asked.iter().filter_map(|request| request.parameter("subject_token")).collect();
    assert_eq!(shown, [&*revoked, &*newest(&world).access_token]);
    assert_shown_once(&world);

    // The provider has forgotten the user altogether.
    world.demo.provider.forget_tokens();
    world.clock.advance(secs(300));
    world.demo.upstream.recorder().clear();
    let answer = browser.fetch("/stock/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"), "{answer:?}");
    assert_eq!(answer.json()["login_url"], "/auth/login");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_what_a_new_access_token_does_not_change_costs_a_session_one_refresh() {
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    let refreshes = || {
        let all = world.demo.provider.ledger().requests(Endpoint::Token);
        all.iter().filter(|request| request.parameter("grant_type") == Some("refresh_token")).count()
    };
    // What Keycloak says of a user who may not have the audience.
    refuse(&world, Some("invalid_request"));
    for asked in [2, 3, 4] {
        let answer = browser.fetch("/orders/x").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "upstream_token_refused"), "{answer:?}");
        assert_eq!((refreshes(), exchanges(&world).len()), (1, asked));
        world.clock.advance(secs(301));
    }
    // Another target is another question, and what is surely about the token is none.
    browser.fetch("/stock/x").await;
    assert_eq!(refreshes(), 2);
    refuse(&world, Some("invalid_grant"));
    world.clock.advance(secs(301));
    browser.fetch("/orders/x").await;
    assert_eq!(refreshes(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_o1_a_logout_while_the_provider_is_asked_wins() {
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    world.demo.upstream.recorder().clear();
    let gate = Gate::closed();
    token_fault(&world, Fault::hold(&gate).after_work());
    let (required, optional) = (fetch_soon(&browser, "/orders/x"), fetch_soon(&browser, "/maybe/x"));
    gate.arrived(2).await;
    log_out(&mut browser).await;
    gate.open();
    let answer = required.await.expect("no panic");
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{answer:?}");
    assert_eq!(optional.await.expect("no panic").status, StatusCode::OK);
    let received = world.demo.upstream.recorder().last().expect("the one that needs no session");
    assert_eq!((received.path.as_str(), received.bearer()), ("/maybe/x", None));
    assert_eq!(world.demo.upstream.recorder().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_b5_an_upstream_that_refuses_the_token_gets_another_once() {
    let world = lasting().await;
    let mut browser = world.logged_in().await;
    browser.fetch("/orders/x").await;
    let refused = relayed(&world);
    world.demo.upstream.refuse_token(&refused);
    let statuses = volley(&browser, "/orders/x", 20).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_ne!(relayed(&world), refused);
    assert_eq!((exchanges(&world).len(), token_calls(&world)), (2, 3), "the user's own token stays");
    // One that refuses every token costs no more than that in five minutes.
    world.demo.upstream.refuse_next(usize::MAX);
    for _ in 0..5 {
        let answer = browser.fetch("/orders/x").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, ""), "{answer:?}");
    }
    assert_eq!(exchanges(&world).len(), 2);
    world.clock.advance(secs(300));
    browser.fetch("/orders/x").await;
    assert_eq!(exchanges(&world).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_nobody_and_who_is_kept_out_costs_no_exchange() {
    let world = lasting().await;
    let mut guest = world.browser();
    assert_eq!(guest.fetch("/maybe/x").await.status, StatusCode::OK);
    assert_eq!(world.demo.upstream.recorder().last().expect("a request").bearer(), None);
    assert_eq!(guest.fetch("/orders/x").await.status, StatusCode::UNAUTHORIZED);
    let mut browser = world.logged_in().await;
    assert_eq!(browser.fetch("/ruled/x").await.code(), "rule_failed");
    let forged = browser.draft(Method::POST, "/orders/x").header("origin", "https://evil.example");
    assert_eq!(browser.send(forged).await.code(), "csrf_failed");
    assert!(exchanges(&world).is_empty());
    browser.fetch("/maybe/x").await;
    assert_eq!(claims(&relayed(&world))["aud"], "maybe-api");
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_the_token_of_a_client_is_exchanged_as_well() {
    let world = lasting().await;
    world.logged_in().await;
    let token = newest(&world).access_token;
    let mut app = world.browser();
    for _ in 0..3 {
        let draft = app.draft(Method::POST, "/app/x").header("authorization", &format!("Bearer {token}"));
        assert_eq!(app.send(draft).await.status, StatusCode::OK);
        assert_eq!(claims(&relayed(&world))["aud"], "orders-api");
    }
    let [asked] = &exchanges(&world)[..] else { panic!("one exchange") };
    assert_eq!(asked.parameter("subject_token"), Some(&*token));
    // A browser's session on the same route has one of its own.
    let mut browser = world.logged_in().await;
    browser.fetch("/app/x").await;
    assert_eq!(exchanges(&world).len(), 2);
    world.demo.upstream.recorder().clear();
    // The client's token is looked at anew, and what was got for it goes on to count.
    world.clock.advance(secs(301));
    refuse(&world, Some("access_denied"));
    let draft = app.draft(Method::GET, "/app/x").header("authorization", &format!("Bearer {token}"));
    assert_eq!(app.send(draft).await.status, StatusCode::OK);
    assert_eq!(exchanges(&world).len(), 2);
    world.demo.upstream.recorder().clear();
    let other = newest(&world).access_token;
    let draft = app.draft(Method::GET, "/app/x").header("authorization", &format!("Bearer {other}"));
    let answer = app.send(draft).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "upstream_token_denied"), "{answer:?}");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_of_a_user_who_only_returns_no_token_is_exchanged() {
    let session = "  returning_timeout: 30d\n  returning_tokens: keep".into();
    let world = world(Wishes { provider: lasting_tokens(), session, ..wishes() }).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/back/x").await;
    assert_eq!((claims(&relayed(&world))["aud"].clone(), exchanges(&world).len()), ("back-api".into(), 1));
    world.clock.advance(secs(3_600));
    assert_eq!(browser.fetch("/back/x").await.status, StatusCode::OK);
    let last = world.demo.upstream.recorder().last().expect("a request");
    assert_eq!((last.header("authorization"), exchanges(&world).len()), (None, 1));
}
