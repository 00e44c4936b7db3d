//! Logout: the session first, then cookies, refresh token, provider (behaviour O1–O3).

use std::time::Duration;

use cloakroom::demo::provider::Endpoint;
use cloakroom::demo::{Fault, Gate};
use cloakroom::primitives::clock::{Clock, Timestamp};
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, LOGIN, SESSION, Seen, Wishes, World, XSRF, eventually};
use crate::kit::{holder, lasting_tokens, log_out, newest, secs, ticking, world};
use crate::login_kit::{Fields, arrive, guarded, onward, query, tab, uncached, unescaped, with, without};
use crate::shared_store::{Op, SharedStore};

async fn ready() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

async fn is_dead(mut former: Browser) {
    assert_eq!(former.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

/// Behaviour S10: same name, path and flags as when they were set.
fn cookies_cleared(answer: &Seen) {
    let cookies = answer.set_cookies();
    for expected in [
        format!("{SESSION}=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0"),
        format!("{XSRF}=; SameSite=Strict; Secure; Path=/; Max-Age=0"),
    ] {
        assert!(cookies.contains(&expected), "{expected}: {cookies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_the_session_ends_before_the_provider_is_told() {
    let world = ready().await;
    let gate = Gate::closed();
    world.demo.provider.switches().fault(Endpoint::Revoke, Fault::hold(&gate));
    let mut browser = world.logged_in().await;
    let former = tab(&browser);
    let token = world.demo.provider.ledger().last_issued().expect("tokens").refresh_token.expect("a refresh token");

    let (answer, ()) = tokio::join!(browser.write(Method::POST, "/auth/logout", ""), async {
        gate.arrived(1).await;
        is_dead(former).await;
    });
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    uncached(&answer);
    cookies_cleared(&answer);
    assert!(world.demo.provider.ledger().revoked().is_empty());
    gate.open();
    eventually("the token is revoked", || async { world.demo.provider.ledger().revoked() == [token.clone()] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_provider_that_is_down_keeps_no_session_alive() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    let former = tab(&browser);
    let token = world.demo.provider.ledger().last_issued().expect("tokens").refresh_token.expect("a refresh token");
    world.demo.provider.stop().await;
    let answer = browser.write(Method::POST, "/auth/logout", "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    cookies_cleared(&answer);
    is_dead(former).await;

    world.demo.provider.restart().expect("the same port");
    eventually("the token is revoked", || async { world.demo.provider.ledger().revoked() == [token.clone()] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_revocation_is_tried_again() {
    let world = ready().await;
    for fault in [Fault::status(503), Fault::retry_after(429, 1), Fault::reset()] {
        world.demo.provider.ledger().clear();
        let mut browser = world.logged_in().await;
        let token = world.demo.provider.ledger().last_issued().expect("tokens").refresh_token;
        world.demo.provider.switches().fault(Endpoint::Revoke, fault.clone().times(1));
        browser.write(Method::POST, "/auth/logout", "").await;
        eventually(&format!("revoked after {fault:?}"), || async {
            world.demo.provider.ledger().revoked().last() == token.as_ref()
        })
        .await;
        assert_eq!(world.demo.provider.ledger().count(Endpoint::Revoke), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_the_provider_gets_the_latest_hint() {
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    let world = World::with(Wishes { clock: clock.clone(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let mut browser = world.logged_in().await;
    let ledger = world.demo.provider.ledger();
    let first = ledger.last_issued().expect("tokens");
    clock.advance(Duration::from_secs(55));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let latest = ledger.last_issued().expect("tokens");
    assert_ne!(first.id_token, latest.id_token, "a refresh");

    let answer = browser.write(Method::POST, "/auth/logout", "").await;
    let sent = query(answer.location());
    assert!(answer.location().starts_with(&format!("{}/oauth/end-session?", world.demo.provider.issuer())));
    assert_eq!(Some(&sent["id_token_hint"]), latest.id_token.as_ref());
    assert_eq!(sent["client_id"], cloakroom::demo::CLIENT_ID);
    assert_eq!(sent["post_logout_redirect_uri"], format!("{}/auth/logged-out", browser.origin()));
    eventually("the latest token is revoked", || async { ledger.revoked().last() == latest.refresh_token.as_ref() })
        .await;

    let back = browser.navigate(answer.location()).await;
    assert_eq!(back.location(), format!("{}/auth/logged-out?state={}", browser.origin(), sent["state"]));
    let page = arrive(&mut browser, Method::GET, back.location()).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert!(page.body.contains("You are logged out") && page.body.contains("href=\"/auth/login\""), "{page:?}");
    assert!(page.set_cookies().is_empty(), "{page:?}");
    guarded(&page);
    uncached(&page);
}

/// The way back from the provider's logout page, for a browser that has just begun to log out.
async fn logging_out(world: &World) -> (Browser, String) {
    let mut browser = world.logged_in().await;
    let answer = log_out(&mut browser).await;
    let back = browser.navigate(answer.location()).await.location().to_owned();
    (browser, back)
}

/// The page after a logout says that one has taken place only where one has: in this browser, just now.
#[tokio::test(flavor = "multi_thread")]
async fn o2_the_page_after_a_logout_believes_its_own_state_alone() {
    let world = world(ticking()).await;
    let says_so = |page: &Seen| {
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        guarded(page);
        uncached(page);
        assert!(page.body.contains("href=\"/auth/login\""), "a way to go on: {page:?}");
        page.body.contains("You are logged out") && page.body.contains("has ended")
    };
    let (mut browser, back) = logging_out(&world).await;
    let state = query(&back)["state"].clone();
    assert_eq!(state.len(), 43, "256 bits: {state}");
    for (what, address) in [
        ("none", without(&back, "state")),
        ("another one", with(&back, "state", &"A".repeat(43))),
        ("an odd one", with(&back, "state", "x")),
        ("the name of another record", with(&back, "state", "latest session")),
        ("two of them", format!("{back}&state={state}")),
    ] {
        assert!(!says_so(&arrive(&mut browser, Method::GET, &address).await), "{what}");
    }
    let mut stranger = logging_out(&world).await.0;
    assert!(!says_so(&arrive(&mut stranger, Method::GET, &back).await), "another browser's");
    let head = browser.draft(Method::HEAD, &back);
    assert_eq!(browser.send(head).await.status, StatusCode::OK);
    assert!(says_so(&arrive(&mut browser, Method::GET, &back).await), "its own, and nobody has used it up");
    assert!(!says_so(&arrive(&mut browser, Method::GET, &back).await), "once");

    let (mut late, back) = logging_out(&world).await;
    world.clock.advance(secs(601));
    assert!(!says_so(&arrive(&mut late, Method::GET, &back).await), "too late");

    // A browser that has lost its login cookie since gets another.
    let mut bare = holder(&world.logged_in().await);
    let answer = log_out(&mut bare).await;
    let cookie = answer.set_cookies().into_iter().find(|line| line.starts_with(LOGIN)).expect("a login cookie");
    assert!(cookie.ends_with("HttpOnly; SameSite=Lax; Secure; Path=/"), "{cookie}");
    let back = bare.navigate(answer.location()).await.location().to_owned();
    assert!(says_so(&arrive(&mut bare, Method::GET, &back).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_a_provider_without_a_logout_page_is_left_out() {
    let world = ready().await;
    world.demo.provider.switches().set(|switch| switch.no_logout_page = true);
    let world = world.restarted().await;
    let mut browser = world.logged_in().await;
    let former = tab(&browser);
    let answer = log_out(&mut browser).await;
    assert!(answer.location().starts_with("/auth/logged-out?state="), "{answer:?}");
    is_dead(former).await;
    let page = browser.navigate(answer.location()).await;
    assert!(page.body.contains("You are logged out"), "{page:?}");
}

/// The records of logins and of logouts have names of their own: the one is not taken for the other, nor used up by it.
#[tokio::test(flavor = "multi_thread")]
async fn o2_a_login_and_a_logout_leave_each_others_state_alone() {
    let world = ready().await;
    let (mut browser, back) = logging_out(&world).await;
    let callback = browser.authorize("/page").await;
    let login = with(&back, "state", &query(&callback)["state"]);
    assert!(!arrive(&mut browser, Method::GET, &login).await.body.contains("You are logged out"));
    let logout = with(&callback, "state", &query(&back)["state"]);
    assert_eq!(browser.navigate(&logout).await.status, StatusCode::BAD_REQUEST);
    assert!(arrive(&mut browser, Method::GET, &back).await.body.contains("You are logged out"));
    assert_eq!(onward(&browser.navigate(&callback).await), "/page");
}

/// A store that fails just then costs the page its certainty, and nobody the logout.
#[tokio::test(flavor = "multi_thread")]
async fn o2_without_a_record_the_logout_goes_on() {
    let wishes = ticking();
    let store = SharedStore::new(&wishes.clock);
    let world = world(Wishes { shared: Some(store.clone()), ..wishes }).await;
    let mut browser = world.logged_in().await;
    let former = tab(&browser);
    store.fail(Op::PutLogin, 0);
    let answer = log_out(&mut browser).await;
    assert!(answer.location().contains("/oauth/end-session?") && !answer.location().contains("state="), "{answer:?}");
    cookies_cleared(&answer);
    is_dead(former).await;
}

/// Who is idle for so long that only `/auth/session` still knows them has something to log out of all the same.
#[tokio::test(flavor = "multi_thread")]
async fn o1_a_returning_user_is_forgotten_at_logout() {
    let session = "  returning_timeout: 7d".to_owned();
    let world = world(Wishes { session, provider: lasting_tokens(), ..ticking() }).await;
    for by_link in [false, true] {
        let mut browser = world.logged_in().await;
        let token = newest(&world).refresh_token.expect("a refresh token");
        world.clock.advance(secs(31 * 60));
        let mut twin = holder(&browser);
        let forged = browser.draft(Method::POST, "/auth/logout").header("origin", &browser.origin());
        assert_eq!(browser.send(forged).await.status, StatusCode::FORBIDDEN, "not without the token");
        assert_eq!(twin.fetch("/auth/session").await.json()["level"], "returning");

        let answer = if by_link { browser.navigate("/auth/logout").await } else { log_out(&mut browser).await };
        assert!(answer.location().starts_with(&format!("{}/oauth/end-session?", world.demo.provider.issuer())));
        assert!(query(answer.location()).contains_key("id_token_hint"), "{answer:?}");
        cookies_cleared(&answer);
        assert_eq!(twin.fetch("/auth/session").await.json()["level"], "anonymous");
        eventually("the token is revoked", || async { world.demo.provider.ledger().revoked().contains(&token) }).await;
    }
}

/// Our own page may fetch ahead what it links to, or show a picture that a user has put there: nobody has clicked.
#[tokio::test(flavor = "multi_thread")]
async fn o3_what_nobody_clicked_logs_nobody_out() {
    let world = ready().await;
    let ways: [Fields<'_>; 5] = [
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("sec-purpose", "prefetch;prerender")],
        &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        &[("purpose", "prefetch")],
    ];
    let mut browser = world.logged_in().await;
    for headers in ways {
        let draft = browser.draft(Method::GET, "/auth/logout").header("sec-fetch-site", "same-origin");
        let page = browser.send(headers.iter().fold(draft, |draft, (k, v)| draft.header(k, v))).await;
        assert_eq!(page.status, StatusCode::OK, "{headers:?}: {page:?}");
        assert!(page.body.contains("<form method=\"post\""), "{headers:?}: {page:?}");
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{headers:?}");
    }
    assert_eq!(world.demo.provider.ledger().count(Endpoint::Revoke), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_link_of_our_own_page_logs_out() {
    let world = ready().await;
    for path in ["/auth/logout", "/logout"] {
        let mut browser = world.logged_in().await;
        let former = tab(&browser);
        let answer = browser.navigate(path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
        assert!(answer.location().contains("id_token_hint="));
        cookies_cleared(&answer);
        is_dead(former).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_others_are_asked_and_the_question_works() {
    let world = ready().await;
    let ways: [Fields<'_>; 5] = [
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
        &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")],
        &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
        &[("sec-fetch-site", "same-origin, same-origin"), ("sec-fetch-mode", "navigate")],
        &[],
    ];
    for headers in ways {
        let mut browser = world.logged_in().await;
        let former = tab(&browser);
        let draft = headers.iter().fold(browser.draft(Method::GET, "/auth/logout"), |d, (k, v)| d.header(k, v));
        let page = browser.send(draft.header("accept", "text/html")).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        guarded(&page);
        uncached(&page);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "nothing has happened yet");

        let form = page.body.split_once("<form method=\"post\" action=\"").expect("a form").1;
        assert_eq!(form.split_once('"').expect("an action").0, "/auth/logout");
        let token = form.split_once("name=\"csrf_token\" value=\"").expect("a token").1.split_once('"').expect("one").0;
        let body = format!("csrf_token={}", unescaped(token));
        let post = browser.draft(Method::POST, "/auth/logout").navigation().header("origin", &browser.origin());
        let post = post.header("content-type", "application/x-www-form-urlencoded").body(body);
        let page = browser.send(post).await;
        cookies_cleared(&page);
        is_dead(former).await;
        // `form-action 'self'` of the page with the form binds redirects too, in Chromium: only a page leads out.
        let out = onward(&page);
        assert!(out.starts_with(&format!("{}/oauth/end-session?", world.demo.provider.issuer())), "{out}");
        assert!(query(&out).contains_key("id_token_hint"));
        guarded(&page);
    }
}

/// Strict cookies are held back on a way from another site, so we see no session; what looks like "not logged in" must
/// not log anybody out.
#[tokio::test(flavor = "multi_thread")]
async fn o3_another_site_cannot_log_out_by_the_cookies_it_does_not_see() {
    let world = ready().await;
    for method in [Method::GET, Method::POST] {
        let mut browser = world.logged_in().await;
        let answer = arrive(&mut browser, method.clone(), "/auth/logout").await;
        assert!(answer.set_cookies().is_empty(), "{method}: {answer:?}");
        assert!(browser.cookie(SESSION).is_some() && browser.cookie(XSRF).is_some());
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "{method}");
        guarded(&answer);
        assert!(answer.body.contains("href=\"/auth/logout\""), "a click on our page is an answer: {answer:?}");
        let former = tab(&browser);
        cookies_cleared(&browser.navigate("/auth/logout").await);
        is_dead(former).await;
    }
    // A browser without Fetch Metadata says it by `Origin` alone, or not at all.
    for headers in [&[("origin", "https://evil.example")] as Fields<'_>, &[]] {
        let mut stranger = world.browser();
        let draft = stranger.draft(Method::POST, "/auth/logout").header("accept", "text/html");
        let answer = stranger.send(headers.iter().fold(draft, |d, (k, v)| d.header(k, v))).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "csrf_failed"), "{answer:?}");
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_post_needs_origin_and_token() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    let (origin, token) = (browser.origin(), browser.cookie(XSRF).expect("a token").to_owned());
    let other = world.logged_in().await.cookie(XSRF).expect("a token").to_owned();
    let refused: [(&str, Fields<'_>, &str); 8] = [
        ("nothing", &[], ""),
        ("no token", &[("origin", &origin)], ""),
        ("no origin", &[("x-xsrf-token", &token)], ""),
        ("other origin", &[("origin", "https://evil.example"), ("x-xsrf-token", &token)], ""),
        ("null origin", &[("origin", "null"), ("x-xsrf-token", &token)], ""),
        ("wrong token", &[("origin", &origin), ("x-xsrf-token", "x")], ""),
        ("another's token", &[("origin", &origin), ("x-xsrf-token", &other)], ""),
        ("doubled field", &[("origin", &origin)], "csrf_token=TOKEN&csrf_token=TOKEN"),
    ];
    for (name, headers, body) in refused {
        let draft = browser.draft(Method::POST, "/auth/logout").body(body.replace("TOKEN", &token));
        let draft = headers.iter().fold(draft, |draft, (k, v)| draft.header(k, v));
        let answer = browser.send(draft).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "csrf_failed"), "{name}: {answer:?}");
        assert!(answer.set_cookies().is_empty(), "{name}: {answer:?}");
    }
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(world.demo.provider.ledger().count(Endpoint::Revoke), 0);
    let same_origin = browser.draft(Method::POST, "/logout").header("sec-fetch-site", "same-origin");
    let answer = browser.send(same_origin.header("x-xsrf-token", &token)).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_a_script_gets_the_address_as_json() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    let token = browser.cookie(XSRF).expect("a token").to_owned();
    let draft = browser.draft(Method::POST, "/auth/logout").header("accept", "application/json, text/plain, */*");
    let draft = draft.header("origin", &browser.origin()).header("x-xsrf-token", &token);
    let answer = browser.send(draft).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.json()["redirect"].as_str().expect("text").contains("/oauth/end-session?"), "{answer:?}");
    cookies_cleared(&answer);
    uncached(&answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_logout_and_one_without_session_say_the_same() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    let mut again = tab(&browser);
    browser.write(Method::POST, "/auth/logout", "").await;
    for answer in [
        again.navigate("/auth/logout").await,
        world.browser().navigate("/auth/logout").await,
        world.browser().write(Method::POST, "/auth/logout", "").await,
    ] {
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/auth/logged-out"), "{answer:?}");
    }
    assert!(again.cookie(SESSION).is_none(), "a dead cookie is taken away");
}
