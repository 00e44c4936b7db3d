//! The input is where a login should come back to. Wherever it does, it is a page of this site for every reader, and none
//! that begins or ends a login.

#![no_main]

use cloakroom::login::{Endpoint, ReturnTo};
use cloakroom::primitives::path::canonical;
use cloakroom_fuzz::is_plain;
use cloakroom_fuzz::world::{AUTH, gate};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use url::Url;

fuzz_target!(|input: &[u8]| {
    let wish = String::from_utf8_lossy(input);
    let site = &gate().auth[0];
    let result = ReturnTo::parse(&wish, site);
    let text = result.as_str();
    assert_eq!(&ReturnTo::parse(text, site), &result, "{wish:?}");
    assert!(HeaderValue::from_str(text).is_ok() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
    if is_plain(&wish) && wish.len() <= 2_048 && !wish.starts_with(AUTH) && wish != "/enter" {
        assert_eq!(text, wish, "a page of this site");
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    assert_eq!(canonical(path).as_deref(), Ok(path));
    let once = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy();
    for reading in [path, &once, &twice] {
        assert!(reading.starts_with('/') && !reading.contains("//") && !reading.contains('\\'), "{text}");
    }
    for base in ["https://app.test", "http://app.test:8080/auth/callback?code=x"] {
        let base = Url::parse(base).expect("a URL");
        let there = base.join(text).expect("a reference");
        assert_eq!(there.origin(), base.origin(), "{text}");
        let endpoint = site.endpoint(there.path());
        assert!(!matches!(endpoint, Some(Some(Endpoint::Login | Endpoint::Logout | Endpoint::Callback))), "{text}");
    }
});
