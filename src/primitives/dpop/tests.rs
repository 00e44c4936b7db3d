use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::JsonWebKey as _;
use openidconnect::core::{CoreJsonWebKey, CoreJwsSigningAlgorithm as Jws};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

use super::*;
use crate::primitives::clock::Timestamp;

const NOW: u64 = 1_800_000_000;

fn key(kind: &'static rcgen::SignatureAlgorithm) -> SigningKey {
    SigningKey::from_pkcs8(&KeyPair::generate_for(kind).unwrap().serialize_der(), None, None).unwrap()
}

fn prover(key: SigningKey) -> Prover {
    Prover::new(key, Clock::manual(Timestamp::from_secs(NOW)))
}

fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

/// §4.2 and §4.3, each rule by another implementation than ours.
#[test]
fn a_proof_says_what_the_rfc_asks_for_and_nothing_else() {
    for (kind, alg) in [(&PKCS_ECDSA_P256_SHA256, Jws::EcdsaP256Sha256), (&PKCS_ED25519, Jws::EdDsa)] {
        let key = key(kind);
        let prover = prover(key.clone());
        let hash = token_hash("the token");
        for (token_hash, nonce) in [(None, None), (Some(hash.as_str()), None), (Some(hash.as_str()), Some("n-1"))] {
            let of = Proven { method: "POST", address: "https://api.example.com/x", token_hash, nonce };
            let proof = prover.proof(&of).unwrap();
            assert!(proof.is_sensitive());
            let proof = proof.to_str().unwrap();
            let header = part(proof, 0);
            assert_eq!(header, json!({ "typ": "dpop+jwt", "alg": key.algorithm().as_str(), "jwk": header["jwk"] }));
            let mut public = key.public_jwk().clone();
            for name in ["kid", "alg", "use"] {
                public.as_object_mut().unwrap().remove(name);
            }
            assert_eq!(header["jwk"], public, "the public key, and no private member");
            let (signed, signature) = proof.rsplit_once('.').unwrap();
            let judge: CoreJsonWebKey = serde_json::from_value(header["jwk"].clone()).unwrap();
            judge.verify_signature(&alg, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
            let claims = part(proof, 1);
            let jti = claims["jti"].as_str().unwrap();
            assert_eq!(jti.len(), 43, "256 random bits");
            let mut expected = json!({ "jti": jti, "htm": "POST", "htu": "https://api.example.com/x", "iat": NOW });
            for (name, value) in [("ath", token_hash), ("nonce", nonce)] {
                if let Some(value) = value {
                    expected[name] = value.into();
                }
            }
            assert_eq!(claims, expected);
        }
    }
}

#[test]
fn no_two_proofs_are_alike() {
    let prover = prover(key(&PKCS_ED25519));
    let of = Proven { method: "GET", address: "https://a/", token_hash: None, nonce: None };
    let ids: std::collections::BTreeSet<_> =
        (0..100).map(|_| part(prover.proof(&of).unwrap().to_str().unwrap(), 1)["jti"].to_string()).collect();
    assert_eq!(ids.len(), 100);
}

/// The examples of §4.2, §6.1 and §7.1.
#[test]
fn hash_and_thumbprint_are_those_of_the_rfc() {
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    assert_eq!(token_hash(token), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    let jwk = json!({
        "kty": "EC", "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    });
    assert_eq!(thumbprint(&jwk), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    let key = key(&PKCS_ECDSA_P256_SHA256);
    assert_eq!(prover(key.clone()).thumbprint(), key.id());
}

#[test]
fn the_scheme_says_whether_a_token_is_bound() {
    let token = SecretText::new("a.b".to_owned());
    let (bound, bearer) = (authorization(true, &token).unwrap(), authorization(false, &token).unwrap());
    assert_eq!((bound.to_str().unwrap(), bearer.to_str().unwrap()), ("DPoP a.b", "Bearer a.b"));
    assert!(bound.is_sensitive() && bearer.is_sensitive());
    assert_eq!((bound_token(&bound), bound_token(&bearer)), (Some(&b"a.b"[..]), None));
    assert!(authorization(true, &SecretText::new("a\r\nb".to_owned())).is_none());
}

#[test]
fn an_address_has_no_query_no_fragment_and_one_form() {
    for (https, authority, path, expected) in [
        (true, "api.example.com", "/a/b?c=d#e", "https://api.example.com/a/b"),
        (true, "API.example.com:443", "/A%2fb", "https://api.example.com/A%2fb"),
        (true, "api.example.com:80", "/", "https://api.example.com:80/"),
        (false, "api.example.com:80", "", "http://api.example.com/"),
        (false, "[::1]:3000", "/#x?y", "http://[::1]:3000/"),
    ] {
        assert_eq!(address(https, authority, path), expected);
    }
}

#[test]
fn a_nonce_is_heard_once_an_answer_and_the_newest_counts() {
    let nonce = Nonce::default();
    let hear = |fields: &[&str]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(NONCE, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        (nonce.hear(&headers), nonce.current().map(|nonce| (*nonce).clone()))
    };
    let known = |nonce: &str| Some(nonce.to_owned());
    assert_eq!(hear(&[]), (false, None));
    assert_eq!(hear(&["one"]), (true, known("one")));
    assert_eq!(hear(&["eyJ7S_zG.eyJH0-Z.HX4w-7v"]), (true, known("eyJ7S_zG.eyJH0-Z.HX4w-7v")));
    let long = "x".repeat(513);
    for bad in [&[][..], &[""], &["a b"], &["a\"b"], &["a\\b"], &["\u{fc}"], &["a", "b"], &[long.as_str()]] {
        assert_eq!(hear(bad), (false, known("eyJ7S_zG.eyJH0-Z.HX4w-7v")), "{bad:?}");
    }
}

#[test]
fn only_a_dpop_challenge_asks_for_a_nonce() {
    for (fields, asks) in [
        (&["DPoP error=\"use_dpop_nonce\", error_description=\"a, b\""][..], true),
        (&["dpop algs=\"ES256\", error=use_dpop_nonce"], true),
        (&["Bearer", "DPoP error=\"use_dpop_nonce\""], true),
        (&["Bearer realm=\"x\", DPoP error=\"use_dpop_nonce\""], true),
        (&["Bearer error=\"use_dpop_nonce\""], false),
        (&["DPoP error=\"invalid_token\""], false),
        (&["DPoP realm=\"use_dpop_nonce\""], false),
        (&["DPoP"], false),
        (&[], false),
    ] {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        assert_eq!(asks_for_nonce(&headers), asks, "{fields:?}");
    }
}
