//! `private_key_jwt` and pushed requests, from the browser's click to the provider's books (behaviour L8, L9).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use cloakroom::demo::provider::{Client, Endpoint};
use cloakroom::demo::{Fault, ProviderConfig};
use cloakroom::primitives::signing::SigningKey;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Browser, Proxy, Wishes, World, eventually};
use crate::kit::{NEARLY_OVER, log_out, ticking};
use crate::login_kit::{query, refused};

pub(crate) const SECRET: &str = "{ method: client_secret_basic, secret: { env: TEST_SECRET } }";

/// A key in a file, and its public half.
pub(crate) fn key_file(folder: &tempfile::TempDir, name: &str) -> (String, Value) {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let path = folder.path().join(name);
    std::fs::write(&path, pair.serialize_pem()).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("rights");
    let key = SigningKey::from_pkcs8(&pair.serialize_der(), None, None).expect("a key");
    (path.display().to_string(), key.public_jwk().clone())
}

/// Settings of a client that proves itself with these keys.
pub(crate) fn signing(keys: &[&str]) -> String {
    let keys = keys.iter().map(|key| format!("{{ key: \"{key}\" }}")).collect::<Vec<_>>().join(", ");
    format!("{{ method: private_key_jwt, keys: [{keys}] }}")
}

/// A world whose provider takes assertions signed with these keys, and a proxy that makes them.
async fn world(keys: &[Value], auth: &str) -> (World, Proxy) {
    let client = Client { secret: None, jwks: Some(json!({ "keys": keys })), ..Client::demo() };
    let provider = ProviderConfig { clients: vec![client], ..ProviderConfig::default() };
    let world = World::with(Wishes { provider, ..ticking() }).await;
    let proxy = world.replica_with(SECRET, auth).await;
    proxy.knows_provider().await;
    (world, proxy)
}

/// The assertions an endpoint was shown.
fn shown(world: &World, endpoint: Endpoint) -> Vec<String> {
    let requests = world.demo.provider.ledger().requests(endpoint);
    requests.iter().map(|request| request.parameter("client_assertion").unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_login_refresh_and_revocation_each_with_an_assertion_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, public) = key_file(&folder, "client.pem");
    let (world, proxy) = world(&[public.clone()], &signing(&[&file])).await;
    let mut browser = Browser::new(proxy.address);
    browser.log_in("/").await;
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    log_out(&mut browser).await;
    eventually("the refresh token is revoked", || async { !world.demo.provider.ledger().revoked().is_empty() }).await;
    let all: Vec<_> = [Endpoint::Token, Endpoint::Revoke].into_iter().flat_map(|at| shown(&world, at)).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3, "an assertion was sent twice");
    assert!(all.iter().all(|assertion| !assertion.is_empty()));

    let published = browser.fetch("/auth/client-jwks.json").await;
    assert_eq!(published.json(), json!({ "keys": [public] }), "{published:?}");
    assert_eq!(browser.write(Method::POST, "/auth/client-jwks.json", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let without = world.browser().fetch("/auth/client-jwks.json").await;
    assert_eq!(without.status, StatusCode::NOT_FOUND, "a client with a secret has no keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_refused_and_the_right_one_is_taken_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let ((old, _), (new, public)) = (key_file(&folder, "old.pem"), key_file(&folder, "new.pem"));
    let (_world, proxy) = world(&[public], &signing(&[&old])).await;
    let mut browser = Browser::new(proxy.address);
    let callback = browser.authorize("/").await;
    let page = browser.navigate(&callback).await;
    refused(&browser, &page, &callback, "a key that the provider does not know");

    let outcome = proxy.reload(&signing(&[&old]), &signing(&[&new, &old])).await.expect("it is applied");
    assert_eq!(outcome.applied, ["providers[].client_auth.keys"]);
    assert!(outcome.needs_restart.is_empty(), "{outcome:?}");
    browser.log_in("/").await;
    let published = browser.fetch("/auth/client-jwks.json").await.json();
    assert_eq!(published["keys"].as_array().map(Vec::len), Some(2), "the old key is published as long as it is in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_a_pushed_login_shows_the_browser_nothing_but_a_reference() {
    let world = World::start().await;
    world.demo.provider.switches().set(|switch| switch.pushed_only = true);
    let proxy = world.replica().await;
    proxy.knows_provider().await;
    let mut browser = Browser::new(proxy.address);
    let away = browser.navigate("/auth/login?return_to=/page&login_hint=alice").await;
    let asked = query(away.location());
    assert_eq!(asked.keys().map(String::as_str).collect::<Vec<_>>(), ["client_id", "request_uri"], "{away:?}");
    let back = browser.navigate(away.location()).await;
    assert_eq!(browser.navigate(back.location()).await.status, StatusCode::OK);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let pushed = world.demo.provider.ledger().last_request(Endpoint::Pushed).expect("a pushed request");
    assert_eq!(pushed.parameter("login_hint"), Some("alice"));
    assert!(pushed.header("authorization").is_some_and(|value| value.starts_with("Basic ")));

    // Whatever goes wrong with pushing, nobody is asked to carry the request in the open.
    for (fault, status, code) in [
        (Fault::status(503), StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"),
        (Fault::page(404), StatusCode::BAD_REQUEST, "login_failed"),
    ] {
        world.demo.provider.switches().fault(Endpoint::Pushed, fault);
        let answer = Browser::new(proxy.address).navigate("/auth/login").await;
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
        world.demo.provider.switches().faults(Endpoint::Pushed).clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_was_too_slow_starts_over() {
    let world = World::with(ticking()).await;
    world.demo.provider.switches().set(|switch| switch.pushed_only = true);
    let proxy = world.replica().await;
    proxy.knows_provider().await;
    let mut browser = Browser::new(proxy.address);
    let away = browser.navigate("/").await;
    world.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(browser.navigate(away.location()).await.status, StatusCode::BAD_REQUEST, "the provider's page");
    browser.log_in("/").await;
}
