//! Keys and tokens of the test provider.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, LazyLock, Mutex};

/// Guards nothing: `ring` cannot make RSA keys, so this one was made for these tests.
pub(crate) const RSA_PKCS8: &str = "MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC4+dhV1Oo88O+8IugBll6qjz54LFFluP6e4+GIB4cLJTTmwWK8\
    qW6bgNGrKWHFsYW/M065DhVnFCpLb13GUBYOtwU8gLNAt5QSe5UpUFpNJgB4jzea0MBmm929xQP3wh9S0GFnnhipMvcXVCrDqPVt\
    QQxdbmbsple65E3jzI99hlGZxjad2vBKpBd9Ov6tNva6lKNe00XN5Ga51kXsgANkSASWryw+WwgClI+MkxXFNeiSqflTf6jVNikO\
    p5pXcWKsdhms+fYGPC/0vFn6MrNZapusccGqe/JKLibLGATCXFFMoYvbs6mt9XYEoUXslGzn3hoM6nhyrt+OWwJ33HVNAgMBAAEC\
    ggEABs8nsA0s7D5gTNgqGzjaVkP8pDbZbjmvodC4siW4yme9uUrgJBrGmBHXZgoZb8oXptCwMq66ifdbkThRxuWW0kbZef8w2g6H\
    9GA5PvKWyGVAOi/nd5r8oipVsNEqUroCJi3GkCZpOP1HzEOMaXR0SGfPGTdhsY90Bky2M08J7zBs8L/9RRzer0R9zDmV7cje9D9R\
    GHWF+WIE/QZfJDhSx1ymkvhHPdtfQuxE1vP5vH4WV8DbWnoZam4wb7zsrDZye/FbGdr2VKqK2xaesAFXLUYKOnkKs0MNHiROyFsd\
    tTK4QQ6DHxeizI4nTpv9ypgAIRTpUI324wMU8WdIv8oGwQKBgQD5CvUpFcapwghR4x4+Q1wX44s1R27r+wtk5gUHiwOnTRZi/nap\
    lDxsPS1FainIdlYV/Cm7E/ezO3Oh5l4s8lzmW5OXwh3hrJEk9aEGsB5HO3GU0idlvZS2IqXCVy7Iz73o108Hgqhv8lZ/FO3MvVjL\
    ZCToF2cP/XEOUjDK5SeUrQKBgQC+JLXHid5I9azL1vsmdLMok6Auf/RoXwZicIJvts4e5W8T+QMqapkoV0EB9A8jV+mn10MpySp7\
    /aex+2pVBvG2XzonKuSMgr9qHSO7bU6AG4JWiv6g3gVHK3eHPaT/AUUr1n6WpDLDtr6ne2vo93BmIpJeUXwKEnPjHeX4NxnXIQKB\
    gFRlGzmGEKG8iFc/sSMGbrIFwUoX4AYGOBFERdYNjPpoDDsV4p6LBoLjpHDOjkRJndircHTeSmWpswDdcXKn20WRKQ4XkUrF0RYG\
    S0BZ9JjNEyuMoB9BRKEIUsXuB4Ozqra6KCTyaSQuqpM8Q23LiMi8MimYrKtlhqeEwNYxG92tAoGAcq1lTREjlVFGhDIGiyz7GM/g\
    XesiFwioqxo8MPBJ5Gxvz9XxSNW9xYzKUklGEATnkSjNAximnN1hFIETonBru5g3VIQUD4KTu4YTlOjZ3X254EQ4SgFdoYzfrBtL\
    tdioRUY6VtR1IYDH/+76KCmECrVzHZt7ef+jESlpF4jz9sECgYA2gCkK8U8OYFlQatAI70/kUADS+c/T1nHGx6c78bXXLcr9uuo3\
    0aTlIZPOlb95BUSmjZpOFb4zwGhr20bPAy4CcyD5Bx6eDLj9jjYuvckp/vlM8pfcj2gmdNxV7K7+IMgy+8cjncf/EzMpEIGZcqQP\
    zroWL8KNiLzcoBj2HVtWsw==";

/// One signing key.
#[derive(Clone)]
pub(super) struct Signer {
    kid: Option<String>,
    key: Key,
}

#[derive(Clone)]
enum Key {
    Es256(Arc<EcdsaKeyPair>),
    Rs256(Arc<RsaKeyPair>),
}

static KEYS: LazyLock<Mutex<std::collections::HashMap<String, Arc<EcdsaKeyPair>>>> = LazyLock::new(Mutex::default);

impl Signer {
    /// The same key whenever the same id is asked for.
    pub(super) fn es256(kid: &str) -> Self {
        let mut keys = KEYS.lock().unwrap();
        let pair = keys.entry(kid.to_owned()).or_insert_with(|| {
            let rng = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
            Arc::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap())
        });
        Self { kid: Some(kid.to_owned()), key: Key::Es256(pair.clone()) }
    }

    pub(super) fn rs256(kid: &str) -> Self {
        let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(RSA_PKCS8).unwrap()).unwrap();
        Self { kid: Some(kid.to_owned()), key: Key::Rs256(Arc::new(pair)) }
    }

    /// The same key under another id, or none.
    pub(super) fn named(&self, kid: Option<&str>) -> Self {
        Self { kid: kid.map(str::to_owned), key: self.key.clone() }
    }

    pub(super) fn public_key(&self) -> &[u8] {
        match &self.key {
            Key::Es256(pair) => pair.public_key().as_ref(),
            Key::Rs256(pair) => pair.public_key().as_ref(),
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": base64(x), "y": base64(y), "use": "sig"})
            }
            Key::Rs256(pair) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "alg": "RS256", "n": base64(&public.n), "e": base64(&public.e), "use": "sig"})
            }
        };
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    pub(super) fn header(&self) -> Value {
        let alg = if matches!(self.key, Key::Es256(_)) { "ES256" } else { "RS256" };
        let mut header = json!({"alg": alg, "typ": "JWT"});
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        header
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), &claims.to_string())
    }

    pub(super) fn sign_with(&self, header: &Value, payload: &str) -> String {
        let rng = SystemRandom::new();
        encode(header, payload, |input| match &self.key {
            Key::Es256(pair) => pair.sign(&rng, input).unwrap().as_ref().to_vec(),
            Key::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, input, &mut signature).unwrap();
                signature
            }
        })
    }
}

/// A token with an HMAC.
pub(super) fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    encode(header, &claims.to_string(), |input| hmac::sign(&key, input).as_ref().to_vec())
}

/// A token without signature.
pub(super) fn unsigned(claims: &Value) -> String {
    encode(&json!({"alg": "none"}), &claims.to_string(), |_| Vec::new())
}

pub(super) fn at_hash(access_token: &str) -> String {
    base64(&Sha256::digest(access_token)[..16])
}

fn encode(header: &Value, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", base64(header.to_string().as_bytes()), base64(payload.as_bytes()));
    let signature = sign(input.as_bytes());
    format!("{input}.{}", base64(&signature))
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
