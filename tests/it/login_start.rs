//! How a login begins: what goes to the provider, and what kind of request begins one (behaviour L1, L2, L11, L12, L15).

use std::collections::BTreeSet;

use cloakroom::demo::provider::Endpoint;
use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, Seen, Wishes, World};
use crate::login_kit::{Fields, arrive, from_another_site, guarded, logins_begun, onward, query, uncached};

async fn ready() -> World {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_l2_every_login_has_its_own_challenge_state_and_nonce() {
    let world = ready().await;
    let mut browser = world.browser();
    let mut seen = BTreeSet::new();
    for path in ["/", "/auth/login", "/login"] {
        let start = browser.navigate(path).await;
        assert_eq!(start.status, StatusCode::SEE_OTHER, "{start:?}");
        uncached(&start);
        let sent = query(start.location());
        assert_eq!(sent["response_type"], "code");
        assert_eq!(sent["code_challenge_method"], "S256");
        assert_eq!(sent["scope"], "openid profile email");
        assert_eq!(sent["redirect_uri"], format!("{}/auth/callback", browser.origin()));
        for name in ["state", "nonce", "code_challenge"] {
            assert!(sent[name].len() >= 43, "256 bits: {sent:?}");
            assert!(seen.insert(sent[name].clone()), "{name} was used before");
        }
        assert!(!start.location().contains("verifier"));
    }
    let ours = world.demo.provider.ledger();
    browser.log_in("/").await;
    let redeemed = ours.last_request(Endpoint::Token).expect("a token request");
    let verifier = redeemed.parameter("code_verifier").expect("a verifier");
    assert!((43..=128).contains(&verifier.len()));
    assert!(browser.received.iter().all(|seen| !format!("{seen:?}").contains(verifier)), "the verifier stays here");
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_one_binding_cookie_serves_all_logins_of_a_browser() {
    let world = ready().await;
    let mut browser = world.browser();
    let first = browser.navigate("/").await;
    let cookie = first.set_cookies().into_iter().find(|c| c.starts_with(LOGIN)).expect("a binding");
    for part in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    // It outlives the session whose end wakes many tabs at once.
    assert!(!cookie.contains("Max-Age") && !cookie.contains("Expires"), "{cookie}");
    let binding = browser.cookie(LOGIN).map(str::to_owned);
    browser.navigate("/other").await;
    assert_eq!(browser.cookie(LOGIN).map(str::to_owned), binding);
    assert_eq!(first.set_cookies().len(), 1, "{first:?}");
}

const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
const DOCUMENT: (&str, &str) = ("sec-fetch-dest", "document");
const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml");

#[tokio::test(flavor = "multi_thread")]
async fn l11_only_a_navigation_starts_a_login() {
    let world = ready().await;
    let starts: [(&str, Fields<'_>); 4] = [
        ("navigation", &[NAVIGATE, DOCUMENT, HTML]),
        ("typed address", &[NAVIGATE, DOCUMENT, ("sec-fetch-site", "none")]),
        ("sibling site", &[NAVIGATE, DOCUMENT, ("sec-fetch-site", "same-site")]),
        ("old browser", &[HTML]),
    ];
    let never: [(&str, Method, Fields<'_>); 14] = [
        ("fetch", Method::GET, &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), HTML]),
        ("picture", Method::GET, &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
        ("iframe", Method::GET, &[NAVIGATE, ("sec-fetch-dest", "iframe"), HTML]),
        ("object", Method::GET, &[NAVIGATE, ("sec-fetch-dest", "object"), HTML]),
        ("prefetch", Method::GET, &[NAVIGATE, DOCUMENT, HTML, ("sec-purpose", "prefetch")]),
        ("prerender", Method::GET, &[NAVIGATE, DOCUMENT, HTML, ("sec-purpose", "prefetch;prerender")]),
        ("old prefetch", Method::GET, &[HTML, ("purpose", "prefetch")]),
        ("XMLHttpRequest", Method::GET, &[HTML, ("x-requested-with", "XMLHttpRequest")]),
        ("script", Method::GET, &[("accept", "application/json")]),
        ("bare client", Method::GET, &[]),
        ("event stream", Method::GET, &[("accept", "text/event-stream")]),
        ("WebSocket", Method::GET, &[HTML, ("connection", "upgrade"), ("upgrade", "websocket")]),
        ("form", Method::POST, &[NAVIGATE, DOCUMENT, HTML]),
        ("HEAD", Method::HEAD, &[NAVIGATE, DOCUMENT, HTML]),
    ];
    for (name, headers) in starts {
        let mut browser = world.browser();
        let draft = headers.iter().fold(browser.draft(Method::GET, "/page"), |d, (k, v)| d.header(k, v));
        let answer = browser.send(draft).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{name}: {answer:?}");
        uncached(&answer);
    }
    let before = logins_begun(&world).await;
    for (name, method, headers) in never {
        let mut browser = world.browser();
        let draft = headers.iter().fold(browser.draft(method, "/page"), |d, (k, v)| d.header(k, v));
        let answer = browser.send(draft).await;
        unauthorized(&answer, name);
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let mut browser = world.browser();
        let draft = browser.draft(method.clone(), "/page").navigation();
        unauthorized(&browser.send(draft).await, method.as_str());
    }
    assert_eq!(logins_begun(&world).await, before);
    assert_eq!(world.demo.upstream.recorder().count(), 0);
}

fn unauthorized(answer: &Seen, what: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {answer:?}");
    assert_eq!(answer.code(), "session_missing", "{what}");
    assert!(answer.headers.get("location").is_none() && answer.set_cookies().is_empty(), "{what}: {answer:?}");
    uncached(answer);
}

/// The login's own address is no way around the rule: a frame, a prefetch or a script would use up the logins of the
/// user's tabs.
#[tokio::test(flavor = "multi_thread")]
async fn l11_the_login_endpoint_too_starts_on_a_navigation_only() {
    let world = ready().await;
    let never: [(&str, Fields<'_>); 5] = [
        ("fetch", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), HTML]),
        ("picture", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
        ("iframe", &[NAVIGATE, ("sec-fetch-dest", "iframe"), HTML]),
        ("prefetch", &[NAVIGATE, DOCUMENT, HTML, ("sec-purpose", "prefetch")]),
        ("old prefetch", &[HTML, ("purpose", "prefetch")]),
    ];
    for path in ["/auth/login", "/login"] {
        for (name, headers) in never {
            let mut browser = world.browser();
            let draft = headers.iter().fold(browser.draft(Method::GET, path), |d, (k, v)| d.header(k, v));
            let answer = browser.send(draft).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {name}: {answer:?}");
            assert!(answer.set_cookies().is_empty(), "{path} {name}: {answer:?}");
        }
    }
    assert_eq!(logins_begun(&world).await, 0.0);
    // A client that says nothing of itself asked for this very address.
    let mut client = world.browser();
    let draft = client.draft(Method::GET, "/auth/login");
    assert_eq!(client.send(draft).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn l15_another_sites_link_gets_one_page_before_a_login() {
    let world = ready().await;
    for (path, target) in [
        ("/deep?x=1&y=%3Cb%3E", "/deep?x=1&y=%3Cb%3E"),
        ("/auth/login?return_to=/deep", "/auth/login?return_to=/deep"),
        ("/login", "/login"),
    ] {
        let mut browser = world.browser();
        let page = arrive(&mut browser, Method::GET, path).await;
        assert_eq!(onward(&page), target);
        assert!(page.set_cookies().is_empty(), "{page:?}");
        guarded(&page);
        uncached(&page);
        let start = browser.navigate(&onward(&page)).await;
        assert_eq!(start.status, StatusCode::SEE_OTHER, "once only: {start:?}");
    }
    assert_eq!(logins_begun(&world).await, 3.0);
    assert_eq!(world.demo.upstream.recorder().count(), 0);

    let mut user = world.logged_in().await;
    let page = arrive(&mut user, Method::GET, "/deep").await;
    assert_eq!(user.navigate(&onward(&page)).await.status, StatusCode::OK, "the cookie was only held back");
    assert_eq!(logins_begun(&world).await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn l15_a_browser_that_holds_nothing_back_needs_no_page() {
    let session = "  cookie: { same_site: lax }\n".to_owned();
    let world = World::with(Wishes { session, ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let mut browser = world.browser();
    let draft = from_another_site(browser.draft(Method::GET, "/"));
    assert_eq!(browser.send(draft).await.status, StatusCode::SEE_OTHER);

    let strict = ready().await;
    let mut browser = strict.browser();
    browser.set_cookie(SESSION, &"A".repeat(43));
    let draft = from_another_site(browser.draft(Method::GET, "/"));
    assert_eq!(browser.send(draft).await.status, StatusCode::SEE_OTHER, "the cookie came, so none is held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_wish_for_a_prompt_but_not_for_a_protocol() {
    let world = ready().await;
    let mut browser = world.browser();
    let start = browser
        .navigate(
            "/auth/login?prompt=login&login_hint=al%26ice&acr_values=gold&state=evil&redirect_uri=https://evil.example\
             &client_id=other&nonce=n&code_challenge=c&code_challenge_method=plain&response_mode=form_post&scope=admin",
        )
        .await;
    let sent = query(start.location());
    assert_eq!((&*sent["prompt"], &*sent["login_hint"], &*sent["acr_values"]), ("login", "al&ice", "gold"));
    assert!(!start.location().contains("evil"), "{start:?}");
    assert_eq!(sent["scope"], "openid profile email");
    assert_eq!(sent["code_challenge_method"], "S256");
    assert!(!sent.contains_key("response_mode"));
    for odd in ["prompt=other", "prompt=login&prompt=consent", "prompt=%0d%0a"] {
        let start = browser.navigate(&format!("/auth/login?{odd}")).await;
        assert!(!query(start.location()).contains_key("prompt"), "{odd}");
    }
}
