//! Private keys that sign JSON Web Signatures (RFC 7515), and the public keys that go with them (RFC 7517).

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::random::base64url;

/// A signature algorithm of RFC 7518 §3.1 or RFC 8037 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with PKCS#1 v1.5 padding.
    Rs256,
    /// RSA with PSS padding.
    Ps256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Its name in `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PKCS#8, or of another kind.
    #[error("it is no PKCS#8 key of RSA (2048 bits or more), EC P-256 or Ed25519")]
    Kind,
    /// The algorithm is for keys of another kind.
    #[error("a key of this kind does not sign with this algorithm")]
    Algorithm,
}

/// A signature could not be made: the operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature cannot be made")]
pub struct NoSignature;

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key with its name. Prints nothing of the key; two are equal if name, algorithm and public key are. Cheap to
/// clone.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    id: String,
    algorithm: Algorithm,
    pair: Pair,
    /// As it is published.
    public: Value,
}

impl SigningKey {
    /// Reads a PKCS#8 document (DER). Without an `algorithm` the kind of the key says which: RS256, ES256 or EdDSA. Without
    /// an `id` the key is named by its thumbprint (RFC 7638).
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn from_pkcs8(der: &[u8], id: Option<&str>, algorithm: Option<Algorithm>) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let (pair, natural, members) = if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
            let members = json!({ "e": base64url(&public.e), "kty": "RSA", "n": base64url(&public.n) });
            let pss = algorithm == Some(Algorithm::Ps256);
            let (padding, natural): (&'static dyn RsaEncoding, _) =
                if pss { (&RSA_PSS_SHA256, Algorithm::Ps256) } else { (&RSA_PKCS1_SHA256, Algorithm::Rs256) };
            (Pair::Rsa(pair, padding), natural, members)
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random) {
            // An uncompressed point is one byte 4, then x, then y, 32 bytes each.
            let point = pair.public_key().as_ref();
            let coordinate = |from: usize, to: usize| base64url(point.get(from..to).unwrap_or_default());
            let members = json!({ "crv": "P-256", "kty": "EC", "x": coordinate(1, 33), "y": coordinate(33, 65) });
            (Pair::P256(pair), Algorithm::Es256, members)
        } else {
            // What other programs write has no public key in it.
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Kind)?;
            let members = json!({ "crv": "Ed25519", "kty": "OKP", "x": base64url(pair.public_key().as_ref()) });
            (Pair::Ed25519(pair), Algorithm::EdDsa, members)
        };
        if algorithm.is_some_and(|wanted| wanted != natural) {
            return Err(KeyError::Algorithm);
        }
        let id = id.map_or_else(|| thumbprint(&members), str::to_owned);
        let mut public = members;
        if let Some(public) = public.as_object_mut() {
            for (name, value) in [("kid", id.as_str()), ("alg", natural.as_str()), ("use", "sig")] {
                public.insert(name.to_owned(), value.into());
            }
        }
        Ok(Self(Arc::new(Inner { id, algorithm: natural, pair, public })))
    }

    /// Its name, the `kid` of what it signs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The public key as a JWK (RFC 7517 §4).
    #[must_use]
    pub fn public_jwk(&self) -> &Value {
        &self.0.public
    }

    /// The public key without name and use: the members that its thumbprint is made of (RFC 7638 §3.2).
    #[must_use]
    pub fn bare_jwk(&self) -> Value {
        let mut jwk = self.public_jwk().clone();
        if let Some(members) = jwk.as_object_mut() {
            members.retain(|name, _| !["kid", "alg", "use"].contains(&name.as_str()));
        }
        jwk
    }

    /// A compact JWT (RFC 7519 §7.1) over `claims`, with `typ` in its header.
    ///
    /// # Errors
    /// [`NoSignature`]
    pub fn sign(&self, typ: &str, claims: &Value) -> Result<String, NoSignature> {
        let header = json!({ "typ": typ, "alg": self.algorithm().as_str(), "kid": self.id() });
        self.sign_below(&base64url(header.to_string().as_bytes()), claims)
    }

    /// The same below a header that is ready made: base64url of JSON.
    ///
    /// # Errors
    /// [`NoSignature`]
    pub fn sign_below(&self, header: &str, claims: &Value) -> Result<String, NoSignature> {
        let signed = format!("{header}.{}", base64url(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match &self.0.pair {
            Pair::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &random, signed.as_bytes(), &mut signature).map_err(|_| NoSignature)?;
                signature
            }
            Pair::P256(pair) => pair.sign(&random, signed.as_bytes()).map_err(|_| NoSignature)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        Ok(format!("{signed}.{}", base64url(&signature)))
    }
}

/// The thumbprint of a JWK that has its required members alone (RFC 7638 §3.3): in the order of their names, without blanks.
/// `json!` sorts them.
#[must_use]
pub fn thumbprint(members: &Value) -> String {
    base64url(&Sha256::digest(members.to_string()))
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?}, {})", self.0.id, self.0.algorithm.as_str())
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.public == other.0.public
    }
}

impl Eq for SigningKey {}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use openidconnect::core::{CoreJsonWebKey, CoreJwsSigningAlgorithm as Jws};
    use openidconnect::{JsonWebKey as _, JsonWebKeyId};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::oidc::RSA_PKCS8;

    fn rsa() -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(RSA_PKCS8).unwrap()
    }

    fn made(kind: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        KeyPair::generate_for(kind).unwrap().serialize_der()
    }

    /// The judge is another implementation than ours, and knows the public key only.
    #[test]
    fn every_kind_of_key_signs_what_its_public_key_verifies() {
        for (der, wanted, judge) in [
            (rsa(), None, Jws::RsaSsaPkcs1V15Sha256),
            (rsa(), Some(Algorithm::Rs256), Jws::RsaSsaPkcs1V15Sha256),
            (rsa(), Some(Algorithm::Ps256), Jws::RsaSsaPssSha256),
            (made(&PKCS_ECDSA_P256_SHA256), None, Jws::EcdsaP256Sha256),
            (made(&PKCS_ED25519), None, Jws::EdDsa),
        ] {
            let key = SigningKey::from_pkcs8(&der, Some("one"), wanted).unwrap();
            let token = key.sign("JWT", &json!({ "sub": "me" })).unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let public: CoreJsonWebKey = serde_json::from_value(key.public_jwk().clone()).unwrap();
            assert_eq!(public.key_id(), Some(&JsonWebKeyId::new("one".to_owned())));
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            public.verify_signature(&judge, signed.as_bytes(), &signature).unwrap();
            let mut other = signed.as_bytes().to_vec();
            other[3] ^= 1;
            public.verify_signature(&judge, &other, &signature).unwrap_err();
            let names: Vec<_> = key.public_jwk().as_object().unwrap().keys().map(String::as_str).collect();
            assert!(!names.iter().any(|name| ["d", "p", "q", "dp", "dq", "qi"].contains(name)), "{names:?}");
        }
    }

    #[test]
    fn a_key_without_a_name_is_named_by_its_thumbprint() {
        let (one, two) = (made(&PKCS_ED25519), made(&PKCS_ED25519));
        let read = |der: &[u8]| SigningKey::from_pkcs8(der, None, None).unwrap();
        assert_eq!(read(&one), read(&one));
        assert_ne!(read(&one), read(&two));
        let key = read(&one);
        let x = key.public_jwk()["x"].as_str().unwrap();
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        assert_eq!(key.id(), base64url(&Sha256::digest(canonical)));
    }

    #[test]
    fn other_keys_and_other_algorithms_are_refused() {
        let read = |der: &[u8], algorithm| SigningKey::from_pkcs8(der, None, algorithm).map(|_| ());
        assert_eq!(read(&made(&PKCS_ECDSA_P384_SHA384), None), Err(KeyError::Kind));
        assert_eq!(read(b"", None), Err(KeyError::Kind));
        assert_eq!(read(&rsa(), Some(Algorithm::Es256)), Err(KeyError::Algorithm));
        assert_eq!(read(&made(&PKCS_ED25519), Some(Algorithm::Es256)), Err(KeyError::Algorithm));
        assert_eq!(read(&made(&PKCS_ECDSA_P256_SHA256), Some(Algorithm::Rs256)), Err(KeyError::Algorithm));
    }

    #[test]
    fn d3_keys_print_nothing() {
        let key = SigningKey::from_pkcs8(&rsa(), Some("one"), None).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(\"one\", RS256)");
    }
}
