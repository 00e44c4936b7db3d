//! Opaque access tokens: A1, A4, A5, A7. What does not count never reaches the upstream, and no trouble of the provider is
//! told to a client as a bad token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cloakroom::demo::provider::Signing;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use crate::harness::{Browser, Seen, Wishes, World, eventually};
use crate::kit::*;
use crate::wire::Peer;

/// Status, type and body for each token; the others are not active.
type Answers = Arc<Mutex<BTreeMap<String, (u16, &'static str, String)>>>;

/// An introspection endpoint that says what the test wants.
struct Oracle {
    peer: Peer,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
    turn: Arc<Semaphore>,
}

impl Oracle {
    async fn start() -> Self {
        let (answers, asked) = (Answers::default(), Arc::<Mutex<Vec<String>>>::default());
        let turn = Arc::new(Semaphore::new(1000));
        let (said, kept, held) = (answers.clone(), asked.clone(), turn.clone());
        let peer = Peer::start(move |_, mut stream| {
            let (said, kept, held) = (said.clone(), kept.clone(), held.clone());
            async move {
                let mut request = Vec::new();
                let text = loop {
                    let mut piece = [0; 4096];
                    let Ok(count @ 1..) = stream.read(&mut piece).await else { return };
                    request.extend_from_slice(&piece[..count]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break text;
                    }
                };
                kept.lock().expect("asked").push(text.clone());
                held.acquire().await.expect("open").forget();
                let token = text.split("token=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
                let inactive = (200, "application/json", "{\"active\":false}".to_owned());
                let (status, kind, body) = said.lock().expect("answers").get(token).cloned().unwrap_or(inactive);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        Self { peer, answers, asked, turn }
    }

    fn says(&self, token: &str, status: u16, kind: &'static str, body: impl ToString) {
        self.answers.lock().expect("answers").insert(token.to_owned(), (status, kind, body.to_string()));
    }

    fn count(&self) -> usize {
        self.asked.lock().expect("asked").len()
    }
}

const ROUTES: &str = r#"
      - { path: /app/, upstream: demo, accept: [bearer], identity_headers: { X-User-Id: sub, X-User-Roles: realm_access.roles } }
      - { path: /both/, upstream: demo, accept: [session, bearer], identity_headers: { X-User-Id: sub } }
      - { path: /write/, upstream: demo, accept: [bearer], scopes: [write] }
      - { path: /, upstream: demo }
"#;

async fn world(oracle: &Oracle, more: &str) -> World {
    let url = format!("http://{}/introspect", oracle.peer.address);
    let world = World::with(Wishes {
        routes: ROUTES.into(),
        site: "    bearer: { audiences: [demo-api], types: [at+jwt, opaque] }".into(),
        provider_yaml: format!("    introspection: {{ url: \"{url}\"{more} }}"),
        ..ticking()
    })
    .await;
    world.proxy.knows_provider().await;
    world
}

fn good(world: &World) -> Value {
    let now = world.clock.now().as_secs();
    json!({
        "active": true, "sub": "robot", "aud": "demo-api", "iss": world.demo.provider.issuer(), "client_id": "app",
        "iat": now, "exp": now + 600, "scope": "read", "token_type": "Bearer", "realm_access": { "roles": ["machine"] },
    })
}

async fn call(browser: &mut Browser, path: &str, token: &str) -> Seen {
    let draft = browser.draft(Method::POST, path).header("authorization", &format!("Bearer {token}"));
    browser.send(draft.body("{}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_good_token_is_asked_about_once_until_its_answer_is_old() {
    let oracle = Oracle::start().await;
    let world = world(&oracle, ", cache: 30s").await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    oracle.says("opaque-1", 200, "application/json", good(&world));
    for _ in 0..3 {
        for path in ["/app/x", "/both/x"] {
            let answer = call(&mut app, path, "opaque-1").await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let received = recorder.last().expect("a request");
            assert_eq!(received.header_all("authorization"), ["Bearer opaque-1"]);
            assert_eq!(received.header("x-user-id"), Some("robot"));
        }
    }
    assert_eq!(oracle.count(), 1);
    let asked = oracle.asked.lock().expect("asked")[0].clone();
    assert!(asked.contains("token=opaque-1") && asked.contains("token_type_hint=access_token"), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: basic ") && asked.contains("application/json"), "{asked}");
    world.clock.advance(secs(29));
    call(&mut app, "/app/x", "opaque-1").await;
    assert_eq!(oracle.count(), 1);
    world.clock.advance(secs(2));
    oracle.says("opaque-1", 200, "application/json", json!({ "active": false }));
    let answer = call(&mut app, "/app/x", "opaque-1").await;
    assert_eq!((answer.status, answer.code(), oracle.count()), (StatusCode::UNAUTHORIZED, "token_invalid", 2));
    // One that ends sooner counts no longer than that.
    let mut short = good(&world);
    short["exp"] = (world.clock.now().as_secs() + 5).into();
    oracle.says("opaque-2", 200, "application/json", short);
    assert_eq!(call(&mut app, "/app/x", "opaque-2").await.status, StatusCode::OK);
    world.clock.advance(secs(6));
    let before = oracle.count();
    call(&mut app, "/app/x", "opaque-2").await;
    assert_eq!(oracle.count(), before + 1);
    let answer = call(&mut app, "/write/x", "opaque-2").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "insufficient_scope"));
    // What looks like a JWT is judged as one, and never shown to anybody.
    let before = oracle.count();
    let claims = json!({ "iss": world.demo.provider.issuer(), "aud": "demo-api", "sub": "x" });
    let unsigned = world.demo.provider.sign("at+jwt", &claims, &Signing::Unsigned).expect("a token");
    assert_eq!(call(&mut app, "/app/x", &unsigned).await.code(), "token_invalid");
    assert_eq!(oracle.count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_many_requests_ask_once_and_what_is_refused_is_remembered_briefly() {
    let oracle = Oracle::start().await;
    let world = world(&oracle, "").await;
    oracle.says("slow", 200, "application/json", good(&world));
    oracle.turn.forget_permits(1000);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut app = world.browser();
            tokio::spawn(async move { call(&mut app, "/app/x", "slow").await.status })
        })
        .collect();
    eventually("the endpoint is asked", || async { oracle.count() == 1 }).await;
    oracle.turn.add_permits(1000);
    for call in calls {
        assert_eq!(call.await.expect("no panic"), StatusCode::OK);
    }
    assert_eq!(oracle.count(), 1);
    let mut app = world.browser();
    for _ in 0..5 {
        assert_eq!(call(&mut app, "/app/x", "unknown").await.code(), "token_invalid");
    }
    assert_eq!(oracle.count(), 2);
    oracle.says("unknown", 200, "application/json", good(&world));
    world.clock.advance(secs(6));
    assert_eq!(call(&mut app, "/app/x", "unknown").await.status, StatusCode::OK);
    assert_eq!(oracle.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_answer_has_a_name_and_sends_nothing_upstream() {
    let oracle = Oracle::start().await;
    let world = world(&oracle, "").await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    let (ours, theirs) =
        ((StatusCode::BAD_GATEWAY, "provider_failed"), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"));
    let bad = (StatusCode::UNAUTHORIZED, "token_invalid");
    let now = world.clock.now().as_secs();
    let json = "application/json";
    let with = |name: &str, value: Value| {
        let mut said = good(&world);
        said[name] = value;
        said.to_string()
    };
    let cases = [
        ("inactive", 200, json, "{\"active\":false}".to_owned(), bad),
        ("issuer", 200, json, with("iss", "https://another.example.com".into()), bad),
        ("audience", 200, json, with("aud", "another-api".into()), bad),
        ("audience", 200, json, with("aud", Value::Null), bad),
        ("expired", 200, json, with("exp", (now - 61).into()), bad),
        ("not_yet_valid", 200, json, with("nbf", (now + 90).into()), bad),
        ("bound", 200, json, with("cnf", json!({ "jkt": "x" })), (StatusCode::UNAUTHORIZED, "token_bound")),
        ("token_kind", 200, json, with("token_type", "DPoP".into()), bad),
        ("token_kind", 200, json, with("token_use", "refresh_token".into()), bad),
        ("subject", 200, json, with("sub", Value::Null), bad),
        ("provider_failed", 200, json, with("active", "true".into()), ours),
        ("provider_failed", 200, json, "[]".to_owned(), ours),
        ("provider_failed", 200, json, "{".to_owned(), ours),
        ("provider_failed", 200, json, format!("{{\"x\":\"{}\"}}", "x".repeat(4 << 20)), ours),
        (
            "provider_failed",
            200,
            json,
            format!("{{\"active\":true,\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000)),
            ours,
        ),
        ("provider_failed", 200, "text/html", good(&world).to_string(), ours),
        ("provider_failed", 200, "application/jwt", "a.b.c".to_owned(), ours),
        ("provider_failed", 401, json, "{\"error\":\"invalid_client\"}".to_owned(), ours),
        ("provider_failed", 403, json, "{}".to_owned(), ours),
        ("provider_failed", 404, "text/html", String::new(), ours),
        ("provider_failed", 302, "text/html", String::new(), ours),
        ("provider_unavailable", 500, json, "{}".to_owned(), theirs),
        ("provider_unavailable", 503, json, "{}".to_owned(), theirs),
    ];
    for (number, (word, status, kind, body, expected)) in cases.into_iter().enumerate() {
        let token = format!("t{number}");
        oracle.says(&token, status, kind, body);
        let series = format!("cloakroom_bearer_tokens_total{{result=\"{word}\"}}");
        let before = world.metric(&series).await;
        let answer = call(&mut app, if number % 2 == 0 { "/app/x" } else { "/both/x" }, &token).await;
        assert_eq!((answer.status, answer.code()), expected, "{number} {word} {answer:?}");
        let theirs_alone = expected.0 == StatusCode::UNAUTHORIZED;
        assert_eq!(answer.header("www-authenticate").contains("invalid_token"), theirs_alone, "{word} {answer:?}");
        assert!(!answer.body.contains(&token) || token.len() < 3, "{answer:?}");
        assert!(world.metric(&series).await > before, "{word}");
    }
    eventually("the audit log tells of one", || async {
        call(&mut world.browser(), "/app/x", "t0").await;
        world.metric("cloakroom_audit_events_total{event=\"token_rejected\"}").await >= 1.0
    })
    .await;
    assert_eq!(recorder.count(), 0, "nothing went upstream");
    // The provider is not asked again and again while it does not answer. A token that is known still counts.
    oracle.says("known", 200, json, good(&world));
    assert_eq!(call(&mut app, "/app/x", "known").await.status, StatusCode::OK);
    for number in 0..12 {
        oracle.says(&format!("down{number}"), 503, json, "{}");
        let answer = call(&mut app, "/app/x", &format!("down{number}")).await;
        assert_eq!((answer.status, answer.code()), theirs);
    }
    let asked = oracle.asked.lock().expect("asked").iter().filter(|text| text.contains("token=down")).count();
    assert_eq!(asked, 5, "the breaker opens");
    assert_eq!(call(&mut app, "/app/x", "known").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_the_token_in_the_answer_goes_upstream_and_the_opaque_one_stays() {
    for (more, in_claim) in [(", phantom: true", false), (", phantom: true, phantom_claim: token", true)] {
        let oracle = Oracle::start().await;
        let world = world(&oracle, more).await;
        let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
        let sign = |name: &str, value: Value, signing: Signing| {
            let mut claims = good(&world);
            claims["jti"] = "j".into();
            claims[name] = value;
            world.demo.provider.sign("at+jwt", &claims, &signing).expect("signed")
        };
        let says = |token: &str, jwt: &str| match in_claim {
            true => {
                let mut said = good(&world);
                said["token"] = jwt.into();
                oracle.says(token, 200, "application/json", said);
            }
            false => oracle.says(token, 200, "application/jwt", jwt),
        };
        let jwt = sign("x", 1.into(), Signing::Honest);
        says("good", &jwt);
        for _ in 0..2 {
            assert_eq!(call(&mut app, "/app/x", "good").await.status, StatusCode::OK);
            let received = recorder.last().expect("a request");
            assert_eq!(received.header_all("authorization"), [format!("Bearer {jwt}")]);
            assert_eq!(
                (received.header("x-user-id"), received.header("x-user-roles")),
                (Some("robot"), Some("machine"))
            );
        }
        assert_eq!(oracle.count(), 1);
        assert!(oracle.asked.lock().expect("asked")[0].to_lowercase().contains("accept: application/jwt\r\n"));
        recorder.clear();
        for (name, jwt, code) in [
            ("signature", sign("x", 1.into(), Signing::Broken), "provider_failed"),
            ("unsigned", sign("x", 1.into(), Signing::Unsigned), "provider_failed"),
            ("issuer", sign("iss", "https://another.example.com".into(), Signing::Honest), "provider_failed"),
            ("garbage", "a.b.c".to_owned(), "provider_failed"),
            ("audience", sign("aud", "another-api".into(), Signing::Honest), "token_invalid"),
            ("expired", sign("exp", (world.clock.now().as_secs() - 61).into(), Signing::Honest), "token_invalid"),
        ] {
            says(name, &jwt);
            assert_eq!(call(&mut app, "/app/x", name).await.code(), code, "{name} {more}");
        }
        if in_claim {
            says("another", &sign("sub", "somebody".into(), Signing::Honest));
            assert_eq!(call(&mut app, "/app/x", "another").await.code(), "provider_failed", "two users in one answer");
            oracle.says("without", 200, "application/json", good(&world));
            assert_eq!(call(&mut app, "/app/x", "without").await.code(), "provider_failed");
        } else {
            oracle.says("nothing", 204, "application/jwt", "");
            assert_eq!(call(&mut app, "/app/x", "nothing").await.code(), "token_invalid");
            oracle.says("json", 200, "application/json", good(&world));
            assert_eq!(call(&mut app, "/app/x", "json").await.code(), "provider_failed");
        }
        assert_eq!(recorder.count(), 0, "nothing went upstream: {more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_of_the_provider_is_asked_about_where_the_settings_say_so() {
    let oracle = Oracle::start().await;
    let world = world(&oracle, ", cache: 30s, jwts: true").await;
    let (mut app, recorder) = (world.browser(), world.demo.upstream.recorder());
    let sign = |claims: &Value, signing: Signing| world.demo.provider.sign("at+jwt", claims, &signing).expect("signed");
    let now = world.clock.now().as_secs();
    // It says neither whose it is nor for whom.
    let light = json!({ "iss": world.demo.provider.issuer(), "client_id": "app", "iat": now, "exp": now + 100 });
    let token = sign(&light, Signing::Honest);
    oracle.says(&token, 200, "application/json", good(&world));
    for _ in 0..2 {
        let answer = call(&mut app, "/app/x", &token).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let received = recorder.last().expect("a request");
        assert_eq!(received.header_all("authorization"), [format!("Bearer {token}")]);
        assert_eq!((received.header("x-user-id"), received.header("x-user-roles")), (Some("robot"), Some("machine")));
    }
    assert_eq!(oracle.count(), 1);
    // A whole one is worth nothing either once it is revoked.
    let whole = sign(&good(&world), Signing::Honest);
    assert_eq!(call(&mut app, "/app/x", &whole).await.code(), "token_invalid");
    assert_eq!(oracle.count(), 2);
    // It may say whose it is; then the answer says the same, or is no answer.
    for (said, status) in [("robot", StatusCode::OK), ("somebody-else", StatusCode::BAD_GATEWAY)] {
        let mut named = light.clone();
        named["sub"] = said.into();
        let named = sign(&named, Signing::Honest);
        oracle.says(&named, 200, "application/json", good(&world));
        let answer = call(&mut app, "/app/x", &named).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    // An opaque one is asked about as ever.
    oracle.says("opaque", 200, "application/json", good(&world));
    assert_eq!(call(&mut app, "/app/x", "opaque").await.status, StatusCode::OK);

    recorder.clear();
    let before = oracle.count();
    let with = |name: &str, value: Value| {
        let mut claims = light.clone();
        claims[name] = value;
        claims
    };
    for (claims, signing, code) in [
        (&light, Signing::Broken, "token_invalid"),
        (&light, Signing::Unsigned, "token_invalid"),
        (&with("iss", "https://another.example.com".into()), Signing::Honest, "token_invalid"),
        (&with("exp", (now - 61).into()), Signing::Honest, "token_invalid"),
        (&with("nonce", "n".into()), Signing::Honest, "token_invalid"),
        (&with("cnf", json!({ "jkt": "x" })), Signing::Honest, "token_bound"),
    ] {
        let bad = sign(claims, signing);
        oracle.says(&bad, 200, "application/json", good(&world));
        assert_eq!(call(&mut app, "/app/x", &bad).await.code(), code, "{claims}");
    }
    assert_eq!((oracle.count(), recorder.count()), (before, 0), "nobody is asked, and nothing goes upstream");
    world.clock.advance(secs(31));
    oracle.says(&token, 200, "application/json", json!({ "active": false }));
    assert_eq!(call(&mut app, "/app/x", &token).await.code(), "token_invalid");
}
