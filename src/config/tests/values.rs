//! Single values: what is taken and what is not.

use super::*;

#[test]
fn addresses_and_networks() {
    expect(
        "  - address: 127.0.0.1:8080",
        &[
            ("  - address: '[::]:8080'", &[]),
            ("  - address: localhost:8080", &["E0201"]),
            ("  - address: ':8080'", &["E0201"]),
            ("  - address: 8080", &["E0103"]),
            ("  - address: 127.0.0.1:0", &["E0202"]),
            ("  - address: 127.0.0.1:65536", &["E0201"]),
            ("  []", &["E0105"]),
        ],
    );
    for (value, expected) in [
        ("[10.0.0.0/8, 192.0.2.1, '::1', 'fd00::/8']", &[] as &[&str]),
        ("[0.0.0.0/0, '::/0']", &["W0006", "W0006"]),
        ("[10.0.0.0/33, proxy]", &["E0201", "E0201"]),
        ("10.0.0.0/8", &["E0103"]),
    ] {
        let outcome = with("admin:\n", &format!("trusted_proxies: {value}\nadmin:\n"));
        assert_eq!(codes(&outcome), expected, "{value}");
    }
    let loaded = with("admin:\n", "trusted_proxies: [10.1.2.3/8]\nadmin:\n").unwrap();
    assert_eq!(loaded.settings.trusted_proxies[0].to_string(), "10.0.0.0/8");
}

#[test]
fn admin_is_open_to_nobody_by_accident() {
    expect(
        "  address: 127.0.0.1:9090",
        &[
            ("  address: 0.0.0.0:9090", &["W0007"]),
            ("  address: '[::1]:9090'", &[]),
            ("  address: 0.0.0.0:9090\n  token: { env: CLOAKROOM_ADMIN_TOKEN }", &[]),
            ("  token: { env: CLOAKROOM_ADMIN_TOKEN }", &["E0102"]),
        ],
    );
}

#[test]
fn durations_and_sizes() {
    expect(
        "idle_timeout: 30m",
        &[
            ("idle_timeout: 1h 30m", &[]),
            ("idle_timeout: 90s", &[]),
            ("idle_timeout: 30", &["E0201"]),
            ("idle_timeout: thirty", &["E0201"]),
            ("idle_timeout: ''", &["E0201"]),
            ("idle_timeout: 0s", &["E0202"]),
            ("idle_timeout: 100ms", &["E0202"]),
            ("idle_timeout: 30000000000000000000h", &["E0201"]),
            ("idle_timeout: -5m", &["E0201"]),
            ("idle_timeout: [30m]", &["E0103"]),
            ("idle_timeout: ${IDLE:-20m}", &[]),
            ("idle_timeout: ${IDLE}", &["E0106"]),
            ("idle_timeout:", &[]),
            ("idle_timeout: ~", &[]),
        ],
    );
    expect("absolute_timeout: 12h", &[("absolute_timeout: 400d", &["E0202"])]);
    expect("ttl: 5s", &[("ttl: 0s", &["E0202"]), ("ttl: 2h", &["E0202"])]);
    expect("minimum_lifetime: 10s", &[("minimum_lifetime: 0s", &[]), ("minimum_lifetime: 2h", &["E0202"])]);
    expect(
        "max_body: 10MiB",
        &[
            ("max_body: 1048576", &[]),
            ("max_body: 1.5 GB", &[]),
            ("max_body: 0", &[]),
            ("max_body: -1", &["E0202"]),
            ("max_body: 2TiB", &["E0202"]),
            ("max_body: 2199023255552", &["E0202"]),
            ("max_body: much", &["E0201"]),
            ("max_body: ${BODY:-64KiB}", &[]),
        ],
    );
}

