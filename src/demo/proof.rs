//! DPoP proofs as a server judges them (RFC 9449, 4.3). Written for servers, so it shares nothing with what makes them.

use openidconnect::JsonWebKey as _;
use openidconnect::core::{CoreJsonWebKey, CoreJwsSigningAlgorithm};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::support::{base64url, from_base64url};

/// For how long, before and after, a proof is taken; seconds.
const WINDOW: u64 = 60;

/// A proof whose signature fits the key in it.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Of the key (RFC 7638).
    pub thumbprint: String,
    /// What it says.
    pub claims: Map<String, Value>,
}

/// The request that a proof came with.
#[derive(Clone, Copy, Debug)]
pub struct Proved<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its address without query.
    pub address: &'a str,
    /// The access token beside it.
    pub token: Option<&'a str>,
    /// Seconds since 1970.
    pub now: u64,
}

impl Proof {
    /// Rules 2 to 7: one JWT, all claims, the right type, an asymmetric algorithm, signed by the public key in its header.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let (signed, signature) = text.rsplit_once('.').ok_or("no JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("no JWT")?;
        let object = |part: &str| -> Option<Map<String, Value>> { serde_json::from_slice(&from_base64url(part)?).ok() };
        let (header, claims) = object(header).zip(object(claims)).ok_or("no JWT")?;
        if header.get("typ").and_then(Value::as_str) != Some("dpop+jwt") {
            return Err("another type");
        }
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some("ES256") => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
            Some("EdDSA") => CoreJwsSigningAlgorithm::EdDsa,
            _ => return Err("another algorithm"),
        };
        let jwk = header.get("jwk").and_then(Value::as_object).ok_or("no key")?;
        if ["d", "p", "q", "dp", "dq", "qi", "k"].iter().any(|name| jwk.contains_key(*name)) {
            return Err("a private key");
        }
        let key: CoreJsonWebKey = serde_json::from_value(Value::Object(jwk.clone())).map_err(|_| "no key")?;
        let signature = from_base64url(signature).ok_or("no signature")?;
        key.verify_signature(&algorithm, signed.as_bytes(), &signature).map_err(|_| "the signature does not fit")?;
        let required = ["crv", "kty", "x", "y"].iter().filter_map(|name| Some((*name, jwk.get(*name)?.as_str()?)));
        let members: Vec<String> = required.map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        Ok(Self { thumbprint: base64url(Sha256::digest(format!("{{{}}}", members.join(",")))), claims })
    }

    /// A claim that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    /// Rules 8, 9, 11 and 12: it is for this request, of now, and for the token beside it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn fits(&self, request: &Proved<'_>) -> Result<(), &'static str> {
        if self.text("jti").is_none_or(str::is_empty) {
            return Err("no jti");
        }
        if self.text("htm") != Some(request.method) {
            return Err("another method");
        }
        if self.text("htu") != Some(request.address) {
            return Err("another address");
        }
        if self.claims.get("iat").and_then(Value::as_u64).is_none_or(|at| at.abs_diff(request.now) > WINDOW) {
            return Err("too old or too young");
        }
        if self.text("ath") != request.token.map(|token| base64url(Sha256::digest(token))).as_deref() {
            return Err("another token");
        }
        Ok(())
    }
}
