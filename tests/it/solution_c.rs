//! All web traffic of a company in one place: applications behind context roots that know nothing of logins. They are told
//! the user context and change it, hand a proxy token on to a service inside, and see a user who is a stranger, logged on,
//! and returning. Sessions lie in PostgreSQL. As `conf/solution-c.yaml` has it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::demo::provider::Endpoint;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Browser, Wishes, World, eventually, free_address};
use crate::kit::*;
use crate::postgres_server::shared;
use crate::store_postgres::in_postgres;
use crate::tokens::claims;

const INSIDE: &str = "internal.test";

/// An application: it remembers what it hears and shows what it knows of its user. `POST …/keep` keeps the body in the user
/// context, and `…/orders` asks the service inside, with the token that it was given itself.
struct App {
    address: SocketAddr,
    heard: Arc<Mutex<HeaderMap>>,
}

impl App {
    async fn start(inside: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, heard) = (listener.local_addr().expect("an address"), Arc::<Mutex<HeaderMap>>::default());
        let memory = heard.clone();
        let router = Router::new().fallback(move |request: Request| {
            *memory.lock().unwrap() = request.headers().clone();
            serve(request, inside)
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, heard }
    }

    fn heard(&self, name: &str) -> Option<String> {
        let heard = self.heard.lock().unwrap();
        heard.get(name).map(|value| value.to_str().expect("text").to_owned())
    }

    fn token(&self) -> Option<String> {
        self.heard("authorization").map(|value| value.strip_prefix("Bearer ").expect("a token").to_owned())
    }
}

fn context(headers: &HeaderMap) -> Option<Value> {
    let value = headers.get("x-user-context")?;
    Some(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).expect("base64url")).expect("JSON"))
}

async fn serve(request: Request, inside: SocketAddr) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024).await.expect("a body");
    if parts.uri.path().ends_with("/orders") {
        return orders(&parts.headers, inside).await;
    }
    let known = context(&parts.headers);
    let page = json!({
        "path": parts.uri.path(),
        "level": known.as_ref().map_or("anonymous", |known| known["level"].as_str().expect("a level")),
        "user": known.as_ref().map(|known| json!([known["provider"], known["sub"], known["claims"]["name"]])),
        "kept": known.map(|known| known["attributes"].clone()),
    });
    let mut answer = axum::Json(page).into_response();
    if parts.uri.path().ends_with("/keep") {
        let change = URL_SAFE_NO_PAD.encode(&body).parse().expect("a value");
        answer.headers_mut().insert("x-user-context-update", change);
    }
    answer
}

async fn orders(headers: &HeaderMap, inside: SocketAddr) -> Response {
    let mut request = client().get(format!("http://{inside}/orders/42")).header("host", INSIDE);
    if let Some(token) = headers.get("authorization") {
        request = request.header("authorization", token.clone());
    }
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.bytes().await.unwrap_or_default()).into_response()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// The applications `shop`, `help` and `account`, the service `orders` inside, and the proxy before all of them.
struct Company {
    world: World,
    shop: App,
    help: App,
    account: App,
    inside: SocketAddr,
    /// What makes the second listener in the settings.
    second: String,
}

impl Company {
    async fn start() -> Self {
        let inside = free_address();
        let (shop, help, account) = (App::start(inside).await, App::start(inside).await, App::start(inside).await);
        let second = format!(" }}, {{ address: \"{inside}\"");
        let world = world(Wishes {
            hosts: format!("[127.0.0.1, {INSIDE}]"),
            listener: second.clone(),
            session: "  returning_timeout: 30d".into(),
            more: "proxy_token: { issuer: \"https://app.test\", audience: \"https://internal.test\", \
                   keys: [{ id: p1, secret: { env: TEST_KEY } }] }"
                .into(),
            site: "    user_context: { claims: [name] }".into(),
            upstreams: format!(
                "  - {{ name: shop, endpoints: [\"{}\"] }}\n  - {{ name: help, endpoints: [\"{}\"] }}\n  \
                 - {{ name: account, endpoints: [\"{}\"] }}",
                shop.address, help.address, account.address
            ),
            routes: format!(
                r#"
      - {{ path: /shop, upstream: shop, access: optional, level: returning, context: read_write, token: {{ kind: proxy }} }}
      - {{ path: /help, upstream: help, strip_prefix: /help, access: optional, context: read, token: {{ kind: none }} }}
      - {{ path: /account, upstream: account, context: read_write, token: {{ kind: proxy }} }}
      - {{ path: /orders, upstream: demo, when: {{ hosts: [{INSIDE}] }}, accept: [proxy_token], context: read, identity_headers: {{ X-User-Id: sub }} }}
"#
            ),
            provider: lasting_tokens(),
            ..in_postgres(shared())
        })
        .await;
        Self { world, shop, help, account, inside, second }
    }