#[test]
fn numbers_and_truth_values() {
    for (value, expected) in [
        ("2", &[] as &[&str]),
        ("0", &["E0202"]),
        ("-1", &["E0202"]),
        ("99999999999999999999999999999999", &["E0202"]),
        ("2.5", &["E0103"]),
        ("'2'", &["E0103"]),
        ("${THREADS:-2}", &[]),
        ("${THREADS:-two}", &["E0103"]),
        ("1025", &["E0202"]),
    ] {
        assert_eq!(codes(&with("admin:\n", &format!("threads: {value}\nadmin:\n"))), expected, "{value}");
    }
    expect("capacity: 1000", &[("capacity: 0", &["E0202"]), ("capacity: many", &["E0103"])]);
    expect(
        "        access: required\n",
        &[
            ("        csrf: false\n", &[]),
            ("        csrf: no\n", &["E0103"]),
            ("        retry_unauthorized: false\n", &[]),
            ("        timeouts: { connect: 1s, read: 1d, write: 1ms, request: 5m }\n", &[]),
            (
                "        timeouts: { connect: 1h, read: 0s, request: 2d, idle: 1s }\n",
                &["E0202", "E0202", "E0202", "E0101"],
            ),
            ("        csrf: ${CSRF:-true}\n", &[]),
            ("        csrf: 'true'\n", &["E0103"]),
        ],
    );
}

#[test]
fn words_are_suggested() {
    expect(
        "        access: required",
        &[("        access: Required", &["E0104"]), ("        access: yes", &["E0104"])],
    );
    let found = with("        access: required", "        access: requierd").unwrap_err();
    let help = found.iter().next().unwrap().help.clone().unwrap();
    assert_eq!(help, "did you mean `required`? Allowed here: `public`, `optional`, `required`");
    expect(
        "        access: required",
        &[
            ("        on_missing: redirect", &[]),
            ("        on_missing: refuse", &["E0104"]),
            ("        token: { kind: exchange }", &["E0102"]),
            ("        token: { kind: exchanged }", &["E0104"]),
            ("        token: {}", &["E0102"]),
            ("        token: access", &["E0103"]),
        ],
    );
    expect("header: X-XSRF-TOKEN", &[("mode: report", &[]), ("mode: off", &["W0008"]), ("mode: on", &["E0104"])]);
    expect(
        "  - name: main",
        &[("  - name: main\n    kind: oidc", &[]), ("  - name: main\n    kind: saml", &["E0104"])],
    );
}

#[test]
fn hosts_and_origins() {
    for (host, expected) in [
        ("'*'", &[] as &[&str]),
        ("'*.example.com'", &[]),
        ("192.0.2.1", &[]),
        ("'[2001:db8::1]'", &[]),
        ("'2001:db8::1'", &[]),
        ("intern", &[]),
        ("app.example.com:443", &["E0207"]),
        ("https://app.example.com", &["E0207"]),
        ("app.example.com/x", &["E0207"]),
        ("'*.*.example.com'", &["E0207"]),
        ("'a*.example.com'", &["E0207"]),
        ("'*.'", &["E0207"]),
        ("'*.192.0.2.1'", &["E0207"]),
        ("app.example.com.", &["E0207"]),
        ("a..b", &["E0207"]),
        ("'192.0.2.1:80'", &["E0207"]),
        ("'1'", &["E0207"]),
        ("''", &["E0105"]),
    ] {
        assert_eq!(codes(&with("hosts: [app.example.com]", &format!("hosts: [{host}]"))), expected, "{host}");
    }
    for (origin, expected) in [
        ("https://app.example.com", &[] as &[&str]),
        ("https://app.example.com/", &[]),
        ("https://APP.example.com:8443", &[]),
        ("https://other.example.com", &["W0011"]),
        ("http://app.example.com", &["W0012"]),
        ("http://app.localhost", &["W0011"]),
        ("app.example.com", &["E0206"]),
        ("https://app.example.com/x", &["E0206"]),
        ("https://app.example.com?x", &["E0206"]),
        ("https://u@app.example.com", &["E0206"]),
        ("ws://app.example.com", &["E0206"]),
    ] {
        assert_eq!(codes(&with("origins: []", &format!("origins: [{origin}]"))), expected, "{origin}");
    }
    for (hosts, origins, expected) in [
        ("app.example.com, b.example.com", "", &[] as &[&str]),
        ("app.example.com, b.example.com", "'https://app.example.com', 'https://b.example.com:8443'", &[]),
        ("app.example.com, '*.example.com'", "'https://app.example.com'", &[]),
        ("app.example.com, b.example.com", "'https://app.example.com'", &["W0013"]),
        ("app.example.com, '[::1]', '*.example.org'", "'https://app.example.com'", &["W0013", "W0013"]),
        ("'*'", "'https://app.example.com'", &[]),
        ("app.example.com", "'https://other.example.com'", &["W0011"]),
    ] {
        let file = GOOD
            .replace("hosts: [app.example.com]", &format!("hosts: [{hosts}]"))
            .replace("origins: []", &format!("origins: [{origins}]"));
        let found = load_text(&file);
        assert_eq!(codes(&found), expected, "{hosts} {origins}");
        for warning in found.unwrap().warnings.iter().filter(|warning| warning.code == Code::HostWithoutOrigin) {
            assert!(warning.help.as_deref().unwrap().contains("come back to `https://app.example.com`"));
        }
    }
}

