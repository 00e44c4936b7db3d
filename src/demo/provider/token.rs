//! The token endpoint (RFC 6749, 3.2): authorization code with PKCE, refresh with rotation, token exchange,
//! client credentials.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::client::authenticate;
use super::config::Client;
use super::dpop::proven;
use super::exchange::{TOKEN_EXCHANGE, client_credentials, exchange};
use super::issue::{Occasion, token_answer};
use super::parameters::Parameters;
use super::state::Shared;
use super::switches::{Endpoint, Rotation};
use crate::demo::support::base64url;

/// An error answer of the token or the revocation endpoint (RFC 6749, 5.2).
#[derive(Debug)]
pub(super) struct TokenError {
    status: StatusCode,
    code: String,
    description: &'static str,
    /// What the next DPoP proof needs.
    nonce: Option<String>,
}

impl TokenError {
    pub(super) fn new(status: StatusCode, code: &str, description: &'static str) -> Self {
        Self { status, code: code.to_owned(), description, nonce: None }
    }

    pub(super) fn with_nonce(mut self, nonce: Option<String>) -> Self {
        self.nonce = nonce;
        self
    }

    /// As a resource server says it (RFC 9449, 7.1 and 9).
    pub(super) fn challenge(self) -> Response {
        let challenge = format!("DPoP error=\"{}\", algs=\"ES256 EdDSA\"", self.code);
        let mut response = (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
        put_nonce(&mut response, self.nonce.as_deref());
        response
    }

    pub(super) fn invalid_request(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    pub(super) fn invalid_grant(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", description)
    }

    pub(super) fn invalid_client(description: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        tracing::debug!(code = self.code, reason = self.description, "the demo provider refused");
        let body = json!({ "error": self.code, "error_description": self.description });
        let mut response = (self.status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic realm=\"demo\""));
        }
        put_nonce(&mut response, self.nonce.as_deref());
        response
    }
}

fn put_nonce(response: &mut Response, nonce: Option<&str>) {
    if let Some(nonce) = nonce.and_then(|nonce| header::HeaderValue::from_str(nonce).ok()) {
        response.headers_mut().insert("dpop-nonce", nonce);
    }
}

impl From<ring::error::Unspecified> for TokenError {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "signing failed")
    }
}

/// `POST /oauth/token`
pub(super) async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, TokenError> {
    let form = Parameters::parse(&body).map_err(|_| TokenError::invalid_request("a parameter came twice"))?;
    shared.ledger.record(Endpoint::Token, form.pairs(), &headers);
    let proven = proven(&shared, &headers, ("POST", "token"), None)?;
    if let Some(refresh_token) = form.get("refresh_token") {
        shared.ledger.presented(refresh_token);
    }
    let client = authenticate(&shared, &headers, &form)?;
    let answer = match form.get("grant_type") {
        Some("authorization_code") => redeem_code(&shared, client, &form, proven)?,
        Some("refresh_token") => refresh(&shared, client, &form, proven)?,
        Some(TOKEN_EXCHANGE) => exchange(&shared, client, &form, proven.as_deref())?,
        Some("client_credentials") => client_credentials(&shared, client, &form, proven.as_deref())?,
        Some(_) => {
            return Err(TokenError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "unknown here"));
        }
        None => return Err(TokenError::invalid_request("grant_type is missing")),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn redeem_code(
    shared: &Shared,
    client: &Client,
    form: &Parameters,
    proven: Option<String>,
) -> Result<Value, TokenError> {
    let code = form.get("code").ok_or_else(|| TokenError::invalid_request("code is missing"))?;
    let verifier = form.get("code_verifier").ok_or_else(|| TokenError::invalid_grant("code_verifier is missing"))?;
    let now = shared.now();
    let (mut code, family) = shared.grants(|grants| grants.redeem(now, code, &client.id))?;
    if code.grant.key.is_some() && code.grant.key != proven {
        return Err(TokenError::invalid_grant("the code is for another key"));
    }
    code.grant.key = proven;
    if form.get("redirect_uri") != Some(code.redirect_uri.as_str()) {
        return Err(TokenError::invalid_grant("another redirect_uri"));
    }
    let challenge = base64url(Sha256::digest(verifier));
    if !bool::from(challenge.as_bytes().ct_eq(code.challenge.as_bytes())) {
        return Err(TokenError::invalid_grant("the verifier does not fit the challenge"));
    }
    let user = shared.user(&code.grant.login).ok_or_else(|| TokenError::invalid_grant("the user is gone"))?;
    shared.grants(|grants| grants.open_family(now, family, code.grant.clone()));
    let occasion = Occasion::Login { nonce: code.nonce.as_deref() };
    Ok(token_answer(shared, client, &user, &code.grant, family, &occasion)?)
}

fn refresh(shared: &Shared, client: &Client, form: &Parameters, proven: Option<String>) -> Result<Value, TokenError> {
    let refresh_token =
        form.get("refresh_token").ok_or_else(|| TokenError::invalid_request("refresh_token is missing"))?;
    let switch = shared.switches.now();
    if let Some(code) = switch.refuse_refresh {
        let status = if code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        return Err(TokenError::new(status, &code, "switched off by a test"));
    }
    let rotate = switch.rotation == Rotation::Rotate;
    let now = shared.now();
    let (mut grant, family) =
        shared.grants(|grants| grants.refresh(now, refresh_token, &client.id, rotate, switch.reuse_grace))?;
    // The client proves itself, so its refresh tokens are bound to it and not to the key (RFC 9449, 5).
    grant.key = proven;
    let user = shared.user(&grant.login).ok_or_else(|| TokenError::invalid_grant("the user is gone"))?;
    Ok(token_answer(shared, client, &user, &grant, family, &Occasion::Refresh { refresh_token })?)
}