    /// What a script inside or outside gets at the listener for the inside.
    async fn ask_inside(&self, fields: &[(&str, &str)]) -> (StatusCode, String) {
        let request = client().get(format!("http://{}/orders/42", self.inside)).header("host", INSIDE);
        let answer = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await;
        let answer = answer.expect("an answer");
        let code = answer.headers().get("cloakroom-error").map_or("", |code| code.to_str().expect("text")).to_owned();
        (answer.status(), code)
    }

    async fn ask_with(&self, token: &str) -> (StatusCode, String) {
        self.ask_inside(&[("authorization", &format!("Bearer {token}"))]).await
    }
}

/// The page of an application, as it is shown to its user.
async fn page(browser: &mut Browser, target: &str) -> Value {
    let answer = browser.navigate(target).await;
    assert_eq!((answer.status, answer.header("x-user-context-update")), (StatusCode::OK, ""), "{target} {answer:?}");
    answer.json()
}

/// Has the application keep something, and says what the user gets.
async fn keep(browser: &mut Browser, root: &str, patch: Value) {
    let answer = browser.write(Method::POST, &format!("{root}/keep"), &patch.to_string()).await;
    assert_eq!((answer.status, answer.header("x-user-context-update")), (StatusCode::OK, ""), "{root} {answer:?}");
}

