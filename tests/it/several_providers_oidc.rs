//! What OpenID providers of one site have apart: parameters of a login, the form of their answers, logouts in a frame, keys
//! (behaviour L3, L8, L16, O10).

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::client_auth::{SECRET, key_file, signing};
use crate::harness::{Browser, LOGIN, Seen};
use crate::kit::{newest, ticket};
use crate::login_kit::{onward, posted, posted_answer, query};
use crate::several_providers::{Several, choices};

#[tokio::test(flavor = "multi_thread")]
async fn wishes_come_through_the_choice_and_count_as_the_provider_lets_them() {
    let lists = ("    login_parameters: [acr_values, max_age]", "    login_parameters: [prompt]");
    let site = Several::with(lists.0, lists.1).await;
    let mut browser = site.world.browser();
    let all = "prompt=login&acr_values=gold&max_age=60&ui_locales=de";
    let page = browser.navigate(&format!("/auth/login?{all}&scope=admin&claims=acr&return_to=/page")).await;
    let links: Vec<_> = choices(&page).into_iter().map(|(address, _)| address).collect();
    for (address, name) in links.iter().zip(["demo", "second", "legacy"]) {
        assert_eq!(*address, format!("/auth/login?provider={name}&return_to=%2Fpage&{all}"));
    }
    let asked = |away: &Seen| -> Vec<String> {
        let asked = query(away.location());
        let all = ["prompt", "acr_values", "max_age", "ui_locales", "claims"];
        all.iter().filter_map(|name| Some(format!("{name}={}", asked.get(*name)?))).collect()
    };
    assert_eq!(asked(&browser.navigate(&links[0]).await), ["acr_values=gold", "max_age=60"]);
    assert_eq!(asked(&browser.navigate(&links[1]).await), ["prompt=login"]);
    assert_eq!(browser.navigate(&links[2]).await.location(), "/login-page?return_to=%2Fpage");
}

#[tokio::test(flavor = "multi_thread")]
async fn l16_a_step_up_goes_to_no_provider_that_would_not_hear_of_it() {
    let lists = ("    login_parameters: [acr_values, max_age]", "    login_parameters: [prompt, acr_values]");
    let site = Several::with(lists.0, lists.1).await;
    let mut browser = site.world.browser();
    let page = browser.navigate("/auth/login?acr_values=gold&max_age=60&step_up=1").await;
    let links: Vec<_> = choices(&page).into_iter().map(|(address, _)| address).collect();
    assert!(links.iter().all(|link| link.ends_with("&acr_values=gold&max_age=60&step_up=1")), "{links:?}");
    for link in &links[1..] {
        let answer = browser.navigate(link).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad_request"), "{link}");
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
    }
    for (provider, demand, heard) in [("second", "acr_values=gold", true), ("second", "max_age=60", false)] {
        let answer = browser.navigate(&format!("/auth/login?provider={provider}&{demand}&step_up=1")).await;
        assert_eq!(answer.status == StatusCode::SEE_OTHER, heard, "{provider} {demand}: {answer:?}");
    }
    // Who hears of it is taken at its word.
    browser.log_in(&links[0]).await;
    let before = ticket(&browser);
    site.world.demo.provider.switches().set(|switch| switch.acr = Some("bronze".into()));
    let callback = browser.authorize(&links[0]).await;
    let page = browser.navigate(&callback).await;
    assert!(page.code() == "login_failed" && page.body.contains("as strongly as is needed"), "{page:?}");
    assert_eq!(ticket(&browser), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_one_provider_posts_its_answers_and_the_other_does_not() {
    let site = Several::with("", "    response_mode: form_post").await;
    let mut browser = site.world.browser();
    let away = browser.navigate("/auth/login?provider=second&return_to=/page").await;
    let (target, body) = posted_answer(&browser.navigate(away.location()).await);
    // A login in another tab keeps the cookie as the first one needs it.
    let other = browser.navigate("/auth/login?provider=demo").await;
    let cookies = other.set_cookies();
    let login = cookies.iter().find(|cookie| cookie.starts_with(LOGIN)).expect("a login cookie");
    assert!(login.contains("SameSite=None"), "{login}");
    let calls = site.token_calls();
    for (method, address, allow) in [
        (Method::GET, format!("/auth/callback/second?{body}"), "POST"),
        (Method::POST, "/auth/callback".to_owned(), "GET"),
    ] {
        let draft = match method {
            Method::GET => browser.draft(method, &address),
            _ => posted(&browser, &address, &body),
        };
        let answer = browser.send(draft).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, allow), "{address}");
    }
    assert_eq!(site.token_calls(), calls);
    assert!(target.ends_with("/auth/callback/second"), "{target}");
    let draft = posted(&browser, &target, &body);
    assert_eq!(onward(&browser.send(draft).await), "/page");
    let back = browser.navigate(other.location()).await;
    assert_eq!(browser.navigate(back.location()).await.status, StatusCode::OK, "its answer comes by redirect");
    assert_eq!(site.token_calls(), (1, 1, 0));
}

