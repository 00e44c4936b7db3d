//! Back-channel logout: what a provider may say, what it may not, and what follows (behaviour O4–O6, O8, O9, T7).

use std::time::{Duration, Instant};

use cloakroom::demo::Fault;
use cloakroom::demo::provider::{Endpoint, LogoutTokenFault, Signing, send_logout_token};
use reqwest::{Method, StatusCode};

use crate::backchannel_kit::*;
use crate::harness::{Wishes, World, eventually};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::shared_store::Op;

#[tokio::test(flavor = "multi_thread")]
async fn o4_a_good_token_ends_the_session_and_revokes_its_refresh_token() {
    let world = world(shared()).await;
    world.demo.provider.switches().auto_login("bob");
    let mut bob = world.logged_in().await;
    world.demo.provider.switches().auto_login("alice");
    let (mut other, _) = one_session(&world).await;
    for subject in [None, Some(ALICE)] {
        let (mut browser, sid) = one_session(&world).await;
        let refresh_token = newest(&world).refresh_token.expect("a refresh token");
        assert!(is_alive(&mut browser).await);
        log_out_at(&world.proxy, &token(&world, subject, Some(&sid))).await;
        assert!(!is_alive(&mut browser).await);
        eventually_revoked(&world, &refresh_token).await;
    }
    assert!(is_alive(&mut other).await && is_alive(&mut bob).await, "nobody else is touched");
    assert_eq!(world.metric("cloakroom_logouts_total{kind=\"backchannel\",provider=\"demo\"}").await, 2.0);
    assert_eq!(world.metric("cloakroom_revocation_lag_seconds_count").await, 2.0);
    // This provider goes on with the same `sid`: a login begun afterwards works.
    let (mut browser, sid) = one_session(&world).await;
    log_out_at(&world.proxy, &token(&world, None, Some(&sid))).await;
    world.clock.advance(secs(2));
    assert_logs_in_again(&mut browser).await;
    assert_eq!(newest(&world).sid, sid);
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_each_fault_alone_is_refused() {
    let world = world(shared()).await;
    let (mut browser, sid) = one_session(&world).await;
    for fault in LogoutTokenFault::ALL {
        for subject in [None, Some(ALICE)] {
            let answer = deliver(&world.proxy, &spoiled(&world, subject, Some(&sid), &[fault])).await;
            assert_bad(&answer, &format!("{fault:?}"));
            assert!(is_alive(&mut browser).await, "{fault:?}");
            // An unknown key is asked for once in a while only.
            world.clock.advance(secs(6));
        }
    }
    assert_eq!(world.demo.provider.ledger().count(Endpoint::Revoke), 0);
    assert!(world.metric("cloakroom_audit_events_total{event=\"backchannel_logout\"}").await >= 60.0);
    log_out_at(&world.proxy, &token(&world, None, Some(&sid))).await;
    assert!(!is_alive(&mut browser).await, "the same token without a fault is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_what_must_be_taken() {
    let world = world(shared()).await;
    let types = ["logout+jwt", "LOGOUT+JWT", "application/logout+jwt", "Application/Logout+JWT"];
    for typ in types {
        let (mut browser, sid) = one_session(&world).await;
        let claims = world.demo.provider.logout_claims(cloakroom::demo::CLIENT_ID, None, Some(&sid));
        let token = world.demo.provider.sign(typ, &claims, &Signing::Honest).expect("a token");
        log_out_at(&world.proxy, &token).await;
        assert!(!is_alive(&mut browser).await, "{typ}");
    }
    let (mut browser, sid) = one_session(&world).await;
    let mut claims = world.demo.provider.logout_claims(cloakroom::demo::CLIENT_ID, None, Some(&sid));
    claims["aud"] = serde_json::json!([cloakroom::demo::CLIENT_ID]);
    claims["events"]["http://schemas.openid.net/event/other"] = serde_json::json!({});
    claims["extra"] = serde_json::json!("x");
    claims["exp"] = (world.clock.now().as_secs() - 59).into();
    log_out_at(&world.proxy, &world.demo.provider.sign("logout+jwt", &claims, &Signing::Honest).expect("a token"))
        .await;
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_the_request_is_a_form_of_bounded_length_and_needs_nothing_else() {
    let world = world(shared()).await;
    let (mut browser, sid) = one_session(&world).await;
    let good = token(&world, None, Some(&sid));
    let form = "application/x-www-form-urlencoded";
    let mut nobody = world.browser();
    let long = format!("x={}&logout_token={good}", "x".repeat(16 * 1024));
    for (kind, body, status) in [
        ("application/json", format!("{{\"logout_token\":\"{good}\"}}"), 400),
        ("application/json", format!("logout_token={good}"), 400),
        ("text/plain", format!("logout_token={good}"), 400),
        ("", format!("logout_token={good}"), 400),
        (form, String::new(), 400),
        (form, "logout_token=".to_owned(), 400),
        (form, format!("token={good}"), 400),
        (form, format!("logout_token={good}&logout_token={good}"), 400),
        (form, format!("logout_token={good}&%6cogout_token=x"), 400),
        (form, "logout_token=a.b.c".to_owned(), 400),
        (form, "logout_token=..".to_owned(), 400),
        (form, "logout_token=%ff%00".to_owned(), 400),
        (form, long, 413),
    ] {
        let mut draft = nobody.draft(Method::POST, "/auth/backchannel-logout").body(body.clone());
        if !kind.is_empty() {
            draft = draft.header("content-type", kind);
        }
        let answer = nobody.send(draft).await;
        assert_eq!(answer.status.as_u16(), status, "{kind} {body:.60}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(!answer.body.contains(&good) && answer.set_cookies().is_empty(), "{answer:?}");
    }
    for method in [Method::GET, Method::PUT, Method::HEAD, Method::OPTIONS] {
        let draft = nobody.draft(method.clone(), &format!("/auth/backchannel-logout?logout_token={good}"));
        let answer = nobody.send(draft).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"), "{method}");
    }
    assert!(is_alive(&mut browser).await);
    // Another origin and somebody's cookie change nothing: the token is all that counts.
    let draft = browser.draft(Method::POST, "/auth/backchannel-logout").body(format!("a=b&logout_token={good}"));
    let draft = draft.header("content-type", "Application/X-WWW-Form-URLencoded ; charset=UTF-8");
    let answer =
        browser.send(draft.header("origin", "https://id.example").header("sec-fetch-site", "cross-site")).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""), "{answer:?}");
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_without_an_end_only_where_the_settings_say_so_and_then_for_two_minutes() {
    let world = world(shared_with("{ require_exp: false }")).await;
    let endless = |sid: &str| spoiled(&world, None, Some(sid), &[LogoutTokenFault::MissingExpiry]);
    let (mut browser, sid) = one_session(&world).await;
    let token = endless(&sid);
    world.clock.advance(secs(120));
    assert_bad(&deliver(&world.proxy, &token).await, "two minutes old");
    assert!(is_alive(&mut browser).await);
    let token = endless(&sid);
    world.clock.advance(secs(119));
    log_out_at(&world.proxy, &token).await;
    assert!(!is_alive(&mut browser).await);
    assert_bad(&deliver(&world.proxy, &token).await, "used before");
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_no_other_token_is_a_logout_token() {
    let world = world(shared()).await;
    let (mut browser, _) = one_session(&world).await;
    let given = newest(&world);
    world.clock.advance(NEARLY_OVER);
    assert!(is_alive(&mut browser).await);
    let refreshed = newest(&world);
    assert_ne!(given.access_token, refreshed.access_token);
    let tokens = [
        given.id_token,
        refreshed.id_token,
        Some(given.access_token),
        Some(refreshed.access_token),
        refreshed.refresh_token,
    ];
    for token in tokens.into_iter().flatten() {
        assert_bad(&deliver(&world.proxy, &token).await, "another kind of token");
    }
    assert!(is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_a_token_works_once() {
    let world = world(shared()).await;
    let (mut browser, sid) = one_session(&world).await;
    let used = token(&world, None, Some(&sid));
    log_out_at(&world.proxy, &used).await;
    assert!(!is_alive(&mut browser).await);
    let other = world.replica().await;
    for proxy in [&world.proxy, &other] {
        eventually("the provider is known", || async { deliver(proxy, &used).await.status != 503 }).await;
        assert_bad(&deliver(proxy, &used).await, "replayed");
    }
    // Two at once: one of them has done it.
    let twice = token(&world, Some(ALICE), None);
    let answers = tokio::join!(deliver(&world.proxy, &twice), deliver(&other, &twice));
    assert!([answers.0.status, answers.1.status].contains(&200), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_a_store_that_fails_is_never_200_and_the_token_works_afterwards() {
    let world = world(shared()).await;
    for (op, after) in [
        (Op::Marked, 0),
        (Op::Mark, 0),
        (Op::Mark, 1),
        (Op::Mark, 2),
        (Op::Find, 0),
        (Op::Delete, 0),
        (Op::Delete, 1),
        (Op::Delete, 2),
    ] {
        let mut browsers = [world.logged_in().await, world.logged_in().await, world.logged_in().await];
        let logout = token(&world, Some(ALICE), None);
        store(&world).fail(op, after);
        for _ in 0..2 {
            // A count of calls starts anew with each try, or the second would get further than the first.
            store(&world).fail(op, after);
            let answer = deliver(&world.proxy, &logout).await;
            let done = op == Op::Delete && answer.status == 200;
            assert!(answer.status == 503 || done, "{op:?} {after}: {answer:?}");
            if done {
                break;
            }
        }
        store(&world).heal();
        let again = deliver(&world.proxy, &logout).await;
        assert!(matches!(again.status, 200 | 400), "{op:?} {after}: {again:?}");
        for browser in &mut browsers {
            assert!(!is_alive(browser).await, "{op:?} {after}");
        }
        assert_bad(&deliver(&world.proxy, &logout).await, "replayed");
        world.clock.advance(secs(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_keys_are_fetched_anew_and_a_provider_that_is_down_is_no_refusal() {
    let world = world(shared()).await;
    let (mut browser, sid) = one_session(&world).await;
    world.demo.provider.rotate_keys().expect("a key");
    let fresh = token(&world, None, Some(&sid));
    world.demo.provider.switches().fault(Endpoint::Jwks, Fault::status(500));
    assert_eq!(deliver(&world.proxy, &fresh).await.status, 503);
    assert!(is_alive(&mut browser).await);
    world.demo.provider.switches().faults(Endpoint::Jwks).clear();
    world.clock.advance(secs(6));
    log_out_at(&world.proxy, &fresh).await;
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_a_user_has_three_sessions_on_two_replicas_and_all_end_within_a_second() {
    let redis = RedisServer::start();
    for wishes in [shared(), ticking_on(&redis)] {
        three_sessions_on_two_replicas(&world(wishes).await).await;
    }
}

async fn three_sessions_on_two_replicas(world: &World) {
    let other = world.replica().await;
    other.knows_provider().await;
    world.demo.provider.switches().auto_login("bob");
    let mut bob = carry(&world.logged_in().await, &other);
    world.demo.provider.switches().auto_login("alice");
    for by_subject in [true, false] {
        let mut browsers = Vec::new();
        let mut sids = Vec::new();
        for _ in 0..3 {
            let (browser, sid) = one_session(world).await;
            browsers.extend([carry(&browser, &other), browser]);
            sids.push(sid);
        }
        for browser in &mut browsers {
            assert!(is_alive(browser).await, "cached everywhere");
        }
        if by_subject {
            log_out_at(&world.proxy, &token(world, Some(ALICE), None)).await;
        } else {
            for sid in &sids {
                log_out_at(&other, &token(world, None, Some(sid))).await;
            }
        }
        // The clock of the caches stands still: only the announcement can have told them.
        let ended = Instant::now();
        for browser in &mut browsers {
            while is_alive(browser).await {
                assert!(ended.elapsed() < Duration::from_secs(1), "too late");
            }
        }
        world.clock.advance(secs(2));
    }
    assert!(is_alive(&mut bob).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_scope_user_ends_all_sessions_of_the_user_whatever_the_sid() {
    let world = world(shared_with("{ scope: user }")).await;
    world.demo.provider.switches().auto_login("bob");
    let mut bob = world.logged_in().await;
    world.demo.provider.switches().auto_login("alice");
    for subject in [Some(ALICE), None] {
        let mut browsers = [world.logged_in().await, world.logged_in().await];
        let (mut third, sid) = one_session(&world).await;
        log_out_at(&world.proxy, &token(&world, subject, Some(&sid))).await;
        for browser in browsers.iter_mut().chain([&mut third]) {
            assert!(!is_alive(browser).await, "{subject:?}");
        }
        world.clock.advance(secs(2));
    }
    // Half done, then done: the session that names the user is there until the others are gone.
    let mut browsers = [world.logged_in().await, world.logged_in().await];
    let (mut third, sid) = one_session(&world).await;
    let logout = token(&world, None, Some(&sid));
    store(&world).fail(Op::Delete, 1);
    assert_eq!(deliver(&world.proxy, &logout).await.status, 503);
    store(&world).heal();
    log_out_at(&world.proxy, &logout).await;
    for browser in browsers.iter_mut().chain([&mut third]) {
        assert!(!is_alive(browser).await);
    }
    assert!(is_alive(&mut bob).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o9_offline_access_outlives_a_logout() {
    let world = world(shared()).await;
    let offline = world.replica_with("scopes: [openid, profile, email]", "scopes: [openid, offline_access]").await;
    offline.knows_provider().await;
    for (proxy, kept) in [(&world.proxy, false), (&offline, true)] {
        world.demo.provider.ledger().clear();
        let mut browser = crate::harness::Browser::new(proxy.address);
        browser.log_in("/").await;
        let given = newest(&world);
        log_out_at(proxy, &token(&world, None, Some(&given.sid))).await;
        assert!(!is_alive(&mut browser).await);
        if kept {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(world.demo.provider.ledger().count(Endpoint::Revoke), 0);
        } else {
            eventually_revoked(&world, &given.refresh_token.expect("a refresh token")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_is_there_on_every_host_of_the_site() {
    let world = world(Wishes { hosts: "[127.0.0.1, localhost]".into(), ..shared() }).await;
    let (mut browser, sid) = one_session(&world).await;
    let url = format!("http://localhost:{}/auth/backchannel-logout", world.proxy.address.port());
    let answer = send_logout_token(&url, &token(&world, None, Some(&sid))).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_at_the_provider_ends_the_session_here() {
    let world = world(shared()).await;
    world.demo.provider.switches().set(|switch| switch.backchannel_logout_uri = Some(address(&world.proxy)));
    let (browser, _) = one_session(&world).await;
    let hint = newest(&world).id_token.expect("an ID token");
    let mut elsewhere = world.browser();
    elsewhere.navigate(&format!("{}/oauth/end-session?id_token_hint={hint}", world.demo.provider.issuer())).await;
    eventually("it has ended here", || async { !is_alive(&mut holder(&browser)).await }).await;
}

/// Behaviour F26: a logout that never arrives ends the session with its access token.
#[tokio::test(flavor = "multi_thread")]
async fn f26_a_missed_logout_is_bounded_by_the_access_token() {
    let world = world(shared()).await;
    let (mut browser, sid) = one_session(&world).await;
    world.demo.provider.end_session(&sid);
    assert!(is_alive(&mut browser).await);
    world.clock.advance(OVER);
    let answer = browser.fetch("/api/whoami").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "refresh_rejected"), "{answer:?}");
    assert_eq!(world.metric("cloakroom_audit_events_total{event=\"refresh_rejected\"}").await, 1.0);
}