fn is_alice() -> Value {
    json!(["demo", "a11ce000-0000-4000-8000-000000000001", "Alice Ærø"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_goes_through_three_levels_and_three_applications() {
    let company = Company::start().await;
    let Company { world, shop, help, account, .. } = &company;
    let mut browser = world.browser();

    // A stranger looks around; what an application would keep of him has no place.
    let seen = page(&mut browser, "/shop/shoes?size=42").await;
    assert_eq!((&seen["path"], &seen["level"]), (&json!("/shop/shoes"), &json!("anonymous")));
    keep(&mut browser, "/shop", json!({"basket": ["shoes"]})).await;
    assert_eq!(page(&mut browser, "/shop").await["kept"], Value::Null);
    assert_eq!((shop.token(), shop.heard("x-user-context"), shop.heard("cookie")), (None, None, None));
    assert_eq!(browser.fetch("/account/").await.code(), "session_missing");

    // Whoever wants to see an account logs in, and comes back to it.
    let back = browser.log_in("/account/orders?page=2").await;
    assert!(back.body.contains("/account/orders?page=2"), "{back:?}");
    let seen = page(&mut browser, "/account/").await;
    assert_eq!((&seen["level"], &seen["user"], &seen["kept"]), (&json!("logged_on"), &is_alice(), &json!({})));

    // What one application keeps, the others are told at once; who may only read changes nothing.
    keep(&mut browser, "/shop", json!({"basket": {"shoes": 1, "hat": 2}})).await;
    keep(&mut browser, "/account", json!({"language": "da", "basket": {"hat": null}})).await;
    keep(&mut browser, "/help", json!({"basket": null})).await;
    let kept = json!({"basket": {"shoes": 1}, "language": "da"});
    for root in ["/shop", "/help/", "/account"] {
        let seen = page(&mut browser, root).await;
        assert_eq!((&seen["user"], &seen["kept"]), (&is_alice(), &kept), "{root}");
    }
    assert_eq!(page(&mut browser, "/help/a/b").await["path"], "/a/b", "this one does not know its root");
    assert_eq!(help.token(), None, "nor does it need a token");

    // The next day he is known, and no more than that.
    let ticket_before = ticket(&browser);
    world.clock.advance(secs(24 * 3600 - 60));
    let seen = page(&mut browser, "/shop").await;
    assert_eq!((&seen["level"], &seen["user"], &seen["kept"]), (&json!("returning"), &is_alice(), &kept));
    assert_eq!(shop.token(), None, "no token of whatever kind");
    assert_eq!(page(&mut browser, "/help").await["level"], "anonymous", "where the route asks for more");
    assert_eq!(browser.fetch("/account/").await.code(), "session_expired");
    keep(&mut browser, "/shop", json!({"basket": {"gloves": 1}})).await;
    eventually("his tokens are given back", || async { world.demo.provider.ledger().count(Endpoint::Revoke) == 1 })
        .await;

    // Another login takes it all along, under another name of the session.
    browser.log_in("/account/").await;
    assert_ne!(ticket(&browser), ticket_before);
    let seen = page(&mut browser, "/account/").await;
    let kept = json!({"basket": {"shoes": 1, "gloves": 1}, "language": "da"});
    assert_eq!((&seen["level"], &seen["kept"]), (&json!("logged_on"), &kept));

    // After the logout nobody is known, and nothing is kept for whoever comes next.
    let mut twin = holder(&browser);
    assert_eq!(log_out(&mut browser).await.status, StatusCode::SEE_OTHER);
    for who in [&mut browser, &mut twin] {
        let seen = page(who, "/shop").await;
        assert_eq!((&seen["level"], &seen["kept"]), (&json!("anonymous"), &Value::Null));
    }
    browser.log_in("/account/").await;
    assert_eq!(page(&mut browser, "/account/").await["kept"], json!({}));
    assert!(account.heard("cookie").is_none(), "no cookie of ours goes to an application");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_hands_on_becomes_the_users_token_inside_and_there_alone() {
    let company = Company::start().await;
    let Company { world, shop, account, .. } = &company;
    let recorder = world.demo.upstream.recorder();
    let mut browser = world.browser();
    browser.log_in("/account/").await;

    recorder.clear();
    assert_eq!(browser.fetch("/account/orders").await.status, StatusCode::OK);
    let last = recorder.last().expect("the service was asked");
    assert_eq!(last.bearer(), Some(newest(world).access_token.as_str()), "plain OAuth, as if nothing lay between");
    assert_eq!((last.path.as_str(), last.header("x-user-id")), ("/orders/42", is_alice()[1].as_str()));
    let told = last.header("x-user-context").map(|value| {
        HeaderMap::from_iter([("x-user-context".parse().expect("a name"), value.parse().expect("a value"))])
    });
    assert_eq!(context(&told.expect("a context")).expect("one")["claims"]["name"], "Alice Ærø");

    // The application itself has never seen that token: its own names the session, and nothing more.
    let token = account.token().expect("a token");
    assert_ne!(token, newest(world).access_token);
    assert_eq!((&claims(&token)["provider"], &claims(&token)["sub"]), (&is_alice()[0], &is_alice()[1]));
    assert_eq!(browser.fetch("/shop").await.status, StatusCode::OK);
    assert_eq!(shop.token().as_ref(), Some(&token), "one for all applications");

    // Outside it opens nothing, and inside nothing else opens anything.
    recorder.clear();
    let ours = format!("Bearer {token}");
    let mut stranger = world.browser();
    for (target, code) in [("/orders/42", "not_found"), ("/account/", "session_missing")] {
        let draft = stranger.draft(Method::GET, target).header("authorization", &ours);
        assert_eq!(stranger.send(draft).await.code(), code, "{target}");
    }
    let cookie = format!("{}={}", crate::harness::SESSION, ticket(&browser));
    let access = format!("Bearer {}", newest(world).access_token);
    for fields in [&[][..], &[("cookie", &*cookie)], &[("authorization", &*access)], &[("authorization", "Basic eDp5")]]
    {
        assert_eq!(company.ask_inside(fields).await, (StatusCode::UNAUTHORIZED, "token_invalid".into()), "{fields:?}");
    }
    assert_eq!(recorder.count(), 0);

    // It ends with the session, whichever way that ends.
    assert_eq!(company.ask_with(&token).await.0, StatusCode::OK);
    world.clock.advance(secs(31 * 60));
    assert_eq!(company.ask_with(&token).await.1, "token_invalid", "its user only returns");
    browser.log_in("/account/").await;
    browser.fetch("/account/").await;
    let token = account.token().expect("a token");
    assert_eq!(company.ask_with(&token).await.0, StatusCode::OK);
    log_out(&mut browser).await;
    assert_eq!(company.ask_with(&token).await.1, "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_what_applications_keep_lie_in_the_database() {
    let company = Company::start().await;
    let mut browser = company.world.browser();
    browser.log_in("/account/").await;
    keep(&mut browser, "/shop", json!({"basket": 1})).await;

    // Another replica knows all of it, and what it changes is there here.
    let replica = company.world.replica_with(&company.second, "").await;
    replica.knows_provider().await;
    let mut there = carry(&browser, &replica);
    assert_eq!(page(&mut there, "/account/").await["kept"], json!({"basket": 1}));
    keep(&mut there, "/shop", json!({"basket": 2})).await;
    eventually("it is heard here", || {
        let mut here = holder(&browser);
        async move { page(&mut here, "/help/").await["kept"] == json!({"basket": 2}) }
    })
    .await;
    let token = company.account.token().expect("a token");
    assert_eq!(company.ask_with(&token).await.0, StatusCode::OK, "a name that the other one gave");
    drop(replica);

    let Company { world, account, shop, .. } = company;
    let world = world.restarted().await;
    let mut browser = carry(&browser, &world.proxy);
    assert_eq!(page(&mut browser, "/account/").await["kept"], json!({"basket": 2}));
    assert_eq!(world.metric("cloakroom_session_lookups_total{result=\"found\",source=\"store\"}").await, 1.0);
    assert!(account.token().is_some() && shop.token().is_some());
}
