//! Metadata, readiness, and the two addresses for the browser (behaviour L1, L5, L7, O2, D2).

use std::collections::BTreeMap;

use openidconnect::IssuerUrl;
use serde_json::{Value, json};
use url::Url;

use super::{Fake, NONCE, Reply, VERIFIER, callback, client_with, http_client, metadata, ready, settings, until};
use crate::config::settings::LoginParameter;
use crate::oidc::metadata::{Metadata, MetadataError};
use crate::oidc::{AuthorizationRequest, Demands, OidcError, Provider, SetupError};
use crate::primitives::clock::Clock;
use crate::primitives::secret::SecretText;

fn request(redirect_uri: &Url) -> AuthorizationRequest<'_> {
    AuthorizationRequest {
        redirect_uri,
        state: "state-of-this-login",
        nonce: NONCE,
        pkce_verifier: VERIFIER,
        asked: &[],
    }
}

fn query(url: &Url) -> BTreeMap<String, String> {
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "no parameter twice: {url}");
    map
}

#[tokio::test]
async fn l1_the_authorization_url() {
    let fake = Fake::start().await;
    let mut settings = settings(&fake.issuer());
    settings.authorization_params =
        [("audience", "https://api.example.com"), ("prompt", "consent")].map(|(k, v)| (k.into(), v.into())).into();
    let (provider, _) = client_with(&settings);
    provider.discover().await.unwrap();
    let redirect_uri = callback();
    let url = provider.authorization_url(&request(&redirect_uri)).unwrap();
    assert!(url.as_str().starts_with(&format!("{}/authorize?policy=p&", fake.issuer())), "{url}");
    let expected = [
        ("audience", "https://api.example.com"),
        ("client_id", "cloakroom"),
        // Computed apart: base64url(SHA-256(VERIFIER)).
        ("code_challenge", "fD3GLJ_KzCDB0w6uDOSFNNdflrHwtv8Cizh6P5pJkfQ"),
        ("code_challenge_method", "S256"),
        ("nonce", NONCE),
        ("policy", "p"),
        ("prompt", "consent"),
        ("redirect_uri", redirect_uri.as_str()),
        ("response_type", "code"),
        ("scope", "openid profile"),
        ("state", "state-of-this-login"),
    ];
    let expected: BTreeMap<String, String> = expected.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    assert_eq!(query(&url), expected);
    assert!(!url.as_str().contains(VERIFIER));

    let asked = vec![
        (LoginParameter::Prompt, "none".to_owned()),
        (LoginParameter::LoginHint, "alice&client_id=evil".to_owned()),
        (LoginParameter::AcrValues, "gold".to_owned()),
    ];
    let asked = provider.counting(asked, false);
    let asked = AuthorizationRequest { asked: &asked, ..request(&redirect_uri) };
    let query = query(&provider.authorization_url(&asked).unwrap());
    assert_eq!(
        (query["prompt"].as_str(), query["login_hint"].as_str(), query["acr_values"].as_str()),
        ("consent", "alice&client_id=evil", "gold")
    );
}

#[test]
fn l16_what_the_settings_fix_is_replaced_by_nothing_weaker() {
    let mut settings = settings("https://id.example.com");
    for (name, value) in
        [("prompt", "login"), ("acr_values", "gold"), ("max_age", "60"), ("claims", "{}"), ("ui_locales", "de")]
    {
        settings.authorization_params.insert(name.to_owned(), value.to_owned());
    }
    let provider = Provider::new(&settings, http_client(), Clock::system()).unwrap();
    let counting = |name: LoginParameter, value: &str, step_up: bool| {
        !provider.counting(vec![(name, value.to_owned())], step_up).is_empty()
    };
    for step_up in [false, true] {
        for (name, value, counts) in [
            (LoginParameter::Prompt, "none", false),
            (LoginParameter::Prompt, "consent", false),
            (LoginParameter::UiLocales, "en", false),
            (LoginParameter::Claims, "{\"id_token\":{}}", false),
            (LoginParameter::MaxAge, "61", false),
            (LoginParameter::MaxAge, "60", false),
            (LoginParameter::MaxAge, "59", true),
            (LoginParameter::LoginHint, "alice", true),
            (LoginParameter::AcrValues, "silver", step_up),
        ] {
            assert_eq!(counting(name, value, step_up), counts, "{name:?} {value} {step_up}");
        }
    }
}

#[tokio::test]
async fn l1_a_verifier_that_breaks_the_rules_is_an_error_not_a_panic() {
    let (_fake, provider, _) = ready().await;
    let redirect_uri = callback();
    for verifier in ["", "short", &"v".repeat(129), &"ü".repeat(30), &format!("{VERIFIER} ")] {
        let request = AuthorizationRequest { pkce_verifier: verifier, ..request(&redirect_uri) };
        assert_eq!(provider.authorization_url(&request), Err(OidcError::Argument("the PKCE verifier")));
        let redeemed = provider.redeem("code", verifier, &redirect_uri, NONCE, &Demands::default(), false).await;
        assert_eq!(redeemed.unwrap_err(), OidcError::Argument("the PKCE verifier"));
    }
}

