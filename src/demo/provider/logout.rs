//! The ends of things: revocation (RFC 7009) and RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::authorize::sso_cookie;
use super::backchannel;
use super::client::authenticate;
use super::pages;
use super::parameters::{Parameters, with_query};
use super::state::Shared;
use super::switches::Endpoint;
use super::token::TokenError;
use crate::demo::support::unverified_claims;

/// `POST /oauth/revoke`. Success also for a token nobody knows.
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, TokenError> {
    let form = Parameters::parse(&body).map_err(|_| TokenError::invalid_request("a parameter came twice"))?;
    shared.ledger.record(Endpoint::Revoke, form.pairs(), &headers);
    let client = authenticate(&shared, &headers, &form)?;
    let token = form.get("token").ok_or_else(|| TokenError::invalid_request("token is missing"))?;
    shared.ledger.revocation(token);
    shared.grants(|grants| grants.revoke(token, &client.id));
    Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response())
}

/// `GET` and `POST /oauth/end-session`.
///
/// With an `id_token_hint` the session it names ends at once. Without one, the page asks first: a link on
/// some other page must not log anybody out.
pub(super) async fn end_session(
    State(shared): State<Arc<Shared>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query.unwrap_or_default();
    let text = if method == Method::POST { body.as_ref() } else { query.as_bytes() };
    let Ok(request) = Parameters::parse(text) else {
        return pages::problem(StatusCode::BAD_REQUEST, "A parameter came twice.");
    };
    shared.ledger.record(Endpoint::EndSession, request.pairs(), &headers);

    let hint = request.get("id_token_hint").and_then(|hint| hinted(&shared, hint));
    let now = shared.now();
    let at_page = sso_cookie(&headers).and_then(|cookie| shared.grants(|grants| grants.sso(now, &cookie)));
    match (&hint, at_page) {
        (Some((_, Some(sid))), _) => end_sid(&shared, sid),
        (_, Some(session)) if method == Method::POST => end_sid(&shared, &session.sid),
        (_, Some(session)) => return pages::confirm_logout(&session.login),
        (_, None) => {}
    }

    let client_id = hint.map(|(client_id, _)| client_id).or_else(|| request.owned("client_id"));
    let client = client_id.and_then(|id| shared.client(&id));
    let target = request.get("post_logout_redirect_uri").filter(|uri| {
        client.is_some_and(|client| client.post_logout_redirect_uris.iter().any(|rule| rule.allows(uri)))
    });
    match target {
        Some(uri) => {
            let state: Vec<(&str, &str)> = request.get("state").map(|state| ("state", state)).into_iter().collect();
            ([(header::CACHE_CONTROL, "no-store")], Redirect::to(&with_query(uri, &state))).into_response()
        }
        None => pages::logged_out(),
    }
}

fn end_sid(shared: &Shared, sid: &str) {
    shared.grants(|grants| grants.end_sid(sid));
    backchannel::notify(shared, sid);
}

/// The client and the session in an ID token of ours. Age does not matter for a hint; the signature is not
/// checked either, for `sid` is a random value that only holders of the token know.
fn hinted(shared: &Shared, hint: &str) -> Option<(String, Option<String>)> {
    let claims = unverified_claims(hint)?;
    if claims.get("iss")?.as_str()? != shared.issuer {
        return None;
    }
    let sid = claims.get("sid").and_then(|sid| sid.as_str()).map(str::to_owned);
    Some((claims.get("aud")?.as_str()?.to_owned(), sid))
}
