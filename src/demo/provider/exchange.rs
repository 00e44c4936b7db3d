//! Tokens for single services: token exchange (RFC 8693) for the access token of a user, and tokens of a client's own (RFC
//! 6749, 4.4).

use axum::http::StatusCode;
use ring::error::Unspecified;
use serde_json::{Value, json};

use super::config::Client;
use super::keys::Signing;
use super::parameters::Parameters;
use super::state::Shared;
use super::token::TokenError;
use crate::demo::support::random_value;

/// The grant type of token exchange.
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Whom a token speaks of.
struct Speaks<'a> {
    subject: &'a str,
    login: Option<&'a str>,
    /// Thumbprint of the key that it is bound to.
    key: Option<&'a str>,
}

/// Answers an exchange.
pub(super) fn exchange(
    shared: &Shared,
    client: &Client,
    form: &Parameters,
    key: Option<&str>,
) -> Result<Value, TokenError> {
    entitled(shared, client)?;
    if form.get("subject_token_type") != Some(ACCESS_TOKEN) {
        return Err(TokenError::invalid_request("only access tokens are exchanged"));
    }
    let subject_token =
        form.get("subject_token").ok_or_else(|| TokenError::invalid_request("subject_token is missing"))?;
    let now = shared.now();
    let holder = shared.grants(|grants| grants.holder(now, subject_token));
    let (login, family) = holder.ok_or_else(|| TokenError::invalid_request("the subject token is worth nothing"))?;
    let user = shared.user(&login).ok_or_else(|| TokenError::invalid_request("the user is gone"))?;
    let speaks = Speaks { subject: &user.subject, login: Some(&login), key };
    let (token, mut answer) = make(shared, client, form, &speaks)?;
    let life = shared.access_token_lifetime();
    shared.grants(|grants| grants.add_access_token(now, family, &token, &login, life));
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("issued_token_type".to_owned(), ACCESS_TOKEN.into());
    }
    Ok(answer)
}

/// Answers a client that asks in its own name.
pub(super) fn client_credentials(
    shared: &Shared,
    client: &Client,
    form: &Parameters,
    key: Option<&str>,
) -> Result<Value, TokenError> {
    entitled(shared, client)?;
    let (_, answer) = make(shared, client, form, &Speaks { subject: &client.id, login: None, key })?;
    Ok(answer)
}

/// Whether such a client gets such tokens, and whether a test lets it.
fn entitled(shared: &Shared, client: &Client) -> Result<(), TokenError> {
    match shared.switches.now().refuse_service_tokens {
        Some(code) => {
            let status = if code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            Err(TokenError::new(status, &code, "switched off by a test"))
        }
        None if client.secret.is_none() => {
            Err(TokenError::new(StatusCode::BAD_REQUEST, "unauthorized_client", "public clients are nobody"))
        }
        None => Ok(()),
    }
}

/// A token for what the form names, and the answer around it.
fn make(shared: &Shared, client: &Client, form: &Parameters, of: &Speaks<'_>) -> Result<(String, Value), Unspecified> {
    let (now, life, switch) = (shared.now(), shared.access_token_lifetime(), shared.switches.now());
    let audience = form.get("audience").or(form.get("resource")).unwrap_or(&shared.config.audience);
    let mut claims = json!({
        "iss": shared.issuer,
        "sub": of.subject,
        "aud": audience,
        "client_id": client.id,
        "scope": form.get("scope").unwrap_or_default(),
        "iat": now,
        "exp": now + life.as_secs(),
        "jti": random_value(),
        "preferred_username": of.login,
        "canary": switch.canary,
    });
    if let (Some(key), Some(claims)) = (of.key, claims.as_object_mut()) {
        claims.insert("cnf".to_owned(), json!({ "jkt": key }));
    }
    let token = shared.sign("at+jwt", &claims, &Signing::Honest)?;
    let expires_in = (!switch.omit_expires_in).then_some(life.as_secs());
    let answer = json!({
        "access_token": token,
        "token_type": switch.service_token_type.unwrap_or_else(|| if of.key.is_some() { "DPoP" } else { "Bearer" }.to_owned()),
        "expires_in": expires_in,
        "scope": form.get("scope"),
    });
    Ok((token, answer))
}
