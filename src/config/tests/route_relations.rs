//! Settings of routes that must fit each other.

use super::*;

/// The route of the good file with other lines in the place of `upstream`.
pub(super) fn route_with(lines: &str) -> Vec<&'static str> {
    let text = GOOD.replace("        upstream: api\n        access: required\n", &format!("        {lines}\n"));
    // Upstreams that nothing uses any more are no subject here.
    codes(&load_text(&text)).into_iter().filter(|code| *code != "W0009").collect()
}

#[test]
fn a_route_does_exactly_one_thing() {
    for (lines, expected) in [
        ("upstream: api", &[] as &[&str]),
        ("#", &["E0102"]),
        ("upstream: api\n        respond: {}", &["E0408"]),
        ("redirect: { to: /x }\n        respond: {}\n        files: { root: . }", &["E0408", "E0408"]),
        ("respond: {}", &[]),
        ("respond: { status: 404, body: nothing here, content_type: text/plain }", &[]),
        ("respond: { status: 100 }", &["E0202"]),
        ("respond: { status: 204, body: x }", &["E0408"]),
        ("respond: { content_type: \"a\\nb\" }", &["E0201"]),
        ("redirect: {}", &["E0102"]),
        ("redirect: { to: /x, status: 307, path: keep }", &[]),
        ("redirect: { to: https://example.com/a }", &[]),
        ("redirect: { to: /x?a=b, path: keep }", &["E0408"]),
        ("redirect: { to: /x, status: 304 }", &["E0202"]),
        ("redirect: { to: /x, status: 200 }", &["E0202"]),
        ("redirect: { to: //evil.example }", &["E0206"]),
        ("redirect: { to: '/\\evil.example' }", &["E0206"]),
        ("redirect: { to: javascript:alert(1) }", &["E0206"]),
        ("redirect: { to: 'https://user:pw@example.com' }", &["E0206"]),
        ("redirect: { to: 'https://example.com/#top' }", &["E0206"]),
        ("redirect: { to: example.com }", &["E0206"]),
        ("files: { root: /no/such/folder }", &["E0302"]),
        ("files: { root: src, fallback: lib.rs }", &[]),
        ("files: { root: src, fallback: nothing.html }", &["E0302"]),
        ("files: { root: src, fallback: ../Cargo.toml }", &["E0201"]),
        ("files: { root: src, fallback: /lib.rs }", &["E0201"]),
        ("files: { root: src, fingerprinted: 0s, max_age: 1h, precompressed: false }", &[]),
        ("respond: {}\n        strip_prefix: /api\n        host: x\n        compress: true", &["W0010"; 3]),
        ("respond: {}\n        token: { kind: access }", &["W0010"]),
    ] {
        assert_eq!(route_with(lines), expected, "{lines}");
    }
}

#[test]
fn the_front_of_a_path_is_exchanged_once() {
    for (lines, expected) in [
        ("upstream: api\n        replace_prefix: /v1", &[] as &[&str]),
        ("upstream: api\n        replace_prefix: /", &[]),
        ("upstream: api\n        replace_prefix: /v1/../x", &["E0203"]),
        ("upstream: api\n        replace_prefix: /v1\n        strip_prefix: /api", &["E0408"]),
        ("upstream: api\n        host: api.internal", &[]),
        ("upstream: api\n        host: api.internal:8080", &[]),
        ("upstream: api\n        host: '[::1]'", &[]),
        ("upstream: api\n        host: '*.internal'", &["E0207"]),
        ("upstream: api\n        host: a/b", &["E0207"]),
        ("upstream: api\n        compress: true", &[]),
        ("upstream: api\n        compress: [application/json]", &[]),
        ("upstream: api\n        compress: [text/event-stream]", &["E0408"]),
        ("upstream: api\n        compress: [json]", &["E0201"]),
        ("upstream: api\n        compress: yes", &["E0103"]),
    ] {
        assert_eq!(route_with(lines), expected, "{lines}");
    }
}

