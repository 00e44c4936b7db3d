use std::net::Ipv4Addr;

use super::*;
use crate::gate::Connection;

/// Method, scheme, host, target and upgrade as one text, or the error.
fn read(manner: ForwardAuth, target: &str, fields: &[(&'static str, &str)]) -> Result<String, CheckError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (method, uri) = (Method::GET, target.parse::<Uri>().unwrap());
    let connection = Connection::plain(Ipv4Addr::LOCALHOST.into());
    let request = Request { method: &method, uri: &uri, raw_path: uri.path(), headers: &headers, connection };
    Original::of(manner, &request).map(|original| {
        let host = original.host.map_or("-".to_owned(), |host| host.to_str().unwrap().to_owned());
        let Original { method, uri, scheme, upgrade, .. } = original;
        let upgrade = if upgrade == Upgrade::None { String::new() } else { format!(" {upgrade:?}") };
        format!("{method} {} {host} {uri}{upgrade}", scheme.as_str())
    })
}

const FORWARDED: [(&str, &str); 4] = [
    ("x-forwarded-method", "POST"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.test:8443"),
    ("x-forwarded-uri", "/a/b?x=1&y=//"),
];

#[test]
fn each_field_of_the_family_must_be_there_once() {
    let all = |fields: &[(&'static str, &str)]| read(ForwardAuth::XForwarded, "/auth/check", fields);
    assert_eq!(all(&FORWARDED).unwrap(), "POST https app.test:8443 /a/b?x=1&y=//");
    for (at, field) in FORWARDED.into_iter().enumerate() {
        let mut fields = FORWARDED.to_vec();
        fields.push(field);
        assert_eq!(all(&fields), Err(CheckError::Doubled), "{field:?}");
        let mut fields = FORWARDED.to_vec();
        fields.remove(at);
        assert_eq!(all(&fields), Err(CheckError::Missing), "{field:?}");
    }
}

#[test]
fn fields_of_another_family_change_nothing() {
    let mut fields = FORWARDED.to_vec();
    fields.extend([
        ("x-original-url", "https://evil.test/open"),
        ("x-original-method", "GET"),
        ("x-rewrite-url", "/o"),
    ]);
    assert_eq!(read(ForwardAuth::XForwarded, "/auth/check", &fields), read(ForwardAuth::XForwarded, "/", &FORWARDED));
    let mut fields = FORWARDED.to_vec();
    fields.extend([("x-original-url", "http://app.test/x?y"), ("x-original-method", "GET")]);
    assert_eq!(read(ForwardAuth::XOriginal, "/auth/check", &fields).unwrap(), "GET http app.test /x?y");
    let only = read(ForwardAuth::ExtAuthz, "/x?y", &FORWARDED);
    assert_eq!(only.unwrap(), "GET https - /x?y");
}

#[test]
fn what_cannot_be_understood_is_refused() {
    for (at, value, expected) in [
        (0, "P OST", CheckError::Malformed),
        (0, "", CheckError::Malformed),
        (1, "gopher", CheckError::Malformed),
        (1, "https, http", CheckError::Malformed),
        (2, "", CheckError::Malformed),
        (2, "app.test, evil.test", CheckError::Malformed),
        (2, "app.test/x", CheckError::Malformed),
        (3, "", CheckError::Malformed),
        (3, "*", CheckError::Malformed),
        (3, "http://app.test/a", CheckError::Malformed),
        (3, "/a#b", CheckError::Malformed),
        (3, "/a\u{e9}", CheckError::Malformed),
        (3, "//a", CheckError::Path),
        (3, "/a/../b", CheckError::Path),
        (3, "/a/./b", CheckError::Path),
        (3, "/a/..", CheckError::Path),
        (3, "/a%2fb", CheckError::Path),
        (3, "/a%2Fb", CheckError::Path),
        (3, "/%61", CheckError::Path),
        (3, "/a%", CheckError::Path),
        (3, "/a\\b", CheckError::Path),
    ] {
        let mut fields = FORWARDED;
        fields[at].1 = value;
        assert_eq!(read(ForwardAuth::XForwarded, "/auth/check", &fields), Err(expected), "{value}");
    }
    for url in
        ["", "/x", "app.test/x", "https://", "https://app.test", "https:///x", "https://app.test?/x", "//app.test/x"]
    {
        let fields = [("x-original-method", "GET"), ("x-original-url", url)];
        assert_eq!(read(ForwardAuth::XOriginal, "/auth/check", &fields), Err(CheckError::Malformed), "{url}");
    }
    // A question itself is read as strictly.
    for target in ["//a", "/a/../b", "/%61"] {
        let read = read(ForwardAuth::ExtAuthz, target, &[("x-forwarded-proto", "https")]);
        assert_eq!(read, Err(CheckError::Path), "{target}");
    }
    assert_eq!(read(ForwardAuth::ExtAuthz, "/a", &[]), Err(CheckError::Missing));
}

#[test]
fn c5_a_handshake_is_known_without_upgrade() {
    let read = |proto: &str, method: &str, more: &[(&'static str, &str)]| {
        let mut fields = FORWARDED;
        (fields[0].1, fields[1].1) = (method, proto);
        let fields: Vec<_> = fields.into_iter().chain(more.iter().copied()).collect();
        read(ForwardAuth::XForwarded, "/auth/check", &fields).unwrap()
    };
    for (proto, more) in [
        ("wss", &[][..]),
        ("https", &[("sec-websocket-key", "x")]),
        ("https", &[("upgrade", "websocket")]),
        ("https", &[("upgrade", "h2c"), ("sec-websocket-key", "x")]),
    ] {
        assert!(read(proto, "GET", more).ends_with(" WebSocket"), "{proto} {more:?}");
        assert!(read(proto, "POST", more).ends_with(" Malformed"), "{proto} {more:?}");
    }
}

#[test]
fn c5_a_handshake_by_connect_is_the_get_that_goes_on_and_no_other_connect_is_judged() {
    let read = |proto: &str, more: &[(&'static str, &str)]| {
        let mut fields = FORWARDED;
        (fields[0].1, fields[1].1) = ("CONNECT", proto);
        let fields: Vec<_> = fields.into_iter().chain(more.iter().copied()).collect();
        read(ForwardAuth::XForwarded, "/auth/check", &fields)
    };
    for (proto, more) in [
        ("https", &[("upgrade", "websocket"), ("sec-websocket-key", "x")][..]),
        ("https", &[("upgrade", "WebSocket")]),
        ("https", &[("sec-websocket-key", "x")]),
        ("wss", &[]),
    ] {
        let expected = "GET https app.test:8443 /a/b?x=1&y=// WebSocket";
        assert_eq!(read(proto, more).as_deref(), Ok(expected), "{proto} {more:?}");
    }
    for more in [
        &[][..],
        &[("upgrade", "connect-udp")],
        &[("upgrade", "websocket"), ("content-length", "3")],
        &[("upgrade", "websocket"), ("transfer-encoding", "chunked")],
    ] {
        assert_eq!(read("https", more), Err(CheckError::Malformed), "{more:?}");
    }
}
