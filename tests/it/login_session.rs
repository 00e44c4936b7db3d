//! Whose session it is: fixation, former sessions, sites beside each other (behaviour S7, S11, C1).

use cloakroom::demo::provider::Endpoint;
use cloakroom::demo::{Fault, Gate};
use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, Wishes, World, XSRF};
use crate::kit::{lasting_tokens, secs, store_at, ticket, ticking, world};
use crate::login_kit::{arrive, onward, tab};
use crate::redis_server::RedisServer;

async fn ready() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_a_login_gives_a_new_id_and_ends_the_former_session() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    let former = tab(&browser);
    let cookies = |browser: &crate::harness::Browser| {
        [SESSION, XSRF].map(|name| browser.cookie(name).expect("a cookie").to_owned())
    };
    // The session cookie comes along to the callback, or is held back as Strict cookies are.
    for strict in [false, true] {
        let [id, token] = cookies(&browser);
        let mut before = tab(&browser);
        assert_eq!(before.fetch("/api/whoami").await.status, StatusCode::OK);
        let callback = browser.authorize("/auth/login").await;
        assert_eq!(before.fetch("/api/whoami").await.status, StatusCode::OK, "until the login is done");
        if strict {
            arrive(&mut browser, Method::GET, &callback).await;
        } else {
            browser.navigate(&callback).await;
        }
        let [new_id, new_token] = cookies(&browser);
        assert!(id != new_id && token != new_token);
        assert_eq!(before.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED, "strict: {strict}");
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
    let mut former = former;
    assert_eq!(former.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

/// A link on another site to our login: the Strict cookie is held back all the way, and still the session ends.
#[tokio::test(flavor = "multi_thread")]
async fn s7_a_login_that_another_site_began_ends_the_former_session_too() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    let mut former = tab(&browser);
    let page = arrive(&mut browser, Method::GET, "/auth/login?return_to=/page").await;
    let callback = browser.authorize(&onward(&page)).await;
    let page = arrive(&mut browser, Method::GET, &callback).await;
    assert_eq!(onward(&page), "/page");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(former.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_a_planted_session_is_never_adopted() {
    let world = ready().await;
    let attacker = world.logged_in().await;
    let live = attacker.cookie(SESSION).expect("a session").to_owned();
    for planted in ["A".repeat(43), live, "x".into(), "A".repeat(4000)] {
        let mut victim = world.browser();
        victim.set_cookie(SESSION, &planted);
        victim.log_in("/auth/login").await;
        assert_ne!(victim.cookie(SESSION), Some(planted.as_str()));
        assert_eq!(victim.fetch("/api/whoami").await.status, StatusCode::OK);

        let mut holder = world.browser();
        holder.set_cookie(SESSION, &planted);
        assert_eq!(holder.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED, "{planted}");
    }
}

/// A ticket names its session by its first part, which stays, and opens it by the second.
#[tokio::test(flavor = "multi_thread")]
async fn s7_a_ticket_that_opens_nothing_ends_nothing() {
    let world = world(Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut victim = world.logged_in().await;
    let exchanged = ticket(&victim);
    let forged = format!("{}{}", &exchanged[..22], "A".repeat(42));
    // Twice, so that the first one is not good for the grace either.
    for _ in 0..2 {
        world.clock.advance(secs(15 * 60));
        victim.fetch("/api/whoami").await;
        world.clock.advance(secs(61));
    }
    for shown in [&forged, &exchanged] {
        // At the beginning alone, at the end alone, and both times.
        for (first, last) in [(true, false), (false, true), (true, true)] {
            let mut stranger = world.browser();
            if first {
                stranger.set_cookie(SESSION, shown);
            }
            let callback = stranger.authorize("/auth/login").await;
            if last {
                stranger.set_cookie(SESSION, shown);
                stranger.navigate(&callback).await;
            } else {
                arrive(&mut stranger, Method::GET, &callback).await;
            }
            assert_eq!(stranger.fetch("/api/whoami").await.status, StatusCode::OK, "a session of its own");
            assert_eq!(victim.fetch("/api/whoami").await.status, StatusCode::OK, "{first} {last}");
        }
    }
}

/// The ticket is exchanged while its browser is at the provider, and comes back with neither.
#[tokio::test(flavor = "multi_thread")]
async fn s7_a_session_whose_ticket_was_exchanged_meanwhile_ends_all_the_same() {
    let world = world(Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let mut other = tab(&browser);
    world.clock.advance(secs(15 * 60 - 1));
    let away = browser.navigate("/auth/login").await;
    world.clock.advance(secs(1));
    other.fetch("/api/whoami").await;
    world.clock.advance(secs(120));
    assert_eq!(other.fetch("/api/whoami").await.status, StatusCode::OK);
    let back = browser.navigate(away.location()).await;
    arrive(&mut browser, Method::GET, back.location()).await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(other.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_a_failed_login_leaves_the_session_alone() {
    let world = ready().await;
    let mut browser = world.logged_in().await;
    world.demo.provider.switches().set(|switch| switch.callback_error = Some("access_denied".into()));
    let callback = browser.authorize("/auth/login").await;
    let page = browser.navigate(&callback).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.set_cookies().is_empty(), "{page:?}");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

/// Two sites in one proxy, with one provider and one store.
async fn two_sites() -> (World, String) {
    let more = "  - hosts: [localhost]\n    provider: demo\n    routes:\n      - { path: /, upstream: demo, access: required }\n";
    let world = World::with(Wishes { more: more.into(), ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let other = format!("localhost:{}", world.proxy.address.port());
    (world, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_session_of_one_site_is_none_on_another() {
    let (world, other) = two_sites().await;
    let mut browser = world.logged_in().await;
    for path in ["/api/whoami", "/auth/userinfo"] {
        assert_eq!(browser.fetch(path).await.status, StatusCode::OK);
        let draft = browser.draft(Method::GET, path).header("host", &other);
        let answer = browser.send(draft).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}: {answer:?}");
        assert!(answer.set_cookies().is_empty());
    }
    let draft = browser.draft(Method::GET, "/auth/session").header("host", &other);
    assert_eq!(browser.send(draft).await.json()["authenticated"], false);
    // Nor can it be ended from there.
    let token = browser.cookie(XSRF).expect("a token").to_owned();
    let mut stray = tab(&browser);
    let draft = stray.draft(Method::POST, "/auth/logout").header("host", &other);
    stray.send(draft.header("origin", &format!("http://{other}")).header("x-xsrf-token", &token)).await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "alive after all that");
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_login_at_one_site_ends_no_session_of_another() {
    let (world, other) = two_sites().await;
    let mut browser = world.logged_in().await;
    // With the ticket of the other site, and with its binding alone.
    for with_ticket in [true, false] {
        let mut stray = tab(&browser);
        if !with_ticket && let Some(jar) = stray.jars.get_mut(&browser.home.to_string()) {
            jar.remove(SESSION);
        }
        let draft = stray.draft(Method::GET, "/auth/login").header("host", &other).navigation();
        let start = stray.send(draft).await;
        let back = stray.navigate(start.location()).await;
        let callback = back.location().split_once(&other).expect("the other site").1.to_owned();
        let draft = stray.draft(Method::GET, &callback).header("host", &other).navigation();
        let page = stray.send(draft).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let draft = stray.draft(Method::GET, "/api/whoami").header("host", &other);
        assert_eq!(stray.send(draft).await.status, StatusCode::OK, "logged in there");
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "and here as before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_login_of_one_site_does_not_end_on_another() {
    let (world, other) = two_sites().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    assert!(browser.cookie(LOGIN).is_some());
    let draft = browser.draft(Method::GET, &callback).header("host", &other).navigation();
    let page = browser.send(draft).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{page:?}");
    assert!(browser.cookie(SESSION).is_none());
    assert_eq!(crate::login_kit::token_calls(&world), 0);

    let draft = browser.draft(Method::GET, "/").header("host", &other).navigation();
    let start = browser.send(draft).await;
    let sent = crate::login_kit::query(start.location());
    assert_eq!(sent["redirect_uri"], format!("http://{other}/auth/callback"), "each site comes back to itself");
}

/// Two tabs that both began without a session leave one, not two.
#[tokio::test(flavor = "multi_thread")]
async fn s7_the_second_tabs_login_ends_the_firsts_session() {
    let world = ready().await;
    let mut browser = world.browser();
    let first = browser.authorize("/one").await;
    let second = browser.authorize("/two").await;
    browser.navigate(&first).await;
    let mut former = tab(&browser);
    assert_eq!(former.fetch("/api/whoami").await.status, StatusCode::OK);
    // From the provider, so without the Strict cookie.
    let mut returning = tab(&browser);
    if let Some(jar) = returning.jars.get_mut(&browser.home.to_string()) {
        jar.remove(SESSION);
    }
    let page = returning.navigate(&second).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert_eq!(returning.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(former.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

/// What is remembered of a browser's latest session has no name that a callback could give.
#[tokio::test(flavor = "multi_thread")]
async fn s7_no_state_names_the_latest_session() {
    let world = ready().await;
    let mut browser = world.browser();
    let first = browser.authorize("/one").await;
    let second = browser.authorize("/two").await;
    browser.navigate(&first).await;
    let mut former = tab(&browser);
    // By a link on another site.
    arrive(&mut browser, Method::GET, "/auth/callback?state=latest%20session&code=x").await;
    let page = arrive(&mut browser, Method::GET, &second).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(former.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED);
}

/// Two tabs whose logins end in the same moment: neither knew of the other's session, and still one of them goes.
#[tokio::test(flavor = "multi_thread")]
async fn s7_two_logins_that_end_at_the_same_moment_leave_one_session() {
    let redis = RedisServer::start();
    let world = world(Wishes { store: store_at(&redis), ..Wishes::default() }).await;
    for round in 0..10 {
        let mut browser = world.browser();
        let (first, second) = (browser.authorize("/one").await, browser.authorize("/two").await);
        let mut tabs = [tab(&browser), tab(&browser)];
        let [one, two] = &mut tabs;
        let gate = Gate::closed();
        world.demo.provider.switches().fault(Endpoint::Token, Fault::hold(&gate).after_work().times(2));
        tokio::join!(one.navigate(&first), two.navigate(&second), async {
            gate.arrived(2).await;
            gate.open();
        });
        let mut alive = 0;
        for tab in &mut tabs {
            alive += usize::from(tab.fetch("/api/whoami").await.status == StatusCode::OK);
        }
        assert_eq!(alive, 1, "round {round}");
    }
}
