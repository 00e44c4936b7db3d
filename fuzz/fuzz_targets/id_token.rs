//! The input is an ID token, see [`cloakroom_fuzz::tokens::token`]. None that the provider did not sign is taken, and
//! none that it signed for another purpose.

#![no_main]

use cloakroom::primitives::clock::Timestamp;
use cloakroom_fuzz::tokens::{ACCESS_TOKEN, CLIENT, NONCE, NOW, accepted, issuer, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((text, signed)) = token(input) else { return };
    let now = Timestamp::from_secs(NOW);
    let Ok(token) = issuer().id_token(&text, ACCESS_TOKEN, NONCE, now) else { return };
    let (_, claims) = accepted(&text, signed);
    assert!(claims.contains_key("exp") && !claims.contains_key("events"));
    assert_eq!(claims.get("nonce"), Some(&NONCE.into()));
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