#[test]
fn settings_that_can_never_work_are_refused() {
    let with = |name: &str, value: &str| {
        let mut settings = settings("https://id.example.com");
        settings.authorization_params.insert(name.to_owned(), value.to_owned());
        Provider::new(&settings, http_client(), Clock::system()).map(drop)
    };
    assert!(with("audience", "x").is_ok() && with("max_age", "60").is_ok());
    for name in ["state", "nonce", "redirect_uri", "code_challenge_method", "response_mode", "request_uri"] {
        assert!(matches!(with(name, "x"), Err(SetupError::ReservedParameter(_))), "{name}");
    }
    for absurd in ["soon", "18446744073709551615"] {
        assert!(matches!(with("max_age", absurd), Err(SetupError::MaxAge)), "{absurd}");
    }
    for issuer in ["http://id.example.com", "ftp://127.0.0.1", "id.example.com", "http://localhost.example.com"] {
        let refused = Provider::new(&settings(issuer), http_client(), Clock::system());
        assert!(matches!(refused, Err(SetupError::Issuer)), "{issuer}");
    }
    for issuer in ["http://localhost:1/realm", "http://127.0.0.2", "http://[::1]:1", "https://id.example.com/"] {
        assert!(Provider::new(&settings(issuer), http_client(), Clock::system()).is_ok(), "{issuer}");
    }
}

#[tokio::test]
async fn l5_the_issuer_of_the_response() {
    let (fake, provider, _) = ready().await;
    let issuer = fake.issuer();
    assert_eq!(provider.check_response_issuer(Some(&issuer)), Ok(()));
    for other in ["", "https://evil.example", &format!("{issuer}/"), &issuer.to_uppercase()] {
        assert_eq!(provider.check_response_issuer(Some(other)), Err(OidcError::ResponseIssuer), "{other}");
    }
    assert_eq!(provider.check_response_issuer(None), Err(OidcError::ResponseIssuerMissing));

    let mut silent = metadata(&issuer);
    silent.as_object_mut().unwrap().remove("authorization_response_iss_parameter_supported");
    fake.set_metadata(Reply::Json(200, silent));
    let (provider, _) = client_with(&settings(&issuer));
    let early = provider.check_response_issuer(None).unwrap_err();
    assert_eq!((early.is_transient(), early), (true, OidcError::NotReady));
    provider.discover().await.unwrap();
    assert_eq!(provider.check_response_issuer(None), Ok(()));
    assert_eq!(provider.check_response_issuer(Some("https://evil.example")), Err(OidcError::ResponseIssuer));
}

#[tokio::test]
async fn o2_the_logout_url() {
    let (fake, provider, _) = ready().await;
    let back: Url = "https://app.example.com/bye?a=b".parse().unwrap();
    let hint = SecretText::new("id-token".to_owned());
    let url = provider.end_session_url(Some(&hint), &back, Some("s")).unwrap();
    let query = query(&url);
    assert_eq!(query["id_token_hint"], "id-token");
    assert_eq!(query["client_id"], "cloakroom");
    assert_eq!(query["post_logout_redirect_uri"], back.as_str());
    assert_eq!((query["state"].as_str(), query["tenant"].as_str()), ("s", "t"));
    assert!(!provider.end_session_url(None, &back, None).unwrap().as_str().contains("id_token_hint"));

    let mut without = metadata(&fake.issuer());
    without.as_object_mut().unwrap().remove("end_session_endpoint");
    fake.set_metadata(Reply::Json(200, without));
    let (provider, _) = client_with(&settings(&fake.issuer()));
    assert_eq!(provider.end_session_url(None, &back, None), None);
    provider.discover().await.unwrap();
    assert_eq!(provider.end_session_url(None, &back, None), None);
}

