//! Which token goes upstream: what can work, and what cannot.

use super::*;
use crate::config::settings::{Target, Token};

const YAML: &str = r#"
listeners: [{ address: "[::1]:8080" }]
keys: [{ id: one, secret: { env: CLOAKROOM_KEY } }]
upstreams: [{ name: a, endpoints: ["[::1]:80"] }]
providers:
  - name: main
    issuer: https://id.example.com
    client_id: cloakroom
    client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }
  - name: legacy
    kind: credentials
    login_url: https://api.example.com/login
    login_page: /login
    refresh: { url: "https://api.example.com/refresh" }
sites:
  - hosts: [app.example.com]
    providers: [main, legacy]
    bearer: { audiences: [https://api.example.com] }
    routes:
      - { path: /login, upstream: a, access: public }
      - { path: /open, upstream: a, access: public }
      - { path: /app, upstream: a, accept: [bearer] }
      - { path: /, upstream: a, provider: main, token: { kind: exchange, audience: orders } }
"#;

fn changed(old: &str, new: &str) -> Vec<&'static str> {
    assert!(YAML.contains(old), "{old}");
    codes(&load_text(&YAML.replacen(old, new, 1)))
}

#[test]
fn a6_an_exchange_says_what_it_is_for() {
    let own = "token: { kind: exchange, audience: orders }";
    for (token, expected) in [
        ("token: { kind: exchange, audience: orders, resource: 'https://o.example.com/', scope: [a, b, a] }", &[][..]),
        ("token: { kind: exchange, scope: ['orders:read'] }", &[]),
        ("token: { kind: exchange, resource: 'urn:orders' }", &[]),
        ("token: { kind: exchange }", &["E0102"]),
        ("token: { kind: exchange, scope: [] }", &["E0105"]),
        ("token: { kind: exchange, scope: ['a b'] }", &["E0201"]),
        ("token: { kind: exchange, scope: a }", &["E0103"]),
        ("token: { kind: exchange, audience: '' }", &["E0105"]),
        ("token: { kind: exchange, resource: orders }", &["E0206"]),
        ("token: { kind: exchange, resource: 'https://o.example.com/#a' }", &["E0206"]),
        ("token: { kind: exchange, audiences: orders }", &["E0102", "E0101"]),
        ("token: { kind: access, audience: orders }", &["E0408"]),
        ("token: { kind: none, resource: 'urn:a', scope: [a] }", &["E0408", "E0408"]),
        ("token: { audience: orders }", &["E0102"]),
        ("access: public, token: { kind: exchange, audience: orders }", &["E0408", "E0408"]),
    ] {
        assert_eq!(changed(own, token), expected, "{token}");
    }
    let loaded =
        load_text(&YAML.replacen("audience: orders", "resource: 'HTTPS://o.Example.com', scope: [a, b, a]", 1));
    let target =
        Target { audience: None, resource: Some("HTTPS://o.Example.com".into()), scope: vec!["a".into(), "b".into()] };
    assert_eq!(loaded.unwrap().settings.sites[0].routes[3].token, Token::Exchange(target), "kept as it is written");
}

#[test]
fn a6_who_gives_no_such_tokens_is_refused() {
    assert_eq!(changed("provider: main, token", "token"), ["E0408"], "a user of the backend may come as well");
    assert_eq!(changed("provider: main, token", "provider: legacy, token"), ["E0408"]);
    assert_eq!(
        changed("accept: [bearer] }", "accept: [bearer], token: { kind: exchange, audience: orders } }"),
        [""; 0]
    );
    let secret = "{ method: client_secret_basic, secret: { env: CLIENT_SECRET } }";
    assert_eq!(changed(secret, "{ method: none }"), ["W0005", "E0408"]);
}

#[test]
fn a_token_of_our_own_is_for_requests_of_nobodys() {
    for (rest, expected) in [
        ("access: public, token: { kind: client_credentials, provider: main }", &[][..]),
        ("access: optional, token: { kind: client_credentials, provider: main, audience: b, scope: [a] }", &[]),
        ("access: public, token: { kind: client_credentials }", &["E0102"]),
        ("access: public, token: { kind: client_credentials, provider: legacy }", &["E0408"]),
        ("access: public, token: { kind: client_credentials, provider: other }", &["E0402"]),
        ("token: { kind: client_credentials, provider: main }", &["E0408"]),
        ("token: { kind: access, provider: main }", &["E0408"]),
    ] {
        assert_eq!(
            changed("path: /open, upstream: a, access: public", &format!("path: /open, upstream: a, {rest}")),
            expected,
            "{rest}"
        );
    }
    let (old, new) =
        ("        access: required\n", "        access: public\n        token: { kind: client_credentials }\n");
    expect(old, &[(new, &[])]);
    let alone = GOOD.replace(old, new);
    let public = alone.replace("method: client_secret_basic, secret: { env: CLIENT_SECRET }", "method: none");
    assert_eq!(codes(&load_text(&public)), ["W0005", "E0408"], "anybody could get it");
    assert!(codes(&load_text(&alone.replace("    provider: main\n", ""))).contains(&"E0405"));
}