#[test]
fn endpoints() {
    for (endpoint, expected) in [
        ("api:80", &[] as &[&str]),
        ("10.0.0.1:80", &[]),
        ("[::1]:80", &[]),
        ("::1:80", &["E0207"]),
        ("api", &["E0207"]),
        ("api:0", &["E0207"]),
        ("api:080", &["E0207"]),
        ("api:70000", &["E0207"]),
        (":80", &["E0207"]),
        ("http://api:80", &[]),
        ("http://api", &[]),
        ("https://api/", &[]),
        ("https://[::1]:80", &["E0102"]),
        ("https://10.0.0.1", &["E0102"]),
        ("https://api/x", &["E0207"]),
        ("https://api:80?x", &["E0207"]),
        ("https://::1", &["E0207"]),
        ("https://", &["E0207"]),
        ("ftp://api:80", &["E0207"]),
        ("a b:80", &["E0207"]),
    ] {
        assert_eq!(codes(&with("[\"api.internal:3000\"]", &format!("['{endpoint}']"))), expected, "{endpoint}");
    }
    expect(
        "endpoints: [\"api.internal:3000\"]",
        &[("endpoints: []", &["E0105"]), ("endpoints: [\"a:1\", \"a:1\"]", &["E0401"])],
    );
    expect(
        "endpoints: [\"api.internal:3000\"]",
        &[
            ("endpoints: [\"a:1\"]\n    timeouts: { connect: 1s, read: 1h, write: 5s, idle: 10s }", &[]),
            ("endpoints: [\"a:1\"]\n    timeouts: { connect: 0s, read: 2d }", &["E0202", "E0202"]),
            ("endpoints: [\"a:1\"]\n    retries: { attempts: 10, budget: 100% }", &[]),
            ("endpoints: [\"a:1\"]\n    retries: { attempts: 0, budget: 101% }", &["E0202", "E0201"]),
            ("endpoints: [\"a:1\"]\n    retries: { attempts: 11, budget: 20 }", &["E0202", "E0201"]),
        ],
    );
}

