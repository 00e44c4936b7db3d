//! Tokens bound to a key (RFC 9449): proofs towards the provider and towards upstreams.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom::demo::Received;
use cloakroom::demo::proof::{Proof, Proved};
use cloakroom::demo::provider::{Endpoint, Misbehaviour};
use cloakroom::primitives::signing::SigningKey;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Browser, Seen, Wishes, World, eventually, logs};
use crate::kit::*;
use crate::login_kit::{query, refused};
use crate::wire::{Peer, read_head};

/// A key of this client.
struct Key {
    _folder: tempfile::TempDir,
    /// The line of the settings that names it.
    line: String,
    thumbprint: String,
}

fn key() -> Key {
    let folder = tempfile::tempdir().expect("a folder");
    let (pair, path) = (rcgen::KeyPair::generate().expect("a key"), folder.path().join("dpop.pem"));
    std::fs::write(&path, pair.serialize_pem()).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("rights");
    let thumbprint = SigningKey::from_pkcs8(&pair.serialize_der(), None, None).expect("a key").id().to_owned();
    Key { line: format!("    dpop: {{ key: {{ file: \"{}\" }} }}", path.display()), thumbprint, _folder: folder }
}

/// A world with this key, whose provider wants proofs.
async fn bound(key: &Key, wishes: Wishes) -> World {
    let provider_yaml = format!("{}\n{}", key.line, wishes.provider_yaml);
    let world = world(Wishes { provider_yaml, ..wishes }).await;
    manners(&world, |switch| switch.dpop_required = true);
    world
}

fn manners(world: &World, change: impl FnOnce(&mut Misbehaviour)) {
    world.demo.provider.switches().set(change);
}

/// What a request brought, judged as the upstream should; it must be the token that the provider gave out last.
fn judged(world: &World, key: &Key, received: &Received) -> Proof {
    let token = newest(world).access_token;
    assert_eq!(received.header_all("authorization"), [format!("DPoP {token}")], "{}", received.path);
    let [proof] = received.header_all("dpop")[..] else { panic!("not one proof: {}", received.path) };
    let proof = Proof::read(proof).expect("a good proof");
    let address = format!("http://{}{}", received.header("host").expect("a host"), received.path);
    let now = world.clock.now().as_secs();
    proof.fits(&Proved { method: &received.method, address: &address, token: Some(&token), now }).expect("it fits");
    assert_eq!(proof.thumbprint, key.thumbprint);
    proof
}

fn last(world: &World) -> Received {
    world.demo.upstream.recorder().last().expect("a request")
}

/// The proofs that an endpoint of the provider was shown, one of each request.
fn shown(world: &World, endpoint: Endpoint) -> Vec<Proof> {
    let all = world.demo.provider.ledger().requests(endpoint);
    all.iter().map(|one| Proof::read(one.header("dpop").expect("a proof")).expect("a good one")).collect()
}

