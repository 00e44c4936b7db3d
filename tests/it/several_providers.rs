//! Several providers in one process and on one site: who chooses, whose answer is whose, whose session opens what
//! (behaviour L5, S7, S11, R13, O4).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cloakroom::demo::backend::{BackendEndpoint, PASSWORD};
use cloakroom::demo::provider::{Client, Endpoint, ProviderConfig, ResponseIssuer, UriRule, send_logout_token};
use cloakroom::demo::{Backend, CLIENT_ID, Provider};
use reqwest::{Method, StatusCode};

use crate::credentials_kit::{form, legacy, post, start_backend};
use crate::harness::{SESSION, Seen, Wishes, World, eventually};
use crate::kit::*;
use crate::login_kit::{guarded, query, refused, unescaped, with};

/// A site with the OpenID providers `demo` and `second` and the backend `legacy`, and one on `localhost` with `second`.
pub(crate) struct Several {
    pub(crate) world: World,
    pub(crate) second: Provider,
    pub(crate) backend: Backend,
}

const ROUTES: &str = r#"
      - { path: /api/, upstream: demo }
      - { path: /calls/, upstream: demo, accept: [bearer], identity_headers: { X-User-Id: sub } }
      - { path: /calls/second/, upstream: demo, accept: [bearer], provider: second }
      - { path: /app/, upstream: demo, token: { kind: proxy } }
      - { path: /internal/, upstream: demo, accept: [proxy_token] }
      - { path: /internal/second/, upstream: demo, accept: [proxy_token], provider: second }
      - { path: /second/, upstream: demo, provider: second }
      - { path: /legacy/, upstream: demo, provider: legacy }
      - { path: /maybe/, upstream: demo, access: optional, provider: second, identity_headers: { X-User-Id: sub } }
      - { path: /login-page, upstream: demo, access: public }
      - { path: /, upstream: demo }
  - hosts: [localhost]
    provider: second
    routes: [{ path: /, upstream: demo }]
"#;

impl Several {
    pub(crate) async fn start() -> Self {
        Self::with("", "").await
    }

    /// With more settings of the OpenID providers.
    pub(crate) async fn with(of_demo: &str, of_second: &str) -> Self {
        let site = "    bearer: { audiences: [demo-api] }".into();
        let more = "proxy_token: { issuer: \"https://app.test\", audience: \"https://internal.test\", lifetime: 5m, keys: [{ id: p1, \
                    secret: { env: TEST_KEY } }] }";
        let provider_yaml = of_demo.to_owned();
        Self::of(Wishes { routes: ROUTES.into(), site, more: more.into(), provider_yaml, ..ticking() }, of_second).await
    }

    /// The same site with other routes.
    pub(crate) async fn over(wishes: Wishes) -> Self {
        Self::of(wishes, "").await
    }

    async fn of(wishes: Wishes, of_second: &str) -> Self {
        let clock = wishes.clock.clone();
        let client =
            Client { redirect_uris: vec![UriRule::new("http://127.0.0.1:*/auth/callback/second")], ..Client::demo() };
        let second = Provider::start(ProviderConfig {
            clients: vec![client],
            clock: Arc::new(move || UNIX_EPOCH + Duration::from_millis(clock.now().as_millis())),
            ..ProviderConfig::default()
        });
        let second = second.expect("the second provider");
        second.switches().auto_login("alice");
        let backend = start_backend();
        let auth = "    client_auth: { method: client_secret_basic, secret: { env: TEST_SECRET } }\n";
        let auth = if of_second.contains("client_auth:") { "" } else { auth };
        let providers = format!(
            "  - name: second\n    title: \"Second & <Sons>\"\n    issuer: {}\n    client_id: {CLIENT_ID}\n{auth}{of_second}\n{}",
            second.issuer(),
            legacy(&backend, "body", "")
        );
        let site_providers = "providers: [demo, second, legacy]".to_owned();
        let world = world(Wishes { providers, site_providers, ..wishes }).await;
        eventually("the second provider is known", || async {
            world.proxy.admin_page("/readyz?verbose").await.1.contains("provider second: ready")
        })
        .await;
        Self { world, second, backend }
    }

    pub(crate) fn token_calls(&self) -> (usize, usize, usize) {
        let second = self.second.ledger().count(Endpoint::Token);
        (token_calls(&self.world), second, self.backend.posted(BackendEndpoint::Refresh).len())
    }
}

