//! L16: an upstream asks for a stronger or more recent login (RFC 9470), and gets it, once.

use cloakroom::demo::backend::PASSWORD;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt as _;

use crate::credentials_kit::{form, post};
use crate::harness::{Browser, Seen, Wishes, World};
use crate::kit::*;
use crate::login_kit::query;
use crate::several_providers::Several;
use crate::tokens::claims;
use crate::wire::{Peer, read_head};

/// An upstream that wants `acr` gold below `/gold/`, and a login of the last five minutes below `/fresh/`, as it says; it
/// is never content.
pub(crate) async fn picky() -> Peer {
    Peer::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ").or(line.strip_prefix("Authorization: Bearer ")));
        let acr = token.map(|token| claims(token)["acr"].as_str().unwrap_or_default().to_owned());
        let asked = match head.split(' ').nth(1).unwrap_or_default() {
            path if path.starts_with("/gold/") && acr.as_deref() == Some("gold") => "",
            path if ["/gold/", "/off/", "/told/"].iter().any(|gold| path.starts_with(gold)) => "acr_values=\"gold platinum\"",
            path if path.starts_with("/never/") => "acr_values=\"silver\"",
            path if path.starts_with("/fresh/") => "max_age=\"300\"",
            path if path.starts_with("/now/") => "max_age=\"0\"",
            _ => "",
        };
        let answer = if asked.is_empty() {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_owned()
        } else {
            format!(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"insufficient_user_authentication\", {asked}\r\n\
                 Content-Length: 7\r\nConnection: close\r\n\r\ntheirs!"
            )
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

async fn world_over(peer: &Peer) -> World {
    world(Wishes {
        upstreams: format!("  - {{ name: picky, endpoints: [\"{}\"] }}", peer.address),
        routes: r#"
      - { path: /gold/, upstream: picky, csrf: false }
      - { path: /never/, upstream: picky, access: optional }
      - { path: /fresh/, upstream: picky }
      - { path: /now/, upstream: picky }
      - { path: /told/, upstream: picky, on_missing: unauthorized }
      - { path: /off/, upstream: picky, step_up: false }
      - { path: /, upstream: demo }
"#
        .into(),
        provider: lasting_tokens(),
        ..ticking()
    })
    .await
}

/// Follows the redirect of a step-up to the end; the page of the callback.
async fn steps_up(browser: &mut Browser, start: &Seen) -> Seen {
    assert_eq!(start.status, StatusCode::SEE_OTHER, "{start:?}");
    let callback = browser.authorize(start.location()).await;
    browser.navigate(&callback).await
}

fn theirs(answer: &Seen) {
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, ""), "{answer:?}");
    assert!(answer.body.contains("theirs") && answer.header("www-authenticate").contains("insufficient"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_navigation_steps_up_and_comes_back() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    let before = ticket(&browser);
    let start = browser.navigate("/gold/x?a=b&c=%20d").await;
    assert!(start.location().starts_with("/auth/login?") && start.body.is_empty(), "{start:?}");
    let asked = query(&format!("{}{}", browser.origin(), start.location()));
    assert_eq!((asked["return_to"].as_str(), asked["acr_values"].as_str()), ("/gold/x?a=b&c=%20d", "gold platinum"));
    let page = steps_up(&mut browser, &start).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("/gold/x?a=b&amp;c=%20d") || page.body.contains("/gold/x?a=b&#38;c=%20d"), "{page:?}");
    assert_ne!(ticket(&browser), before, "a new login has a new id (S7)");
    let content = browser.navigate("/gold/x?a=b&c=%20d").await;
    assert_eq!((content.status, content.body.as_str()), (StatusCode::OK, "ok"));
    assert_eq!(world.metric("cloakroom_upstream_unauthorized_retries_total{result=\"step_up\"").await, 1.0);
    assert_eq!(token_calls(&world), 2, "no token was refreshed over it");
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_script_is_told_where_to_go() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    for method in [Method::GET, Method::POST] {
        let draft = browser.draft(method, "/gold/x").header("sec-fetch-mode", "cors").body("x");
        let answer = browser.send(draft).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "step_up_required"), "{answer:?}");
        assert!(!answer.body.contains("theirs") && answer.header("www-authenticate") == "Cloakroom", "{answer:?}");
        let login = answer.json()["login_url"].as_str().expect("a link").to_owned();
        assert_eq!(login, "/auth/login?acr_values=gold+platinum&step_up=1");
        assert!(browser.cookie(crate::harness::SESSION).is_some(), "the session goes on");
    }
    let start = browser.navigate("/auth/login?acr_values=gold+platinum&step_up=1&return_to=/gold/x").await;
    assert_eq!(query(start.location())["acr_values"], "gold platinum");
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_login_that_shows_less_is_none_and_is_not_tried_again() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    let before = ticket(&browser);
    world.demo.provider.switches().set(|switch| switch.acr = Some("bronze".into()));
    let start = browser.navigate("/gold/x").await;
    let page = steps_up(&mut browser, &start).await;
    assert_eq!((page.status, page.code()), (StatusCode::BAD_REQUEST, "login_failed"), "{page:?}");
    assert!(page.body.contains("as strongly as is needed") && !page.body.contains("step_up"), "{page:?}");
    assert_eq!(world.metric("cloakroom_logins_total{provider=\"demo\",reason=\"acr\"").await, 1.0);
    assert_eq!(ticket(&browser), before, "the former session is as it was");
    assert!(world.demo.provider.ledger().revoked().is_empty(), "and so is the user's session at the provider");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    // What a page asks for without demanding it is as the provider likes.
    browser.log_in("/auth/login?acr_values=gold").await;
    assert_ne!(ticket(&browser), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_who_is_never_content_gets_one_login_and_no_loop() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    let start = browser.navigate("/never/x").await;
    assert_eq!(steps_up(&mut browser, &start).await.status, StatusCode::OK);
    theirs(&browser.navigate("/never/x").await);
    theirs(&browser.fetch("/never/x").await);
    // A login of just now is as recent as any can be.
    theirs(&browser.navigate("/fresh/x").await);
    world.clock.advance(secs(311));
    assert_eq!(browser.fetch("/fresh/x").await.code(), "step_up_required");
    let start = browser.navigate("/fresh/x").await;
    assert_eq!(query(&format!("{}{}", browser.origin(), start.location()))["max_age"], "300");
    assert_eq!(steps_up(&mut browser, &start).await.status, StatusCode::OK);
    theirs(&browser.navigate("/fresh/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_leave_it_to_its_upstream_and_its_page() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    theirs(&browser.navigate("/off/x").await);
    theirs(&browser.fetch("/off/x").await);
    // Nor is there a way where the provider may not be asked.
    let deaf = world.replica_with("issuer:", "login_parameters: [prompt, max_age]\n    issuer:").await;
    deaf.knows_provider().await;
    let mut browser = Browser::new(deaf.address);
    browser.log_in("/api/whoami").await;
    theirs(&browser.navigate("/gold/x").await);
    theirs(&browser.fetch("/gold/x").await);
    // Nobody is logged in, so there is nobody to step up.
    theirs(&world.browser().navigate("/never/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_step_up_goes_to_the_sessions_own_provider() {
    let peer = picky().await;
    let wishes = ticking();
    let site = Several::over(Wishes {
        upstreams: format!("  - {{ name: picky, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /gold/, upstream: picky }\n      - { path: /login-page, upstream: picky, access: public }\n      \
                 - { path: /, upstream: demo }"
            .into(),
        ..wishes
    })
    .await;
    let mut browser = site.world.browser();
    browser.log_in("/auth/login?provider=second").await;
    let script = browser.fetch("/gold/x").await;
    assert_eq!(script.code(), "step_up_required");
    assert_eq!(script.json()["login_url"], "/auth/login?provider=second&acr_values=gold+platinum&step_up=1");
    let start = browser.navigate("/gold/x").await;
    let asked = query(&format!("{}{}", browser.origin(), start.location()));
    assert_eq!((asked["provider"].as_str(), asked["step_up"].as_str()), ("second", "1"));
    assert!(browser.navigate(start.location()).await.location().starts_with(site.second.issuer()));
    assert_eq!(steps_up(&mut browser, &start).await.status, StatusCode::OK);
    assert_eq!(browser.navigate("/gold/x").await.body, "ok");
    // A backend knows one way to log in: its user gets the upstream's own answer.
    site.backend.behave(|manners| manners.token_subject = Some("alice".into()));
    let draft = post(&browser, "/auth/login", &form("alice", PASSWORD));
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    theirs(&browser.fetch("/gold/x").await);
    theirs(&browser.navigate("/gold/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_login_that_took_its_time_is_as_recent_as_any() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    for _ in 0..3 {
        world.clock.advance(secs(31));
        let start = browser.navigate("/now/x").await;
        let callback = browser.authorize(start.location()).await;
        // Between the password and the way back there was a page of the provider.
        world.clock.advance(secs(50));
        assert_eq!(browser.navigate(&callback).await.status, StatusCode::OK);
        for _ in 0..2 {
            world.clock.advance(secs(10));
            theirs(&browser.navigate("/now/x").await);
            theirs(&browser.fetch("/now/x").await);
        }
    }
    // A login that was begun for less counts from the password on.
    let callback = browser.authorize("/auth/login").await;
    world.clock.advance(secs(50));
    browser.navigate(&callback).await;
    assert_eq!(browser.fetch("/now/x").await.code(), "step_up_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_redirects_nobody_tells_of_a_step_up_too() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    let mut browser = world.logged_in().await;
    let answer = browser.navigate("/told/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "step_up_required"), "{answer:?}");
    assert_eq!(answer.json()["login_url"], "/auth/login?acr_values=gold+platinum&step_up=1");
    assert!(answer.headers.get("location").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_step_up_brings_the_new_ticket() {
    let peer = picky().await;
    let world = world_over(&peer).await;
    for navigates in [true, false] {
        let mut browser = world.logged_in().await;
        let before = ticket(&browser);
        world.clock.advance(secs(16 * 60));
        let answer = if navigates { browser.navigate("/gold/x").await } else { browser.fetch("/gold/x").await };
        assert_eq!(answer.status == StatusCode::SEE_OTHER, navigates, "{answer:?}");
        assert_ne!(ticket(&browser), before, "or a user who never steps up would lose the session");
    }
}
