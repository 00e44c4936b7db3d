//! The first line is `trusted` for a peer that is believed, each other one a header field. No field that is ours to send
//! comes through in any spelling, every other one does; and a stranger is nobody but itself.

#![no_main]

use std::net::IpAddr;

use cloakroom::gate::{Client, Connection, Scheme, Verdict};
use cloakroom::primitives::reserved::{RESERVED, RESERVED_PREFIXES};
use cloakroom::routing::host::{Authority, of_request};
use cloakroom_fuzz::world::{HOST, IDENTITY, STRANGER, TRUSTED, admit, gate};
use cloakroom_fuzz::{lines, trim};
use http::header::{HOST as HOST_FIELD, HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pingora::http::RequestHeader;

fuzz_target!(|input: &[u8]| {
    let trusted = input.starts_with(b"trusted");
    let peer: IpAddr = if trusted { TRUSTED } else { STRANGER }.parse().expect("an address");
    let mut headers = HeaderMap::new();
    for line in lines(input, 64).skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(trim(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if !headers.contains_key(HOST_FIELD) {
        headers.insert(HOST_FIELD, HeaderValue::from_static(HOST));
    }
    let client = Client::of(Connection::plain(peer), &headers, &gate().trusted_proxies);
    if trusted {
        a_believed_peer(&headers, &client)
    } else {
        a_stranger(peer, &client)
    }
    a_request(&headers, peer, &client);
});

fn a_stranger(peer: IpAddr, client: &Client) {
    assert!(client.ip == peer && client.scheme == Scheme::Http && client.chain.is_none() && client.host.is_none());
}

/// The client is the first address from our end that is not trusted; what stands before it counts for nothing.
fn a_believed_peer(headers: &HeaderMap, client: &Client) {
    let texts = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let chain = texts("x-forwarded-for");
    assert_eq!(client.chain.is_some(), !chain.is_empty());
    let hops = chain.iter().flat_map(|field| field.split(',')).map(str::trim).collect::<Vec<_>>();
    let is_trusted = |address: IpAddr| gate().trusted_proxies.iter().any(|net| net.contains(&address));
    let mut expected: IpAddr = TRUSTED.parse().expect("an address");
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        expected = address.to_canonical();
        if !is_trusted(expected) {
            break;
        }
    }
    assert_eq!(client.ip, expected);
    let last = |name| texts(name).last().and_then(|field| field.rsplit(',').next()).map(|one| one.trim().to_owned());
    let secure = last("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
    assert_eq!(client.scheme == Scheme::Https, secure);
    let host = client.host.as_ref().map(|host| host.to_str().expect("a text").to_owned());
    assert_eq!(host, last("x-forwarded-host"));
}

fn a_request(headers: &HeaderMap, peer: IpAddr, client: &Client) {
    let header = RequestHeader::build("GET", b"/api/x", None).expect("a good request");
    let host = normal_host(headers, client);
    match admit(&header, headers, peer) {
        Verdict::Forward(pass) => {
            assert_eq!(host.as_deref(), Some(HOST), "another host's request");
            assert_eq!((pass.client.ip, &pass.client.chain), (client.ip, &client.chain));
            let unwanted = gate().unwanted(headers, &pass);
            for name in headers.keys() {
                let expected = is_reserved(name.as_str()) || *name == "x-xsrf-token";
                assert_eq!(unwanted.contains(name), expected, "{name}");
            }
        }
        Verdict::Answer(refused) => {
            let status = refused.answer.status().as_u16();
            let upgrade = headers.contains_key("upgrade") && status == 400;
            assert!(upgrade || host.as_deref() != Some(HOST), "{status}");
        }
        Verdict::Endpoint(_) | Verdict::Files(_) => panic!("the path is one of a route with an upstream"),
    }
}

/// As one that makes environment variables of header names sees them (RFC 3875 §4.1.18).
fn is_reserved(name: &str) -> bool {
    let variable = |name: &str| -> String {
        name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign.to_ascii_uppercase() } else { '_' }).collect()
    };
    let name = variable(name);
    RESERVED.iter().chain(&IDENTITY).any(|reserved| variable(reserved) == name)
        || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(&variable(prefix)))
}

/// The host that counts, if there is exactly one.
fn normal_host(headers: &HeaderMap, client: &Client) -> Option<String> {
    let target = http::Uri::from_static("/api/x");
    let direct = of_request(&target, headers).ok()?;
    let authority = match &client.host {
        Some(said) => Authority::parse(said.to_str().expect("a text")).ok()?,
        None => direct,
    };
    let host = authority.host.into_owned();
    assert_eq!(Authority::parse(&host).map(|again| again.host.into_owned()).as_deref(), Ok(&*host));
    assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic() || b"/@,%".contains(&byte)));
    Some(host)
}
