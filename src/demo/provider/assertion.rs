//! Client assertions (RFC 7523, 3): signed by the client's key, for us alone, short-lived, and each used once.

use openidconnect::JsonWebKey as _;
use openidconnect::core::{CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use serde_json::Value;

use super::config::Client;
use super::parameters::Parameters;
use super::state::Shared;
use crate::demo::support::{from_base64url, unverified_claims};

/// No assertion may be good for longer, in seconds.
const LONGEST_LIFE: u64 = 60;

/// Why an assertion is not good, or nothing.
pub(super) fn check(shared: &Shared, client: &Client, keys: &Value, form: &Parameters) -> Result<(), &'static str> {
    if form.get("client_assertion_type") != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
        return Err("another kind of assertion");
    }
    let token = form.get("client_assertion").ok_or("no assertion")?;
    let claims = unverified_claims(token).ok_or("no JWT")?;
    verify(keys, token).ok_or("the signature does not fit")?;
    let is = |name: &str, value: &str| claims.get(name).and_then(Value::as_str) == Some(value);
    if !is("iss", &client.id) || !is("sub", &client.id) {
        return Err("the assertion is of another client");
    }
    if !is("aud", &shared.issuer) {
        return Err("the assertion is for somebody else");
    }
    let (now, time) = (shared.now(), |name: &str| claims.get(name).and_then(Value::as_u64));
    let (issued, expires) = time("iat").zip(time("exp")).ok_or("a time is missing")?;
    if now >= expires || issued > now + 1 || expires.saturating_sub(issued) > LONGEST_LIFE {
        return Err("the assertion is too old, too young or too lasting");
    }
    let id = claims.get("jti").and_then(Value::as_str).ok_or("jti is missing")?;
    if shared.grants(|grants| grants.first_use(now, id, expires)) {
        Ok(())
    } else {
        Err("the assertion was used before")
    }
}

fn verify(keys: &Value, token: &str) -> Option<()> {
    let (signed, signature) = token.rsplit_once('.')?;
    let header: Value = serde_json::from_slice(&from_base64url(signed.split('.').next()?)?).ok()?;
    let algorithm: CoreJwsSigningAlgorithm = serde_json::from_value(header.get("alg")?.clone()).ok()?;
    let keys: CoreJsonWebKeySet = serde_json::from_value(keys.clone()).ok()?;
    let named = header.get("kid")?.as_str()?;
    let key = keys.keys().iter().find(|key| key.key_id().is_some_and(|id| id.as_str() == named))?;
    key.verify_signature(&algorithm, signed.as_bytes(), &from_base64url(signature)?).ok()
}
