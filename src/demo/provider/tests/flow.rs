//! Discovery, the authorization endpoint, the code, the ends.

use reqwest::StatusCode;

use super::guest::{CALLBACK, VERIFIER, json, location, parameter, request, request_with, start, start_with};
use crate::demo::provider::{Client, Endpoint, ProviderConfig, ResponseIssuer, UriRule};
use crate::demo::{CLIENT_ID, CLIENT_SECRET};

#[tokio::test]
async fn discovery_names_the_endpoints_and_what_they_can() {
    let (provider, guest) = start();
    let document = json(guest.get("/.well-known/openid-configuration").await).await;
    assert_eq!(document["issuer"], provider.issuer());
    assert_eq!(document["issuer"], format!("http://{}", provider.address()));
    assert_eq!(document["authorization_response_iss_parameter_supported"], true);
    assert_eq!(document["code_challenge_methods_supported"][0], "S256");
    for name in [
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
        "revocation_endpoint",
        "end_session_endpoint",
    ] {
        let url = document[name].as_str().unwrap();
        assert!(url.starts_with(provider.issuer()), "{name}: {url}");
    }
    assert_eq!(guest.get("/nowhere").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_issuer_with_a_path_has_its_discovery_below_the_path() {
    let issuer = Some("http://provider.test/realms/main".to_owned());
    let (provider, guest) = start_with(ProviderConfig { issuer, ..ProviderConfig::default() });
    assert_eq!(provider.issuer(), "http://provider.test/realms/main");
    let document = json(guest.get("/realms/main/.well-known/openid-configuration").await).await;
    assert_eq!(document["issuer"], provider.issuer());
}

#[tokio::test]
async fn a_login_by_click_leads_to_tokens() {
    let (provider, guest) = start();
    let page = guest.authorize(&request()).await;
    assert_eq!(page.status(), StatusCode::OK);
    let html = page.text().await.unwrap();
    assert!(html.contains("Alice Ærø") && html.contains("http://127.0.0.1:8080"), "{html}");

    let back = guest.click(&request(), "login=alice").await;
    let cookie = back.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("Path=/oauth; HttpOnly; SameSite=Lax"), "{cookie}");
    let pairs = location(&back);
    assert_eq!(parameter(&pairs, "state").as_deref(), Some("the state/ü"));
    assert_eq!(parameter(&pairs, "iss").as_deref(), Some(provider.issuer()));

    let tokens = json(guest.redeem(&parameter(&pairs, "code").unwrap()).await).await;
    assert_eq!(tokens["expires_in"], 60);
    assert_eq!(tokens["refresh_expires_in"], 1800);
    let claims = guest
        .http
        .get(format!("{}/oauth/userinfo", provider.issuer()))
        .bearer_auth(tokens["access_token"].as_str().unwrap());
    let claims = json(claims.send().await.unwrap()).await;
    assert_eq!(claims["name"], "Alice Ærø");
    assert_eq!(claims["realm_access"]["roles"][1], "admin");
    assert_eq!(provider.ledger().last_issued().unwrap().subject, claims["sub"].as_str().unwrap());
    assert_eq!(provider.ledger().count(Endpoint::Token), 1);
    assert!(
        provider.ledger().last_request(Endpoint::Token).unwrap().header("authorization").unwrap().starts_with("Basic ")
    );
}

#[tokio::test]
async fn a_known_guest_is_not_asked_again_unless_the_client_insists() {
    let (_provider, guest) = start();
    let none = guest.authorize(&request_with("prompt", "none")).await;
    assert_eq!(parameter(&location(&none), "error").as_deref(), Some("login_required"));
    guest.click(&request(), "login=bob").await;
    for prompt in ["", "none"] {
        let again = guest.authorize(&request_with("prompt", prompt)).await;
        assert!(parameter(&location(&again), "code").is_some(), "{prompt}");
    }
    let forced = guest.authorize(&request_with("prompt", "login")).await;
    assert_eq!(forced.status(), StatusCode::OK);
}

#[tokio::test]
async fn cancelling_is_access_denied() {
    let (provider, guest) = start();
    let pairs = location(&guest.click(&request(), "").await);
    assert_eq!(parameter(&pairs, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&pairs, "iss").as_deref(), Some(provider.issuer()));
}

#[tokio::test]
async fn a_stranger_or_a_strange_address_gets_no_redirect() {
    let (_provider, guest) = start();
    let mut twice = request();
    twice.push(("state", "again".to_owned()));
    let wrong = [
        request_with("client_id", "nobody"),
        request_with("redirect_uri", "http://evil.test/auth/callback"),
        request_with("redirect_uri", "http://127.0.0.1:80@evil.test/auth/callback"),
        twice,
    ];
    for pairs in wrong {
        assert_eq!(guest.authorize(&pairs).await.status(), StatusCode::BAD_REQUEST, "{pairs:?}");
    }
}

#[tokio::test]
async fn a_wrong_request_goes_back_with_an_error() {
    let (_provider, guest) = start();
    let wrong = [
        ("response_type", "token", "unsupported_response_type"),
        ("scope", "profile", "invalid_scope"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
    ];
    for (name, value, error) in wrong {
        let pairs = location(&guest.authorize(&request_with(name, value)).await);
        assert_eq!(parameter(&pairs, "error").as_deref(), Some(error), "{name}");
        assert_eq!(parameter(&pairs, "state").as_deref(), Some("the state/ü"));
    }
}

#[tokio::test]
async fn the_login_page_escapes_what_it_shows() {
    let (_provider, guest) = start();
    let html = guest.authorize(&request_with("state", "\"><script>alert(1)</script>")).await.text().await.unwrap();
    assert!(!html.contains("<script"), "{html}");
}

#[tokio::test]
async fn a_code_works_once_and_its_reuse_kills_the_tokens() {
    let (_provider, guest) = start();
    let code = guest.code().await;
    let tokens = json(guest.redeem(&code).await).await;
    let again = guest.redeem(&code).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
    assert_eq!(json(again).await["error"], "invalid_grant");
    let refreshed = guest.refresh(tokens["refresh_token"].as_str().unwrap()).await;
    assert_eq!(json(refreshed).await["error"], "invalid_grant");
}

#[tokio::test]
async fn a_code_is_bound_to_verifier_and_redirect_uri() {
    let (_provider, guest) = start();
    for (name, value) in [("code_verifier", "another verifier"), ("redirect_uri", "http://127.0.0.1:1/auth/callback")] {
        let code = guest.code().await;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        form.retain(|(known, _)| *known != name);
        form.push((name, value));
        assert_eq!(json(guest.post("/oauth/token", &form).await).await["error"], "invalid_grant", "{name}");
    }
}

#[tokio::test]
async fn clients_prove_who_they_are() {
    let public = Client {
        id: "public".to_owned(),
        secret: None,
        redirect_uris: vec![UriRule::new(CALLBACK)],
        jwks: None,
        post_logout_redirect_uris: vec![],
    };
    let (_provider, guest) =
        start_with(ProviderConfig { clients: vec![Client::demo(), public], ..ProviderConfig::default() });
    let code =
        parameter(&location(&guest.click(&request_with("client_id", "public"), "login=bob").await), "code").unwrap();
    let redeem = |code: String, id: &'static str, secret: Option<&'static str>| {
        let guest = &guest;
        async move {
            let mut form = vec![
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", VERIFIER),
                ("client_id", id),
            ];
            form.extend(secret.map(|secret| ("client_secret", secret)));
            json(guest.post_bare("/oauth/token", &form).await).await
        }
    };
    assert!(redeem(code, "public", None).await["access_token"].is_string());
    assert!(redeem(guest.code().await, CLIENT_ID, Some(CLIENT_SECRET)).await["access_token"].is_string());
    assert_eq!(redeem(guest.code().await, CLIENT_ID, Some("wrong")).await["error"], "invalid_client");
    assert_eq!(redeem(guest.code().await, CLIENT_ID, None).await["error"], "invalid_client");
    assert_eq!(redeem(guest.code().await, "public", None).await["error"], "invalid_grant");
}

#[tokio::test]
async fn logout_ends_the_session_and_its_tokens() {
    let (_provider, guest) = start();
    let tokens = guest.log_in().await;
    let hint = tokens["id_token"].as_str().unwrap();
    let path = format!(
        "/oauth/end-session?id_token_hint={hint}&post_logout_redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2F&state=s"
    );
    let back = guest.get(&path).await;
    assert_eq!(back.headers()["location"], "http://127.0.0.1:8080/?state=s");
    assert_eq!(json(guest.refresh(tokens["refresh_token"].as_str().unwrap()).await).await["error"], "invalid_grant");
    assert_eq!(guest.authorize(&request()).await.status(), StatusCode::OK, "the page asks again");
}

#[tokio::test]
async fn a_logout_link_without_hint_asks_first_and_leads_nowhere_strange() {
    let (_provider, guest) = start();
    guest.click(&request(), "login=alice").await;
    let asked = guest.get("/oauth/end-session").await.text().await.unwrap();
    assert!(asked.contains("Log out?"), "{asked}");
    guest.post_bare("/oauth/end-session", &[]).await;
    let strange =
        format!("/oauth/end-session?client_id={CLIENT_ID}&post_logout_redirect_uri=http%3A%2F%2Fevil.test%2F");
    assert_eq!(guest.get(&strange).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_response_can_name_a_wrong_issuer_or_none() {
    let (provider, guest) = start();
    provider.switches().auto_login("alice");
    provider.switches().set(|switch| switch.response_issuer = ResponseIssuer::Wrong("https://evil.test".to_owned()));
    let pairs = location(&guest.authorize(&request()).await);
    assert_eq!(parameter(&pairs, "iss").as_deref(), Some("https://evil.test"));
    provider.switches().set(|switch| switch.response_issuer = ResponseIssuer::Missing);
    assert_eq!(parameter(&location(&guest.authorize(&request()).await), "iss"), None);
    provider.switches().set(|switch| switch.callback_error = Some("server_error".to_owned()));
    assert_eq!(parameter(&location(&guest.authorize(&request()).await), "error").as_deref(), Some("server_error"));
}
