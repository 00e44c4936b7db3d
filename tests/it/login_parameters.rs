//! What a page may ask of the provider, what is then insisted on, logins without a question, and answers that are posted
//! (behaviour L3, L15, L16, T3).

use cloakroom::demo::provider::Endpoint;
use reqwest::{Method, StatusCode};

use crate::harness::{LOGIN, SESSION, Wishes, World};
use crate::kit::{secs, ticking, world};
use crate::login_kit::{onward, posted, posted_answer, query, refused, sessions_begun, token_calls, with, without};

fn provider(yaml: &str) -> Wishes {
    Wishes { provider_yaml: yaml.to_owned(), ..ticking() }
}

async fn asked(world: &World, target: &str) -> std::collections::BTreeMap<String, String> {
    query(world.browser().navigate(target).await.location())
}

const ACR: &str =
    r#"claims=%7B%22id_token%22%3A%7B%22acr%22%3A%7B%22essential%22%3Atrue%2C%22value%22%3A%22gold%22%7D%7D%7D"#;

#[tokio::test(flavor = "multi_thread")]
async fn only_parameters_of_the_list_are_passed_on() {
    let all = "/auth/login?prompt=login&login_hint=alice&acr_values=gold&max_age=60&ui_locales=de&kc_idp_hint=github&scope=admin&claims=%7B%7D";
    let usual = world(ticking()).await;
    let asked_usual = asked(&usual, all).await;
    for (name, value) in [("prompt", "login"), ("login_hint", "alice"), ("acr_values", "gold"), ("max_age", "60")] {
        assert_eq!(asked_usual[name], value);
    }
    for name in ["ui_locales", "kc_idp_hint", "claims"] {
        assert!(!asked_usual.contains_key(name), "{name}");
    }
    let wide = world(provider("    login_parameters: [max_age, ui_locales, kc_idp_hint, claims]")).await;
    let asked_wide = asked(&wide, all).await;
    for (name, value) in [("max_age", "60"), ("ui_locales", "de"), ("kc_idp_hint", "github"), ("claims", "{}")] {
        assert_eq!(asked_wide[name], value);
    }
    for name in ["prompt", "login_hint", "acr_values"] {
        assert!(!asked_wide.contains_key(name), "{name}");
    }
    assert_eq!(asked_wide["scope"], "openid profile email");
    for bad in ["max_age=soon", "max_age=-1", "claims=acr", "ui_locales=%0d", "ui_locales=", "max_age=1&max_age=2"] {
        let asked = asked(&wide, &format!("/auth/login?{bad}")).await;
        assert!(!asked.contains_key(bad.split('=').next().unwrap()), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cannot_weaken_what_the_settings_fix() {
    let fixed = "    login_parameters: [max_age, claims]\n    authorization_params: { max_age: 60, claims: '{\"id_token\":{}}' }";
    let world = world(provider(fixed)).await;
    assert_eq!(asked(&world, "/auth/login?max_age=3600").await["max_age"], "60");
    assert_eq!(asked(&world, "/auth/login?max_age=10").await["max_age"], "10");
    for (age, sent) in [("3600", "60"), ("10", "10")] {
        assert_eq!(asked(&world, &format!("/auth/login?max_age={age}&step_up=1")).await["max_age"], sent);
    }
    assert_eq!(asked(&world, "/auth/login?claims=%7B%7D").await["claims"], "{\"id_token\":{}}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_replaces_nothing_that_the_settings_fix_but_a_step_up_demands_its_class() {
    let fixed = "    login_parameters: [prompt, acr_values, login_hint]\n    authorization_params: { prompt: login, acr_values: silver }";
    let world = world(provider(fixed)).await;
    for query in
        ["prompt=none", "prompt=consent", "acr_values=bronze", "prompt=none&acr_values=bronze&login_hint=alice"]
    {
        let asked = asked(&world, &format!("/auth/login?{query}")).await;
        assert_eq!((asked["prompt"].as_str(), asked["acr_values"].as_str()), ("login", "silver"), "{query}");
    }
    // So none of them is silent: what goes wrong is told as ever.
    world.demo.provider.switches().set(|switch| switch.callback_error = Some("login_required".to_owned()));
    let mut browser = world.browser();
    let callback = browser.authorize("/auth/login?prompt=none&return_to=/maybe/page").await;
    assert_eq!(browser.navigate(&callback).await.code(), "login_failed");
    world.demo.provider.switches().set(|switch| switch.callback_error = None);

    // The class that a step-up asks for is asked for, and verified.
    for (class, good) in [("gold", true), ("platinum", false)] {
        world.demo.provider.switches().set(|switch| switch.acr = Some("gold".to_owned()));
        let target = format!("/auth/login?acr_values={class}&prompt=none&step_up=1");
        let asked = asked(&world, &target).await;
        assert_eq!((asked["prompt"].as_str(), asked["acr_values"].as_str()), ("login", class));
        let mut browser = world.browser();
        let callback = browser.authorize(&target).await;
        browser.navigate(&callback).await;
        assert_eq!(browser.cookie(SESSION).is_some(), good, "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_what_was_asked_for_must_be_in_the_id_token() {
    let world = world(provider("    login_parameters: [acr_values, max_age, claims]")).await;
    for (target, good) in [
        (format!("/auth/login?acr_values=gold&{ACR}"), true),
        (format!("/auth/login?acr_values=silver&{ACR}"), false),
        (format!("/auth/login?{ACR}"), false),
        ("/auth/login?max_age=60".to_owned(), true),
    ] {
        let mut browser = world.browser();
        let callback = browser.authorize(&target).await;
        let page = browser.navigate(&callback).await;
        assert_eq!(browser.cookie(SESSION).is_some(), good, "{target}: {page:?}");
        if !good {
            refused(&browser, &page, &callback, &target);
        }
    }
    // The provider never hears of it: the user takes it out of the address, so as not to be asked again.
    let mut browser = world.browser();
    browser.log_in("/").await;
    world.clock.advance(secs(600));
    let away = browser.navigate("/auth/login?max_age=60").await;
    let back = browser.navigate(&without(away.location(), "max_age")).await;
    let page = browser.navigate(back.location()).await;
    assert_eq!(page.code(), "login_failed", "an authentication of ten minutes ago: {page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_login_succeeds_silently_or_goes_back_without_another_login() {
    let world = world(ticking()).await;
    let silent = "/auth/login?prompt=none&return_to=/maybe/page";
    world.browser().log_in(silent).await;

    world.demo.provider.switches().set(|switch| switch.auto_login = None);
    let mut browser = world.browser();
    let callback = browser.authorize(silent).await;
    assert_eq!(query(&callback)["error"], "login_required");
    let page = browser.navigate(&callback).await;
    assert_eq!(onward(&page), "/maybe/page", "{page:?}");
    assert!(browser.cookie(SESSION).is_none());
    assert_eq!(browser.navigate("/maybe/echo").await.status, StatusCode::OK, "no login begins there");

    let callback = browser.authorize(silent).await;
    let script = browser.draft(Method::GET, &callback).header("sec-fetch-mode", "cors");
    let answer = browser.send(script).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "session_missing"), "{answer:?}");

    // Other errors, and logins that are not silent, are told as ever.
    let callback = browser.authorize(silent).await;
    let page = browser.navigate(&with(&callback, "error", "access_denied")).await;
    assert_eq!(page.code(), "login_failed", "{page:?}");
    world.demo.provider.switches().set(|switch| switch.callback_error = Some("login_required".to_owned()));
    let mut other = world.browser();
    let callback = other.authorize("/").await;
    assert_eq!(other.navigate(&callback).await.code(), "login_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn l14_a_page_that_tries_silently_again_and_again_is_stopped() {
    let world = world(ticking()).await;
    world.demo.provider.switches().set(|switch| switch.auto_login = None);
    let mut browser = world.browser();
    let silent = "/auth/login?prompt=none&return_to=/maybe/page";
    for _ in 0..5 {
        let callback = browser.authorize(silent).await;
        assert_eq!(onward(&browser.navigate(&callback).await), "/maybe/page");
    }
    let stopped = browser.navigate(silent).await;
    assert_eq!(stopped.code(), "too_many_logins", "{stopped:?}");
    world.clock.advance(secs(10));
    browser.authorize(silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_an_answer_that_is_posted_shows_no_code_in_any_address() {
    let world = world(provider("    response_mode: form_post")).await;
    let mut browser = world.browser();
    let away = browser.navigate("/page").await;
    assert_eq!(query(away.location())["response_mode"], "form_post");
    let cookies = away.set_cookies();
    let login = cookies.iter().find(|cookie| cookie.starts_with(LOGIN)).expect("a login cookie");
    assert!(login.contains("SameSite=None") && login.contains("Secure") && login.contains("HttpOnly"), "{login}");
    let (target, body) = posted_answer(&browser.navigate(away.location()).await);
    assert!(body.contains("code=") && body.contains("iss="), "{body}");

    let calls = token_calls(&world);
    let by_query = browser.navigate(&format!("{target}?{body}")).await;
    assert_eq!((by_query.status, by_query.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"), "{by_query:?}");
    let no_form = browser.draft(Method::POST, &target).body(body.as_str()).header("content-type", "application/json");
    assert_eq!(browser.send(no_form).await.code(), "login_failed");
    let stranger = posted(&world.browser(), &target, &body);
    // Sent on it would come back here again and again (behaviour L4).
    let elsewhere = world.browser().send(stranger).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (StatusCode::BAD_REQUEST, "login_failed"), "{elsewhere:?}");
    assert!(elsewhere.set_cookies().is_empty(), "{elsewhere:?}");
    assert_eq!(token_calls(&world), calls);

    let draft = posted(&browser, &target, &body);
    let page = browser.send(draft).await;
    assert_eq!(onward(&page), "/page", "{page:?}");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let again = posted(&browser, &target, &body);
    assert_eq!(onward(&browser.send(again).await), "/", "a state is good once; whoever is logged in goes on");
    assert_eq!(sessions_begun(&world).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_answers_come_by_redirect_none_is_posted() {
    let world = world(ticking()).await;
    let mut browser = world.browser();
    let callback = browser.authorize("/page").await;
    let (target, body) = callback.split_once('?').expect("a query");
    let draft = posted(&browser, target, body);
    let answer = browser.send(draft).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"), "{answer:?}");
    assert_eq!(world.demo.provider.ledger().count(Endpoint::Token), 0);
    assert_eq!(browser.navigate(&callback).await.status, StatusCode::OK, "nothing was used up");
}