#[test]
fn conditions_tell_routes_apart() {
    let second = |when: &str, more: &str| {
        let lines = format!("upstream: api\n      - path: /api\n        when: {when}\n        upstream: api{more}");
        route_with(&lines)
    };
    for (when, expected) in [
        ("{ methods: [GET] }", &[] as &[&str]),
        ("{ methods: [get] }", &["E0201"]),
        ("{ methods: [TRACE] }", &["E0201"]),
        ("{ methods: [TRACK] }", &["E0201"]),
        ("{ methods: [] }", &["E0105"]),
        ("{ headers: { X-A: true } }", &[]),
        ("{ headers: { X-A: '1', x-a: '2' } }", &["E0401"]),
        ("{ headers: { X-A: 1 } }", &["E0103"]),
        ("{ headers: { 'X A': '1' } }", &["E0204"]),
        ("{ hosts: [app.example.com] }", &[]),
        ("{ hosts: [other.example.com] }", &["E0207"]),
        ("{ hosts: ['*'] }", &["E0207"]),
        ("{}", &["E0401"]),
        ("{ path: /x }", &["E0401", "E0101"]),
    ] {
        assert_eq!(second(when, ""), expected, "{when}");
    }
    let third = "\n      - path: /api/\n        upstream: api\n        when: ";
    assert_eq!(second("{ methods: [GET] }", &format!("{third}{{ methods: [POST, HEAD] }}")), ["E0401"]);
    assert_eq!(second("{ methods: [GET] }", &format!("{third}{{ methods: [POST] }}")), [] as [&str; 0]);
    // What anybody may send does not decide who may pass.
    assert_eq!(second("{ headers: { X-A: true } }", "\n        access: optional"), ["W0014"]);
    assert_eq!(second("{ methods: [GET] }", "\n        access: optional"), [] as [&str; 0]);
}

#[test]
fn headers_of_our_own_are_no_ones_to_change() {
    let request =
        |name: &str| route_with(&format!("upstream: api\n        request_headers: {{ set: {{ {name}: x }} }}"));
    for name in [
        "Authorization",
        "Cookie",
        "Host",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X-Original-Url",
        "Forwarded",
        "X-Real-IP",
        "X-User-Context",
        "Cloakroom-Error",
        "Sec-Fetch-Mode",
        "X-XSRF-TOKEN",
        "X_Xsrf_Token",
    ] {
        assert_eq!(request(name), ["E0204"], "{name}");
    }
    assert_eq!(request("X-Mine"), [] as [&str; 0]);
    let identity =
        "upstream: api\n        identity_headers: { X-User-Id: sub }\n        request_headers: { remove: [X.User_Id] }";
    assert_eq!(route_with(identity), ["E0204"]);
    let response =
        |name: &str| route_with(&format!("upstream: api\n        response_headers: {{ add: {{ {name}: x }} }}"));
    for name in ["Set-Cookie", "Content-Length", "Transfer-Encoding", "Access-Control-Allow-Origin", "Cloakroom-Error"]
    {
        assert_eq!(response(name), ["E0204"], "{name}");
    }
    assert_eq!(response("Cache-Control"), [] as [&str; 0]);
    for (changes, expected) in [
        ("{ set: { X-A: '1', x-a: '2' } }", "E0401"),
        ("{ set: { X-A: '1' }, remove: [X-A] }", "E0408"),
        ("{ set: { X-A: \"a\\r\\nB: c\" } }", "E0201"),
        ("{ replace: {} }", "E0101"),
    ] {
        assert_eq!(route_with(&format!("upstream: api\n        response_headers: {changes}")), [expected], "{changes}");
    }
}

#[test]
fn other_origins_get_what_can_be_given() {
    for (cors, expected) in [
        ("{ origins: '*' }", &[] as &[&str]),
        ("{ origins: '*', credentials: true }", &["E0408"]),
        ("{ origins: [https://a.example, 'http://localhost:3000'], credentials: true }", &[]),
        ("{ origins: ['*'] }", &["E0206"]),
        ("{ origins: ['https://*.example'] }", &["E0206"]),
        ("{ origins: [https://a.example/x] }", &["E0206"]),
        ("{ origins: [null] }", &["E0103"]),
        ("{ origins: [] }", &["E0105"]),
        ("{ origins: all }", &["E0104"]),
        ("{}", &["E0102"]),
        ("{ origins: '*', headers: ['*'] }", &["E0204"]),
        ("{ origins: '*', methods: [put] }", &["E0201"]),
        ("{ origins: '*', max_age: 48h }", &["E0202"]),
    ] {
        assert_eq!(route_with(&format!("upstream: api\n        cors: {cors}")), expected, "{cors}");
    }
}
