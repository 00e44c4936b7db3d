//! What the provider says about itself and about its users: discovery, keys, userinfo.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::dpop::proven;
use super::exchange::TOKEN_EXCHANGE;
use super::state::Shared;
use super::switches::Endpoint;
use crate::demo::support::unverified_claims;

/// The discovery document (OpenID Connect Discovery, 3).
pub(super) async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(document(&shared))
}

const METHODS: [&str; 4] = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];

fn document(shared: &Shared) -> Value {
    let switches = shared.switches.now();
    json!({
        "issuer": switches.discovery_issuer.unwrap_or_else(|| shared.issuer.clone()),
        "authorization_endpoint": shared.url("authorize"),
        "token_endpoint": shared.url("token"),
        "userinfo_endpoint": shared.url("userinfo"),
        "jwks_uri": shared.url("jwks"),
        "revocation_endpoint": shared.url("revoke"),
        "end_session_endpoint": (!switches.no_logout_page).then(|| shared.url("end-session")),
        "pushed_authorization_request_endpoint": switches.pushed_only.then(|| shared.url("par")),
        "require_pushed_authorization_requests": switches.pushed_only,
        "dpop_signing_alg_values_supported": switches.dpop_algorithms,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", TOKEN_EXCHANGE],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": METHODS,
        "revocation_endpoint_auth_methods_supported": METHODS,
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "claims_supported": [
            "iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid", "acr", "at_hash",
            "name", "preferred_username", "email", "email_verified", "realm_access",
        ],
        "prompt_values_supported": ["none", "login", "select_account"],
        "authorization_response_iss_parameter_supported": true,
    })
}

/// `GET /oauth/jwks`
pub(super) async fn jwks(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.keys(|keys| keys.jwks()))
}

/// `GET` and `POST /oauth/userinfo`
pub(super) async fn userinfo(State(shared): State<Arc<Shared>>, method: Method, headers: HeaderMap) -> Response {
    shared.ledger.record(Endpoint::Userinfo, &[], &headers);
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
    let (scheme, token) = shown.unwrap_or_default();
    let bound = unverified_claims(token).and_then(|claims| Some(claims.pointer("/cnf/jkt")?.as_str()?.to_owned()));
    let now = shared.now();
    let user = shared.grants(|grants| grants.bearer(now, token)).and_then(|login| shared.user(&login));
    // A bound token needs its scheme and the proof of its key (RFC 9449, 7.1).
    let proven =
        bound.as_ref().map_or(Ok(None), |_| proven(&shared, &headers, (method.as_str(), "userinfo"), Some(token)));
    let proven = match proven {
        Ok(proven) => proven,
        Err(error) => return error.challenge(),
    };
    let Some(user) = user.filter(|_| proven == bound && scheme == if bound.is_some() { "DPoP" } else { "Bearer" })
    else {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")])
            .into_response();
    };
    let subject = if shared.switches.now().other_subject_at_userinfo { "somebody-else" } else { user.subject.as_str() };
    let mut claims = user.claims();
    if let Some(claims) = claims.as_object_mut() {
        claims.insert("sub".to_owned(), subject.into());
        if let Some((name, value)) = shared.switches.now().userinfo {
            claims.insert(name, value.into());
        }
    }
    ([(header::CACHE_CONTROL, "no-store")], Json(claims)).into_response()
}
