//! Clients that bring an access token themselves: A1, A2, A3, A7, T7, H1. What is refused never reaches the upstream.

use cloakroom::demo::provider::{Endpoint, Signing};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Browser, SESSION, Seen, Wishes, World};
use crate::kit::*;
use crate::wire::{Peer, read_head};

const ROUTES: &str = r#"
      - { path: /app/, upstream: demo, accept: [bearer], identity_headers: { X-User-Id: sub, X-User-Roles: realm_access.roles } }
      - { path: /both/, upstream: demo, accept: [session, bearer], identity_headers: { X-User-Id: sub } }
      - { path: /maybe/, upstream: demo, accept: [session, bearer], access: optional }
      - { path: /read/, upstream: demo, accept: [bearer], scopes: [read, write] }
      - { path: /bare/, upstream: demo, accept: [bearer], token: { kind: none }, identity_headers: { X-User-Id: sub } }
      - { path: /few/, upstream: demo, accept: [bearer], rate_limits: [{ by: session, requests: 3, per: 1m }] }
      - { path: /ruled/, upstream: demo, accept: [bearer], level_header: X-User-Level, allow: [{ name: admins, claim: realm_access.roles, any_of: [admin] }] }
      - { path: /fixed/, respond: { body: secret }, accept: [bearer] }
      - { path: /app.Service/, upstream: demo, accept: [bearer] }
      - { path: /, upstream: demo }
"#;

async fn world() -> World {
    let site = "    bearer: { audiences: [demo-api] }".into();
    let world = World::with(Wishes { routes: ROUTES.into(), site, ..ticking() }).await;
    world.proxy.knows_provider().await;
    world
}

fn claims(world: &World) -> Value {
    let now = world.clock.now().as_secs();
    json!({
        "iss": world.demo.provider.issuer(), "sub": "robot", "aud": "demo-api", "client_id": "app", "iat": now,
        "exp": now + 600, "jti": "j", "scope": "read", "realm_access": { "roles": ["user", "machine"] },
    })
}

fn token_of(world: &World, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(world);
    change(&mut claims);
    world.demo.provider.sign("at+jwt", &claims, &Signing::Honest).expect("signed")
}

