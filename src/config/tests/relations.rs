//! Settings that must fit each other.

use super::*;

#[test]
fn sockets_are_bound_once() {
    expect(
        "  - address: 127.0.0.1:8080",
        &[
            ("  - address: 127.0.0.1:8080\n  - address: 127.0.0.1:8080", &["E0401"]),
            ("  - address: 127.0.0.1:8080\n  - address: 0.0.0.0:8080", &["E0401"]),
            ("  - address: 127.0.0.1:8080\n  - address: 127.0.0.2:8080", &[]),
            ("  - address: 127.0.0.1:8080\n  - address: '[::]:8080'", &[]),
            ("  - address: 0.0.0.0:9090", &["E0401"]),
        ],
    );
}

#[test]
fn cookies() {
    expect(
        "cookie: { name: __Host-session }",
        &[
            ("cookie: { name: session }", &["W0002"]),
            ("cookie: { name: session, secure: false }", &["W0002", "W0003"]),
            ("cookie: { secure: false }", &["E0403"]),
            ("cookie: { name: __host-x, secure: false }", &["E0403"]),
            ("cookie: { name: __Secure-x, secure: false }", &["W0002", "E0403"]),
            ("cookie: { same_site: lax }", &["W0004"]),
            ("cookie: { same_site: none }", &["E0104"]),
            ("cookie: { name: __Host-login }", &["E0205"]),
            ("cookie: { name: 'a=b' }", &["E0205"]),
            ("cookie: { name: 'a b' }", &["E0205"]),
            ("cookie: { name: '' }", &["E0105"]),
            ("cookie: { name: xsrf-token }", &["W0002", "E0205"]),
        ],
    );
    expect(
        "csrf: { cookie: XSRF-TOKEN,",
        &[("csrf: { cookie: __Host-session,", &["E0205"]), ("csrf: { cookie: __Host-login,", &["E0205"])],
    );
    let outcome =
        load_text(&GOOD.replace("name: __Host-session", "name: s, secure: false").replace("XSRF-TOKEN,", "__Host-x,"));
    assert_eq!(codes(&outcome), ["W0002", "W0003", "E0403"]);
}

#[test]
fn idle_is_at_most_absolute() {
    expect("idle_timeout: 30m", &[("idle_timeout: 12h", &[]), ("idle_timeout: 13h", &["E0404"])]);
    expect("absolute_timeout: 12h", &[("absolute_timeout: 10m", &["E0404"]), ("absolute_timeout: x", &["E0201"])]);
}

