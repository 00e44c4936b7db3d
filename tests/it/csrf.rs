//! F23 (C1–C5): the exact table of method, `Origin`, `Sec-Fetch-Site` and token.

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, SESSION, Seen, Wishes, World, XSRF};
use crate::wire::{Wire, ask};

/// What a request says of its token. `Right` is the only combination that proves anything.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Right,
    Absent,
    /// The cookie came by itself, as it does on every forged request.
    CookieOnly,
    /// The header is right, the cookie is missing.
    HeaderOnly,
    /// The header is right, the cookie another one.
    OtherCookie,
    /// Header and cookie agree on a value that somebody planted.
    Planted,
    /// Header and cookie agree on the token of another session.
    OfAnotherSession,
    /// Half of the right one.
    Cut,
    Empty,
}

const TOKENS: [Token; 9] = [
    Token::Right,
    Token::Absent,
    Token::CookieOnly,
    Token::HeaderOnly,
    Token::OtherCookie,
    Token::Planted,
    Token::OfAnotherSession,
    Token::Cut,
    Token::Empty,
];

/// `Origin` lines of a request; `{}` is the site's own origin.
const ORIGINS: [&[&str]; 9] = [
    &[],
    &["{}"],
    &["null"],
    &["http://evil.test"],
    &["{}.evil.test"],
    &["https://127.0.0.1"],
    &["{}/"],
    &["{}", "{}"],
    &[""],
];
const SITES: [&[&str]; 6] =
    [&[], &["same-origin"], &["same-site"], &["cross-site"], &["none"], &["same-origin", "cross-site"]];

struct Case {
    method: &'static str,
    origins: &'static [&'static str],
    sites: &'static [&'static str],
    token: Token,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "BREW"].into_iter().flat_map(|method| {
            ORIGINS.into_iter().flat_map(move |origins| {
                SITES
                    .into_iter()
                    .flat_map(move |sites| TOKENS.into_iter().map(move |token| Self { method, origins, sites, token }))
            })
        })
    }

    /// The table, said as simply as possible.
    fn is_allowed(&self) -> bool {
        let safe = matches!(self.method, "GET" | "HEAD" | "OPTIONS");
        let ours = match self.origins {
            [] => self.sites == ["same-origin"],
            origins => origins == ["{}"],
        };
        safe || (ours && self.token == Token::Right)
    }

    fn write(&self, path: &str, user: &Browser, other: &Browser) -> String {
        let token = |browser: &Browser| browser.cookie(XSRF).expect("a token").to_owned();
        let (own, others, planted) = (token(user), token(other), "A".repeat(43));
        let half = own[..20].to_owned();
        let (header, cookie) = match self.token {
            Token::Right => (Some(&own), Some(&own)),
            Token::Absent => (None, None),
            Token::CookieOnly => (None, Some(&own)),
            Token::HeaderOnly => (Some(&own), None),
            Token::OtherCookie => (Some(&own), Some(&others)),
            Token::Planted => (Some(&planted), Some(&planted)),
            Token::OfAnotherSession => (Some(&others), Some(&others)),
            Token::Cut => (Some(&half), Some(&half)),
            Token::Empty => (Some(&planted), Some(&own)),
        };
        let empty = self.token == Token::Empty;
        let mut text = format!("{} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.method, user.home);
        text += &format!("Cookie: {SESSION}={}", user.cookie(SESSION).expect("a session"));
        text += &cookie.map_or(String::new(), |value| format!("; {XSRF}={value}"));
        text += "\r\n";
        if let Some(value) = header {
            text += &format!("X-XSRF-TOKEN: {}\r\n", if empty { "" } else { value });
        }
        let origin = user.origin();
        text += &self.origins.iter().map(|o| format!("Origin: {}\r\n", o.replace("{}", &origin))).collect::<String>();
        text += &self.sites.iter().map(|site| format!("Sec-Fetch-Site: {site}\r\n")).collect::<String>();
        text + "\r\n"
    }

    fn describe(&self) -> String {
        format!("{} {:?} {:?} {:?}", self.method, self.origins, self.sites, self.token)
    }
}

async fn world(mode: &str) -> (World, Browser, Browser) {
    let session = format!("  csrf: {{ mode: {mode} }}");
    let world = World::with(Wishes { session, ..Wishes::default() }).await;
    world.proxy.knows_provider().await;
    let (user, other) = (world.logged_in().await, world.logged_in().await);
    (world, user, other)
}