async fn call(browser: &mut Browser, path: &str, token: &str) -> Seen {
    let draft = browser.draft(Method::POST, path).header("authorization", &format!("Bearer {token}"));
    browser.send(draft.body("{}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_passes_and_goes_upstream_with_its_users_claims() {
    let world = world().await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    let token = token_of(&world, |_| {});
    for path in ["/app/x", "/both/x", "/maybe/x"] {
        for _ in 0..3 {
            // No CSRF token, no origin: no browser sends this header by itself.
            let answer = call(&mut app, path, &token).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let received = recorder.last().expect("a request");
            assert_eq!(received.header_all("authorization"), [format!("Bearer {token}")], "{path}");
        }
    }
    call(&mut app, "/app/x", &token).await;
    let received = recorder.last().expect("a request");
    assert_eq!((received.header("x-user-id"), received.header("x-user-roles")), (Some("robot"), Some("user,machine")));
    // What a client says of itself still counts for nothing.
    let draft = app.draft(Method::GET, "/app/x").header("authorization", &format!("bearer {token}"));
    app.send(draft.header("x-user-id", "root").header("x_user_roles", "admin")).await;
    let received = recorder.last().expect("a request");
    assert_eq!((received.header_all("x-user-id").len(), received.header("x-user-id")), (1, Some("robot")));
    assert_eq!(received.header("x_user_roles"), None);
    assert_eq!(call(&mut app, "/bare/x", &token).await.status, StatusCode::OK);
    let received = recorder.last().expect("a request");
    assert_eq!((received.header("authorization"), received.header("x-user-id")), (None, Some("robot")));
    assert_eq!(call(&mut app, "/fixed/x", &token).await.body, "secret");
    // It was verified once; the provider was asked for its keys at the start alone.
    assert_eq!(world.metric("cloakroom_bearer_tokens_total{result=\"ok\"}").await, 1.0);
    assert_eq!(world.demo.provider.ledger().count(Endpoint::Jwks), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_a7_what_is_refused_is_told_by_name_and_never_goes_upstream() {
    let world = world().await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    let now = world.clock.now().as_secs();
    let sign = |typ: &str, signing: Signing| world.demo.provider.sign(typ, &claims(&world), &signing).expect("signed");
    let mut logged_in = world.logged_in().await;
    logged_in.fetch("/x").await;
    let id_token = newest(&world).id_token.clone().expect("an ID token");
    recorder.clear();
    for (what, token) in [
        ("malformed", "opaque".to_owned()),
        ("malformed", "a.b.c".to_owned()),
        ("algorithm", sign("at+jwt", Signing::Unsigned)),
        ("algorithm", sign("at+jwt", Signing::HmacWithPublicKey)),
        ("algorithm", sign("at+jwt", Signing::HmacWithSecret(cloakroom::demo::CLIENT_SECRET.to_owned()))),
        ("signature", sign("at+jwt", Signing::Broken)),
        ("header", sign("at+jwt", Signing::UnknownCritical)),
        ("token_kind", sign("JWT", Signing::Honest)),
        ("token_kind", sign("logout+jwt", Signing::Honest)),
        ("token_kind", id_token),
        ("issuer", token_of(&world, |claims| claims["iss"] = "https://another.example.com".into())),
        ("audience", token_of(&world, |claims| claims["aud"] = json!(["another-api"]))),
        ("expired", token_of(&world, |claims| claims["exp"] = (now - 61).into())),
        ("not_yet_valid", token_of(&world, |claims| claims["nbf"] = (now + 90).into())),
        ("bound", token_of(&world, |claims| claims["cnf"] = json!({ "jkt": "x" }))),
        ("bound", token_of(&world, |claims| claims["cnf"] = json!({ "x5t#S256": "x" }))),
        ("subject", token_of(&world, |claims| claims["sub"] = Value::Null)),
    ] {
        for path in ["/app/x", "/both/x", "/maybe/x", "/fixed/x"] {
            let answer = call(&mut app, path, &token).await;
            let code = if what == "bound" { "token_bound" } else { "token_invalid" };
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, code), "{what} {path}");
            assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""), "{answer:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(!answer.body.contains(&token) && !answer.body.contains("secret"), "{answer:?}");
        }
        let series = format!("cloakroom_bearer_tokens_total{{result=\"{what}\"}}");
        assert!(world.metric(&series).await >= 4.0, "{what}");
    }
    let answer = call(&mut app, "/read/x", &token_of(&world, |_| {})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "insufficient_scope"));
    let told = answer.header("www-authenticate");
    assert_eq!(told, "Bearer error=\"insufficient_scope\", scope=\"read write\"");
    // Nothing was shown: no error is told (RFC 6750 §3.1). Twice is none either.
    for draft in [
        app.draft(Method::GET, "/app/x"),
        app.draft(Method::GET, "/app/x").header("authorization", "Basic eDp5"),
        app.draft(Method::GET, "/app/x").header("accept", "text/html"),
    ] {
        let answer = app.send(draft).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "token_missing"));
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let good = token_of(&world, |_| {});
    let twice = app.draft(Method::GET, "/app/x").header("authorization", &format!("Bearer {good}"));
    let answer = app.send(twice.header("authorization", &format!("Bearer {good}"))).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad_request"));
    assert_eq!(recorder.count(), 0, "nothing of it reached the upstream");
    assert_eq!(call(&mut app, "/read/x", &token_of(&world, |c| c["scope"] = "write x read".into())).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_token_counts_and_the_cookie_beside_it_does_not() {
    let world = world().await;
    let recorder = world.demo.upstream.recorder();
    let mut browser = world.logged_in().await;
    let draft = browser.draft(Method::GET, "/both/x");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    let of_session = recorder.last().expect("a request").header("x-user-id").map(str::to_owned);
    assert_ne!(of_session.as_deref(), Some("robot"));
    let token = token_of(&world, |_| {});
    assert_eq!(call(&mut browser, "/both/x", &token).await.status, StatusCode::OK);
    let received = recorder.last().expect("a request");
    assert_eq!((received.header("x-user-id"), received.bearer()), (Some("robot"), Some(token.as_str())));
    assert!(received.header("cookie").is_none_or(|cookie| !cookie.contains(SESSION)));
    let count = recorder.count();
    // A bad token is not made good by the session beside it, nor the other way round.
    let bad = token_of(&world, |claims| claims["aud"] = "another-api".into());
    for path in ["/both/x", "/maybe/x"] {
        assert_eq!(call(&mut browser, path, &bad).await.code(), "token_invalid", "{path}");
    }
    assert_eq!(browser.fetch("/app/x").await.code(), "token_missing", "a route of tokens takes no cookie");
    assert_eq!(recorder.count(), count);
    // H1: where tokens are not taken, the client's goes and the session's comes.
    let draft = browser.draft(Method::GET, "/x").header("authorization", &format!("Bearer {token}"));
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_ne!(recorder.last().expect("a request").bearer(), Some(token.as_str()));
    // Who shows neither is told of both.
    let answer = world.browser().fetch("/both/x").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_missing"));
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Cloakroom", "Bearer"]);
    assert_eq!(world.browser().fetch("/maybe/x").await.status, StatusCode::OK);
    assert_eq!(recorder.last().expect("a request").header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_token_ends_in_time_and_keys_are_fetched_once_for_many_unknown_ones() {
    let world = world().await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    let short = token_of(&world, |claims| claims["exp"] = (world.clock.now().as_secs() + 30).into());
    assert_eq!(call(&mut app, "/app/x", &short).await.status, StatusCode::OK);
    world.clock.advance(secs(89));
    assert_eq!(call(&mut app, "/app/x", &short).await.status, StatusCode::OK, "clocks may differ by a minute");
    world.clock.advance(secs(2));
    assert_eq!(call(&mut app, "/app/x", &short).await.code(), "token_invalid");
    let jwks = || world.demo.provider.ledger().count(Endpoint::Jwks);
    let (calls, count) = (jwks(), recorder.count());
    let unknown = world.demo.provider.sign("at+jwt", &claims(&world), &Signing::Unpublished).expect("signed");
    assert_eq!(call(&mut app, "/app/x", &unknown).await.code(), "token_invalid");
    for _ in 0..10 {
        let answer = call(&mut app, "/app/x", &unknown).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"));
    }
    assert_eq!((jwks(), recorder.count()), (calls + 1, count));
    // The key is published: it is found with the next look.
    world.demo.provider.rotate_keys().expect("a key");
    world.clock.advance(secs(5));
    assert_eq!(call(&mut app, "/app/x", &unknown).await.status, StatusCode::OK);
    assert_eq!(jwks(), calls + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_a_tokens_user_and_grpc_gets_its_own_words() {
    let world = world().await;
    let mut app = world.browser();
    for number in 0..5 {
        let token = token_of(&world, |claims| claims["jti"] = format!("{number}").into());
        let status = call(&mut app, "/few/x", &token).await.status;
        assert_eq!(status, if number < 3 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS }, "{number}");
    }
    let other = token_of(&world, |claims| claims["sub"] = "another".into());
    assert_eq!(call(&mut app, "/few/x", &other).await.status, StatusCode::OK);
    for (token, code) in [(None, "token_missing"), (Some("x.y.z"), "token_invalid")] {
        let mut draft = app.draft(Method::POST, "/app.Service/Do").header("content-type", "application/grpc");
        if let Some(token) = token {
            draft = draft.header("authorization", &format!("Bearer {token}"));
        }
        let answer = app.send(draft).await;
        assert_eq!((answer.status, answer.header("grpc-status"), answer.code()), (StatusCode::OK, "16", code));
        assert_eq!((answer.header("www-authenticate"), answer.body.as_str()), ("", ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o8_a_stream_ends_with_the_token_it_was_begun_with() {
    // Begins to answer, and goes on as long as anybody listens.
    let peer = Peer::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let world = World::with(Wishes {
        upstreams: format!("  - {{ name: peer, endpoints: [\"{}\"] }}", peer.address),
        routes: "      - { path: /, upstream: peer, accept: [bearer] }".into(),
        site: "    bearer: { audiences: [demo-api] }".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let listen = |seconds: u64| {
        let end = world.clock.now().as_secs() + seconds;
        let token = token_of(&world, |claims| claims["exp"] = end.into());
        let url = format!("http://{}/x", world.proxy.address);
        async move { reqwest::Client::new().get(url).bearer_auth(token).send().await.expect("an answer").bytes().await }
    };
    let lasting = tokio::spawn(listen(600));
    assert!(listen(2).await.is_err(), "the answer is cut off");
    assert!(!lasting.is_finished(), "that of a token that lives goes on");
    assert_eq!(world.metric("cloakroom_streams_ended_total{kind=\"answer\"}").await, 1.0);
    lasting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_route_hold_for_tokens_too() {
    let world = world().await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    let admin = token_of(&world, |claims| claims["realm_access"] = json!({ "roles": ["admin"] }));
    let nobody = token_of(&world, |claims| claims["realm_access"] = Value::Null);
    for token in [token_of(&world, |_| {}), nobody] {
        // The second time it is known already.
        for _ in 0..2 {
            let answer = call(&mut app, "/ruled/x", &token).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "rule_failed"));
        }
    }
    assert_eq!(recorder.count(), 0);
    assert_eq!(call(&mut app, "/ruled/x", &admin).await.status, StatusCode::OK);
    assert_eq!(recorder.last().expect("a request").header("x-user-level"), Some("logged_on"));
}
