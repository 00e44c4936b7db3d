//! Proxy tokens: what an application gets in the place of the user's token, and what it can do with it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};

use crate::backchannel_kit::{ALICE, token as logout_token};
use crate::harness::{Browser, SESSION, Seen, Wishes, World};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::step_up::picky;
use crate::tokens::claims;

const MINUTE: Duration = secs(60);

const ROUTES: &str = r#"
      - { path: /app/, upstream: demo, token: { kind: proxy } }
      - { path: /internal/, upstream: demo, accept: [proxy_token], strip_prefix: /internal, identity_headers: { X-User-Id: sub } }
      - { path: /both/, upstream: demo, accept: [session, proxy_token], strip_prefix: /both, identity_headers: { X-User-Id: sub } }
      - { path: /maybe/, upstream: demo, access: optional, accept: [proxy_token], identity_headers: { X-User-Id: sub } }
      - { path: /guarded/, upstream: demo, accept: [proxy_token], allow: [{ claim: realm_access.roles, any_of: [admin] }] }
      - { path: /, upstream: demo }
"#;

async fn world_with(lifetime: &str, wishes: Wishes) -> World {
    let more = format!(
        "proxy_token: {{ issuer: \"https://app.test\", audience: \"https://internal.test\", lifetime: {lifetime}, \
         keys: [{{ id: p1, secret: {{ env: TEST_KEY }} }}] }}"
    );
    world(Wishes { routes: ROUTES.into(), more, ..wishes }).await
}

/// What the application gets.
async fn proxy_token(world: &World, browser: &mut Browser) -> String {
    assert_eq!(browser.fetch("/app/x").await.status, StatusCode::OK);
    relayed(world)
}

/// As an application calls another one: no cookie, no page.
async fn call(caller: &mut Browser, target: &str, token: &str) -> Seen {
    let draft = caller.draft(Method::POST, target).header("authorization", &format!("Bearer {token}"));
    caller.send(draft.body("{}")).await
}

