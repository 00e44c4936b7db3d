//! Pushed authorization requests: what the browser gets, and what happens when pushing fails (behaviour L9).

use super::*;
use crate::config::settings::{LoginParameter, PushedAuthorization};
use crate::oidc::AuthorizationRequest;

async fn begin(fake: &Fake, policy: PushedAuthorization) -> Result<Url, OidcError> {
    let mut settings = settings(&fake.issuer());
    settings.pushed_authorization = policy;
    settings.authorization_params.insert("audience".to_owned(), "api".to_owned());
    let (provider, _) = client_with(&settings);
    provider.discover().await.unwrap();
    let redirect_uri = callback();
    let request = AuthorizationRequest {
        redirect_uri: &redirect_uri,
        state: "state-1",
        nonce: NONCE,
        pkce_verifier: VERIFIER,
        asked: &[
            (LoginParameter::Prompt, "login".to_owned()),
            (LoginParameter::LoginHint, "alice@example.com".to_owned()),
        ],
    };
    sendable(provider.begin(&request)).await
}

#[tokio::test]
async fn l9_only_client_id_and_reference_pass_the_browser() {
    for policy in [PushedAuthorization::Auto, PushedAuthorization::Require] {
        let fake = Fake::start().await;
        fake.offer_pushed(Reply::Json(201, json!({"request_uri": "urn:x:1&state=evil", "expires_in": 60})));
        let url = begin(&fake, policy).await.unwrap();
        assert!(url.as_str().starts_with(&format!("{}/authorize?policy=p&", fake.issuer())), "{url}");
        let pairs: Vec<_> = url.query_pairs().skip(1).collect();
        let expected = [("client_id", "cloakroom"), ("request_uri", "urn:x:1&state=evil")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.into(), value.into())));
        let (headers, form) = fake.last_post();
        assert!(headers.contains_key("authorization"), "pushed with our proof");
        for (name, value) in [
            ("client_id", "cloakroom"),
            ("state", "state-1"),
            ("nonce", NONCE),
            ("response_type", "code"),
            ("code_challenge_method", "S256"),
            ("redirect_uri", callback().as_str()),
            ("prompt", "login"),
            ("login_hint", "alice@example.com"),
            ("audience", "api"),
        ] {
            assert_eq!(form[name], value, "{name}");
        }
        assert!(!form.contains_key("policy"), "a parameter of the endpoint's own");
    }
}

#[tokio::test]
async fn l9_a_failure_is_no_reason_to_ask_in_the_open() {
    let refused = |code: &str| OidcError::Refused(crate::oidc::ErrorCode::new(code));
    let odd = OidcError::Unexpected("a pushed request got no reference".to_owned());
    for (reply, expected) in [
        (Reply::Json(400, json!({"error": "invalid_request"})), Some(refused("invalid_request"))),
        (Reply::Json(401, json!({"error": "invalid_client"})), Some(refused("invalid_client"))),
        (Reply::Json(503, json!({})), None),
        (Reply::Json(404, json!({})), Some(OidcError::Unexpected("status 404".to_owned()))),
        (
            Reply::Raw(302, &[("location", "https://evil.example")], Vec::new()),
            Some(OidcError::Unexpected("status 302".to_owned())),
        ),
        (Reply::Json(201, json!({})), Some(odd.clone())),
        (Reply::Json(201, json!({"request_uri": ""})), Some(odd.clone())),
        (Reply::Json(201, json!({"request_uri": "a b"})), Some(odd.clone())),
        (Reply::Json(201, json!({"request_uri": "x".repeat(2000)})), Some(odd.clone())),
        (Reply::Hang, None),
    ] {
        let fake = Fake::start().await;
        fake.offer_pushed(reply);
        let error = begin(&fake, PushedAuthorization::Auto).await.unwrap_err();
        match expected {
            Some(expected) => assert_eq!(error, expected),
            None => assert!(error.is_transient(), "{error}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_offered_or_not_wanted_is_not_pushed() {
    let fake = Fake::start().await;
    let url = begin(&fake, PushedAuthorization::Auto).await.unwrap();
    assert!(url.query_pairs().any(|(name, _)| name == "state"), "{url}");
    let error = begin(&fake, PushedAuthorization::Require).await.unwrap_err();
    assert_eq!(error, OidcError::Unexpected("it offers no pushed authorization requests".to_owned()));
    fake.offer_pushed(Reply::Json(201, json!({"request_uri": "urn:x:1"})));
    let url = begin(&fake, PushedAuthorization::Off).await.unwrap();
    assert!(url.query_pairs().any(|(name, _)| name == "state"), "{url}");
    assert_eq!(fake.hits().other.load(Ordering::SeqCst), 0);
}
