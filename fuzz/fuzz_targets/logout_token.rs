//! The input is a logout token, see [`cloakroom_fuzz::tokens::token`]. None that the provider did not sign is taken, none
//! of another kind, and whoever it names is in it; a good one is taken.

#![no_main]

use cloakroom::primitives::clock::Timestamp;
use cloakroom_fuzz::tokens::{ACCESS_TOKEN, NONCE, NOW, accepted, is_name, issuer, plain, token};
use libfuzzer_sys::fuzz_target;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fuzz_target!(|input: &[u8]| {
    let Some((text, signed)) = token(input) else { return };
    let now = Timestamp::from_secs(NOW);
    let strict = issuer().logout_token(&text, true, now);
    let lax = issuer().logout_token(&text, false, now);
    if let Ok(strict) = &strict {
        assert_eq!(lax.as_ref(), Ok(strict), "a token with an end counts in any case");
    }
    if plain(&text, signed, "logout+jwt", &["iss", "aud", "exp", "iat", "jti", "events", "sub", "sid"]).is_some_and(
        |claims| {
            let event = claims.get("events").and_then(|events| events.get(EVENT));
            let whose =
                ["sub", "sid"].map(|name| claims.get(name)).into_iter().filter(Option::is_some).collect::<Vec<_>>();
            event.is_some_and(serde_json::Value::is_object)
                && is_name(claims.get("jti"))
                && !whose.is_empty()
                && whose.into_iter().all(is_name)
        },
    ) {
        assert!(strict.is_ok(), "refused without a reason: {strict:?}");
    }
    let Ok(token) = lax else { return };
    let (header, claims) = accepted(&text, signed);
    assert_eq!(strict.is_ok(), claims.get("exp").is_some_and(|end| !end.is_null()));
    if let Some(kind) = header.get("typ") {
        let kind = kind.as_str().expect("a text").to_ascii_lowercase();
        assert!(matches!(&*kind, "logout+jwt" | "application/logout+jwt"), "{kind}");
    }
    assert!(claims.get("events").and_then(|events| events.get(EVENT)).is_some_and(serde_json::Value::is_object));
    assert!(!claims.contains_key("nonce"));
    let text_of = |name: &str| claims.get(name).map(|value| value.as_str().expect("a text"));
    assert_eq!((token.whose.subject(), token.whose.sid()), (text_of("sub"), text_of("sid")));
    assert!(token.whose.subject().or(token.whose.sid()).is_some_and(|name| !name.is_empty()));
    assert_eq!(text_of("jti"), Some(&*token.id));
    assert!(token.dead > now && token.issued <= token.dead.plus(std::time::Duration::from_secs(120)));
    assert!(issuer().id_token(&text, ACCESS_TOKEN, NONCE, now).is_err(), "a token of two kinds");
});