#[tokio::test]
async fn l7_bad_metadata_is_refused_and_the_old_stays() {
    let (fake, provider, _) = ready().await;
    assert_eq!(provider.status(), "");
    for (name, change) in [
        ("issuer", json!(format!("{}/", fake.issuer()))),
        ("issuer", json!("https://evil.example")),
        ("issuer", Value::Null),
        ("token_endpoint", Value::Null),
        ("token_endpoint", json!("http://id.example.com/token")),
        ("authorization_endpoint", json!("javascript:alert(1)")),
        ("jwks_uri", json!("not a URL")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("revocation_endpoint", json!("http://10.0.0.1/revoke")),
        ("end_session_endpoint", json!("http://evil.example/")),
    ] {
        let mut bad = metadata(&fake.issuer());
        bad[name] = change;
        fake.set_metadata(Reply::Json(200, bad.clone()));
        provider.discover().await.expect_err(&format!("{bad}"));
        assert!(provider.is_ready());
        assert!(provider.status().starts_with("with old metadata: "), "{}", provider.status());
        let (fresh, _) = client_with(&settings(&fake.issuer()));
        fresh.discover().await.unwrap_err();
        assert!(!fresh.is_ready());
        assert!(!fresh.status().contains("evil") && !fresh.status().contains("alert"), "{}", fresh.status());
    }
    fake.set_metadata(Reply::Json(200, metadata(&fake.issuer())));
    provider.discover().await.unwrap();
    assert_eq!(provider.status(), "");
}

#[test]
fn plain_http_endpoints_only_beside_a_loopback_issuer() {
    let issuer = |text: &str| IssuerUrl::new(text.to_owned()).unwrap();
    let document = |issuer: &str, token: &str| {
        let mut document = metadata(issuer);
        document["token_endpoint"] = token.into();
        document.to_string().into_bytes()
    };
    let https = "https://id.example.com";
    let parse = |of: &str, token: &str| Metadata::parse(&document(of, token), &issuer(of), false).map(drop);
    assert_eq!(parse(https, "https://other.example/token"), Ok(()));
    assert_eq!(parse(https, "http://127.0.0.1/token"), Err(MetadataError::Insecure("token_endpoint")));
    assert_eq!(parse("http://127.0.0.1", "http://localhost:9/token"), Ok(()));
    assert_eq!(parse("http://127.0.0.1", "http://id.example/token"), Err(MetadataError::Insecure("token_endpoint")));
}

#[test]
fn documents_of_real_providers_are_understood() {
    for (name, document, logout, revocation, names_issuer) in [
        ("Keycloak 26", include_str!("metadata/keycloak.json"), true, true, true),
        ("Auth0", include_str!("metadata/auth0.json"), true, true, false),
        ("Entra ID", include_str!("metadata/entra.json"), true, false, false),
        ("Okta", include_str!("metadata/okta.json"), true, true, false),
        ("Google", include_str!("metadata/google.json"), false, true, false),
        ("one with oddities", include_str!("metadata/odd.json"), false, false, false),
    ] {
        let value: Value = serde_json::from_str(document).unwrap();
        let issuer = IssuerUrl::new(value["issuer"].as_str().unwrap().to_owned()).unwrap();
        let metadata = Metadata::parse(document.as_bytes(), &issuer, false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(metadata.token_endpoint.as_str(), value["token_endpoint"].as_str().unwrap(), "{name}");
        assert_eq!(metadata.end_session_endpoint.is_some(), logout, "{name}");
        assert_eq!(metadata.revocation_endpoint.is_some(), revocation, "{name}");
        assert_eq!(metadata.names_issuer_in_response, names_issuer, "{name}");
        let introspection = metadata.introspection_endpoint.as_ref().map(Url::as_str);
        assert_eq!(introspection, value["introspection_endpoint"].as_str(), "{name}");
    }
    // Its common endpoint stands for every tenant, and its issuer is a template: no exact match, no login (L7).
    let entra = include_str!("metadata/entra.json").replace("4f6a1d3e-3c52-4c3b-9d9a-0c5f0b8f7a11", "{tenantid}");
    let common = IssuerUrl::new("https://login.microsoftonline.com/common/v2.0".to_owned()).unwrap();
    assert_eq!(Metadata::parse(entra.as_bytes(), &common, false).map(drop), Err(MetadataError::OtherIssuer));
}

#[tokio::test]
async fn d2_a_provider_that_comes_late_is_found() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (provider, _) = client_with(&settings(&format!("http://{address}/realm")));
    assert_eq!(provider.status(), "discovery has not ended yet");
    let maintained = tokio::spawn({
        let provider = provider.clone();
        async move { provider.maintain().await }
    });
    until(|| provider.status().contains("cannot connect")).await;
    let redirect_uri = callback();
    assert_eq!(provider.authorization_url(&request(&redirect_uri)), Err(OidcError::NotReady));
    assert!(
        provider
            .redeem("code", VERIFIER, &redirect_uri, NONCE, &Demands::default(), false)
            .await
            .unwrap_err()
            .is_transient()
    );

    let fake = Fake::start_at(address).await;
    until(|| provider.is_ready()).await;
    assert_eq!(provider.status(), "");
    assert!(provider.authorization_url(&request(&redirect_uri)).is_ok());
    assert!(fake.hits().discovery.load(std::sync::atomic::Ordering::SeqCst) >= 1);
    maintained.abort();
}
