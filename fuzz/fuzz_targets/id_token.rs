//! The input is an ID token, see [`cloakroom_fuzz::tokens::token`]. None that the provider did not sign is taken, and
//! none that it signed for another purpose; a good one is taken.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::primitives::clock::Timestamp;
use cloakroom_fuzz::tokens::{ACCESS_TOKEN, CLIENT, NONCE, NOW, accepted, is_name, issuer, plain, token};
use libfuzzer_sys::fuzz_target;
use ring::digest::{SHA512, digest};

fuzz_target!(|input: &[u8]| {
    let Some((text, signed)) = token(input) else { return };
    let now = Timestamp::from_secs(NOW);
    let judged = issuer().id_token(&text, ACCESS_TOKEN, NONCE, now);
    if plain(&text, signed, "JWT", &["iss", "aud", "sub", "exp", "iat", "nonce"])
        .is_some_and(|claims| is_name(claims.get("sub")) && claims.get("nonce") == Some(&NONCE.into()))
    {
        assert!(judged.is_ok(), "refused without a reason: {judged:?}");
    }
    let Ok(token) = judged else { return };
    let (_, claims) = accepted(&text, signed);
    assert!(claims.contains_key("exp") && !claims.contains_key("events"));
    assert_eq!(claims.get("nonce"), Some(&NONCE.into()));
    // Core §3.1.3.6, with the hash that EdDSA uses with this curve.
    let hash = || URL_SAFE_NO_PAD.encode(&digest(&SHA512, ACCESS_TOKEN.as_bytes()).as_ref()[..32]);
    assert!(claims.get("at_hash").is_none_or(|found| found == &*hash()), "another access token's");
    assert!(claims.get("azp").is_none_or(|azp| azp == CLIENT));
    assert_eq!(claims.get("sub"), Some(&token.subject.as_str().into()));
    assert!(!token.subject.is_empty() && token.subject.chars().count() <= 255);
    assert_eq!(token.text.expose(), text);
    for (name, value) in &token.claims {
        assert_eq!(claims.get(name), Some(value));
    }
    for needs_end in [true, false] {
        assert!(issuer().logout_token(&text, needs_end, now).is_err(), "a token of two kinds");
    }
});
