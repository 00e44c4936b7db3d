//! The input is a request target. Which route it has, what that route's rules are, and what goes upstream: all three are
//! of one path, for us and for whoever reads it behind us.

#![no_main]

use std::borrow::Cow;

use cloakroom::gate::Verdict;
use cloakroom::primitives::path::{canonical, without_parameters};
use cloakroom_fuzz::is_plain;
use cloakroom_fuzz::world::{AUTH, HOST, ROUTES, STRANGER, admit, longest, raw_path};
use http::header::{HOST as HOST_FIELD, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use pingora::http::RequestHeader;
use url::Url;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let path = text.split(['?', '#']).next().unwrap_or_default();
    the_form_itself(path);
    a_request(input);
});

fn the_form_itself(path: &str) {
    if is_plain(path) {
        assert_eq!(canonical(path).as_deref(), Ok(path), "nothing is wrong with it");
    }
    let Ok(once) = canonical(path) else { return };
    is_clean(&once);
    assert_eq!(canonical(&once).as_deref(), Ok(&*once), "not the same twice");
    assert!(once.len() <= path.len());
    // Other ways to write the same path.
    let dotted = path.replacen('/', "/./", 1);
    assert_eq!(canonical(&dotted).as_deref(), Ok(&*once), "{dotted}");
    let deeper = path.replacen('/', "/x/%2e./", 1);
    assert_eq!(canonical(&deeper).as_deref(), Ok(&*once), "{deeper}");
    let escaped: String = path
        .split_inclusive('%')
        .enumerate()
        // The two digits behind a `%` stay.
        .map(|(index, piece)| {
            let digits = if index == 0 { 0 } else { 2 };
            let escape = |c: char| if c.is_ascii_alphanumeric() { format!("%{:02x}", c as u32) } else { c.into() };
            piece
                .chars()
                .take(digits)
                .map(String::from)
                .chain(piece.chars().skip(digits).map(escape))
                .collect::<String>()
        })
        .collect();
    assert_eq!(canonical(&escaped).as_deref(), Ok(&*once), "{escaped}");
}

/// What no reader may find in a canonical path.
fn is_clean(path: &str) {
    assert!(path.starts_with('/') && !path.contains("//"), "{path}");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?\"<>`{}".contains(&byte)), "{path}");
    let decoded = percent_decode_str(path).collect::<Vec<u8>>();
    assert_eq!(decoded.iter().filter(|byte| **byte == b'/').count(), path.matches('/').count(), "{path}");
    assert!(!decoded.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\'), "{path}");
    for segment in decoded.split(|byte| *byte == b'/') {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(!matches!(name, b"." | b".."), "{path}");
    }
    for escape in path.split('%').skip(1) {
        let digits = &escape[..2];
        assert!(digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')), "{path}");
        let value = u8::from_str_radix(digits, 16).expect("two digits");
        assert!(!value.is_ascii_alphanumeric() && !b"-._~".contains(&value), "{path}");
    }
    // A browser's parser, and that of many servers, leaves it as it is.
    let url = Url::parse(&format!("http://h{path}")).expect("a path makes a URL");
    let same = url.path().replace("%5E", "^").replace("%7C", "|") == path.replace("%5E", "^").replace("%7C", "|");
    assert!(same, "{path} is {} for others", url.path());
}

fn a_request(target: &[u8]) {
    let Ok(header) = RequestHeader::build("GET", target, None) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(HOST_FIELD, HeaderValue::from_static(HOST));
    let path = canonical(raw_path(&header));
    let peer = STRANGER.parse().expect("an address");
    match admit(&header, &headers, peer) {
        Verdict::Forward(pass) => {
            let path = path.expect("what is forwarded has a canonical path");
            is_clean(&path);
            assert!(!is_ours(&path), "{path} is for our own endpoints");
            let route = longest(&path).expect("the root takes all");
            assert_eq!(pass.route.path.as_str(), ROUTES[route].0, "{path}");
            // A server that knows parameters sees it below the same route.
            if let Some(bare) = without_parameters(&path) {
                assert!(longest(&bare) == Some(route) && !is_ours(&bare), "{path} is {bare} for others");
            }
            let mut upstream = header.clone();
            assert!(cloakroom::fuzzing::set_target(&mut upstream, &pass));
            let sent = std::str::from_utf8(upstream.raw_path()).expect("a target of ASCII");
            let (sent, query) = sent.split_once('?').map_or((sent, None), |(path, query)| (path, Some(query)));
            assert_eq!(query, header.uri.query(), "the query goes on as it came");
            assert_eq!(sent, rewritten(&path, route), "{path}");
            is_clean(sent);
            assert_eq!(canonical(sent).as_deref(), Ok(sent));
        }
        Verdict::Endpoint(call) => {
            let path = path.expect("an endpoint has a canonical path");
            assert!(call.path == path && is_ours(&path), "{path}");
        }
        Verdict::Answer(refused) => {
            let status = refused.answer.status().as_u16();
            match path {
                Err(_) => assert_eq!(status, 400),
                Ok(path) if is_ours(&path) => assert!(status == 404 || has_parameter(&path), "{path}: {status}"),
                Ok(path) => assert!(status == 400 && has_parameter(&path), "{path}: {status}"),
            }
        }
        Verdict::Files(_) => panic!("no route has files"),
    }
}

/// Some servers take an escaped `;` for one, too.
fn has_parameter(path: &str) -> bool {
    path.contains(';') || path.contains("%3B")
}

fn is_ours(path: &str) -> bool {
    path == "/enter" || path.strip_prefix(AUTH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path for the upstream.
fn rewritten(path: &str, route: usize) -> Cow<'_, str> {
    let (_, from, to) = ROUTES[route];
    let rest = path.strip_prefix(from).expect("the route's path is in front");
    match format!("{to}{rest}") {
        empty if empty.is_empty() => "/".into(),
        other => other.into(),
    }
}