/// The links of the page with the choice, as a browser reads them.
pub(crate) fn choices(page: &Seen) -> Vec<(String, String)> {
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    guarded(page);
    let links = page.body.split("class=\"choice\" href=\"").skip(1);
    links
        .map(|rest| {
            let (address, rest) = rest.split_once("\">").expect("a link");
            (unescaped(address), unescaped(rest.split_once("</a>").expect("its end").0))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_chooses_where_several_may_log_in() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    let seen = browser.navigate("/deep?x=1").await;
    assert_eq!((seen.status, seen.location()), (StatusCode::SEE_OTHER, "/auth/login?return_to=%2Fdeep%3Fx%3D1"));
    let page = browser.navigate("/auth/login?return_to=%2Fdeep%3Fx%3D1&prompt=login&evil=%22%3E").await;
    assert!(page.set_cookies().is_empty() && !page.body.contains("evil"), "{page:?}");
    let links = choices(&page);
    let titles: Vec<_> = links.iter().map(|(_, title)| title.as_str()).collect();
    assert_eq!(titles, ["demo", "Second & <Sons>", "legacy"]);
    for ((address, _), name) in links.iter().zip(["demo", "second", "legacy"]) {
        let expected = format!("/auth/login?provider={name}&return_to=%2Fdeep%3Fx%3D1&prompt=login");
        assert_eq!(*address, expected);
    }
    assert!(browser.navigate(&links[0].0).await.location().starts_with(site.world.demo.provider.issuer()));
    let seen = browser.navigate(&links[1].0).await;
    assert!(seen.location().starts_with(site.second.issuer()), "{seen:?}");
    assert_eq!(query(seen.location())["prompt"], "login");
    assert_eq!(browser.navigate(&links[2].0).await.location(), "/login-page?return_to=%2Fdeep%3Fx%3D1");
    // The alias leads there too; what leads astray does not.
    assert_eq!(choices(&browser.navigate("/login").await).len(), 3);
    let page = browser.navigate("/auth/login?return_to=//evil.example").await;
    assert!(choices(&page).iter().all(|(address, _)| address.ends_with("&return_to=%2F")), "{page:?}");
    for target in ["/auth/login?provider=third", "/auth/login?provider=demo&provider=second", "/auth/login?provider="] {
        let seen = browser.navigate(target).await;
        assert_eq!((seen.status, seen.code()), (StatusCode::BAD_REQUEST, "bad_request"), "{target}");
    }
    assert_eq!(browser.fetch("/auth/login").await.status, StatusCode::UNAUTHORIZED, "a script gets no page");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_logs_in_and_a_new_login_ends_the_session_of_another() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    let page = browser.log_in("/auth/login?provider=demo&return_to=/api/whoami").await;
    assert!(page.body.contains("/api/whoami"));
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&site.world), newest(&site.world).access_token);
    let mut thief = holder(&browser);

    browser.log_in("/auth/login?provider=second").await;
    assert_eq!(thief.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&site.world), site.second.ledger().last_issued().expect("tokens").access_token);
    let mut thief = holder(&browser);

    // The one backend need not be named.
    let draft = post(&browser, "/auth/login", &form("alice", PASSWORD));
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!(thief.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&site.world), site.backend.last_issued().expect("tokens").0);
    for name in ["demo", "third"] {
        let draft = post(&browser, &format!("/auth/login?provider={name}"), &form("alice", PASSWORD));
        assert_eq!(browser.send(draft).await.code(), "bad_request", "{name} takes no credentials");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_two_tabs_that_log_in_at_two_providers_leave_one_session() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    let one = browser.authorize("/auth/login?provider=demo").await;
    let other = browser.authorize("/auth/login?provider=second").await;
    // Both began without a session, and come back at once.
    let mut tab = crate::login_kit::tab(&browser);
    let (first, second) = tokio::join!(browser.navigate(&one), tab.navigate(&other));
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    let mut alive = 0;
    for browser in [&mut browser, &mut tab] {
        alive += usize::from(browser.fetch("/api/whoami").await.status == StatusCode::OK);
    }
    assert_eq!(alive, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_no_provider_passes_its_answer_off_as_anothers() {
    // With `iss` in the answers, and with providers that do not name themselves.
    for silent in [false, true] {
        let site = Several::start().await;
        if silent {
            for provider in [&site.world.demo.provider, &site.second] {
                provider.switches().set(|switch| switch.response_issuer = ResponseIssuer::Missing);
            }
        }
        let mut browser = site.world.browser();
        let at_demo = browser.authorize("/auth/login?provider=demo").await;
        assert!(at_demo.contains("/auth/callback?"), "the first one's address is the plain one: {at_demo}");
        // The browser was at `second`, and its answer comes with the address, the code or all of another login.
        let cases: [&dyn Fn(&str) -> String; 5] = [
            &|second| second.replace("/auth/callback/second", "/auth/callback"),
            &|second| with(&at_demo, "state", &query(second)["state"]),
            &|second| with(second, "code", &query(&at_demo)["code"]).replace("/callback/second", "/callback"),
            &|second| {
                let mixed = with(second, "code", &query(&at_demo)["code"]);
                if silent { mixed } else { with(&mixed, "iss", site.world.demo.provider.issuer()) }
            },
            &|second| with(&second.replace("/callback/second", "/callback"), "iss", site.world.demo.provider.issuer()),
        ];
        for (number, mixed) in cases.into_iter().enumerate() {
            let callback = browser.authorize("/auth/login?provider=second").await;
            assert!(callback.contains("/auth/callback/second?"), "{callback}");
            let mixed = mixed(&callback);
            let page = browser.navigate(&mixed).await;
            refused(&browser, &page, &mixed, &format!("case {number}, silent: {silent}"));
            // A login is tried once: its own address does not take it after that.
            let page = browser.navigate(&callback).await;
            refused(&browser, &page, &callback, &format!("case {number} again"));
        }
        assert_eq!(token_calls(&site.world), 0, "no code of another login was redeemed at `demo`");
        for address in
            ["/auth/callback/demo", "/auth/callback/legacy", "/auth/callback/third", "/auth/callback/second/"]
        {
            let seen = browser.navigate(&format!("{address}?state=x&code=y")).await;
            assert_eq!(seen.status, StatusCode::NOT_FOUND, "{address}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_session_opens_nothing_of_another_provider_or_site() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    browser.log_in("/auth/login?provider=demo").await;
    let recorder = site.world.demo.upstream.recorder();
    recorder.clear();
    for path in ["/second/x", "/legacy/x"] {
        let seen = browser.fetch(path).await;
        assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "session_missing"), "{path}");
        let seen = browser.write(Method::POST, path, "x").await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(recorder.count(), 0);
    let seen = browser.navigate("/second/x").await;
    assert!(seen.location().starts_with(site.second.issuer()), "straight to the one that it takes: {seen:?}");
    assert_eq!(browser.navigate("/legacy/x").await.location(), "/login-page?return_to=%2Flegacy%2Fx");
    assert_eq!(browser.fetch("/maybe/x").await.status, StatusCode::OK);
    let last = recorder.last().expect("a request");
    assert_eq!((last.bearer(), last.header("x-user-id")), (None, None), "a stranger, where strangers pass");
    // The same cookie at the site of another host, whose one provider is another.
    let host = format!("localhost:{}", site.world.proxy.address.port());
    let seen = browser.send(browser.draft(Method::GET, "/x").header("host", &host)).await;
    assert_eq!((seen.status, seen.code()), (StatusCode::UNAUTHORIZED, "session_expired"), "{seen:?}");

    browser.log_in("/second/x").await;
    for path in ["/second/x", "/maybe/x", "/api/whoami"] {
        assert_eq!(browser.fetch(path).await.status, StatusCode::OK, "{path}");
        let token = site.second.ledger().last_issued().expect("tokens").access_token;
        assert_eq!(relayed(&site.world), token, "{path}");
    }
    let seen = browser.send(browser.draft(Method::GET, "/x").header("host", &host)).await;
    assert_eq!(seen.code(), "session_expired", "the provider is the right one, the site is not: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_provider_that_a_site_no_longer_has_opens_nothing_there() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    browser.log_in("/auth/login?provider=demo").await;
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let reloaded = site.world.proxy.reload("providers: [demo, second, legacy]", "providers: [second, legacy]").await;
    assert_eq!(reloaded.expect("good settings").applied, ["sites"]);
    assert_eq!(browser.fetch("/api/whoami").await.code(), "session_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_session_whose_provider_has_left_the_site_can_be_logged_out() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    browser.log_in("/auth/login?provider=demo").await;
    let (mut thief, proxy) = (holder(&browser), &site.world.proxy);
    let (all, fewer) = ("providers: [demo, second, legacy]", "providers: [second, legacy]");
    proxy.reload(all, fewer).await.expect("good settings");
    let forged = thief.draft(Method::POST, "/auth/logout").header("origin", &browser.origin());
    assert_eq!(thief.send(forged).await.code(), "csrf_failed", "not without its token");
    let seen = log_out(&mut browser).await;
    assert_eq!((seen.status, seen.location()), (StatusCode::SEE_OTHER, "/auth/logged-out"), "{seen:?}");
    assert!(browser.cookie(SESSION).is_none());
    proxy.reload(all, all).await.expect("good settings");
    assert_eq!(thief.fetch("/api/whoami").await.code(), "session_expired", "it does not come back with its provider");
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_a_refresh_goes_to_the_sessions_own_provider() {
    let site = Several::start().await;
    let (mut one, mut two, mut three) = (site.world.browser(), site.world.browser(), site.world.browser());
    one.log_in("/auth/login?provider=demo").await;
    two.log_in("/auth/login?provider=second").await;
    let draft = post(&three, "/auth/login", &form("alice", PASSWORD));
    assert_eq!(three.send(draft).await.status, StatusCode::OK);
    assert_eq!(site.token_calls(), (1, 1, 0));
    for (browser, expected) in [(&mut one, (2, 1, 0)), (&mut two, (2, 2, 0)), (&mut three, (2, 2, 1))] {
        site.world.clock.advance(OVER);
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
        assert_eq!(site.token_calls(), expected);
    }
    // One that is down is nobody else's trouble.
    site.second.stop().await;
    site.world.clock.advance(OVER);
    assert_not_now(&two.fetch("/api/whoami").await, "provider_unavailable");
    assert_eq!(one.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(three.fetch("/api/whoami").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_a_logout_token_ends_sessions_of_its_own_provider_only() {
    let site = Several::start().await;
    let (mut one, mut two) = (site.world.browser(), site.world.browser());
    // The same `sub` at both.
    one.log_in("/auth/login?provider=demo").await;
    two.log_in("/auth/login?provider=second").await;
    let address = format!("http://{}/auth/backchannel-logout", site.world.proxy.address);
    let subject = newest(&site.world).subject;
    assert_eq!(site.second.ledger().last_issued().expect("tokens").subject, subject);
    let token = site.second.logout_token(Some(&subject), None, &[]).expect("a token");
    let answer = send_logout_token(&address, &token).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(two.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(one.fetch("/api/whoami").await.status, StatusCode::OK);
    let token = site.world.demo.provider.logout_token(Some(&subject), None, &[]).expect("a token");
    assert_eq!(send_logout_token(&address, &token).await.expect("an answer").status, 200);
    assert_eq!(one.fetch("/api/whoami").await.code(), "session_expired");
    let stranger = Provider::start(ProviderConfig::default()).expect("a stranger");
    let token = stranger.logout_token(Some(&subject), None, &[]).expect("a token");
    assert_eq!(send_logout_token(&address, &token).await.expect("an answer").status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_logout_goes_to_the_sessions_own_provider() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    browser.log_in("/auth/login?provider=second").await;
    let seen = log_out(&mut browser).await;
    assert!(seen.location().starts_with(site.second.issuer()), "{seen:?}");
    let token = site.second.ledger().last_issued().expect("tokens").refresh_token.expect("a refresh token");
    eventually("it is revoked there", || async { site.second.ledger().revoked().contains(&token) }).await;
    let (_, state) = seen.location().split_once("state=").expect("a state");
    let page = browser.navigate(&format!("/auth/logged-out?state={state}")).await;
    assert!(page.body.contains("You are logged out"), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_choice_keeps_what_was_asked_of_the_login() {
    let site = Several::start().await;
    let mut browser = site.world.browser();
    let page = browser.navigate("/auth/login?return_to=/deep&max_age=300&acr_values=gold&step_up=1").await;
    let links = choices(&page);
    for (address, name) in links[..2].iter().map(|(address, _)| address).zip(["demo", "second"]) {
        let asked = query(&format!("{}{address}", browser.origin()));
        let told = |name: &str| asked.get(name).map(String::as_str);
        assert_eq!((told("provider"), told("max_age"), told("step_up")), (Some(name), Some("300"), Some("1")));
        let sent = query(browser.navigate(address).await.location());
        assert_eq!((sent["max_age"].as_str(), sent["acr_values"].as_str()), ("300", "gold"));
    }
}
