//! The callback: who may end a login, once, and with which parameters (behaviour L3–L6; F20).

use std::time::Duration;

use cloakroom::demo::provider::ResponseIssuer;
use cloakroom::primitives::clock::{Clock, Timestamp};
use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, Wishes, World};
use crate::login_kit::{arrive, onward, query, refused, sessions_begun, tab, token_calls, with, without};

async fn ready() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_a_callback_counts_only_in_the_browser_that_began() {
    let world = ready().await;
    let mut attacker = world.browser();
    let callback = attacker.authorize("/mine").await;

    let mut victim = world.browser();
    let page = victim.navigate(&callback).await;
    refused(&victim, &page, &callback, "without any binding");
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    let page = arrive(&mut victim, Method::GET, &callback).await;
    let page = victim.navigate(&onward(&page)).await;
    refused(&victim, &page, &callback, "sent by another site");
    assert_eq!(page.status, StatusCode::BAD_REQUEST);

    let own = victim.authorize("/own").await;
    let page = victim.navigate(&callback).await;
    refused(&victim, &page, &callback, "with the binding of another login");
    let mixed = with(&own, "code", &query(&callback)["code"]);
    assert_eq!(token_calls(&world), 0);

    let page = victim.navigate(&mixed).await;
    refused(&victim, &page, &mixed, "another's code in one's own login: PKCE and nonce do not fit");
    assert_eq!(token_calls(&world), 1);
    assert_eq!(sessions_begun(&world).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_nothing_is_redeemed_without_state_and_binding() {
    let world = ready().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    let binding = browser.cookie(LOGIN).expect("a binding").to_owned();

    for (name, bad) in [
        ("forged", with(&callback, "state", &"A".repeat(43))),
        ("changed", with(&callback, "state", &query(&callback)["state"].replace(|c: char| c.is_lowercase(), "x"))),
        ("missing", without(&callback, "state")),
        ("empty", with(&callback, "state", "")),
        ("long", with(&callback, "state", &"A".repeat(5000))),
        ("odd", with(&callback, "state", "\u{0}\r\n<script>😀")),
        ("not UTF-8", format!("{}&state=%ff%fe", without(&callback, "state"))),
    ] {
        let page = browser.navigate(&bad).await;
        refused(&browser, &page, &bad, name);
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{name}: {page:?}");
    }
    for cookie in ["", "x", &"A".repeat(43), &"A".repeat(4000), &format!("{binding}; {LOGIN}={binding}")] {
        let mut other = world.browser();
        other.set_cookie(LOGIN, cookie);
        let page = other.navigate(&callback).await;
        refused(&other, &page, &callback, cookie);
    }
    assert_eq!(token_calls(&world), 0);

    // None of that used the login up.
    assert_eq!(onward(&browser.navigate(&callback).await), "/page");
    assert_eq!(token_calls(&world), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_state_works_once() {
    let world = ready().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    let mut thief = tab(&browser);
    browser.navigate(&callback).await;
    assert!(browser.cookie(SESSION).is_some());

    let page = thief.navigate(&callback).await;
    refused(&thief, &page, &callback, "replayed with the binding");
    assert_eq!(token_calls(&world), 1);
    assert_eq!(sessions_begun(&world).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_two_callbacks_at_once_redeem_once() {
    let world = ready().await;
    for _ in 0..10 {
        world.demo.provider.ledger().clear();
        let mut one = world.browser();
        let callback = one.authorize("/page").await;
        let mut two = tab(&one);
        let (first, second) = tokio::join!(one.navigate(&callback), two.navigate(&callback));
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400], "{first:?} {second:?}");
        assert_eq!(token_calls(&world), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_a_login_lives_ten_minutes() {
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    let world = World::with(Wishes { clock: clock.clone(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;

    let mut late = world.browser();
    let start = late.navigate("/late").await;
    clock.advance(Duration::from_secs(599));
    let callback = late.navigate(start.location()).await;
    assert_eq!(onward(&late.navigate(callback.location()).await), "/late");
    let redeemed = token_calls(&world);

    let mut later = world.browser();
    let start = later.navigate("/later").await;
    clock.advance(Duration::from_millis(600_001));
    let callback = later.navigate(start.location()).await.location().to_owned();
    let page = later.navigate(&callback).await;
    refused(&later, &page, &callback, "after more than ten minutes");
    assert_eq!(token_calls(&world), redeemed);
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_doubled_parameters_are_refused() {
    let world = ready().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    let values = query(&callback);
    for name in ["state", "code", "iss"] {
        for value in [values[name].as_str(), "", "other"] {
            let doubled = format!("{callback}&{name}={}", url_encoded(value));
            let page = browser.navigate(&doubled).await;
            refused(&browser, &page, &doubled, name);
            assert_eq!(page.status, StatusCode::BAD_REQUEST);
        }
    }
    for doubled in [format!("{callback}&error=a&error=b"), format!("{callback}&%73tate={}", values["state"])] {
        let page = browser.navigate(&doubled).await;
        refused(&browser, &page, &doubled, "doubled");
    }
    assert_eq!(token_calls(&world), 0);
    assert_eq!(onward(&browser.navigate(&callback).await), "/page");
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_an_error_uses_the_login_up() {
    let world = ready().await;
    let mut browser = world.browser();
    world.demo.provider.switches().set(|switch| switch.callback_error = Some("access_denied".into()));
    let denied = browser.authorize("/page").await;
    let page = browser.navigate(&denied).await;
    refused(&browser, &page, &denied, "denied");

    let spare = with(&without(&denied, "error"), "code", "a-code-that-was-kept");
    let page = browser.navigate(&spare).await;
    refused(&browser, &page, &spare, "the state after the error");

    world.demo.provider.switches().set(|switch| switch.callback_error = None);
    let callback = browser.authorize("/page").await;
    let both = with(&callback, "error", "server_error");
    let page = browser.navigate(&both).await;
    refused(&browser, &page, &both, "code and error");
    let page = browser.navigate(&callback).await;
    refused(&browser, &page, &callback, "the code after the error");
    assert_eq!(token_calls(&world), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_the_response_names_its_issuer() {
    let world = ready().await;
    let issuer = world.demo.provider.issuer().to_owned();
    let wrong = [
        ResponseIssuer::Missing,
        ResponseIssuer::Wrong("https://evil.example".into()),
        ResponseIssuer::Wrong(format!("{issuer}/")),
        ResponseIssuer::Wrong(issuer.to_uppercase()),
        ResponseIssuer::Wrong(String::new()),
    ];
    let switches = world.demo.provider.switches();
    for response_issuer in wrong {
        for error in [None, Some("access_denied".to_owned())] {
            switches.set(|s| (s.response_issuer, s.callback_error) = (response_issuer.clone(), error.clone()));
            let mut browser = world.browser();
            let callback = browser.authorize("/").await;
            let page = browser.navigate(&callback).await;
            refused(&browser, &page, &callback, &format!("{response_issuer:?} {error:?}"));
            assert_eq!(page.status, StatusCode::BAD_REQUEST);
            assert!(!page.body.contains("access_denied"), "an error of who knows whom is not shown: {page:?}");
            // Mixed-up responses use the login up, too.
            let mended = with(&without(&callback, "error"), "iss", &issuer);
            let page = browser.navigate(&with(&mended, "code", "any")).await;
            refused(&browser, &page, &mended, "mended");
        }
    }
    assert_eq!(token_calls(&world), 0);
    switches.set(|s| (s.response_issuer, s.callback_error) = (ResponseIssuer::Right, None));
    world.browser().log_in("/").await;
}

fn url_encoded(text: &str) -> String {
    let mut url = crate::login_kit::url("http://x/");
    url.query_pairs_mut().append_pair("v", text);
    url.query().and_then(|query| query.strip_prefix("v=")).expect("a value").to_owned()
}
