//! What a refresh tells its session (behaviour R5, R8, R10, R12).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::id_token::Defect;
use super::signer::Signer;
use super::{CLIENT_SECRET, NOW, REFRESH_TOKEN, Reply, answer, client_with, ready, refresh, settings, until};
use crate::config::settings::ClientAuth;
use crate::oidc::{IdTokenError, Previous, RefreshError, Successor};
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

#[tokio::test]
async fn r5_new_tokens_come_and_a_missing_refresh_token_stays_missing() {
    let (fake, provider, _) = ready().await;
    fake.grant(&Signer::es256("key-1").sign(&fake.claims()));
    let refreshed = refresh(&provider).await.unwrap();
    assert_eq!(refreshed.tokens.refresh_token.unwrap().expose(), "refresh-token-2");
    assert_eq!(refreshed.id_token.unwrap().subject, "alice");
    let (_, form) = fake.last_post();
    assert_eq!(form["grant_type"], "refresh_token");
    assert_eq!(form["refresh_token"], REFRESH_TOKEN);
    assert_eq!(form.len(), 2, "{form:?}");

    fake.set_token(Reply::Json(200, json!({"access_token": "at-3", "token_type": "bearer", "error": ""})));
    let refreshed = refresh(&provider).await.unwrap();
    assert!(refreshed.tokens.refresh_token.is_none() && refreshed.id_token.is_none());
    assert_eq!((refreshed.tokens.access_expires, refreshed.tokens.access_token.expose()), (None, "at-3"));
}

#[tokio::test]
async fn r13_each_way_of_client_authentication() {
    let (fake, _, _) = ready().await;
    let secret = || SecretText::new(CLIENT_SECRET.to_owned());
    for (method, basic, in_body, id_in_body) in [
        (ClientAuth::Basic(secret()), true, false, false),
        (ClientAuth::Post(secret()), false, true, true),
        (ClientAuth::None, false, false, true),
    ] {
        let mut settings = settings(&fake.issuer());
        settings.client_auth = method;
        let (provider, _) = client_with(&settings);
        provider.discover().await.unwrap();
        fake.set_token(Reply::Json(200, json!({"access_token": "a", "token_type": "Bearer"})));
        refresh(&provider).await.unwrap();
        provider.revoke(&SecretText::new(REFRESH_TOKEN.to_owned())).await.unwrap();
        let (headers, form) = fake.last_post();
        assert_eq!(headers.contains_key("authorization"), basic);
        assert_eq!(form.contains_key("client_secret"), in_body);
        assert_eq!(form.contains_key("client_id"), id_in_body);
    }
}

/// The kinds of behaviour R10, without their texts.
#[derive(Debug, PartialEq)]
enum Class {
    Rejected,
    Misconfigured,
    Unavailable(Option<u64>),
    InDoubt,
}