fn ids(proofs: &[Proof]) -> BTreeSet<&str> {
    proofs.iter().map(|proof| proof.text("jti").expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn login_refresh_and_every_request_upstream_have_a_proof_of_their_own() {
    let key = key();
    let world = bound(&key, ticking()).await;
    let mut browser = world.logged_in().await;
    let asked = world.demo.provider.ledger().last_request(Endpoint::Authorize).expect("a login");
    assert_eq!(asked.parameter("dpop_jkt"), Some(key.thumbprint.as_str()));
    let cnf = crate::tokens::claims(&newest(&world).access_token)["cnf"]["jkt"].clone();
    assert_eq!(cnf, key.thumbprint, "the provider has bound the token");

    world.demo.upstream.recorder().clear();
    for target in ["/api/whoami?a=b", "/api/whoami?a=b", "/stripped/some/%41page", "/maybe/x", "/"] {
        assert_eq!(browser.fetch(target).await.status, StatusCode::OK, "{target}");
    }
    assert_eq!(browser.write(Method::POST, "/api/x", "body").await.status, StatusCode::OK);
    assert_eq!(browser.write(Method::DELETE, "/api/x", "").await.status, StatusCode::OK);
    let all = world.demo.upstream.recorder().all();
    let proofs: Vec<_> = all.iter().map(|received| judged(&world, &key, received)).collect();
    assert_eq!((proofs.len(), ids(&proofs).len()), (7, 7), "no proof is sent twice");
    assert_eq!(proofs[2].text("htu").map(|htu| htu.ends_with("/some/Apage")), Some(true), "{:?}", proofs[2]);
    assert!(proofs.iter().all(|proof| proof.text("nonce").is_none()));

    // Every token is another one, and the proof speaks of it.
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    judged(&world, &key, &last(&world));
    let calls = shown(&world, Endpoint::Token);
    assert_eq!((calls.len(), ids(&calls).len()), (2, 2));
    assert!(calls.iter().all(|proof| proof.thumbprint == key.thumbprint && proof.text("ath").is_none()));
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bound_token_has_no_proof_and_no_client_sends_one() {
    let key = key();
    let world = bound(&key, ticking()).await;
    let mut browser = world.logged_in().await;
    for (path, bearer) in [("/id/x", true), ("/bare/x", false), ("/open/x", false)] {
        let draft = browser.draft(Method::GET, path).header("dpop", "of.the.client");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK, "{path}");
        let received = last(&world);
        assert_eq!((received.bearer().is_some(), received.header("dpop")), (bearer, None), "{path}");
    }
    for name in ["dpop", "DPoP", "DPOP"] {
        let draft = browser.draft(Method::GET, "/api/x").header(name, "of.the.client");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK);
        judged(&world, &key, &last(&world));
    }
    let mut nobody = world.browser();
    let draft = nobody.draft(Method::GET, "/maybe/x").header("dpop", "a.b.c").header("authorization", "DPoP x");
    assert_eq!(nobody.send(draft).await.status, StatusCode::OK);
    assert_eq!((last(&world).header("dpop"), last(&world).header("authorization")), (None, None));

    // Without the setting nobody has any.
    let plain = crate::kit::world(ticking()).await;
    let mut browser = plain.logged_in().await;
    let draft = browser.draft(Method::GET, "/api/x").header("dpop", "of.the.client");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!((last(&plain).bearer().is_some(), last(&plain).header("dpop")), (true, None));
    let calls = plain.demo.provider.ledger().requests(Endpoint::Token);
    assert!(calls.iter().all(|call| call.header("dpop").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_wants_its_nonce_gets_it_once_and_then_at_once() {
    let key = key();
    let world = bound(&key, Wishes { provider_yaml: "    userinfo: merge".into(), ..ticking() }).await;
    manners(&world, |switch| {
        switch.pushed_only = true;
        switch.dpop_nonce = Some("n-1".into());
        switch.userinfo = Some(("department".into(), "sales".into()));
    });
    // The metadata names the endpoint for pushed requests only now.
    let proxy = world.replica().await;
    proxy.knows_provider().await;
    let mut browser = Browser::new(proxy.address);
    browser.log_in("/").await;
    assert_eq!(browser.fetch("/auth/userinfo").await.json()["department"], "sales");
    let nonces = |endpoint| {
        let proofs = shown(&world, endpoint);
        assert_eq!(ids(&proofs).len(), proofs.len(), "a proof was sent twice");
        proofs.iter().map(|proof| proof.text("nonce").unwrap_or("-").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nonces(Endpoint::Pushed), ["-", "n-1"]);
    assert_eq!(nonces(Endpoint::Token), ["n-1"], "one authorization server");
    assert_eq!(nonces(Endpoint::Userinfo), ["-", "n-1"], "a resource server of its own");
    let proof = shown(&world, Endpoint::Userinfo).pop().expect("a proof");
    let (token, now) = (newest(&world).access_token, world.clock.now().as_secs());
    let address = format!("{}/oauth/userinfo", world.demo.provider.issuer());
    proof.fits(&Proved { method: "GET", address: &address, token: Some(&token), now }).expect("it fits");

    manners(&world, |switch| switch.dpop_nonce = Some("n-2".into()));
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(nonces(Endpoint::Token), ["n-1", "n-1", "n-2"]);
    assert_eq!(nonces(Endpoint::Userinfo), ["-", "n-1", "n-1", "n-2"]);
    assert_shown_once(&world);
    judged(&world, &key, &last(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_not_bound_are_refused_and_go_nowhere() {
    let key = key();
    let world = bound(&key, ticking()).await;
    manners(&world, |switch| switch.dpop_ignored = true);
    let mut browser = world.browser();
    let callback = browser.authorize("/").await;
    let page = browser.navigate(&callback).await;
    refused(&browser, &page, &callback, "a bearer token");
    assert_eq!(page.code(), "login_failed");
    let issued = newest(&world);
    eventually("the orphan is revoked", || async {
        world.demo.provider.ledger().revoked().iter().any(|token| Some(token) == issued.refresh_token.as_ref())
    })
    .await;
    assert!(logs().contains("the token is not bound to our key"), "the log says why");

    // And in a refresh: the old token serves as long as it lives, the new one never.
    manners(&world, |switch| switch.dpop_ignored = false);
    let mut browser = world.logged_in().await;
    manners(&world, |switch| switch.dpop_ignored = true);
    world.demo.upstream.recorder().clear();
    world.clock.advance(NEARLY_OVER);
    browser.fetch("/api/x").await;
    world.clock.advance(REST);
    assert_ne!(browser.fetch("/api/x").await.status, StatusCode::OK);
    let all = world.demo.upstream.recorder().all();
    assert!(all.iter().all(|received| received.bearer().is_none()), "a bearer token has gone upstream");
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_wants_its_nonce_gets_the_request_again_once() {
    let key = key();
    let world = bound(&key, Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let (upstream, recorder) = (&world.demo.upstream, world.demo.upstream.recorder());
    let good = |answer: &Seen| {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("dpop-nonce"), "", "that is between the upstream and us");
    };
    upstream.require_nonce(Some("u-1"));
    recorder.clear();
    good(&browser.write(Method::POST, "/api/x", "the body").await);
    let all = recorder.all();
    let proofs: Vec<_> = all.iter().map(|received| judged(&world, &key, received)).collect();
    assert_eq!((proofs.len(), ids(&proofs).len()), (2, 2), "each attempt has a proof of its own");
    assert_eq!((proofs[0].text("nonce"), proofs[1].text("nonce")), (None, Some("u-1")));
    assert_eq!(&all[1].body[..], b"the body");
    good(&browser.fetch("/api/x").await);
    assert_eq!(recorder.count(), 3, "the nonce is remembered");

    // A new one comes with any answer.
    upstream.give_nonce(Some("u-2"));
    good(&browser.fetch("/api/x").await);
    upstream.require_nonce(Some("u-2"));
    good(&browser.fetch("/api/x").await);
    assert_eq!(recorder.count(), 5);
    assert_eq!(token_calls(&world), 1, "nothing was wrong with the token");
    assert_eq!(world.metric("cloakroom_upstream_unauthorized_retries_total{result=\"nonce\"").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_never_content_gets_the_request_twice_and_has_the_last_word() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let peer = Peer::start(move |_, mut stream| {
        let counter = counter.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let round = counter.fetch_add(1, Ordering::SeqCst);
                let challenge = format!("WWW-Authenticate: DPoP error=\"use_dpop_nonce\"\r\nDPoP-Nonce: n{round}\r\n");
                let answer = format!("HTTP/1.1 401 Unauthorized\r\n{challenge}Content-Length: 4\r\n\r\nmine");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let key = key();
    let world = bound(
        &key,
        Wishes {
            upstreams: format!("  - {{ name: odd, endpoints: [\"{}\"] }}", peer.address),
            routes: "
      - { path: /odd/, upstream: odd }
      - { path: /once/, upstream: odd, retry_unauthorized: false }
      - { path: /, upstream: demo }"
                .into(),
            provider: lasting_tokens(),
            ..ticking()
        },
    )
    .await;
    let mut browser = world.logged_in().await;
    for (path, expected) in [("/odd/x", 2), ("/odd/x", 4), ("/once/x", 5)] {
        let answer = browser.fetch(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::UNAUTHORIZED, "mine"));
        assert_eq!((count.load(Ordering::SeqCst), answer.header("dpop-nonce")), (expected, ""), "{path}");
    }
    assert_eq!(token_calls(&world), 1, "no newer token mends a proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_refused_bound_token_is_replaced_and_proved_anew() {
    let key = key();
    let world = bound(&key, Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    browser.fetch("/api/whoami").await;
    world.demo.upstream.refuse_token(&newest(&world).access_token);
    world.demo.upstream.require_nonce(Some("u-1"));
    world.demo.upstream.recorder().clear();
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    // Without the nonce, with it, with the new token.
    assert_eq!((world.demo.upstream.recorder().count(), token_calls(&world)), (3, 2));
    assert_eq!(judged(&world, &key, &last(&world)).text("nonce"), Some("u-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_for_upstreams_are_bound_and_proved_too() {
    let routes = "
      - { path: /orders/, upstream: demo, token: { kind: exchange, audience: orders } }
      - { path: /catalogue/, upstream: demo, access: optional, token: { kind: client_credentials, audience: catalogue } }
      - { path: /, upstream: demo }";
    let key = key();
    let wishes = Wishes { provider: lasting_tokens(), routes: routes.into(), ..ticking() };
    let world = bound(&key, wishes).await;
    let mut browser = world.logged_in().await;
    let mut nobody = world.browser();
    world.demo.upstream.require_nonce(Some("u-1"));
    let mut all = BTreeSet::new();
    for (path, audience, user) in [
        ("/orders/x", "orders", true),
        ("/orders/x", "orders", true),
        ("/catalogue/x", "catalogue", false),
        ("/catalogue/x", "demo-api", true),
    ] {
        let answer = if user { browser.fetch(path).await } else { nobody.fetch(path).await };
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        let received = last(&world);
        let token = received.header("authorization").and_then(|value| value.strip_prefix("DPoP ")).expect("a token");
        let said = crate::tokens::claims(token);
        assert_eq!((&said["aud"], &said["cnf"]["jkt"]), (&audience.into(), &key.thumbprint.as_str().into()), "{path}");
        let proof = Proof::read(received.header("dpop").expect("a proof")).expect("a good one");
        let address = format!("http://{}{path}", received.header("host").expect("a host"));
        let now = world.clock.now().as_secs();
        proof.fits(&Proved { method: "GET", address: &address, token: Some(token), now }).expect("it fits");
        assert_eq!((&proof.thumbprint, proof.text("nonce")), (&key.thumbprint, Some("u-1")), "{path}");
        assert!(all.insert(proof.text("jti").expect("an id").to_owned()), "a proof was sent twice");
    }
    world.demo.upstream.refuse_next(1);
    assert_eq!(browser.fetch("/orders/x").await.status, StatusCode::OK, "another token, proved anew");
    assert!(shown(&world, Endpoint::Token).len() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_out_costs_a_refresh_and_no_session() {
    let (key, wishes) = (key(), Wishes { provider: lasting_tokens(), ..ticking() });
    let shared = Some(crate::shared_store::SharedStore::new(&wishes.clock));
    let world = bound(&key, Wishes { shared, ..wishes }).await;
    let browser = world.logged_in().await;
    manners(&world, |switch| switch.dpop_required = false);
    let plain = world.replica_with(&key.line, "").await;
    plain.knows_provider().await;
    world.demo.upstream.refuse_next(1);
    let mut browser = carry(&browser, &plain);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!((last(&world).bearer().is_some(), last(&world).header("dpop")), (true, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_takes_other_proofs_is_not_ready() {
    let (key, world) = (key(), World::start().await);
    let before = "    scopes: [openid, profile, email]";
    let with_key = format!("{before}\n{}", key.line);
    manners(&world, |switch| switch.dpop_algorithms = Some(vec!["RS256".into()]));
    let proxy = world.replica_with(before, &with_key).await;
    eventually("it is told why", || async {
        proxy.admin_page("/readyz?verbose").await.1.contains("takes no DPoP proofs that are signed with ES256")
    })
    .await;
    manners(&world, |switch| switch.dpop_algorithms = Some(vec!["RS256".into(), "ES256".into()]));
    proxy.knows_provider().await;
    let mut browser = Browser::new(proxy.address);
    let away = browser.navigate("/").await;
    assert_eq!(query(away.location())["dpop_jkt"], key.thumbprint);
    browser.log_in("/").await;
    assert_eq!(browser.fetch("/api/x").await.status, StatusCode::OK);
    judged(&world, &key, &last(&world));
}
