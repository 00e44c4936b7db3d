//! Logouts that reach further: into other browsers, to access tokens, from the provider's page (behaviour O1, O8, O10).

use reqwest::{Method, StatusCode};

use crate::harness::{Browser, Wishes, World, eventually};
use crate::kit::{newest, ticking, world};

async fn alive(browser: &mut Browser) -> bool {
    browser.fetch("/api/whoami").await.status == StatusCode::OK
}

fn provider(yaml: &str) -> Wishes {
    Wishes { provider_yaml: yaml.to_owned(), ..ticking() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_logs_out_everywhere_and_nobody_else_does() {
    let world = world(ticking()).await;
    let (mut here, mut there) = (world.logged_in().await, world.logged_in().await);
    let elsewhere = newest(&world);
    world.demo.provider.switches().auto_login("bob");
    let mut bob = world.logged_in().await;

    let origin = here.origin();
    let bare = here.draft(Method::POST, "/auth/logout?everywhere=true").header("origin", &origin);
    assert_eq!(here.send(bare).await.code(), "csrf_failed");
    assert!(alive(&mut here).await && alive(&mut there).await, "without the token nothing ends");

    let answer = here.write(Method::POST, "/auth/logout?everywhere=true", "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    assert!(!alive(&mut here).await && !alive(&mut there).await);
    assert!(alive(&mut bob).await, "another user");
    let revoked = || world.demo.provider.ledger().revoked();
    eventually("both refresh tokens are revoked", || async { revoked().len() == 2 }).await;
    assert!(revoked().contains(&elsewhere.refresh_token.expect("a refresh token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_logout_leaves_the_other_browsers_alone() {
    let world = world(ticking()).await;
    let (mut here, mut there) = (world.logged_in().await, world.logged_in().await);
    for odd in ["/auth/logout?everywhere=false", "/auth/logout?everywhere=true&everywhere=true"] {
        here.write(Method::POST, odd, "").await;
        assert!(alive(&mut there).await, "{odd}");
        here.log_in("/").await;
    }
    here.navigate("/auth/logout?everywhere=true").await;
    assert!(!alive(&mut here).await && alive(&mut there).await, "a link ends this session alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_the_access_token_is_revoked_where_the_settings_say_so() {
    for (yaml, expected) in [("", 1), ("    revoke_access_tokens: true", 2)] {
        let world = world(provider(yaml)).await;
        let mut browser = world.logged_in().await;
        let tokens = newest(&world);
        browser.write(Method::POST, "/auth/logout", "").await;
        let revoked = || world.demo.provider.ledger().revoked();
        eventually("it is revoked", || async { revoked().len() == expected }).await;
        assert_eq!(revoked().contains(&tokens.access_token), expected == 2, "{yaml}");
        assert!(revoked().contains(&tokens.refresh_token.expect("a refresh token")));
    }
}

async fn frame(world: &World, query: &str) -> crate::harness::Seen {
    // In a frame of another site the browser brings no cookie.
    let mut anybody = world.browser();
    let draft = anybody.draft(Method::GET, &format!("/auth/frontchannel-logout{query}"));
    let draft = draft.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe");
    anybody.send(draft.header("sec-fetch-site", "cross-site")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_a_frame_of_the_provider_ends_the_session_it_names() {
    for (mode, issuer_needed) in [("iss_and_sid", true), ("sid", false)] {
        let world = world(provider(&format!("    frontchannel_logout: {mode}"))).await;
        let issuer = world.demo.provider.issuer().to_owned();
        let (mut one, sid) = (world.logged_in().await, newest(&world).sid);
        let mut other = world.logged_in().await;
        for bad in [
            String::new(),
            format!("?iss={issuer}"),
            "?sid=".to_owned(),
            format!("?iss=https://evil.example&sid={sid}"),
            format!("?iss={issuer}&sid={sid}&sid={sid}"),
            format!("?iss={issuer}&iss={issuer}&sid={sid}"),
        ] {
            assert_eq!(frame(&world, &bad).await.status, StatusCode::BAD_REQUEST, "{bad}");
        }
        let without = frame(&world, &format!("?sid={sid}")).await;
        assert_eq!(without.status == StatusCode::BAD_REQUEST, issuer_needed, "{without:?}");
        assert_eq!(alive(&mut one).await, issuer_needed);

        let done = frame(&world, &format!("?iss={issuer}&sid={sid}")).await;
        assert_eq!(done.status, StatusCode::OK, "{done:?}");
        assert_eq!(done.header("content-security-policy"), format!("default-src 'none'; frame-ancestors {issuer}"));
        assert!(done.header("x-frame-options").is_empty(), "{done:?}");
        assert!(done.header("cache-control").contains("no-store") && done.set_cookies().is_empty(), "{done:?}");
        assert!(!alive(&mut one).await);
        assert!(alive(&mut other).await, "another session");
        let nobody = frame(&world, &format!("?iss={issuer}&sid=unknown")).await;
        assert_eq!(nobody.status, StatusCode::OK, "it looks as if there had been one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_without_the_setting_there_is_no_such_endpoint() {
    let world = world(ticking()).await;
    let mut browser = world.logged_in().await;
    let (issuer, sid) = (world.demo.provider.issuer().to_owned(), newest(&world).sid);
    assert_eq!(frame(&world, &format!("?iss={issuer}&sid={sid}")).await.status, StatusCode::NOT_FOUND);
    assert!(alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_logout_in_a_frame_overtakes_a_login_on_its_way() {
    let world = world(provider("    frontchannel_logout: iss_and_sid")).await;
    let mut browser = world.logged_in().await;
    let sid = newest(&world).sid;
    // The provider still knows the browser, so the login that is on its way belongs to the same session there.
    world.demo.provider.switches().set(|switch| switch.auto_login = None);
    let callback = browser.authorize("/auth/login").await;
    let issuer = world.demo.provider.issuer().to_owned();
    frame(&world, &format!("?iss={issuer}&sid={sid}")).await;
    let page = browser.navigate(&callback).await;
    assert_eq!(page.code(), "login_failed", "{page:?}");
}
