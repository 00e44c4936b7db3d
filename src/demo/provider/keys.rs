//! The signing keys: made at start, rotated on demand, and able to sign badly when a test wants it.

use std::sync::Arc;

use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Map, Value, json};

use crate::demo::support::{base64url, random_value};

/// How a JWT is signed. Everything but `Honest` is an attack or a mistake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// ES256 with the current key.
    #[default]
    Honest,
    /// No signature, `alg` `none`.
    Unsigned,
    /// HS256 with this secret.
    HmacWithSecret(String),
    /// HS256 with the bytes of the public key.
    HmacWithPublicKey,
    /// ES256, then one bit flipped.
    Broken,
    /// ES256 without `kid`.
    NoKeyId,
    /// ES256 with the next key, which is not published yet.
    Unpublished,
    /// ES256 with `crit` naming an extension that nobody knows.
    UnknownCritical,
}

/// A key pair with its id.
pub(super) struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    fn generate() -> Result<Self, Unspecified> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .map_err(|_| Unspecified)?;
        Ok(Self { id: random_value().chars().take(12).collect(), pair })
    }

    /// The public key as a JWK. An uncompressed P-256 point is one byte 4, then x, then y, 32 bytes each.
    fn published(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let coordinate = |from: usize, to: usize| base64url(point.get(from..to).unwrap_or_default());
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": coordinate(1, 33), "y": coordinate(33, 65),
        })
    }
}

/// The keys of a provider: one that signs, those that are published, and the next one in hiding.
pub(super) struct KeyRing {
    published: Vec<Arc<SigningKey>>,
    current: Arc<SigningKey>,
    next: Arc<SigningKey>,
}

impl KeyRing {
    pub(super) fn generate() -> Result<Self, Unspecified> {
        let current = Arc::new(SigningKey::generate()?);
        let next = Arc::new(SigningKey::generate()?);
        Ok(Self { published: vec![Arc::clone(&current)], current, next })
    }

    /// The next key signs from now on and is published beside the old ones.
    pub(super) fn rotate(&mut self) -> Result<(), Unspecified> {
        let fresh = Arc::new(SigningKey::generate()?);
        self.current = std::mem::replace(&mut self.next, fresh);
        self.published.push(Arc::clone(&self.current));
        Ok(())
    }

    /// Only the current key stays published.
    pub(super) fn retire_old(&mut self) {
        self.published = vec![Arc::clone(&self.current)];
    }

    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.published.iter().map(|key| key.published()).collect::<Vec<_>>() })
    }

    /// A compact JWT over `claims`.
    pub(super) fn sign(&self, token_type: &str, claims: &Value, signing: &Signing) -> Result<String, Unspecified> {
        let key = if *signing == Signing::Unpublished { &self.next } else { &self.current };
        let mut header = Map::new();
        header.insert("typ".to_owned(), token_type.into());
        header.insert("alg".to_owned(), "ES256".into());
        header.insert("kid".to_owned(), key.id.clone().into());
        match signing {
            Signing::Unsigned => {
                header.insert("alg".to_owned(), "none".into());
                header.remove("kid");
            }
            Signing::HmacWithSecret(_) | Signing::HmacWithPublicKey => {
                header.insert("alg".to_owned(), "HS256".into());
            }
            Signing::NoKeyId => {
                header.remove("kid");
            }
            Signing::UnknownCritical => {
                header.insert("crit".to_owned(), json!(["x-unheard-of"]));
                header.insert("x-unheard-of".to_owned(), json!(true));
            }
            Signing::Honest | Signing::Broken | Signing::Unpublished => {}
        }
        let signed = format!("{}.{}", base64url(Value::Object(header).to_string()), base64url(claims.to_string()));
        let hmac_over = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes()).as_ref().to_vec();
        let mut signature = match signing {
            Signing::Unsigned => Vec::new(),
            Signing::HmacWithSecret(secret) => hmac_over(secret.as_bytes()),
            Signing::HmacWithPublicKey => hmac_over(key.pair.public_key().as_ref()),
            _ => key.pair.sign(&SystemRandom::new(), signed.as_bytes())?.as_ref().to_vec(),
        };
        if *signing == Signing::Broken {
            if let Some(byte) = signature.first_mut() {
                *byte ^= 1;
            }
        }
        Ok(format!("{signed}.{}", base64url(signature)))
    }
}
