//! Rules of routes on the claims of a user: who meets them passes, nobody else, and what was judged once is judged anew
//! with each new token.

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Wishes, World, XSRF, logs};
use crate::kit::*;
use crate::wire::h2c_client;

const ROUTES: &str = r#"
      - { path: /admin/, upstream: demo, allow: [{ name: admins, claim: realm_access.roles, any_of: [boss, admin] }] }
      - { path: /all/, upstream: demo, allow: [{ claim: realm_access.roles, all_of: [user] }, { name: staff, claim: email, matches: '[a-z]+@example\.com' }, { claim: email_verified, equals: true }] }
      - { path: /closed/, upstream: demo, allow: [{ claim: department, equals: sales }] }
      - { path: /quiet/, upstream: demo, token: { kind: none }, allow: [{ name: admins, claim: realm_access.roles, any_of: [admin] }] }
      - { path: /fixed, respond: { body: for admins }, allow: [{ name: admins, claim: realm_access.roles, any_of: [admin] }] }
      - { path: /, upstream: demo }
"#;

async fn world_with(wishes: Wishes) -> World {
    world(Wishes { routes: ROUTES.into(), ..wishes }).await
}

async fn logged_in_as(world: &World, user: &str) -> Browser {
    world.demo.provider.switches().auto_login(user);
    world.logged_in().await
}

