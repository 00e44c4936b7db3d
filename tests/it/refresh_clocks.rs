//! A replica whose clock is wrong keeps the others from nothing, and never makes them show a token twice.

use cloakroom::demo::Fault;
use cloakroom::primitives::clock::Clock;
use cloakroom::store::record::{Intent, Owner, Record, SessionKey};
use cloakroom::store::{Announce, SessionStore as _, Swap};
use reqwest::StatusCode;

use crate::backchannel_kit::{ALICE, shared, store};
use crate::harness::{Proxy, Wishes, World, eventually};
use crate::kit::*;

/// A replica whose clock is five minutes ahead. Its tokens look dead to it.
async fn hasty_replica(world: &World) -> Proxy {
    let ahead = Clock::manual(world.clock.now().plus(secs(300)));
    let other = Proxy::start(&world.yaml, &ahead, world.shared.clone()).await;
    other.knows_provider().await;
    other
}

async fn record(world: &World) -> (SessionKey, Record) {
    let owner = Owner::Subject { provider: "demo", subject: ALICE };
    store(world).find(&owner).await.expect("the store answers").pop().expect("a session")
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_pause_by_a_clock_that_is_ahead_binds_nobody_else() {
    let world = world(shared()).await;
    let other = hasty_replica(&world).await;
    let mut browser = world.logged_in().await;
    token_fault(&world, Fault::status(503));
    assert_not_now(&carry(&browser, &other).fetch("/api/whoami").await, "provider_unavailable");
    eventually("it is written down", || async { record(&world).await.1.retry_at.is_some() }).await;
    heal(&world);
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    assert_eq!(record(&world).await.1.generation, 2, "refreshed at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_lease_by_a_clock_that_is_ahead_ends_when_it_stands_still() {
    for (grace, in_doubt) in [("0s", true), ("10s", true), ("24h", false)] {
        let provider_yaml = format!("    refresh_token_grace: {grace}");
        let world = world(Wishes { provider_yaml, ..shared() }).await;
        let mut browser = world.logged_in().await;
        let refresh_token = newest(&world).refresh_token.expect("a refresh token");
        let (key, read) = record(&world).await;
        let ahead = world.clock.now().plus(secs(300));
        // The owner has died.
        let intent = Some(Intent { owner: 7, begun: ahead, until: ahead.plus(secs(4)) });
        let left = Record { version: read.version + 1, intent, ..read };
        let swap = store(&world).replace(&key, left.version - 1, &left, Announce::Nobody).await;
        assert_eq!(swap.expect("the store answers"), Swap::Stored);
        world.clock.advance(NEARLY_OVER);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        eventually("somebody has settled it", || async { record(&world).await.1.intent.is_none() }).await;
        let after = record(&world).await.1;
        assert_eq!(
            (after.refresh_in_doubt, after.generation),
            if in_doubt { (Some(7), 1) } else { (None, 2) },
            "{grace}"
        );
        let shown = world.demo.provider.ledger().presentations(&refresh_token);
        assert_eq!(shown, usize::from(!in_doubt), "{grace}: nobody knows how long ago it was shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_living_owner_whose_clock_is_ahead_is_left_alone() {
    let world = world(shared()).await;
    let other = hasty_replica(&world).await;
    let browser = world.logged_in().await;
    let gate = hold_tokens(&world, false);
    let there = fetch_soon(&carry(&browser, &other), "/api/whoami");
    gate.arrived(1).await;
    world.clock.advance(NEARLY_OVER);
    // Longer than it takes to tell that an owner has died.
    for _ in 0..3 {
        assert_eq!(holder(&browser).fetch("/api/whoami").await.status, StatusCode::OK);
    }
    assert_eq!(record(&world).await.1.refresh_in_doubt, None);
    gate.open();
    there.await.expect("an answer");
    assert_shown_once(&world);
}