fn class(error: &RefreshError) -> Class {
    match error {
        RefreshError::Rejected(_) => Class::Rejected,
        RefreshError::Misconfigured(_) => Class::Misconfigured,
        RefreshError::Unavailable { retry_after, .. } => Class::Unavailable(retry_after.map(|d| d.as_secs())),
        RefreshError::InDoubt(_) => Class::InDoubt,
        RefreshError::Unusable { reason, .. } => panic!("{reason}"),
        RefreshError::IdentityChanged(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn r10_classes_by_answer() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    const HTML: (&str, &str) = ("content-type", "text/html");
    let oauth = |status, code: &str| Reply::Json(status, json!({"error": code, "error_description": "…"}));
    let page = || b"<html>canary</html>".to_vec();
    let (fake, provider, _) = ready().await;
    for (name, reply, expected) in [
        ("invalid_grant", oauth(400, "invalid_grant"), Class::Rejected),
        ("invalid_grant of Auth0", oauth(403, "invalid_grant"), Class::Rejected),
        ("interaction_required of Entra ID", oauth(400, "interaction_required"), Class::Rejected),
        ("invalid_client", oauth(401, "invalid_client"), Class::Misconfigured),
        ("unauthorized_client", oauth(400, "unauthorized_client"), Class::Misconfigured),
        ("invalid_scope", oauth(400, "invalid_scope"), Class::Misconfigured),
        ("an odd code", oauth(400, "<script>"), Class::Misconfigured),
        ("400 without code", Reply::Raw(400, &[HTML], page()), Class::Misconfigured),
        ("401 without body", Reply::Raw(401, &[], Vec::new()), Class::Misconfigured),
        ("403 of a firewall", Reply::Raw(403, &[HTML], page()), Class::Misconfigured),
        ("404", Reply::Raw(404, &[HTML], page()), Class::Misconfigured),
        ("redirect", Reply::Raw(307, &[("location", "/realm/elsewhere")], Vec::new()), Class::Misconfigured),
        ("429", Reply::Raw(429, &[("retry-after", "7")], Vec::new()), Class::Unavailable(Some(7))),
        ("429 says invalid_grant", oauth(429, "invalid_grant"), Class::Unavailable(None)),
        ("500", oauth(500, "invalid_grant"), Class::Unavailable(None)),
        ("503", Reply::Raw(503, &[("retry-after", "120")], Vec::new()), Class::Unavailable(Some(120))),
        ("503 for ever", Reply::Raw(503, &[("retry-after", "99999999")], Vec::new()), Class::Unavailable(Some(3600))),
        (
            "503 until",
            Reply::Raw(
                503,
                &[("date", "Fri, 31 Dec 2027 23:59:00 GMT"), ("retry-after", "Fri, 31 Dec 2027 23:59:59 GMT")],
                Vec::new(),
            ),
            Class::Unavailable(Some(59)),
        ),
        ("503 some day", Reply::Raw(503, &[("retry-after", "tomorrow")], Vec::new()), Class::Unavailable(None)),
        ("502", Reply::Raw(502, &[HTML], page()), Class::InDoubt),
        ("504", Reply::Raw(504, &[HTML], page()), Class::InDoubt),
        ("520", Reply::Raw(520, &[HTML], page()), Class::InDoubt),
        ("204", Reply::Raw(204, &[], Vec::new()), Class::InDoubt),
        ("HTML", Reply::Raw(200, &[HTML], page()), Class::InDoubt),
        ("cut JSON", Reply::Raw(200, &[JSON], br#"{"access_token":"acc"#.to_vec()), Class::InDoubt),
        ("no access token", Reply::Json(200, json!({"token_type": "Bearer"})), Class::InDoubt),
        ("200 says invalid_grant", oauth(200, "invalid_grant"), Class::Rejected),
        ("200 says invalid_client", oauth(200, "invalid_client"), Class::Misconfigured),
        ("200 says server_error", oauth(200, "server_error"), Class::Unavailable(None)),
        ("empty", Reply::Raw(200, &[JSON], Vec::new()), Class::InDoubt),
        ("2 MiB", Reply::Raw(200, &[JSON], vec![b' '; 2 << 20]), Class::InDoubt),
        ("cut connection", Reply::Cut, Class::InDoubt),
        ("timeout after sending", Reply::Hang, Class::InDoubt),
    ] {
        fake.set_token(reply);
        let before = fake.hits().token.load(Ordering::SeqCst);
        let error = refresh(&provider).await.unwrap_err();
        assert_eq!(class(&error), expected, "{name}: {error}");
        assert_eq!(fake.hits().token.load(Ordering::SeqCst), before + 1, "{name}: shown once");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("canary") && !shown.contains('<'), "{name}: {shown}");
    }
    assert_eq!(fake.hits().other.load(Ordering::SeqCst), 0, "no redirect is followed");
}

#[tokio::test]
async fn r5_of_tokens_that_are_of_no_use_the_refresh_token_is_kept_and_nothing_is_in_doubt() {
    let (fake, provider, _) = ready().await;
    let successor = |token: &str, life: Option<u64>| {
        let expires = life.map(|life| Timestamp::from_secs(NOW + life));
        Some(Successor { token: SecretText::new(token.to_owned()), expires })
    };
    for (answer, expected) in [
        (json!({"access_token": "a", "token_type": "N_A", "refresh_token": "r"}), successor("r", None)),
        (
            json!({"access_token": "a", "token_type": "DPoP", "refresh_token": "r", "refresh_expires_in": 60}),
            successor("r", Some(60)),
        ),
        (json!({"access_token": "a\r\nX-Evil: 1", "refresh_token": "r"}), successor("r", None)),
        (json!({"access_token": "", "refresh_token": ""}), None),
        (json!({"access_token": "a", "token_type": "N_A"}), None),
    ] {
        fake.set_token(Reply::Json(200, answer.clone()));
        let before = fake.hits().token.load(Ordering::SeqCst);
        match refresh(&provider).await.unwrap_err() {
            RefreshError::Unusable { successor, .. } => assert_eq!(successor, expected, "{answer}"),
            other => panic!("{answer}: {other}"),
        }
        assert_eq!(fake.hits().token.load(Ordering::SeqCst), before + 1, "shown once");
    }
    assert_eq!(fake.hits().other.load(Ordering::SeqCst), 0, "nothing is revoked");
}

#[tokio::test]
async fn r10_a_refused_connection_is_not_in_doubt() {
    let (fake, provider, _) = ready().await;
    drop(fake);
    // The server's task ends when it is next scheduled.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (other, _, _) = ready().await;
    let mut metadata = super::metadata(&other.issuer());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    metadata["token_endpoint"] = format!("http://{free}/token").into();
    other.set_metadata(Reply::Json(200, metadata));
    let (client, _) = client_with(&settings(&other.issuer()));
    client.discover().await.unwrap();
    assert_eq!(class(&refresh(&client).await.unwrap_err()), Class::Unavailable(None));

    let (unready, _) = client_with(&settings(&other.issuer()));
    assert_eq!(class(&refresh(&unready).await.unwrap_err()), Class::Unavailable(None));
    drop(provider);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn d3_a_provider_that_repeats_our_secrets_does_not_get_them_into_the_log() {
    let (fake, provider, _) = ready().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let description = format!("{REFRESH_TOKEN} of {CLIENT_SECRET}\nis bad");
    fake.set_token(Reply::Json(400, json!({"error": "invalid_grant", "error_description": description})));
    let error = refresh(&provider).await.unwrap_err();
    fake.grant(&Signer::es256("invented").sign(&fake.claims()));
    refresh(&provider).await.unwrap_err();
    drop(guard);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("invalid_grant") && log.contains("[…] of […] is bad"), "{log}");
    for text in [&log, &format!("{error} {error:?} {provider:?}")] {
        assert!(
            !text.contains("canary") && !text.contains("access-token") && !text.contains("refresh-token"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn r12_another_identity_ends_the_session_and_its_token_is_revoked() {
    let changes: &[Defect] = &[
        ("sub", |c| c["sub"] = "mallory".into(), IdTokenError::Subject),
        ("iss", |c| c["iss"] = "https://evil.example".into(), IdTokenError::Issuer),
        ("aud", |c| c["aud"] = "other".into(), IdTokenError::Audience),
        ("auth_time", |c| c["auth_time"] = (NOW - 5).into(), IdTokenError::AuthTime),
        ("nonce", |c| c["nonce"] = "another".into(), IdTokenError::Nonce),
        ("at_hash", |c| c["at_hash"] = "AAAA".into(), IdTokenError::AccessTokenHash),
    ];
    let (fake, provider, _) = ready().await;
    for (name, change, expected) in changes {
        let mut claims = fake.claims();
        change(&mut claims);
        fake.grant(&Signer::es256("key-1").sign(&claims));
        let before = fake.hits().other.load(Ordering::SeqCst);
        assert_eq!(refresh(&provider).await.unwrap_err(), RefreshError::IdentityChanged(*expected), "{name}");
        until(|| fake.hits().other.load(Ordering::SeqCst) > before).await;
        let (_, form) = fake.last_post();
        assert_eq!((form["token"].as_str(), form["token_type_hint"].as_str()), ("refresh-token-2", "refresh_token"));
    }
    let forged = Signer::es256("stranger").named(Some("key-1")).sign(&fake.claims());
    fake.grant(&forged);
    let error = refresh(&provider).await.unwrap_err();
    assert_eq!(error, RefreshError::IdentityChanged(IdTokenError::Signature));
}

#[tokio::test]
async fn r12_nonce_and_auth_time_may_be_missing_on_either_side() {
    let (fake, provider, _) = ready().await;
    let mut claims = fake.claims();
    claims.as_object_mut().unwrap().retain(|name, _| name != "nonce" && name != "auth_time");
    fake.grant(&Signer::es256("key-1").sign(&claims));
    refresh(&provider).await.unwrap();

    fake.grant(&Signer::es256("key-1").sign(&fake.claims()));
    let nothing_known = Previous { subject: "alice", auth_time: None, nonce: None };
    provider.refresh(&SecretText::new("rt".to_owned()), nothing_known).await.unwrap();
}

#[tokio::test]
async fn r12_without_keys_the_tokens_stay_and_the_claims_do_not_change() {
    let (fake, provider, clock) = ready().await;
    let rotated = Signer::es256("key-2");
    fake.set_jwks(Reply::Json(503, json!({})));
    fake.grant(&rotated.sign(&fake.claims()));
    let refreshed = refresh(&provider).await.unwrap();
    assert!(refreshed.id_token.is_none() && refreshed.tokens.refresh_token.is_some());

    // The identity counts all the same.
    let mut claims = fake.claims();
    claims["sub"] = "mallory".into();
    fake.grant(&rotated.sign(&claims));
    let error = refresh(&provider).await.unwrap_err();
    assert_eq!(error, RefreshError::IdentityChanged(IdTokenError::Subject));

    // A fresh set without the key is an answer, not an outage.
    clock.advance(Duration::from_secs(5));
    fake.set_keys(&[&Signer::es256("key-3")]);
    fake.grant(&rotated.sign(&fake.claims()));
    let error = refresh(&provider).await.unwrap_err();
    assert_eq!(error, RefreshError::IdentityChanged(IdTokenError::UnknownKey));
}

#[tokio::test]
async fn an_expiry_counts_from_before_the_request_in_whole_seconds() {
    let (fake, provider, clock) = ready().await;
    clock.advance(Duration::from_millis(100_900));
    let mut good = answer("");
    good.as_object_mut().unwrap().remove("id_token");
    good["expires_in"] = "60".into();
    good["refresh_expires_in"] = 0.into();
    fake.set_token(Reply::Json(200, good));
    let tokens = refresh(&provider).await.unwrap().tokens;
    assert_eq!(tokens.access_expires, Some(Timestamp::from_secs(NOW + 160)));
    assert_eq!(tokens.refresh_expires, None);
}

#[tokio::test]
async fn o1_revocation() {
    let (fake, provider, _) = ready().await;
    let token = SecretText::new(REFRESH_TOKEN.to_owned());
    let oauth = |code: &str| Reply::Json(400, json!({"error": code}));
    for (reply, good, transient) in [
        (Reply::Json(200, json!({})), true, false),
        (Reply::Raw(200, &[], Vec::new()), true, false),
        (Reply::Raw(204, &[], Vec::new()), true, false),
        (oauth("invalid_token"), true, false),
        (oauth("unsupported_token_type"), false, false),
        (Reply::Json(401, json!({"error": "invalid_client"})), false, false),
        (Reply::Raw(503, &[], Vec::new()), false, true),
        (Reply::Hang, false, true),
    ] {
        fake.set_revoke(reply);
        let result = provider.revoke(&token).await;
        assert_eq!(result.is_ok(), good, "{result:?}");
        assert_eq!(result.is_err_and(|error| error.is_transient()), transient);
    }
    let mut metadata = super::metadata(&fake.issuer());
    metadata["revocation_endpoint"] = Value::Null;
    fake.set_metadata(Reply::Json(200, metadata));
    let (without, _) = client_with(&settings(&fake.issuer()));
    without.discover().await.unwrap();
    without.revoke(&token).await.unwrap();
}

#[tokio::test]
async fn o1_a_revocation_is_tried_again_while_the_provider_is_away() {
    let (fake, provider, _) = ready().await;
    let attempts = || fake.hits().other.load(Ordering::SeqCst);
    let token = || SecretText::new(REFRESH_TOKEN.to_owned());
    fake.set_revoke(Reply::Raw(503, &[], Vec::new()));
    let revocation = tokio::spawn(provider.clone().revoke_patiently(token()));
    until(|| attempts() == 1).await;
    fake.set_revoke(Reply::Json(200, json!({})));
    revocation.await.unwrap();
    assert_eq!(attempts(), 2);

    fake.set_revoke(Reply::Json(401, json!({"error": "invalid_client"})));
    provider.revoke_patiently(token()).await;
    assert_eq!(attempts(), 3, "what cannot become better is not tried again");
}

#[tokio::test]
async fn r12_a_revocation_that_takes_long_keeps_nobody_waiting() {
    let (fake, provider, _) = ready().await;
    fake.set_revoke(Reply::Hang);
    let mut claims = fake.claims();
    claims["sub"] = "mallory".into();
    fake.grant(&Signer::es256("key-1").sign(&claims));
    let result = tokio::time::timeout(Duration::from_millis(900), refresh(&provider)).await;
    assert_eq!(result.unwrap().unwrap_err(), RefreshError::IdentityChanged(IdTokenError::Subject));
}