#[test]
fn ways_to_an_upstream() {
    expect(
        "endpoints: [\"api.internal:3000\"]",
        &[
            ("endpoints: [{ address: \"a:1\", weight: 3 }, \"b:1\"]", &[]),
            ("endpoints: [{ address: \"a:1\", weight: 0 }]", &["E0202"]),
            ("endpoints: [{ weight: 2 }]", &["E0102"]),
            ("endpoints: [{ address: \"a:1\", weight: 3 }, \"a:1\"]", &["E0401"]),
            ("endpoints: [\"a:1\"]\n    balance: least_requests", &[]),
            ("endpoints: [\"a:1\"]\n    balance: ring", &["E0104"]),
            ("endpoints: [\"a:1\"]\n    balance: consistent_hash", &[]),
            ("endpoints: [\"a:1\"]\n    balance: consistent_hash\n    hash_on: header", &["E0102"]),
            ("endpoints: [\"a:1\"]\n    balance: consistent_hash\n    hash_on: header\n    hash_header: X-Tenant", &[]),
            ("endpoints: [\"a:1\"]\n    balance: consistent_hash\n    hash_header: X-Tenant", &["W0010"]),
            ("endpoints: [\"a:1\"]\n    hash_on: session", &["W0010"]),
            ("endpoints: [\"a:1\"]\n    protocol: h2", &["E0408"]),
            ("endpoints: [\"a:1\"]\n    protocol: h2c", &[]),
            ("endpoints: [\"https://a:1\"]\n    protocol: h2", &[]),
            ("endpoints: [\"https://a:1\"]\n    protocol: h2c", &["E0408"]),
            ("endpoints: [\"https://a:1\", \"b:1\"]", &["E0408"]),
            ("endpoints: [\"https://a:1\", \"http://b:1\"]", &["E0408"]),
            ("endpoints: [\"http://a:1\"]\n    tls: {}", &["E0408"]),
            ("endpoints: [\"a:1\"]\n    tls: {}", &[]),
            ("endpoints: [\"10.0.0.1:1\"]\n    tls: {}", &["E0102"]),
            ("endpoints: [\"10.0.0.1:1\"]\n    tls: { server_name: a.internal }", &[]),
            ("endpoints: [\"10.0.0.1:1\"]\n    tls: { server_name: 10.0.0.1 }", &["E0207"]),
            ("endpoints: [\"10.0.0.1:1\"]\n    tls: { server_name: '' }", &["E0105"]),
            ("endpoints: [\"a:1\"]\n    tls: { verify: false }", &["E0101"]),
            ("endpoints: [\"a:1\"]\n    tls: { ca: /nowhere.pem }", &["E0302"]),
            ("endpoints: [\"a:1\"]\n    health_check: {}", &[]),
            (
                "endpoints: [\"a:1\"]\n    health_check: { path: /healthz?full=1, interval: 1s, expect: [200, 401] }",
                &[],
            ),
            (
                "endpoints: [\"a:1\"]\n    health_check: { path: healthz, interval: 0s, expect: [99] }",
                &["E0203", "E0202", "E0202"],
            ),
            ("endpoints: [\"a:1\"]\n    health_check: { expect: [200] }", &["W0010"]),
            ("endpoints: [\"a:1\"]\n    ejection: { after: 0 }", &[]),
            ("endpoints: [\"a:1\"]\n    ejection: { after: 3, on_5xx: true, pause: 1s, longest_pause: 1m }", &[]),
            ("endpoints: [\"a:1\"]\n    ejection: { after: -1, pause: 1d }", &["E0202", "E0202"]),
        ],
    );
}

#[test]
fn paths() {
    for (path, help) in [
        ("/a/../b", "write `/b`"),
        ("/a//b", "write `/a/b`"),
        ("/%61", "write `/a`"),
        ("api", "write `/api`"),
        ("'*'", "paths match all below them: write `/`"),
    ] {
        let found = with("path: /api", &format!("path: {path}")).unwrap_err();
        let first = found.iter().next().unwrap();
        assert_eq!((first.code, first.help.as_deref()), (Code::BadPath, Some(help)), "{path}");
    }
    for path in ["/a%2fb", "/a?b", "/a b", "/é", "''"] {
        assert_eq!(codes(&with("path: /api", &format!("path: {path}"))), ["E0203"], "{path}");
    }
    expect("auth_path: /auth", &[("auth_path: /", &["E0203"])]);
}

#[test]
fn headers_and_claims() {
    for name in [
        "Host",
        "Cookie",
        "Authorization",
        "Content-Length",
        "X-Forwarded-For",
        "x-forwarded-anything",
        "Connection",
        "Transfer-Encoding",
        "TE",
        "Upgrade",
        "Proxy-Authorization",
        "Keep-Alive",
        "Trailer",
        "Forwarded",
        "a b",
        "ä",
        "Cloakroom-Error",
    ] {
        let outcome = with("        access: required", &format!("        identity_headers: {{ {name}: sub }}"));
        assert_eq!(codes(&outcome), ["E0204"], "{name}");
    }
    expect(
        "        access: required",
        &[
            ("        identity_headers: { X-A: sub, x-a: sub }", &["E0401"]),
            ("        identity_headers: { X-A: '' }", &["E0105"]),
            ("        identity_headers: { X-A: a..b }", &["E0201"]),
            ("        identity_headers: { X-A: 1 }", &["E0103"]),
            ("        identity_headers: [X-A]", &["E0103"]),
        ],
    );
    expect("header: X-XSRF-TOKEN", &[("header: Cookie", &["E0204"]), ("header: X-My-Token", &[])]);
    let loaded =
        with("        access: required", r"        identity_headers: { X-A: 'https://example\.com/r.b' }").unwrap();
    let (_, claim) = &loaded.settings.sites[0].routes[0].identity_headers[0];
    assert_eq!(claim.0, ["https://example.com/r", "b"]);
}
