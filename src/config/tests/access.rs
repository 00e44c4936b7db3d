//! Who may pass a route, and what its upstream is told of them.

use super::route_relations::route_with;
use super::*;

#[test]
fn a_rule_asks_one_thing_of_one_claim() {
    for (rules, expected) in [
        ("[{ claim: realm_access.roles, any_of: [user, 7, true] }]", &[] as &[&str]),
        ("[{ name: staff, claim: a, all_of: [x] }, { claim: email_verified, equals: true }]", &[]),
        ("[{ claim: team, matches: 'team-[a-z]+' }]", &[]),
        ("[]", &["E0105"]),
        ("{ claim: a, equals: b }", &["E0103"]),
        ("[{ equals: b }]", &["E0102"]),
        ("[{ claim: a }]", &["E0102"]),
        ("[{ claim: a, equals: b, any_of: [b] }]", &["E0408"]),
        ("[{ claim: a, any_of: [] }]", &["E0105"]),
        ("[{ claim: a, any_of: b }]", &["E0103"]),
        ("[{ claim: a, all_of: [[b]] }]", &["E0103"]),
        ("[{ claim: a, equals: 1.5 }]", &["E0103"]),
        ("[{ claim: a, equals: 99999999999999999999 }]", &["E0202"]),
        ("[{ claim: a..b, equals: b }]", &["E0201"]),
        ("[{ claim: a, matches: '(b' }]", &["E0201"]),
        ("[{ name: '', claim: a, equals: b }]", &["E0105"]),
        ("[{ claim: a, equal: b }]", &["E0102", "E0101"]),
    ] {
        assert_eq!(route_with(&format!("upstream: api\n        allow: {rules}")), expected, "{rules}");
    }
    let rules = "allow: [{ claim: a, equals: b }]";
    for access in ["optional", "public"] {
        let found = route_with(&format!("upstream: api\n        access: {access}\n        {rules}"));
        assert!(found.contains(&"E0408"), "{access}: {found:?}");
    }
}

#[test]
fn a_level_needs_somebody_to_be_known() {
    for (lines, expected) in [
        ("level: logged_on\n        level_header: X-Level", &[] as &[&str]),
        ("level: returning", &["W0010"]),
        ("level: anonymous", &["E0104"]),
        ("level_header: Authorization", &["E0204"]),
        ("identity_headers: { X-A: sub }\n        level_header: x-a", &["E0401"]),
        ("level_header: X-Level\n        request_headers: { remove: [X_Level] }", &["E0204"]),
        ("access: public\n        level_header: X-Level", &["W0010", "E0408"]),
    ] {
        assert_eq!(route_with(&format!("upstream: api\n        {lines}")), expected, "{lines}");
    }
}

#[test]
fn context_and_tokens_need_somebody_to_tell_of_and_keys() {
    for (lines, expected) in [
        ("context: read", &[] as &[&str]),
        ("context: read_write", &[]),
        ("context: write", &["E0104"]),
        ("access: public\n        context: none", &["W0010"]),
        ("access: public\n        context: read", &["W0010", "E0408"]),
        ("accept: [session]", &[]),
        ("accept: []", &["E0105"]),
        ("accept: [session, cookie]", &["E0104"]),
        ("accept: [proxy_token]", &["E0402"]),
        ("token: { kind: proxy }", &["E0402"]),
    ] {
        assert_eq!(route_with(&format!("upstream: api\n        {lines}")), expected, "{lines}");
    }
    let section = |text: &str| {
        let file = GOOD.replace("        upstream: api\n", "        upstream: api\n        accept: [proxy_token]\n");
        codes(&load_text(&format!("{file}\n{text}\n")))
    };
    let key = "keys: [{ id: a, secret: { env: CLOAKROOM_PROXY_KEY } }]";
    for (text, expected) in [
        (format!("proxy_token: {{ issuer: a, audience: b, {key} }}"), &[] as &[&str]),
        (format!("proxy_token: {{ issuer: a, audience: b, lifetime: 10s, {key} }}"), &["E0202"]),
        (format!("proxy_token: {{ issuer: '', audience: b, {key} }}"), &["E0105"]),
        ("proxy_token: { issuer: a, audience: b, keys: [] }".to_owned(), &["E0105"]),
        ("proxy_token: {}".to_owned(), &["E0102", "E0102", "E0102"]),
    ] {
        assert_eq!(section(&text), expected, "{text}");
    }
}

#[test]
fn no_header_of_a_client_decides_which_rules_hold() {
    let twin = |own: &str, other: &str| {
        route_with(&format!(
            "upstream: api\n        when: {{ headers: {{ X-A: true }} }}\n        {own}\n      - path: /api\n        upstream: api\n        {other}"
        ))
    };
    let (a, b) = ("{ claim: a, equals: b }", "{ name: other, claim: a, any_of: [b] }");
    assert_eq!(twin("#", &format!("allow: [{a}]")), ["W0014"]);
    assert_eq!(twin(&format!("allow: [{a}]"), &format!("allow: [{a}, {b}]")), ["W0014"]);
    assert!(twin(&format!("allow: [{b}, {a}]"), &format!("allow: [{a}, {b}]")).is_empty());
    assert!(twin(&format!("allow: [{a}]"), "#").is_empty(), "whoever sends it meets more");
}
