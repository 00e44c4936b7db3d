//! Tokens that clients bring to a site with several providers: whose keys judge them, and what they open (behaviour A2,
//! S11).

use cloakroom::demo::provider::Signing;
use cloakroom::demo::{CLIENT_ID, Provider};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Browser, World};
use crate::kit::*;
use crate::several_providers::Several;

/// An access token of a provider for a program.
fn access_token(world: &World, provider: &Provider, issuer: &str, audience: &str) -> String {
    let now = world.clock.now().as_secs();
    let claims = json!({
        "iss": issuer, "sub": "robot", "aud": audience, "client_id": "app", "iat": now, "exp": now + 3600, "jti": "j",
    });
    provider.sign("at+jwt", &claims, &Signing::Honest).expect("signed")
}

async fn call(caller: &mut Browser, path: &str, token: &str) -> (u16, String) {
    let draft = caller.draft(Method::POST, path).header("authorization", &format!("Bearer {token}"));
    let seen = caller.send(draft.body("{}")).await;
    (seen.status.as_u16(), seen.code().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_token_is_judged_by_its_own_provider_and_opens_what_that_may() {
    let site = Several::start().await;
    let (world, mut app) = (&site.world, site.world.browser());
    let (demo, second) = (&world.demo.provider, &site.second);
    let (passed, refused) = ((200, String::new()), (401, "token_invalid".to_owned()));
    let of_demo = access_token(world, demo, demo.issuer(), "demo-api");
    let of_second = access_token(world, second, second.issuer(), "demo-api");
    // The second time both are known already.
    for _ in 0..2 {
        // Known or not yet, the route that asks for the other one keeps it out.
        assert_eq!(call(&mut app, "/calls/second/x", &of_demo).await, refused);
        assert_eq!(call(&mut app, "/calls/x", &of_demo).await, passed);
        assert_eq!(call(&mut app, "/calls/x", &of_second).await, passed);
        assert_eq!(call(&mut app, "/calls/second/x", &of_second).await, passed);
        assert_eq!(relayed(world), of_second);
    }
    let count = world.demo.upstream.recorder().count();
    // Forged ones name a key that the other one does not have: each is shown once, for then keys are looked up.
    let (every, own): (&[&str], &[&str]) = (&["/calls/x", "/calls/second/x"], &["/calls/x"]);
    for (what, paths, token) in [
        ("signed by demo in the name of second", own, access_token(world, demo, second.issuer(), "demo-api")),
        ("signed by second in the name of demo", own, access_token(world, second, demo.issuer(), "demo-api")),
        ("for second as a client", every, access_token(world, second, second.issuer(), CLIENT_ID)),
        ("of a stranger", every, access_token(world, second, "https://stranger.example", "demo-api")),
    ] {
        for path in paths {
            assert_eq!(call(&mut app, path, &token).await, refused, "{what} {path}");
        }
    }
    assert_eq!(world.demo.upstream.recorder().count(), count);
    // One that is down is nobody else's trouble, nor that of its tokens as long as its keys are known.
    for provider in [demo, second] {
        provider.stop().await;
        world.clock.advance(secs(301));
        assert_eq!(call(&mut app, "/calls/x", &of_demo).await, passed);
        assert_eq!(call(&mut app, "/calls/second/x", &of_second).await, passed);
        assert_eq!(call(&mut app, "/calls/second/x", &of_demo).await, refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_proxy_token_opens_nothing_of_another_provider() {
    let site = Several::start().await;
    let (mut browser, mut app) = (site.world.browser(), site.world.browser());
    let (passed, refused) = ((200, String::new()), (401, "token_invalid".to_owned()));
    for (provider, expected) in [("demo", &refused), ("second", &passed)] {
        browser.log_in(&format!("/auth/login?provider={provider}")).await;
        assert_eq!(browser.fetch("/app/x").await.status, StatusCode::OK);
        let token = relayed(&site.world);
        for _ in 0..2 {
            assert_eq!(call(&mut app, "/internal/x", &token).await, passed, "{provider}");
            assert_eq!(call(&mut app, "/internal/second/x", &token).await, *expected, "{provider}");
        }
    }
}
