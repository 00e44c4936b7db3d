//! Tokens bound to a key of the client (DPoP, RFC 9449).

use axum::http::{HeaderMap, StatusCode};

use super::state::Shared;
use super::token::TokenError;
use crate::demo::proof::{Proof, Proved};

/// For how long no `jti` may come again, in seconds.
const REMEMBERED: u64 = 300;

/// The thumbprint of the key that a request proves. None if it proves nothing and need not.
pub(super) fn proven(
    shared: &Shared,
    headers: &HeaderMap,
    (method, endpoint): (&str, &str),
    token: Option<&str>,
) -> Result<Option<String>, TokenError> {
    let switch = shared.switches.now();
    let bad = |reason| TokenError::new(StatusCode::BAD_REQUEST, "invalid_dpop_proof", reason);
    let mut fields = headers.get_all("dpop").iter();
    let text = match (fields.next(), fields.next()) {
        (None, _) if !switch.dpop_required && token.is_none() => return Ok(None),
        (Some(field), None) => field.to_str().map_err(|_| bad("no text"))?,
        _ => return Err(bad("not one proof")),
    };
    let proof = Proof::read(text).map_err(bad)?;
    let (address, now) = (shared.url(endpoint), shared.now());
    proof.fits(&Proved { method, address: &address, token, now }).map_err(bad)?;
    if switch.dpop_nonce.is_some() && proof.text("nonce") != switch.dpop_nonce.as_deref() {
        let error = TokenError::new(StatusCode::BAD_REQUEST, "use_dpop_nonce", "the proof needs our nonce");
        return Err(error.with_nonce(switch.dpop_nonce));
    }
    let id = format!("dpop {}", proof.text("jti").unwrap_or_default());
    if shared.grants(|grants| grants.first_use(now, &id, now + REMEMBERED)) {
        Ok(Some(proof.thumbprint))
    } else {
        Err(bad("the proof was used before"))
    }
}
