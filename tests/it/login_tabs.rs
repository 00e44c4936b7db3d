//! Many tabs, stale tabs, and browsers that go round in circles (behaviour L13, L14; F21).

use cloakroom::primitives::random;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::harness::{Browser, LOGIN, SESSION, Wishes, World, eventually};
use crate::kit::{secs, ticking, world};
use crate::login_kit::{arrive, logins_begun, onward, refused, tab, token_calls};
use crate::shared_store::SharedStore;

const TABS: usize = 20;
/// `LOGINS_PER_BROWSER`
const ALIVE: usize = 16;

async fn ready() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn l13_twenty_tabs_at_once_come_back_each_to_its_own_path() {
    let world = ready().await;
    let mut browser = world.browser();
    // The browser has been here before.
    browser.navigate("/").await;
    let binding = browser.cookie(LOGIN).expect("a binding").to_owned();

    let mut tabs: Vec<_> = (0..TABS).map(|_| tab(&browser)).collect();
    let starts = tabs.iter_mut().enumerate().map(async |(i, tab)| tab.authorize(&format!("/tab/{i}")).await);
    let callbacks = join_all(starts).await;
    for tab in &tabs {
        assert_eq!(tab.cookie(LOGIN), Some(binding.as_str()), "one login cookie");
        assert_eq!(tab.jars[&tab.home.to_string()].len(), 1, "and nothing else");
    }

    // Seven is prime to twenty, so this is each of them once, in an order of its own.
    let mut own = 0;
    for i in (0..TABS).map(|i| i * 7 % TABS) {
        let page = arrive(&mut browser, Method::GET, &callbacks[i]).await;
        assert_ne!(page.status, StatusCode::TOO_MANY_REQUESTS, "tabs are no loop: {page:?}");
        if page.status == StatusCode::OK && onward(&page) == format!("/tab/{i}") {
            own += 1;
        }
    }
    assert_eq!(own, ALIVE);
    assert_eq!(token_calls(&world), ALIVE);
    assert_eq!(browser.navigate("/").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn l13_the_oldest_login_is_dropped_first() {
    let world = ready().await;
    let mut browser = world.browser();
    let mut callbacks = Vec::new();
    for i in 0..=ALIVE {
        callbacks.push(browser.authorize(&format!("/tab/{i}")).await);
    }
    let page = browser.navigate(&callbacks[0]).await;
    refused(&browser, &page, &callbacks[0], "the seventeenth drove it out");
    assert_eq!(onward(&browser.navigate(&callbacks[1]).await), "/tab/1");
    assert_eq!(onward(&browser.navigate(&callbacks[ALIVE]).await), format!("/tab/{ALIVE}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn l13_the_logins_of_strangers_drive_nobody_out() {
    let world = ready().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/mine").await;
    for _ in 0..2 * ALIVE {
        world.browser().navigate("/").await;
    }
    assert_eq!(onward(&browser.navigate(&callback).await), "/mine");
}

/// The provider's redirect is a cross-site navigation, so a Strict session cookie stays behind: the answer must find out
/// first whether there is a session.
#[tokio::test(flavor = "multi_thread")]
async fn l13_a_dead_state_with_a_live_session_goes_on() {
    let world = ready().await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    arrive(&mut browser, Method::GET, &callback).await;
    assert!(browser.cookie(SESSION).is_some());

    let page = browser.navigate(&callback).await;
    assert_eq!(onward(&page), "/", "the cookie came along");

    let page = arrive(&mut browser, Method::GET, &callback).await;
    let page = browser.navigate(&onward(&page)).await;
    let target = if page.body.contains("id=\"onward\"") { onward(&page) } else { "/".to_owned() };
    assert_eq!(target, "/", "the cookie was held back: {page:?}");
    assert_eq!(browser.navigate("/").await.status, StatusCode::OK, "and the session lives");
    assert_eq!(token_calls(&world), 1);

    // Without a session the same detour ends on the error page.
    browser.jars.get_mut(&browser.home.to_string()).expect("a jar").remove(SESSION);
    let page = arrive(&mut browser, Method::GET, &callback).await;
    let page = browser.navigate(&onward(&page)).await;
    refused(&browser, &page, &callback, "no session, no login");
}

#[tokio::test(flavor = "multi_thread")]
async fn l14_a_loop_of_logins_ends_on_a_page() {
    let world = ready().await;
    let mut browser = world.browser();
    let mut finished = 0;
    // The count is kept in windows of five seconds: the first five always pass, and two windows can hold no more than
    // nine of them.
    let page = loop {
        let start = browser.navigate("/page").await;
        if start.status == StatusCode::TOO_MANY_REQUESTS {
            break start;
        }
        assert_eq!(start.status, StatusCode::SEE_OTHER, "{start:?}");
        let callback = browser.navigate(start.location()).await.location().to_owned();
        arrive(&mut browser, Method::GET, &callback).await;
        // The browser that does not keep our cookie.
        browser.jars.get_mut(&browser.home.to_string()).expect("a jar").remove(SESSION).expect("a session");
        finished += 1;
        assert!(finished < 60, "no end");
    };
    assert!(finished >= 5, "{finished}");
    assert_eq!(page.code(), "too_many_logins");
    assert!(page.header("retry-after").parse::<u32>().expect("seconds") > 0);
    assert!(page.headers.get("location").is_none() && !page.body.contains("http-equiv=\"refresh\""), "{page:?}");
    assert!(page.body.contains("href=\"/page\""), "a way to go on: {page:?}");
    let begun = logins_begun(&world).await;

    let script = browser.draft(Method::GET, "/auth/login").header("accept", "application/json");
    assert_eq!(browser.send(script).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(logins_begun(&world).await, begun);

    world.browser().log_in("/").await;
    let again = std::sync::Mutex::new(browser);
    eventually("the loop is forgiven", || async {
        let mut browser = tab(&again.lock().unwrap());
        browser.navigate("/page").await.status == StatusCode::SEE_OTHER
    })
    .await;
}

/// Strangers log in all day long: what is remembered of a login that is done must never outlive one that is under way,
/// or a store that is full of it drops the latter.
#[tokio::test(flavor = "multi_thread")]
async fn l13_logins_that_are_done_drive_none_out_that_is_under_way() {
    let wishes = ticking();
    let room = SharedStore::with_logins(&wishes.clock, 2 * SHARDS);
    let world = world(Wishes { shared: Some(room), ..wishes }).await;
    // All in one part of the store, which has room for two.
    let mut browsers: Vec<_> = (0..5).map(|_| browser_of_shard(&world, 0)).collect();
    for browser in &mut browsers[..3] {
        browser.log_in("/").await;
    }
    world.clock.advance(secs(1));
    let (mut one, mut two) = (browsers.swap_remove(4), browsers.swap_remove(3));
    let (first, second) = (one.authorize("/one").await, two.authorize("/two").await);
    assert_eq!(onward(&one.navigate(&first).await), "/one");
    assert_eq!(onward(&two.navigate(&second).await), "/two");
}

/// Parts of the memory store.
const SHARDS: usize = 64;

/// A browser whose logins lie in this part of the memory store.
fn browser_of_shard(world: &World, shard: usize) -> Browser {
    let binding = std::iter::repeat_with(|| random::token().expect("randomness"))
        .find(|binding| usize::from(Sha256::digest(binding)[0]) % SHARDS == shard)
        .expect("one of many");
    let mut browser = world.browser();
    browser.set_cookie(LOGIN, &binding);
    browser
}