async fn frame(site: &Several, query: &str) -> Seen {
    // In a frame of another site the browser brings no cookie.
    let mut anybody = site.world.browser();
    let draft = anybody.draft(Method::GET, &format!("/auth/frontchannel-logout?{query}"));
    let draft = draft.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe");
    anybody.send(draft.header("sec-fetch-site", "cross-site")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_a_frame_ends_the_sessions_of_its_own_provider_only() {
    let site = Several::with("    frontchannel_logout: iss_and_sid", "    frontchannel_logout: sid").await;
    let (demo, second) = (site.world.demo.provider.issuer().to_owned(), site.second.issuer().to_owned());
    let (mut one, mut two) = (site.world.browser(), site.world.browser());
    one.log_in("/auth/login?provider=demo").await;
    two.log_in("/auth/login?provider=second").await;
    let sids = (newest(&site.world).sid, site.second.ledger().last_issued().expect("tokens").sid);
    assert_ne!(sids.0, sids.1);
    let policy = |issuer: &str| format!("default-src 'none'; frame-ancestors {issuer}");
    // The other one's `sid`, with and without a name: whoever need not name himself is the one that may be meant.
    for (query, ancestor) in [
        (format!("iss={demo}&sid={}", sids.1), &demo),
        (format!("iss={second}&sid={}", sids.0), &second),
        (format!("sid={}", sids.0), &second),
    ] {
        let answer = frame(&site, &query).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {answer:?}");
        assert_eq!(answer.header("content-security-policy"), policy(ancestor), "{query}");
    }
    for query in [format!("iss=https://evil.example&sid={}", sids.0), format!("iss=&sid={}", sids.1)] {
        assert_eq!(frame(&site, &query).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
    for browser in [&mut one, &mut two] {
        assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    }
    assert_eq!(frame(&site, &format!("sid={}", sids.1)).await.status, StatusCode::OK);
    assert_eq!(two.fetch("/api/whoami").await.code(), "session_expired");
    assert_eq!(one.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(frame(&site, &format!("iss={demo}&sid={}", sids.0)).await.status, StatusCode::OK);
    assert_eq!(one.fetch("/api/whoami").await.code(), "session_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_who_may_not_log_out_in_front_does_not_because_another_may() {
    let site = Several::with("", "    frontchannel_logout: sid").await;
    let mut browser = site.world.browser();
    browser.log_in("/auth/login?provider=demo").await;
    let (demo, sid) = (site.world.demo.provider.issuer().to_owned(), newest(&site.world).sid);
    assert_eq!(frame(&site, &format!("iss={demo}&sid={sid}")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(frame(&site, &format!("sid={sid}")).await.status, StatusCode::OK);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_the_keys_for_all_providers_are_published_at_one_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let [a, b, both] = ["a", "b", "both"].map(|name| key_file(&folder, name));
    let of_second = format!("    client_auth: {}", signing(&[&b.0, &both.0]));
    let site = Several::with("", &of_second).await;
    let published = site.world.browser().fetch("/auth/client-jwks.json").await;
    assert_eq!(published.json(), json!({ "keys": [b.1, both.1] }), "the first provider takes a secret");
    let proxy = site.world.replica_with(SECRET, &signing(&[&a.0, &both.0])).await;
    let published = Browser::new(proxy.address).fetch("/auth/client-jwks.json").await;
    assert_eq!(published.json(), json!({ "keys": [a.1, both.1, b.1] }), "each once");
}
