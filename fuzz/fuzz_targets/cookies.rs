//! Each line is a `Cookie` field of one request. Ours and the upstream's are told apart as a second reader does it, ours
//! never go on, and each other one does, byte for byte.
//!
//! Each line is a `Set-Cookie` field of an upstream, too: what we let through a browser never sends back as one of ours.

#![no_main]

use std::sync::LazyLock;

use cloakroom::config::settings::Session;
use cloakroom::session::cookie::{Cookies, Foreign, Ticket, drop_ours};
use cloakroom_fuzz::{lines, trim};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use libfuzzer_sys::fuzz_target;

const SESSION: &[u8] = b"__Host-session";
const CSRF: &[u8] = b"XSRF-TOKEN";
const LOGIN: &[u8] = b"__Host-login";

static COOKIES: LazyLock<Cookies> = LazyLock::new(|| Cookies::new(&Session::default()));

type Pair<'f> = (&'f [u8], &'f [u8], &'f [u8]);

fuzz_target!(|input: &[u8]| {
    let fields: Vec<HeaderValue> = lines(input, 16).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    a_request(&fields);
    an_answer(&fields);
});

fn a_request(fields: &[HeaderValue]) {
    let headers = map(COOKIE, fields);
    let all: Vec<Pair<'_>> = fields.iter().flat_map(|field| pairs(field.as_bytes())).collect();
    let named = |wanted: &[u8]| -> Vec<&[u8]> {
        all.iter().filter(|(name, ..)| *name == wanted).map(|(_, value, _)| *value).collect()
    };
    let is_ours = |name: &[u8]| [SESSION, CSRF, LOGIN].contains(&name);
    let foreign: Vec<&[u8]> = all.iter().filter(|(name, ..)| !is_ours(name)).map(|(_, _, pair)| *pair).collect();
    let expected = foreign.join(&b"; "[..]);

    let sorted = COOKIES.sort(&headers);
    match (&named(SESSION)[..], sorted.ticket) {
        ([], Ticket::Absent) | ([_, _, ..], Ticket::Doubled) => {}
        ([value], Ticket::Malformed) => assert!(!is_base64url(value, 64), "a good ticket: {value:?}"),
        ([value], Ticket::One(id)) => assert_eq!(id.expose().as_bytes(), *value),
        (values, ticket) => panic!("{ticket:?} of {values:?}"),
    }
    assert_eq!(sorted.csrf, named(CSRF).first().copied());
    if let Some(csrf) = sorted.csrf {
        assert!(COOKIES.csrf_matches(&headers, csrf));
        let longer = [csrf, b"x"].concat();
        assert_eq!(COOKIES.csrf_matches(&headers, &longer), named(CSRF).contains(&&*longer));
    }
    match (&named(LOGIN)[..], COOKIES.login_binding(&headers)) {
        ([value], found) => {
            // 256 bits in 43 characters: the last one has two bits to spare, and they are 0.
            let good = is_base64url(value, 43) && value.last().is_some_and(|last| b"AEIMQUYcgkosw048".contains(last));
            assert_eq!(found.as_deref().map(str::as_bytes), good.then_some(*value));
        }
        (values, found) => assert!(found.is_none(), "{found:?} of {values:?}"),
    }
    match &sorted.foreign {
        Foreign::Unchanged => assert!(fields.len() <= 1 && foreign.len() == all.len(), "ours went through"),
        Foreign::Nothing => assert!(expected.is_empty(), "lost: {expected:?}"),
        Foreign::Field(field) => {
            assert_eq!(field.as_bytes(), expected);
            let again = map(COOKIE, std::slice::from_ref(field));
            let again = COOKIES.sort(&again);
            assert!(again.ticket == Ticket::Absent && again.csrf.is_none() && again.foreign == Foreign::Unchanged);
        }
    }

    // HTTP/2 may send each cookie in a field of its own (RFC 9113 §8.2.3).
    let joined: Vec<&[u8]> = fields.iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&joined.join(&b"; "[..])).expect("fields joined are a field");
    let joined = map(COOKIE, &[joined]);
    let joined = COOKIES.sort(&joined);
    assert_eq!((joined.ticket, joined.csrf), (sorted.ticket, sorted.csrf));
}

fn an_answer(fields: &[HeaderValue]) {
    let headers = map(SET_COOKIE, fields);
    let kept = drop_ours(&COOKIES, &headers).unwrap_or_else(|| fields.to_vec());
    for field in &kept {
        let Some(sent) = as_sent_back(field.as_bytes()) else { continue };
        let request = map(COOKIE, &[HeaderValue::from_bytes(&sent).expect("a part of a field is a field")]);
        let sorted = COOKIES.sort(&request);
        let ours = sorted.ticket != Ticket::Absent || sorted.csrf.is_some() || sorted.foreign != Foreign::Unchanged;
        assert!(!ours, "{field:?} comes back as a cookie of ours");
    }
}

fn is_base64url(value: &[u8], length: usize) -> bool {
    value.len() == length && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

/// The `Cookie` field of a browser that has got this `Set-Cookie` field (RFC 6265bis §5.6 and §5.8.3).
fn as_sent_back(set_cookie: &[u8]) -> Option<Vec<u8>> {
    let pair = set_cookie.split(|byte| *byte == b';').next()?;
    let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (trim(&pair[..at]), trim(&pair[at + 1..])),
        None => (&b""[..], trim(pair)),
    };
    match (name, value) {
        (b"", b"") => None,
        (b"", value) => Some(value.to_vec()),
        (name, value) => Some([name, b"=", value].concat()),
    }
}

/// Name, value and whole pair (RFC 6265 §5.4).
fn pairs(field: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    field.split(|byte| *byte == b';').map(trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=');
        at.map_or((pair, &b""[..], pair), |at| (trim(&pair[..at]), trim(&pair[at + 1..]), pair))
    })
}

fn map(name: http::HeaderName, fields: &[HeaderValue]) -> HeaderMap {
    fields.iter().map(|field| (name.clone(), field.clone())).collect()
}