async fn refused(browser: &mut Browser, target: &str, rule: &str) {
    let answer = browser.fetch(target).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "rule_failed"), "{target} {answer:?}");
    assert_eq!((&answer.json()["code"], answer.header("cache-control")), (&"rule_failed".into(), "no-store"));
    assert!(answer.json()["detail"].as_str().is_some_and(|text| text.contains(&format!("“{rule}”"))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_meets_all_rules_passes_and_nobody_else_reaches_the_upstream() {
    let world = world_with(Wishes::default()).await;
    let (mut alice, mut bob) = (logged_in_as(&world, "alice").await, logged_in_as(&world, "bob").await);
    for target in ["/admin/x", "/all/x", "/fixed", "/x"] {
        assert_eq!(alice.fetch(target).await.status, StatusCode::OK, "{target}");
    }
    assert_eq!(bob.fetch("/all/x").await.status, StatusCode::OK);
    let recorder = world.demo.upstream.recorder();
    recorder.clear();
    refused(&mut bob, "/admin/x", "admins").await;
    refused(&mut bob, "/admin/../admin/%78?realm_access.roles=admin", "admins").await;
    refused(&mut bob, "/fixed", "admins").await;
    refused(&mut bob, "/closed/x", "department").await;
    refused(&mut alice, "/closed/x", "department").await;
    let page = bob.navigate("/admin/x").await;
    assert_eq!((page.status, page.code()), (StatusCode::FORBIDDEN, "rule_failed"));
    assert!(page.header("content-type").starts_with("text/html") && page.body.contains("admins"), "{page:?}");
    // What protects the session is asked first.
    let forged = bob.draft(Method::POST, "/admin/x");
    assert_eq!(bob.send(forged).await.code(), "csrf_failed");
    assert_eq!(bob.write(Method::POST, "/admin/x", "{}").await.code(), "rule_failed");
    let stranger = world.browser().fetch("/admin/x").await;
    assert_eq!((stranger.status, stranger.code()), (StatusCode::UNAUTHORIZED, "session_missing"));
    assert_eq!(recorder.count(), 0, "nothing of this is for the upstream");
    assert_eq!(world.metric("cloakroom_requests_rejected_total{reason=\"rule\"}").await, 7.0);
    assert_eq!(world.metric("cloakroom_audit_events_total{event=\"access_denied\"}").await, 7.0);
    let logs = logs();
    let line = logs.lines().find(|line| line.contains("access_denied") && line.contains("admins")).expect("a line");
    assert!(line.contains("result=\"failure\"") && line.contains("actor=\"user\""), "{line}");
    // One line a second at most; the audit log has each of them.
    let count = |text: &str| logs.lines().filter(|line| line.contains(text)).count();
    assert!((1..count("access_denied")).contains(&count("a rule of a route keeps a user out")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_gone_with_a_refresh_opens_nothing_any_more() {
    let world = world_with(ticking()).await;
    let mut alice = logged_in_as(&world, "alice").await;
    assert_eq!(alice.fetch("/admin/x").await.status, StatusCode::OK);
    let recorder = world.demo.upstream.recorder();
    let switches = world.demo.provider.switches();
    switches.set(|switch| switch.roles = Some(vec!["user".into()]));
    assert_eq!(alice.fetch("/admin/x").await.status, StatusCode::OK, "the session has not heard of it");
    recorder.clear();
    world.clock.advance(NEARLY_OVER);
    refused(&mut alice, "/admin/x", "admins").await;
    assert_eq!((recorder.count(), token_calls(&world)), (0, 2), "the very request that refreshes is judged anew");
    assert_eq!(alice.fetch("/x").await.status, StatusCode::OK, "the session lives on");
    switches.set(|switch| switch.roles = None);
    world.clock.advance(NEARLY_OVER);
    assert_eq!(alice.fetch("/admin/x").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_look_at_fresh_claims_also_where_no_token_goes_upstream() {
    let world = world_with(ticking()).await;
    let mut alice = logged_in_as(&world, "alice").await;
    for target in ["/quiet/x", "/fixed"] {
        assert_eq!(alice.fetch(target).await.status, StatusCode::OK, "{target}");
    }
    let recorder = world.demo.upstream.recorder();
    assert!(recorder.last().expect("a request").bearer().is_none());
    recorder.clear();
    world.demo.provider.switches().set(|switch| switch.roles = Some(vec!["user".into()]));
    world.clock.advance(NEARLY_OVER);
    for target in ["/quiet/x", "/fixed"] {
        refused(&mut alice, target, "admins").await;
    }
    assert_eq!((recorder.count(), token_calls(&world)), (0, 2));
    // Nobody can say whether they still hold.
    world.demo.provider.switches().set(|switch| switch.roles = None);
    world.demo.provider.stop().await;
    world.clock.advance(OVER);
    assert_not_now(&alice.fetch("/quiet/x").await, "provider_unavailable");
    assert_eq!(recorder.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_replaces_a_refused_one_is_judged_before_it_is_sent() {
    let world = world_with(Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut alice = logged_in_as(&world, "alice").await;
    assert_eq!(alice.fetch("/admin/x").await.status, StatusCode::OK);
    world.demo.provider.switches().set(|switch| switch.roles = Some(vec!["user".into()]));
    world.demo.upstream.refuse_token(&newest(&world).access_token);
    let recorder = world.demo.upstream.recorder();
    recorder.clear();
    refused(&mut alice, "/admin/x", "admins").await;
    assert_eq!((recorder.count(), token_calls(&world)), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_new_settings_hold_for_sessions_that_are_open_already() {
    let world = world_with(Wishes::default()).await;
    let mut bob = logged_in_as(&world, "bob").await;
    assert_eq!(bob.fetch("/x").await.status, StatusCode::OK);
    let old = "{ path: /, upstream: demo }";
    let new = "{ path: /, upstream: demo, allow: [{ claim: realm_access.roles, any_of: [admin] }] }";
    world.proxy.reload(old, new).await.expect("applied");
    refused(&mut bob, "/x", "realm_access.roles").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_brings_the_new_ticket_and_is_a_status_to_grpc() {
    let world = world_with(Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut bob = logged_in_as(&world, "bob").await;
    let before = ticket(&bob);
    world.clock.advance(secs(16 * 60));
    refused(&mut bob, "/admin/x", "admins").await;
    assert_ne!(ticket(&bob), before, "or a user who is refused only would lose the session");
    bob.client = h2c_client();
    let (origin, token) = (bob.origin(), bob.cookie(XSRF).expect("a token").to_owned());
    let call = bob.draft(Method::POST, "/admin/Call").header("content-type", "application/grpc");
    let answer = bob.send(call.header("origin", &origin).header("x-xsrf-token", &token)).await;
    assert_eq!((answer.status, answer.header("grpc-status"), answer.code()), (StatusCode::OK, "7", "rule_failed"));
    assert!(bob.cookie(SESSION).is_some() && answer.body.is_empty());
}
