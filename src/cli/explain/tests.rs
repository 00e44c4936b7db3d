//! What is said about requests, over settings that have one of everything.

use serde_json::Value;

use super::facts::found;
use super::question::Question;
use super::text::told;
use crate::config::{self, Env};

const SETTINGS: &str = r#"
listeners:
  - { address: "127.0.0.1:8080", redirect_to_https: true }
  - { address: "127.0.0.1:8090" }
trusted_proxies: [10.0.0.0/8]
keys: [{ id: one, secret: { env: KEY } }]
providers:
  - { name: main, issuer: "https://id.example.com", client_id: c, client_auth: { method: client_secret_basic, secret: { env: SECRET } } }
upstreams:
  - { name: api, endpoints: ["127.0.0.1:1"], timeouts: { read: 5s } }
  - { name: spa, endpoints: ["127.0.0.1:2"] }
sites:
  - hosts: [app.example.com]
    provider: main
    routes:
      - path: /api
        upstream: api
        strip_prefix: /api
        allow: [{ name: staff, claim: realm_access.roles, any_of: [staff, admin] }]
        identity_headers: { X-User-Id: sub }
        rate_limits: [{ by: session, requests: 10, per: 1m }]
        timeouts: { request: 30s }
      - path: /api/reports
        when: { methods: [GET] }
        upstream: api
        access: optional
      - path: /api/reports
        when: { headers: { X-Beta: "1" } }
        upstream: spa
        access: optional
      - { path: /old, redirect: { to: /new, path: keep }, access: public }
      - { path: /, upstream: spa, access: public }
"#;

fn ask(method: &str, url: &str, fields: &[&str]) -> Value {
    let env = Env::fixed([("KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("SECRET", "s")]);
    let loaded = config::load_str("x.yaml", SETTINGS, &env).map_err(|found| found.plain()).unwrap();
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    let question = Question::parse(method, url, &fields).unwrap();
    found(&loaded.settings, &question, None).unwrap()
}

#[test]
fn a_protected_route_says_all_that_it_does() {
    let facts = ask("POST", "https://app.example.com/api/orders?x=1", &[]);
    assert_eq!(facts["site"], "app.example.com");
    let route = &facts["route"];
    assert_eq!((&route["access"], &route["action"]["path"]), (&"required".into(), &"/orders".into()), "{facts}");
    assert_eq!((facts["answer"]["status"].as_u64(), &facts["answer"]["code"]), (Some(401), &"session_missing".into()));
    let text = told(&facts);
    for part in [
        "staff: realm_access.roles any of staff, admin",
        "`x-xsrf-token` and the origin must be right",
        "connect 2s, read 5s, write 1m, request 30s",
        "10 in 1m by session",
        "x-user-id: sub",
        "a longer path decides",
        "401 session_missing",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // A page begins a login instead.
    let facts = ask(
        "GET",
        "https://app.example.com/api/orders",
        &["Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
    );
    assert_eq!(facts["answer"]["what"], "a login begins", "{facts}");
    assert_eq!(facts["route"]["csrf"], "not checked: GET only reads");
}

#[test]
fn conditions_are_told_apart() {
    let says = |facts: &Value| -> Vec<String> {
        facts["routes"].as_array().unwrap().iter().map(|one| one["says"].as_str().unwrap().to_owned()).collect()
    };
    let facts = ask("GET", "https://app.example.com/api/reports/1", &[]);
    let said = says(&facts);
    assert_eq!(said[0], "takes it", "{facts}");
    assert!(
        said[1].contains("the header `x-beta`")
            && said[2].contains("a longer path")
            && said[3].contains("a longer path")
    );
    assert_eq!(facts["answer"]["upstream"], "api");
    let facts = ask("GET", "https://app.example.com/api/reports", &["X-Beta: 1"]);
    assert_eq!(facts["answer"]["upstream"], "api", "methods count more: {facts}");
    assert!(says(&facts).contains(&"no: another route with this path counts more".to_owned()));
    let facts = ask("POST", "https://app.example.com/api/reports", &[]);
    assert_eq!(
        (facts["answer"]["status"].as_u64(), &facts["answer"]["code"]),
        (Some(405), &"method_not_allowed".into())
    );
    assert!(facts.get("route").is_none() && told(&facts).contains("allowed: GET, HEAD"), "{}", told(&facts));
}

#[test]
fn what_the_proxy_refuses_is_refused_here_with_its_code() {
    for (url, code) in [
        ("https://app.example.com/api/..%2fadmin", "bad_request"),
        ("https://app.example.com/api/%00", "bad_request"),
        ("https://app.example.com/../x", "bad_request"),
        ("https://app.example.com/a b", "bad_request"),
        ("https://app.example.com/api;x/y", "bad_request"),
        ("https://other.example.com/", "unknown_host"),
        ("https://app.example.com/auth/nothing", "not_found"),
    ] {
        let facts = ask("GET", url, &[]);
        assert_eq!(facts["answer"]["code"], code, "{url}: {facts}");
        assert!(facts.get("route").is_none(), "{url}: {facts}");
    }
    // What is written in another way is found all the same.
    assert_eq!(ask("GET", "https://app.example.com//%61pi/./orders", &[])["path"], "/api/orders");
    assert_eq!(ask("GET", "https://app.example.com/api/../x", &[])["route"]["path"], "/");
}

#[test]
fn endpoints_redirects_and_listeners() {
    assert_eq!(ask("GET", "https://app.example.com/auth/login", &[])["endpoint"], "Login");
    let facts = ask("GET", "https://app.example.com/old/a?b", &[]);
    assert_eq!((facts["answer"]["status"].as_u64(), &facts["answer"]["location"]), (Some(302), &"/new/a?b".into()));
    let facts = ask("GET", "http://app.example.com:8080/", &[]);
    assert_eq!((facts["answer"]["status"].as_u64(), &facts["listener"]), (Some(308), &"127.0.0.1:8080".into()));
    let facts = ask("GET", "http://app.example.com:8090/", &["Authorization: Bearer x"]);
    assert_eq!((&facts["answer"]["upstream"], &facts["listener"]), (&"spa".into(), &"127.0.0.1:8090".into()));
    assert!(told(&facts).contains("no token judged"), "{}", told(&facts));
}

#[test]
fn what_is_no_request_is_told_so() {
    for (method, url, field) in [
        ("get", "https://a/", None),
        ("GE T", "https://a/", None),
        ("GET", "app.example.com/api", None),
        ("GET", "ftp://a/", None),
        ("GET", "https:///x", None),
        ("GET", "https://a/", Some("no field")),
    ] {
        let fields: Vec<String> = field.into_iter().map(str::to_owned).collect();
        assert!(Question::parse(method, url, &fields).is_err(), "{method} {url} {field:?}");
    }
}
