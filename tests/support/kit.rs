//! What tests of sessions, refresh and store share beside the harness.

use std::time::Duration;

use cloakroom::demo::provider::{Endpoint, Issued};
use cloakroom::demo::{Fault, Gate, ProviderConfig};
use cloakroom::primitives::clock::Clock;
use reqwest::header::COOKIE;
use reqwest::{Client, Method, StatusCode};

use crate::harness::{Browser, Proxy, SESSION, Seen, Wishes, World, XSRF, eventually};
use crate::redis_server::RedisServer;

/// Leaves five of the provider's sixty seconds: under `minimum_lifetime`, and still good.
pub(crate) const NEARLY_OVER: Duration = Duration::from_secs(55);
/// From [`NEARLY_OVER`] to after the end.
pub(crate) const REST: Duration = Duration::from_secs(6);
/// After the end of the access token.
pub(crate) const OVER: Duration = Duration::from_secs(61);
/// The default of `session.cache.ttl`.
pub(crate) const CACHE_TTL: Duration = Duration::from_secs(5);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The usual world under a clock that the test moves. It begins now, for Redis expires keys by its own clock.
pub(crate) fn ticking() -> Wishes {
    Wishes { clock: Clock::manual(Clock::system().now()), ..Wishes::default() }
}

/// Lines of `session:` for a test that holds one ticket in two hands for long.
pub(crate) const STEADY_TICKET: &str = "  rotate_every: 0s";

/// Tokens that outlive every session, so that only the session's own times count.
pub(crate) fn lasting_tokens() -> ProviderConfig {
    ProviderConfig {
        access_token_lifetime: secs(24 * 3600),
        refresh_token_lifetime: secs(24 * 3600),
        ..ProviderConfig::default()
    }
}

/// As [`ticking`], with sessions in Redis.
pub(crate) fn ticking_on(redis: &RedisServer) -> Wishes {
    Wishes { store: store_at(redis), ..ticking() }
}

pub(crate) fn store_at(redis: &RedisServer) -> String {
    format!("{{ kind: redis, url: \"{}\" }}", redis.url())
}

/// A world whose proxy knows its provider already.
pub(crate) async fn world(wishes: Wishes) -> World {
    let world = World::with(wishes).await;
    world.proxy.knows_provider().await;
    world
}

/// The same browser as it talks to another proxy of the site: same cookies, other port.
pub(crate) fn carry(browser: &Browser, to: &Proxy) -> Browser {
    let mut twin = Browser::new(to.address);
    twin.jars = browser.jars.clone();
    if let Some(jar) = twin.jars.get(&browser.home.to_string()).cloned() {
        twin.jars.insert(to.address.to_string(), jar);
    }
    twin
}

/// The session cookie, without which there is no point in going on.
pub(crate) fn ticket(browser: &Browser) -> String {
    browser.cookie(SESSION).expect("a session cookie").to_owned()
}

/// A browser of the same proxy that has nothing but this session.
pub(crate) fn holder(browser: &Browser) -> Browser {
    let mut twin = Browser::new(browser.home);
    for name in [SESSION, XSRF] {
        if let Some(value) = browser.cookie(name) {
            twin.set_cookie(name, value);
        }
    }
    twin
}

/// Calls of the token endpoint.
pub(crate) fn token_calls(world: &World) -> usize {
    world.demo.provider.ledger().count(Endpoint::Token)
}

/// The tokens that the provider gave out last.
pub(crate) fn newest(world: &World) -> Issued {
    world.demo.provider.ledger().last_issued().expect("tokens")
}

/// The access token of the last request that reached the upstream.
pub(crate) fn relayed(world: &World) -> String {
    let last = world.demo.upstream.recorder().last().expect("a request");
    last.bearer().expect("a token").to_owned()
}

/// No refresh token was shown twice.
pub(crate) fn assert_shown_once(world: &World) {
    for (token, times) in world.demo.provider.ledger().all_presentations() {
        assert_eq!(times, 1, "{token} was shown {times} times");
    }
}

pub(crate) fn token_fault(world: &World, fault: Fault) {
    world.demo.provider.switches().fault(Endpoint::Token, fault);
}

pub(crate) fn heal(world: &World) {
    world.demo.provider.switches().faults(Endpoint::Token).clear();
    world.demo.provider.switches().set(|switch| switch.refuse_refresh = None);
}

/// Holds the token endpoint before its work (or after it) until the gate is opened.
pub(crate) fn hold_tokens(world: &World, after_work: bool) -> Gate {
    let gate = Gate::closed();
    let fault = Fault::hold(&gate).times(1);
    token_fault(world, if after_work { fault.after_work() } else { fault });
    gate
}

/// A script's GET in the background.
pub(crate) fn fetch_soon(browser: &Browser, target: &'static str) -> tokio::task::JoinHandle<Seen> {
    let mut twin = holder(browser);
    tokio::spawn(async move { twin.fetch(target).await })
}

/// Many requests of one browser at once.
pub(crate) async fn volley(browser: &Browser, target: &str, count: usize) -> Vec<StatusCode> {
    let session = format!("{SESSION}={}", ticket(browser));
    let (client, url) = (Client::new(), format!("{}{target}", browser.origin()));
    let calls = (0..count).map(|_| {
        let call = client.get(&url).header(COOKIE, &session).header("sec-fetch-mode", "cors").send();
        async move { call.await.expect("an answer").status() }
    });
    futures::future::join_all(calls).await
}

/// Nothing of the session is left in the proxy's books.
pub(crate) async fn at_rest(world: &World) {
    eventually("nothing is under way", || async {
        world.metric("cloakroom_http_requests_in_flight{").await == 0.0
            && world.metric("cloakroom_token_refresh_waiters{").await == 0.0
    })
    .await;
}

/// The session is over: scripts are told so, a navigation logs in again, and then all is well.
pub(crate) async fn assert_logs_in_again(browser: &mut Browser) {
    let refused = browser.fetch("/api/whoami").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{refused:?}");
    assert_eq!(refused.json()["login_url"], "/auth/login");
    assert!(refused.set_cookies().is_empty(), "{refused:?}");
    let before = ticket(browser);
    browser.log_in("/").await;
    assert_ne!(ticket(browser), before, "a new login has a new id");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

/// The answer says "not now" and takes nothing away.
pub(crate) fn assert_not_now(answer: &Seen, code: &str) {
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, code), "{answer:?}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
    assert!(answer.set_cookies().is_empty(), "no cookie is touched in an outage: {answer:?}");
}

/// Logs out as the page does.
pub(crate) async fn log_out(browser: &mut Browser) -> Seen {
    browser.write(Method::POST, "/auth/logout", "").await
}