#[test]
fn stores() {
    expect(
        "store: { kind: memory }",
        &[
            ("store: { kind: redis, url: { env: REDIS_URL } }", &[]),
            ("store: { kind: redis, url: 'redis://redis:6379' }", &[]),
            ("store: { kind: redis, url: 'rediss://redis/3', prefix: 'a:', command_timeout: 1s }", &[]),
            ("store: { kind: redis, url: 'redis://:pw@redis:6379' }", &["W0001"]),
            ("store: { kind: redis, url: 'redis://:${EMPTY:-x}@redis:6379' }", &[]),
            ("store: { kind: redis, url: 'redis-cluster://redis:6379?node=other:6379' }", &[]),
            ("store: { kind: redis, url: 'redis-cluster://redis:6379/1' }", &["E0206"]),
            ("store: { kind: redis, url: 'redis-sentinel://redis?sentinelServiceName=main' }", &[]),
            ("store: { kind: redis, url: 'redis-sentinel://redis' }", &["E0206"]),
            ("store: { kind: redis, url: 'rediss-sentinel://r?sentinelServiceName=m&sentinelPassword=p' }", &["W0001"]),
            ("store: { kind: redis, url: 'redis://redis', ca: /no/such/file }", &["E0302", "E0408"]),
            ("store: { kind: redis, url: 'rediss://redis', ca: /no/such/file }", &["E0302"]),
            ("store: { kind: redis, url: 'redis:6379' }", &["E0206"]),
            ("store: { kind: redis, url: 'http://redis' }", &["E0206"]),
            ("store: { kind: redis, url: 'redis://redis/db' }", &["E0206"]),
            ("store: { kind: redis, url: '::' }", &["E0206"]),
            ("store: { kind: redis, url: 'redis://redis//3' }", &["E0206"]),
            ("store: { kind: redis, url: 'redis://a%ff:x@redis' }", &["E0206"]),
            ("store: { kind: redis, url: 'redis://redis?db=3' }", &["E0206"]),
            ("store: { kind: redis }", &["E0102"]),
            ("store: { kind: redis, url: 'redis://r', prefix: 'a{' }", &["E0201"]),
            ("store: { kind: redis, url: 'redis://r', command_timeout: 0s }", &["E0202"]),
            ("store: { kind: memory, url: 'redis://r' }", &["E0408"]),
            ("store: { kind: postgres }", &["E0102"]),
            ("store: { kind: mysql }", &["E0104"]),
            ("store: { kind: postgres, url: { env: POSTGRES_URL } }", &[]),
            (
                "store: { kind: postgres, url: 'postgres://a@db', schema: s_1, connections: 4, command_timeout: 1s }",
                &[],
            ),
            ("store: { kind: postgres, url: 'postgres://a:pw@db' }", &["W0001"]),
            ("store: { kind: postgres, url: 'postgres://a@db?sslmode=prefer' }", &["E0206"]),
            ("store: { kind: postgres, url: 'postgres://a@db?sslmode=require&sslrootcert=/ca.pem' }", &[]),
            ("store: { kind: postgres, url: 'redis://db' }", &["E0206"]),
            ("store: { kind: postgres, url: 'postgres://db' }", &["E0206"]),
            ("store: { kind: postgres, url: 'postgres://a@db', schema: 'a-b' }", &["E0201"]),
            ("store: { kind: postgres, url: 'postgres://a@db', connections: 0 }", &["E0202"]),
            ("store: { kind: postgres, url: 'postgres://a@db', prefix: 'a:' }", &["E0408"]),
            ("store: { kind: redis, url: 'redis://r', schema: a }", &["E0408"]),
            ("store: { kind: file, path: sessions.redb }", &[]),
            ("store: { kind: file }", &["E0102"]),
            ("store: { kind: file, path: s, url: 'redis://r' }", &["E0408"]),
            ("store: { kind: memory, path: s }", &["E0408"]),
            ("store: {}", &["E0102"]),
        ],
    );
}

#[test]
fn names_are_unique_and_known() {
    expect(
        "    secret: { env: CLOAKROOM_KEY }",
        &[("    secret: { env: CLOAKROOM_KEY }\n  - { id: one, secret: { env: CLOAKROOM_KEY } }", &["E0401"])],
    );
    expect("  - id: one", &[("  - id: 1", &["E0103"]), ("  - id: a/b", &["E0201"]), ("  - id: 2026-11", &[])]);
    expect(
        "  - name: api",
        &[
            ("  - { name: api, endpoints: [\"a:1\"] }\n  - name: api", &["E0401"]),
            ("  - { name: spare, endpoints: [\"a:1\"] }\n  - name: api", &["W0009"]),
            ("  - name: 'a b'", &["E0201"]),
        ],
    );
    expect("provider: main", &[("provider: mian", &["E0402"]), ("#", &["E0405"])]);
    let found = with("upstream: api", "upstream: apo").unwrap_err();
    assert!(found.iter().any(|d| d.help.as_deref() == Some("did you mean `api`?")));
    let found = with("upstream: api", "upstream: other").unwrap_err();
    assert!(found.iter().any(|d| d.help.as_deref() == Some("add it below `upstreams`; there is `api`")));
}

#[test]
fn hosts_belong_to_one_site() {
    let second = "  - hosts: [b.example.com, APP.example.com]\n    routes: [{ path: /, upstream: api, access: public }]\n  - hosts: [app.example.com]";
    assert_eq!(places(&with("  - hosts: [app.example.com]", second)), ["28:13 E0401"]);
    expect(
        "hosts: [app.example.com]",
        &[
            ("hosts: [app.example.com, '*.example.com', '*']", &[]),
            ("hosts: [a, A]", &["E0401"]),
            ("hosts: []", &["E0105"]),
        ],
    );
}

