//! The authorization endpoint (RFC 6749, 3.1; OpenID Connect Core, 3.1.2): code flow, PKCE S256 always.
//!
//! The login form posts to the very same address, query included, so that nothing needs to be kept between
//! the page and the click, and everything is checked twice.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::grants::{Grant, SsoSession};
use super::pages;
use super::parameters::{Parameters, with_query};
use super::state::{BASE_PATH, Shared};
use super::switches::{Endpoint, ResponseIssuer};

/// The cookie by which the login page knows its guests.
const SSO_COOKIE: &str = "demo-sso";

/// Where the browser is sent back to, and with which `state`.
struct WayBack<'a> {
    redirect_uri: &'a str,
    state: Option<&'a str>,
    /// By a form that the browser posts (OAuth 2.0 Form Post Response Mode).
    by_form: bool,
}

/// `GET /oauth/authorize`
pub(super) async fn show(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    answer(&shared, &query.unwrap_or_default(), &headers, None)
}

/// `POST /oauth/authorize`: the click on the login page.
pub(super) async fn choose(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let choice = form_urlencoded::parse(&body).find(|(name, _)| name == "login").map(|(_, login)| login.into_owned());
    answer(&shared, &query.unwrap_or_default(), &headers, Some(choice.unwrap_or_default()))
}

fn answer(shared: &Shared, query: &str, headers: &HeaderMap, choice: Option<String>) -> Response {
    // Before client and redirect URI are known to fit, nobody is sent anywhere (RFC 6749, 4.1.2.1).
    let Ok(request) = Parameters::parse(query.as_bytes()) else {
        return pages::problem(StatusCode::BAD_REQUEST, "A parameter came twice.");
    };
    shared.ledger.record(Endpoint::Authorize, request.pairs(), headers);
    let Some(client) = request.get("client_id").and_then(|id| shared.client(id)) else {
        return pages::problem(StatusCode::BAD_REQUEST, "This client is not registered here.");
    };
    let request = match request.get("request_uri") {
        Some(reference) => match shared.grants(|grants| grants.pushed(shared.now(), &client.id, reference)) {
            Some(pushed) => Parameters::from(pushed),
            None => {
                return pages::problem(StatusCode::BAD_REQUEST, "This request is not known here, or it is too old.");
            }
        },
        None if shared.switches.now().pushed_only => {
            return pages::problem(StatusCode::BAD_REQUEST, "Requests must be pushed here.");
        }
        None => request,
    };
    let Some(redirect_uri) =
        request.get("redirect_uri").filter(|uri| client.redirect_uris.iter().any(|rule| rule.allows(uri)))
    else {
        return pages::problem(StatusCode::BAD_REQUEST, "This redirect URI is not registered for the client.");
    };
    let by_form = request.get("response_mode") == Some("form_post");
    let back = WayBack { redirect_uri, state: request.get("state"), by_form };
    if let Some(error) = shared.switches.now().callback_error {
        return back.error(shared, &error, "switched on by a test");
    }
    let challenge = match check(&request) {
        Ok(challenge) => challenge,
        Err((error, description)) => return back.error(shared, error, description),
    };

    let now = shared.now();
    let known = sso_cookie(headers).and_then(|cookie| shared.grants(|grants| grants.sso(now, &cookie)));
    let chosen = shared.switches.now().auto_login.or(choice);
    let (session, cookie) = match chosen {
        Some(login) if shared.user(&login).is_some() => {
            let fresh = known.as_ref().is_some_and(|session| must_ask(&request, session, now));
            log_in(shared, now, &login, known, fresh)
        }
        Some(_) => return back.error(shared, "access_denied", "the user cancelled"),
        None => match known.filter(|session| !must_ask(&request, session, now)) {
            Some(session) => (session, None),
            None if request.has_word("prompt", "none") => {
                return back.error(shared, "login_required", "nobody is logged in");
            }
            None => return pages::login(shared, query, redirect_uri, request.get("login_hint")),
        },
    };

    let grant = Grant {
        client_id: client.id.clone(),
        login: session.login,
        scope: request.owned("scope").unwrap_or_default(),
        sid: session.sid,
        auth_time: session.auth_time,
        acr: shared
            .switches
            .now()
            .acr
            .or_else(|| request.get("acr_values").and_then(|values| values.split(' ').next()).map(str::to_owned)),
        key: request.owned("dpop_jkt"),
    };
    let nonce = request.owned("nonce");
    let code = shared.grants(|grants| grants.new_code(now, grant, redirect_uri.to_owned(), challenge, nonce));
    let mut response = back.send(shared, &[("code", &code)]);
    if let Some(cookie) = cookie.and_then(|cookie| set_cookie(&cookie)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The session of a click: the known one if it is the same user and nobody asked for a fresh login.
fn log_in(
    shared: &Shared,
    now: u64,
    login: &str,
    known: Option<SsoSession>,
    fresh: bool,
) -> (SsoSession, Option<String>) {
    match known.filter(|session| session.login == login && !fresh) {
        Some(session) => (session, None),
        None => {
            let (cookie, session) = shared.grants(|grants| grants.open_sso(now, login, shared.config.sso_lifetime));
            (session, Some(cookie))
        }
    }
}

/// Checks what is left to check; returns the PKCE challenge.
fn check(request: &Parameters) -> Result<String, (&'static str, &'static str)> {
    if request.get("response_type") != Some("code") {
        return Err(("unsupported_response_type", "only code"));
    }
    if !request.has_word("scope", "openid") {
        return Err(("invalid_scope", "openid is missing"));
    }
    if request.get("code_challenge_method") != Some("S256") {
        return Err(("invalid_request", "PKCE with S256 is required"));
    }
    // A SHA-256 in base64url has 43 characters.
    request
        .owned("code_challenge")
        .filter(|challenge| challenge.len() == 43)
        .ok_or(("invalid_request", "code_challenge is missing or odd"))
}

/// Whether a known guest has to log in all the same.
fn must_ask(request: &Parameters, session: &SsoSession, now: u64) -> bool {
    let too_old = request
        .get("max_age")
        .and_then(|age| age.parse::<u64>().ok())
        .is_some_and(|age| now.saturating_sub(session.auth_time) > age);
    too_old || ["login", "select_account"].iter().any(|word| request.has_word("prompt", word))
}

impl WayBack<'_> {
    /// Sends the browser back with `pairs`, the `state`, and our name (RFC 9207).
    fn send(&self, shared: &Shared, pairs: &[(&str, &str)]) -> Response {
        let issuer = match shared.switches.now().response_issuer {
            ResponseIssuer::Right => Some(shared.issuer.clone()),
            ResponseIssuer::Wrong(other) => Some(other),
            ResponseIssuer::Missing => None,
        };
        let mut pairs = pairs.to_vec();
        pairs.extend(self.state.map(|state| ("state", state)));
        pairs.extend(issuer.as_deref().map(|issuer| ("iss", issuer)));
        if self.by_form {
            return pages::send_back(self.redirect_uri, &pairs);
        }
        let headers = [(header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
        (headers, Redirect::to(&with_query(self.redirect_uri, &pairs))).into_response()
    }

    fn error(&self, shared: &Shared, error: &str, description: &str) -> Response {
        self.send(shared, &[("error", error), ("error_description", description)])
    }
}

/// The value of our cookie in the headers of a request.
pub(super) fn sso_cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(SSO_COOKIE)?.strip_prefix('=').map(str::to_owned))
}

fn set_cookie(value: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{SSO_COOKIE}={value}; Path={BASE_PATH}; HttpOnly; SameSite=Lax")).ok()
}
