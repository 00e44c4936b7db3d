//! Who is asking: client authentication at the token and the revocation endpoint (RFC 6749, 2.3).

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::assertion;
use super::config::Client;
use super::parameters::Parameters;
use super::state::Shared;
use super::token::TokenError;
use crate::demo::support::unverified_claims;

/// The client of a request. A client with a secret must show it, by Basic or in the form but not both;
/// one without shows only its id.
pub(super) fn authenticate<'a>(
    shared: &'a Shared,
    headers: &HeaderMap,
    form: &Parameters,
) -> Result<&'a Client, TokenError> {
    let basic = match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            Some(basic(value.as_bytes()).ok_or_else(|| TokenError::invalid_client("unreadable Basic credentials"))?)
        }
        None => None,
    };
    let in_form = form.get("client_secret");
    if basic.is_some() && in_form.is_some() {
        return Err(TokenError::invalid_request("two ways of client authentication"));
    }
    let (id, secret) = match basic {
        Some((id, secret)) => (id, Some(secret)),
        None => (
            form.owned("client_id").or_else(|| assertion_subject(form)).unwrap_or_default(),
            in_form.map(str::to_owned),
        ),
    };
    if form.get("client_id").is_some_and(|in_form| in_form != id) {
        return Err(TokenError::invalid_request("two client ids"));
    }
    let client = shared.client(&id).ok_or_else(|| TokenError::invalid_client("unknown client"))?;
    if shared.switches.now().any_client_credentials {
        return Ok(client);
    }
    if let Some(keys) = &client.jwks {
        if secret.is_some() {
            return Err(TokenError::invalid_client("this client signs assertions"));
        }
        return assertion::check(shared, client, keys, form).map(|()| client).map_err(TokenError::invalid_client);
    }
    let right = match (&client.secret, &secret) {
        (Some(known), Some(shown)) => bool::from(known.as_bytes().ct_eq(shown.as_bytes())),
        (None, None) => true,
        _ => false,
    };
    if right { Ok(client) } else { Err(TokenError::invalid_client("wrong client credentials")) }
}

/// User and password, which OAuth form-encodes before Basic encodes them (RFC 6749, 2.3.1).
fn basic(value: &[u8]) -> Option<(String, String)> {
    let value = std::str::from_utf8(value).ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decoded(id), form_decoded(secret)))
}

fn form_decoded(text: &str) -> String {
    // A form of one name without a value: the `=` and `&` of the text itself must come encoded.
    form_urlencoded::parse(text.replace('&', "%26").replace('=', "%3D").as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

/// The subject of a client assertion (RFC 7523); believed only under the switch for that.
fn assertion_subject(form: &Parameters) -> Option<String> {
    unverified_claims(form.get("client_assertion")?)?.get("sub")?.as_str().map(str::to_owned)
}