async fn send(case: &Case, user: &Browser, other: &Browser) -> Seen {
    let mut wire = Wire::connect(user.home).await;
    wire.send(case.write("/api/x", user, other)).await;
    wire.any_answer(case.method == "HEAD").await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_enforced_the_table_is_exact_and_refusals_reach_nobody() {
    let (world, user, other) = world("enforce").await;
    let recorder = world.demo.upstream.recorder();
    let (mut allowed, mut refused) = (0, 0);
    for case in Case::all() {
        if !matches!(case.method, "GET" | "POST")
            && !matches!(case.token, Token::Right | Token::Absent | Token::Planted)
        {
            continue;
        }
        let answer = send(&case, &user, &other).await;
        if case.is_allowed() {
            allowed += 1;
            assert_eq!(answer.status, StatusCode::OK, "{}", case.describe());
        } else {
            refused += 1;
            assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "csrf_failed"), "{}", case.describe());
        }
        assert_eq!(recorder.count(), allowed, "{}", case.describe());
    }
    assert!(allowed > 800 && refused > 1000, "{allowed} {refused}");
    assert_eq!(sum(&world, "mode=\"enforce\"").await, refused as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_reported_everything_passes_and_is_counted_and_off_nothing_is() {
    for (mode, counted) in [("report", true), ("off", false)] {
        let (world, user, other) = world(mode).await;
        let mut refusals = 0;
        for case in Case::all().filter(|case| matches!(case.method, "GET" | "POST")) {
            let answer = ask(user.home, case.write("/api/x", &user, &other)).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{mode} {}", case.describe());
            refusals += usize::from(!case.is_allowed());
        }
        let expected = if counted { refusals } else { 0 };
        assert_eq!(sum(&world, "mode=").await, expected as f64, "{mode}");
    }
}

async fn sum(world: &World, label: &str) -> f64 {
    let page = world.metrics().await;
    let lines =
        page.lines().filter(|line| line.starts_with("cloakroom_csrf_rejections_total{") && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_a_route_without_csrf_and_routes_without_a_session_ask_for_nothing() {
    let (world, user, other) = world("enforce").await;
    for case in Case::all().filter(|case| case.method == "POST") {
        let answer = ask(user.home, case.write("/nocsrf/x", &user, &other)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{}", case.describe());
        let answer = ask(user.home, case.write("/open/x", &user, &other)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{}", case.describe());
        let answer = ask(user.home, case.write("/maybe/x", &user, &other)).await.expect("an answer");
        assert_eq!(answer.status == StatusCode::OK, case.is_allowed(), "{}", case.describe());
    }
    let mut nobody = world.browser();
    let draft = nobody.draft(Method::POST, "/maybe/x").header("origin", "http://evil.test");
    assert_eq!(nobody.send(draft).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_handshake_needs_our_origin_whatever_the_settings() {
    for (mode, path) in
        [("enforce", "/api/x"), ("enforce", "/nocsrf/x"), ("report", "/api/x"), ("off", "/api/x"), ("off", "/maybe/x")]
    {
        handshakes(mode, path).await;
    }
}

async fn handshakes(mode: &str, path: &str) {
    let (world, user, other) = world(mode).await;
    let recorder = world.demo.upstream.recorder();
    for case in Case::all().filter(|case| case.method == "GET" && case.token == Token::Right) {
        let (ours, before) = (Case { method: "POST", ..case }, recorder.count());
        let request = ours.write(path, &user, &other).replacen("POST", "GET", 1);
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        let request = request.replacen("Connection: close\r\n", upgrade, 1);
        let answer = ask(user.home, request).await.expect("an answer");
        let expected = if ours.is_allowed() { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(answer.status, expected, "{mode} {path} {}", ours.describe());
        assert_eq!(recorder.count() - before, usize::from(ours.is_allowed()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_preflight_passes_without_session_token_and_cookies() {
    let (world, user, _) = world("enforce").await;
    let recorder = world.demo.upstream.recorder();
    let preflight = [("origin", "https://other.example"), ("access-control-request-method", "PUT")];
    let cookies = format!("{SESSION}={}; theirs=1", user.cookie(SESSION).expect("a session"));
    let lookups = world.metric("cloakroom_session_lookups_total{").await;
    for path in ["/api/x", "/maybe/x", "/open/x"] {
        for cookies in ["", cookies.as_str()] {
            let before = recorder.count();
            let mut stranger = world.browser();
            let mut draft = stranger.draft(Method::OPTIONS, path).header("cookie", cookies);
            for (name, value) in preflight {
                draft = draft.header(name, value);
            }
            assert_eq!(stranger.send(draft).await.status, StatusCode::OK, "{path} {cookies}");
            assert_eq!(recorder.count(), before + 1);
            let received = recorder.last().expect("a request");
            for name in ["authorization", "x-user-id", "cookie"] {
                assert_eq!(received.header(name), None, "{path} {cookies} {name}");
            }
            assert_eq!(received.header("origin"), Some(preflight[0].1));
        }
    }
    assert_eq!(world.metric("cloakroom_session_lookups_total{").await, lookups);
    // Half a preflight is a request like any other.
    for (name, value) in preflight {
        let mut stranger = world.browser();
        let draft = stranger.draft(Method::OPTIONS, "/api/x").header(name, value);
        assert_eq!(stranger.send(draft).await.status, StatusCode::UNAUTHORIZED, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echoed_token_stays_here() {
    let (world, mut user, _) = world("enforce").await;
    let recorder = world.demo.upstream.recorder();
    for path in ["/api/x", "/open/x", "/maybe/x", "/nocsrf/x"] {
        assert_eq!(user.write(Method::POST, path, "x").await.status, StatusCode::OK, "{path}");
        assert_eq!(recorder.last().expect("a request").header("x-xsrf-token"), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_our_cookie_is_kept_by_no_shared_cache() {
    let (world, mut user, _) = world("enforce").await;
    let path = "/api/set-header?Cache-Control=public,max-age=3600&CDN-Cache-Control=max-age=3600&Surrogate-Control=x";
    let untouched = user.navigate(path).await;
    assert_eq!(untouched.header("cache-control"), "public,max-age=3600");
    assert_eq!(untouched.header("cdn-cache-control"), "max-age=3600");
    user.jars.get_mut(&world.proxy.address.to_string()).expect("a jar").remove(XSRF);
    let answer = user.navigate(path).await;
    assert_eq!(answer.set_cookies().len(), 1, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!((answer.header("cdn-cache-control"), answer.header("surrogate-control")), ("", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_the_cookie_comes_with_the_first_page_and_with_session_calls_only_where_it_is_missing() {
    let (_world, mut user, _) = world("enforce").await;
    let token = user.cookie(XSRF).expect("a token").to_owned();
    let line = format!("{XSRF}={token}; SameSite=Strict; Secure; Path=/");
    for (path, page) in [("/", true), ("/api/page", true), ("/auth/session", false), ("/auth/userinfo", false)] {
        for lost in [None, Some("planted")] {
            match lost {
                None => drop(user.jars.get_mut(&user.home.to_string()).expect("a jar").remove(XSRF)),
                Some(value) => user.set_cookie(XSRF, value),
            }
            if page {
                assert!(user.fetch(path).await.set_cookies().is_empty(), "not with a script's call: {path}");
            }
            let answer = if page { user.navigate(path).await } else { user.fetch(path).await };
            assert_eq!(answer.set_cookies(), [line.as_str()], "{path} {lost:?}");
            let again = if page { user.navigate(path).await } else { user.fetch(path).await };
            assert!(again.set_cookies().is_empty(), "{path}");
        }
    }
    // A page that lost the cookie gets it again with the refusal.
    user.set_cookie(XSRF, "planted");
    let refused = user.write(Method::POST, "/api/x", "").await;
    assert_eq!((refused.status, refused.set_cookies()), (StatusCode::FORBIDDEN, vec![line]));
    assert_eq!(user.write(Method::POST, "/api/x", "").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_the_token_changes_with_the_login_and_ends_with_the_logout() {
    let (_world, mut user, _) = world("enforce").await;
    let (first, origin) = (user.cookie(XSRF).expect("a token").to_owned(), user.origin());
    user.write(Method::POST, "/auth/logout", "").await;
    assert_eq!(user.cookie(XSRF), None);
    user.log_in("/").await;
    assert_ne!(user.cookie(XSRF), Some(first.as_str()));
    user.set_cookie(XSRF, &first);
    let draft = user.draft(Method::POST, "/api/x").header("origin", &origin).header("x-xsrf-token", &first);
    assert_eq!(user.send(draft).await.status, StatusCode::FORBIDDEN);
}