fn is_refused(answer: &Seen) {
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "token_invalid"), "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    assert!(answer.set_cookies().is_empty() && answer.headers.get("location").is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_gets_a_name_and_its_calls_get_the_users_token() {
    let redis = RedisServer::start();
    for wishes in [ticking(), ticking_on(&redis)] {
        let world = world_with("5m", wishes).await;
        let shares = world.yaml.contains("redis");
        let mut browser = world.logged_in().await;
        let token = proxy_token(&world, &mut browser).await;
        let told = claims(&token);
        let names: Vec<&String> = told.as_object().expect("claims").keys().collect();
        assert_eq!(names, ["aud", "exp", "iat", "iss", "provider", "sid", "sub"], "and no token of the user");
        assert_eq!(told["provider"], "demo", "whose `sub` it is");
        assert_eq!((&told["iss"], &told["aud"]), (&"https://app.test".into(), &"https://internal.test".into()));
        assert_eq!(told["exp"].as_u64().zip(told["iat"].as_u64()).map(|(exp, iat)| exp - iat), Some(300));

        // Whoever wants to can verify it.
        let keys = world.browser().fetch("/auth/jwks.json").await;
        assert_eq!(keys.header("cache-control"), "public, max-age=300");
        let key = URL_SAFE_NO_PAD.decode(keys.json()["keys"][0]["x"].as_str().expect("a key")).expect("base64url");
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
        public.verify(signed.as_bytes(), &signature).expect("ours");

        let mut application = world.browser();
        assert_eq!(call(&mut application, "/internal/api/whoami", &token).await.status, StatusCode::OK);
        assert_eq!(relayed(&world), newest(&world).access_token);
        let last = world.demo.upstream.recorder().last().expect("a request");
        assert_eq!(last.header("x-user-id"), told["sub"].as_str());
        assert_eq!(call(&mut application, "/guarded/x", &token).await.status, StatusCode::OK);
        if shares {
            // A replica that never saw the session.
            let replica = world.replica().await;
            replica.knows_provider().await;
            let mut elsewhere = Browser::new(replica.address);
            assert_eq!(call(&mut elsewhere, "/internal/api/whoami", &token).await.status, StatusCode::OK);
            assert_eq!(relayed(&world), newest(&world).access_token);
        }

        // The user's token has grown old, the name is still good.
        world.clock.advance(OVER);
        assert_eq!(
            proxy_token(&world, &mut browser).await,
            token,
            "one for many requests, and nothing is refreshed for it"
        );
        assert_eq!(token_calls(&world), 1);
        assert_eq!(call(&mut application, "/internal/api/whoami", &token).await.status, StatusCode::OK);
        assert_eq!((token_calls(&world), relayed(&world)), (2, newest(&world).access_token));
        world.clock.advance(2 * MINUTE);
        let next = proxy_token(&world, &mut browser).await;
        assert_ne!(next, token, "half of its life is over");
        world.clock.advance(2 * MINUTE);
        is_refused(&call(&mut application, "/internal/api/whoami", &token).await);
        assert_eq!(call(&mut application, "/internal/api/whoami", &next).await.status, StatusCode::OK);

        log_out(&mut browser).await;
        world.demo.upstream.recorder().clear();
        is_refused(&call(&mut application, "/internal/api/whoami", &next).await);
        assert_eq!(world.demo.upstream.recorder().count(), 0, "it ends with the session");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_token_counts_and_the_cookie_beside_it_means_nothing() {
    let world = world_with("5m", Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut alice = world.logged_in().await;
    let token = proxy_token(&world, &mut alice).await;
    world.demo.provider.switches().auto_login("bob");
    let mut bob = world.logged_in().await;
    let subject = |world: &World| {
        let last = world.demo.upstream.recorder().last().expect("a request");
        last.header("x-user-id").expect("a user").to_owned()
    };
    for target in ["/internal/api/whoami", "/both/api/whoami"] {
        let answer = call(&mut bob, target, &token).await;
        assert_eq!((answer.status, answer.set_cookies().len()), (StatusCode::OK, 0), "{answer:?}");
        assert!(subject(&world).starts_with("a11ce"), "{target}");
        is_refused(&call(&mut bob, target, "worthless").await);
        is_refused(&call(&mut bob, target, &format!("{token}, {token}")).await);
        let twice = bob.draft(Method::GET, target).header("authorization", &format!("Bearer {token}"));
        let answer = bob.send(twice.header("authorization", &format!("Bearer {token}"))).await;
        is_refused(&answer);
    }
    is_refused(&bob.fetch("/internal/api/whoami").await);
    is_refused(&bob.navigate("/internal/api/whoami").await);
    assert_eq!(bob.fetch("/both/api/whoami").await.status, StatusCode::OK);
    assert!(subject(&world).starts_with("b0b"));
    // Bob's own token does not make him an administrator.
    let own = proxy_token(&world, &mut bob).await;
    assert_eq!(call(&mut bob, "/guarded/x", &own).await.code(), "rule_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_a_token_of_one_kind_is_refused_as_any_other() {
    let world = world_with("5m", Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let token = proxy_token(&world, &mut browser).await;
    let issued = newest(&world);
    world.demo.upstream.recorder().clear();
    let mut stranger = world.browser();
    let others = [
        ("access", issued.access_token.clone()),
        ("id", issued.id_token.clone().expect("an ID token")),
        ("refresh", issued.refresh_token.clone().expect("a refresh token")),
        ("logout", logout_token(&world, Some(ALICE), None)),
        ("ticket", ticket(&browser)),
    ];
    for (kind, other) in &others {
        for target in ["/internal/x", "/both/x", "/guarded/x"] {
            let answer = call(&mut stranger, target, other).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "token_invalid"), "{kind} {target}");
        }
    }
    // And the proxy token in their places.
    for target in ["/app/x", "/api/x"] {
        assert_eq!(call(&mut stranger, target, &token).await.code(), "session_missing", "{target}");
    }
    let form = stranger.draft(Method::POST, "/auth/backchannel-logout");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let answer = stranger.send(form.body(format!("logout_token={token}"))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    stranger.set_cookie(SESSION, &token);
    assert_eq!(stranger.fetch("/api/x").await.code(), "session_expired");
    assert_eq!(world.demo.upstream.recorder().count(), 0);
    assert_eq!(browser.fetch("/api/x").await.status, StatusCode::OK, "the session is unharmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_calls_of_applications_keep_nobody_logged_on() {
    let world = world_with("1h", Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let token = proxy_token(&world, &mut browser).await;
    let mut application = world.browser();
    world.clock.advance(29 * MINUTE);
    assert_eq!(call(&mut application, "/internal/x", &token).await.status, StatusCode::OK);
    world.clock.advance(2 * MINUTE);
    is_refused(&call(&mut application, "/internal/x", &token).await);
    assert_eq!(browser.fetch("/api/x").await.code(), "session_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scheme_is_no_token_and_no_token_is_a_stranger_where_strangers_pass() {
    let world = world_with("5m", Wishes { provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let token = proxy_token(&world, &mut browser).await;
    let user = |world: &World| {
        let last = world.demo.upstream.recorder().last().expect("a request");
        (last.header("x-user-id").is_some(), last.header("authorization").is_some())
    };
    // The cookie counts beside what is not for us, and that does not go on.
    let basic = browser.draft(Method::GET, "/both/api/whoami").header("authorization", "Basic eDp5");
    assert_eq!(browser.send(basic).await.status, StatusCode::OK);
    assert_eq!((user(&world), relayed(&world)), ((true, true), newest(&world).access_token));
    let mut application = world.browser();
    let basic = application.draft(Method::GET, "/internal/x").header("authorization", "Basic eDp5");
    is_refused(&application.send(basic).await);

    for authorization in [None, Some("Basic eDp5")] {
        // A cookie means nothing here.
        let mut draft = browser.draft(Method::GET, "/maybe/x");
        if let Some(value) = authorization {
            draft = draft.header("authorization", value);
        }
        let answer = browser.send(draft).await;
        assert_eq!((answer.status, user(&world)), (StatusCode::OK, (false, false)), "{authorization:?} {answer:?}");
    }
    assert_eq!(call(&mut application, "/maybe/x", &token).await.status, StatusCode::OK);
    assert_eq!(user(&world), (true, true));
    for worthless in ["worthless", "", &token[1..]] {
        is_refused(&call(&mut application, "/maybe/x", worthless).await);
    }
    log_out(&mut browser).await;
    is_refused(&call(&mut application, "/maybe/x", &token).await);
}

/// Whatever an application hands on of what its browser sent, it is told what a program can read.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_never_sent_to_log_in() {
    let peer = picky().await;
    let more = "proxy_token: { issuer: a, audience: b, keys: [{ id: p1, secret: { env: TEST_KEY } }] }".into();
    let routes = format!(
        "{ROUTES}\n      - {{ path: /gold/, upstream: picky, accept: [session, proxy_token] }}\n      \
         - {{ path: /now/, upstream: picky, accept: [session, proxy_token] }}"
    );
    let upstreams = format!("  - {{ name: picky, endpoints: [\"{}\"] }}", peer.address);
    let world = world(Wishes { more, routes, upstreams, provider: lasting_tokens(), ..ticking() }).await;
    let mut browser = world.logged_in().await;
    let token = proxy_token(&world, &mut browser).await;
    let mut application = world.browser();
    let navigates = |application: &Browser, target: &str| {
        application.draft(Method::GET, target).navigation().header("authorization", &format!("Bearer {token}"))
    };
    world.clock.advance(secs(11));
    for (target, asked, query) in [
        ("/gold/x", "acr_values=\"gold platinum\"", "acr_values=gold+platinum"),
        ("/now/x", "max_age=\"0\"", "max_age=0"),
    ] {
        let answer = application.send(navigates(&application, target)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "step_up_required"), "{answer:?}");
        let challenge = format!("Bearer error=\"insufficient_user_authentication\", {asked}");
        assert_eq!(answer.header("www-authenticate"), challenge);
        assert_eq!(
            answer.json()["login_url"],
            format!("/auth/login?{query}&step_up=1"),
            "for the browser in front of it"
        );
        assert!(answer.set_cookies().is_empty() && answer.headers.get("location").is_none(), "{answer:?}");
    }
    // The service refuses the user's token, and the provider gives no other.
    world.demo.upstream.refuse_token(&newest(&world).access_token);
    world.demo.provider.forget_tokens();
    is_refused(&application.send(navigates(&application, "/both/api/whoami")).await);
    assert_eq!(browser.fetch("/both/api/whoami").await.code(), "session_expired");
}
