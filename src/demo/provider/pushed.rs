//! Pushed authorization requests (RFC 9126).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::client::authenticate;
use super::dpop::proven;
use super::parameters::Parameters;
use super::state::Shared;
use super::switches::Endpoint;
use super::token::TokenError;

/// Life of a reference, in seconds.
const LIFETIME: u64 = 60;

/// `POST /oauth/par`
pub(super) async fn push(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, TokenError> {
    let form = Parameters::parse(&body).map_err(|_| TokenError::invalid_request("a parameter came twice"))?;
    shared.ledger.record(Endpoint::Pushed, form.pairs(), &headers);
    let client = authenticate(&shared, &headers, &form)?;
    let proven = proven(&shared, &headers, ("POST", "par"), None)?;
    if proven.is_some() && form.get("dpop_jkt").is_some_and(|named| proven.as_deref() != Some(named)) {
        return Err(TokenError::new(StatusCode::BAD_REQUEST, "invalid_dpop_proof", "the request names another key"));
    }
    if form.get("request_uri").is_some() {
        return Err(TokenError::invalid_request("a reference cannot be pushed"));
    }
    let unproved =
        |name: &str| matches!(name, "client_id" | "client_secret" | "client_assertion" | "client_assertion_type");
    let asked = form.pairs().iter().filter(|(name, _)| !unproved(name)).cloned().collect();
    let now = shared.now();
    let reference = shared.grants(|grants| grants.push(now, &client.id, asked, now + LIFETIME));
    let body = json!({ "request_uri": reference, "expires_in": LIFETIME });
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}