#[test]
fn routes_keep_apart() {
    let route = |path: &str| format!("path: {path}\n        upstream: api\n      - path: /api");
    for (path, expected) in [
        ("/other", &[] as &[&str]),
        ("/", &[]),
        ("/api/", &["E0401"]),
        ("/api/x", &[]),
        ("/auth", &["E0406"]),
        ("/auth/x", &["E0406"]),
        ("/authors", &[]),
        ("/login", &["E0401"]),
        ("/login/x", &[]),
    ] {
        assert_eq!(codes(&with("path: /api", &route(path))), expected, "{path}");
    }
    expect(
        "aliases: { login: /login }",
        &[
            ("aliases: { login: /login, logout: /login/ }", &["E0401"]),
            ("aliases: { login: /login, logout: /logout, userinfo: /userinfo }", &[]),
            ("aliases: { login: /auth/login }", &["E0406"]),
            ("aliases: { login: / }", &["E0203"]),
            ("aliases: { signin: /x }", &["E0101"]),
        ],
    );
}

#[test]
fn route_settings_fit_each_other() {
    expect(
        "        access: required",
        &[
            ("        strip_prefix: /api", &[]),
            ("        strip_prefix: /api/", &[]),
            ("        strip_prefix: /", &[]),
            ("        strip_prefix: /ap", &["E0407"]),
            ("        strip_prefix: /api/x", &["E0407"]),
            ("        access: public\n        strip_prefix: /x", &["W0010", "E0407"]),
            ("        access: public\n        on_missing: redirect", &["W0010", "W0010"]),
            // An upstream may still ask for a stronger login.
            ("        access: optional\n        on_missing: redirect", &[]),
            ("        access: optional\n        on_missing: redirect\n        step_up: false", &["W0010"]),
            ("        access: optional\n        on_missing: redirect\n        token: { kind: none }", &["W0010"]),
            ("        access: public\n        token: { kind: access }", &["W0010", "E0408"]),
            ("        access: public\n        token: { kind: none }", &["W0010"]),
            ("        access: public\n        identity_headers: { X-A: sub }", &["W0010", "E0408"]),
            ("        access: optional\n        token: { kind: id }", &[]),
            ("        accept: [session]", &[]),
            ("        accept: []", &["E0105"]),
            ("        accept: [cookie]", &["E0104"]),
            ("        accept: [bearer]", &["E0102"]),
            ("        access: public\n        accept: [session]", &["W0010", "E0408"]),
            ("        scopes: [read]", &["W0010"]),
        ],
    );
    let bearer = |audience: &str, types: &str, route: &str| {
        let site = format!("    bearer: {{ audiences: [{audience}]{types} }}\n    routes:");
        codes(&load_text(&GOOD.replace("    routes:", &site).replace("        access: required", route)))
    };
    for (audience, types, route, expected) in [
        ("api", "", "        accept: [session, bearer]\n        scopes: [read, write]", &[] as &[&str]),
        ("api", ", types: [at+jwt, jwt]", "        accept: [bearer]", &[]),
        ("cloakroom", "", "        accept: [bearer]", &[]),
        ("cloakroom", ", types: [jwt]", "        accept: [bearer]", &["E0408"]),
        ("", "", "        accept: [bearer]", &["E0105"]),
        ("api", ", types: [jws]", "        accept: [bearer]", &["E0104"]),
        ("api", ", types: [at+jwt, opaque]", "        accept: [bearer]", &["E0408"]),
        ("api", "", "        accept: [session]", &["W0010"]),
        ("api", "", "        accept: [bearer]\n        on_missing: redirect", &["W0010"]),
        ("api", "", "        accept: [bearer]\n        token: { kind: id }", &["E0408"]),
        ("api", "", "        accept: [bearer]\n        scopes: ['a b']", &["E0201"]),
        ("api", "", "        accept: [bearer, proxy_token]", &["E0408", "E0402"]),
    ] {
        assert_eq!(bearer(audience, types, route), expected, "{audience} {types} {route}");
    }
    let site = "  - hosts: [b]\n    routes: [{ path: /, upstream: api, access: ACCESS }]\n  - hosts: [app.example.com]";
    for (access, expected) in [("public", &[] as &[&str]), ("optional", &["E0405"]), ("required", &["E0405"])] {
        assert_eq!(codes(&with("  - hosts: [app.example.com]", &site.replace("ACCESS", access))), expected, "{access}");
    }
}

#[test]
fn security_headers_are_words_that_browsers_know() {
    for (headers, expected) in [
        ("{ hsts: 0s, nosniff: false, referrer_policy: off, frame_ancestors: any }", &[] as &[&str]),
        ("{ hsts: 0s, hsts_subdomains: true }", &["W0010"]),
        ("{ referrer_policy: never }", &["E0104"]),
        ("{ frame_ancestors: [self, https://a.example] }", &[]),
        ("{ frame_ancestors: [https://a.example/x] }", &["E0206"]),
        ("{ frame_ancestors: [] }", &["E0105"]),
        ("{ frame_ancestors: some }", &["E0104"]),
    ] {
        let outcome = with("    origins: []", &format!("    origins: []\n    security_headers: {headers}"));
        assert_eq!(codes(&outcome), expected, "{headers}");
    }
}

#[test]
fn listeners_redirect_trust_and_ask_in_agreement() {
    let listener = |more: &str| format!("  - address: 127.0.0.1:8080\n    {more}");
    for (more, expected) in [
        ("redirect_to_https: true", &[] as &[&str]),
        ("redirect_to_https: 8443", &[]),
        ("redirect_to_https: false", &[]),
        ("redirect_to_https: 0", &["E0202"]),
        ("redirect_to_https: 70000", &["E0202"]),
        ("redirect_to_https: 'yes'", &["E0103"]),
        ("proxy_protocol: true", &["E0408"]),
        ("proxy_protocol: false", &[]),
        ("tls: { certificates: [], min_version: 1.2 }", &["E0105", "E0103"]),
        ("tls: { certificates: [], min_version: '1.1' }", &["E0105", "E0104"]),
        ("tls: { certificates: [], client_certificate: optional }", &["E0105", "E0102"]),
        ("tls: { certificates: [], client_ca: nowhere.crt }", &["E0105", "E0302"]),
        ("tls: { certificates: [] }\n    redirect_to_https: true", &["E0105", "E0408"]),
        ("forward_auth: x_forwarded", &["E0408"]),
        ("forward_auth: nginx", &["E0104"]),
        ("forward_auth: true", &["E0103"]),
    ] {
        expect("  - address: 127.0.0.1:8080", &[(&listener(more), expected)]);
    }
    let trusting = format!("{}\ntrusted_proxies: [10.0.0.1]", listener("proxy_protocol: true"));
    expect("  - address: 127.0.0.1:8080", &[(&trusting, &[])]);
    for (more, expected) in [
        ("forward_auth: x_forwarded", &[] as &[&str]),
        ("forward_auth: x_original", &[]),
        ("forward_auth: ext_authz", &[]),
        ("forward_auth: ext_authz\n    proxy_protocol: true", &["E0408"]),
        ("forward_auth: ext_authz\n    redirect_to_https: true", &["E0408"]),
    ] {
        let trusting = format!("{}\ntrusted_proxies: [10.0.0.1]", listener(more));
        expect("  - address: 127.0.0.1:8080", &[(&trusting, expected)]);
    }
}

#[test]
fn limits_are_in_range() {
    for (limits, expected) in [
        ("{}", &[] as &[&str]),
        ("{ connections: 0, connections_per_address: 0, memory: 0, requests_per_connection: 0, body_rate: 0 }", &[]),
        ("{ connections: 10, connections_per_address: 5, memory: 1GiB, requests_per_connection: 1 }", &[]),
        ("{ header_timeout: 0s, keepalive_timeout: 500ms, handshake_timeout: 10 }", &["E0202", "E0201", "E0202"]),
        ("{ header_size: 100, header_fields: 256, uri_length: 1MiB }", &["E0202", "E0202", "E0202"]),
        ("{ memory: 1MiB, connections: -1 }", &["E0202", "E0202"]),
        ("{ http2: { streams: 0, header_list: 1B, window: 1KiB, idle: 0s } }", &["E0202"; 4]),
        ("{ http2: { stream: 1 } }", &["E0101"]),
    ] {
        let mut found = codes(&load_text(&format!("{GOOD}limits: {limits}\n")));
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{limits}");
    }
}
