//! Providers of every kind.

use super::*;
use crate::config::settings::{Credentials, ProviderKind, SendToken};

const YAML: &str = r#"
listeners: [{ address: "[::1]:8080" }]
keys: [{ id: one, secret: { env: CLOAKROOM_KEY } }]
upstreams: [{ name: a, endpoints: ["[::1]:80"] }]
providers:
  - name: legacy
    kind: credentials
    login_url: https://api.example.com/login
    login_page: /login
    refresh: { url: "https://api.example.com/refresh" }
sites:
  - hosts: [app.example.com]
    provider: legacy
    routes: [{ path: /login, upstream: a, access: public }, { path: /, upstream: a }]
"#;

fn legacy(yaml: &str) -> Credentials {
    let mut settings = load_text(yaml).map_err(|found| found.plain()).unwrap().settings;
    match settings.providers.remove(0) {
        ProviderKind::Credentials(legacy) => *legacy,
        ProviderKind::Oidc(_) => panic!("no credentials"),
    }
}

/// The codes that a change brings.
fn codes(old: &str, new: &str) -> Vec<&'static str> {
    assert!(YAML.contains(old), "{old}");
    match load_text(&YAML.replacen(old, new, 1)) {
        Ok(loaded) => loaded.warnings.iter().map(|found| found.code.as_str()).collect(),
        Err(found) => found.iter().map(|found| found.code.as_str()).collect(),
    }
}

#[test]
fn credentials_have_the_defaults_of_the_documentation() {
    let text = format!("{:?}", legacy(YAML));
    for expected in [
        r#"account: ClaimPath(["username"])"#,
        r#"access_token: ClaimPath(["accessToken"])"#,
        r#"refresh_token: ClaimPath(["refreshToken"])"#,
        r#"expires_in: ClaimPath(["accessTokenExpiresIn"])"#,
        r#"refresh_expires_in: ClaimPath(["refreshTokenExpiresIn"])"#,
        r#"user: ClaimPath(["user"])"#,
        r#"subject: ClaimPath(["user", "id"])"#,
        "default_lifetime: 300s",
        r#"send: Body("refreshToken"), refused: [401]"#,
        "refresh_token_grace: 0ns, logout_url: None, limits: LoginLimits { account: 10, address: 100, per: 300s }",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let header = legacy(&YAML.replace("/refresh\" }", "/refresh\", send: header }"));
    assert_eq!(header.refresh.unwrap().send, SendToken::Header);
}

#[test]
fn mistakes_in_credentials_are_told() {
    for (old, new, expected) in [
        ("https://api.example.com/login", "api.example.com/login", &["E0206"][..]),
        ("https://api.example.com/login", "ftp://api.example.com/login", &["E0206"]),
        ("https://api.example.com/login", "https://me:secret@api.example.com/login", &["E0206"]),
        ("https://api.example.com/login", "http://api.example.com/login", &["W0015"]),
        ("https://api.example.com/login", "http://127.0.0.1:9/login", &[]),
        ("    login_url: https://api.example.com/login\n", "", &["E0102"]),
        ("login_page: /login", "login_page: login", &["E0203"]),
        ("login_page: /login", "login_page: /auth/login", &["E0406"]),
        ("login_page: /login", "login_page: /", &["E0408"]),
        ("login_page: /login", "login_page: /else", &["E0408"]),
        ("{ path: /, upstream: a }", "{ path: /x, upstream: a }", &[]),
        ("{ path: /login, upstream: a, access: public }, { path: /, ", "{ path: /x, ", &["E0402"]),
        ("login_page: /login", "issuer: https://id.example.com/", &["E0101"]),
        ("login_page: /login", "limits: { account: 0 }", &["E0202"]),
        ("login_page: /login", "limits: { per: 2d }", &["E0202"]),
        ("login_page: /login", "default_lifetime: 0s", &["E0202"]),
        ("login_page: /login", "account: a..b", &["E0201"]),
        ("login_page: /login", "fields: { accessToken: a }", &["E0101"]),
        ("/refresh\" }", "/refresh\", send: cookie }", &["E0104"]),
        ("/refresh\" }", "/refresh\", send: header, field: x }", &["E0408"]),
        ("/refresh\" }", "/refresh\", refused: [] }", &["E0105"]),
        ("/refresh\" }", "/refresh\", refused: [429] }", &["E0201"]),
        ("/refresh\" }", "/refresh\", refused: [500] }", &["E0202"]),
        ("refresh: { url: \"https://api.example.com/refresh\" }", "logout_url: https://api.example.com/", &["W0010"]),
        ("kind: credentials", "kind: password", &["E0104"]),
    ] {
        assert_eq!(codes(old, new), expected, "{new}");
    }
}

const SECOND: &str = r#"  - name: main
    title: "The main one"
    issuer: https://id.example.com/
    client_id: c
    client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }
sites:
"#;

#[test]
fn a_site_has_one_provider_or_several() {
    let several = |list: &str, route: &str| {
        let yaml = YAML.replace("sites:\n", SECOND).replace("provider: legacy", list);
        yaml.replace("{ path: /, upstream: a }", &format!("{{ path: /, upstream: a{route} }}"))
    };
    let loaded = load_text(&several("providers: [legacy, main]", ", provider: main")).map_err(|found| found.plain());
    let loaded = loaded.unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let site = &loaded.settings.sites[0];
    assert_eq!(site.providers.iter().map(|name| &**name).collect::<Vec<_>>(), ["legacy", "main"]);
    assert_eq!((site.routes[0].provider.as_deref(), site.routes[1].provider.as_deref()), (None, Some("main")));
    let titles = format!("{:?}", loaded.settings.providers);
    assert!(titles.contains("title: \"legacy\"") && titles.contains("title: \"The main one\""));
    for (list, route, expected) in [
        ("providers: []", "", &["E0105"][..]),
        ("providers: [legacy, legacy, main]", "", &["E0401"]),
        ("providers: [legacy, nobody]", "", &["E0402"]),
        ("providers: [legacy, main]\n    provider: main", "", &["E0408"]),
        ("providers: [legacy, main]", ", identity_headers: { X-Id: sub }", &["W0016"]),
        ("providers: [legacy, main]", ", identity_headers: { X-Id: sub, X-Iss: iss }", &[]),
        ("providers: [legacy, main]", ", identity_headers: { X-Id: a.sub }", &[]),
        ("providers: [legacy, main]", ", provider: main, identity_headers: { X-Id: sub }", &[]),
        ("providers: [main]", "", &["W0009"]),
        ("providers: [legacy, main]", ", provider: nobody", &["E0402"]),
        ("providers: [main]", ", provider: legacy", &["E0402"]),
        ("providers: [legacy, main]", ", provider: main, access: public", &["W0010", "E0408"]),
    ] {
        let found = match load_text(&several(list, route)) {
            Ok(loaded) => loaded.warnings,
            Err(found) => found,
        };
        let codes: Vec<_> = found.iter().map(|found| found.code.as_str()).collect();
        assert_eq!(codes, expected, "{list}{route}");
    }
    let twin = SECOND.replace("sites:\n", "").replace("name: main", "name: twin");
    let yaml =
        several("providers: [legacy, main, twin]", "").replace("  - name: main", &format!("{twin}  - name: main"));
    let found = load_text(&yaml).unwrap_err();
    assert_eq!(found.iter().map(|found| found.code.as_str()).collect::<Vec<_>>(), ["E0408"]);
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (one, other) = (key("one.pem"), key("other.pem"));
    let twin = twin.replace("https://id.example.com/", "https://other.example.com/");
    for (keys, expected) in [
        (format!("{{ key: '{other}', id: a }}"), &["E0401"][..]),
        (format!("{{ key: '{other}' }}, {{ key: '{one}', id: a }}"), &[]),
    ] {
        let with = |yaml: &str, keys: &str| {
            yaml.replace(
                "method: client_secret_basic, secret: { env: CLIENT_SECRET }",
                &format!("method: private_key_jwt, keys: [{keys}]"),
            )
        };
        let yaml = with(&several("providers: [legacy, main, twin]", ""), &format!("{{ key: '{one}', id: a }}"));
        let found = match load_text(&yaml.replace("  - name: main", &format!("{}  - name: main", with(&twin, &keys)))) {
            Ok(loaded) => loaded.warnings,
            Err(found) => found,
        };
        assert_eq!(found.iter().map(|found| found.code.as_str()).collect::<Vec<_>>(), expected, "{keys}");
    }
    let long = several("providers: [legacy, main]", "").replace("The main one", &"x".repeat(61));
    assert_eq!(load_text(&long).unwrap_err().iter().next().unwrap().code.as_str(), "E0202");
}

#[test]
fn bearer_needs_a_provider_that_makes_access_tokens() {
    let other = SECOND.replace("sites:\n", "").replace("name: main", "name: other");
    let other = other.replace("id.example.com", "id.example.org").replace("client_id: c", "client_id: d");
    let codes = |providers: &str, bearer: &str, route: &str| {
        let site = format!("{providers}\n    bearer: {{ {bearer} }}");
        let yaml = YAML.replace("sites:\n", &format!("{other}{SECOND}")).replace("provider: legacy", &site);
        let found =
            match load_text(&yaml.replace("{ path: /, upstream: a }", &format!("{{ path: /, upstream: a, {route} }}")))
            {
                Ok(loaded) => loaded.warnings,
                Err(found) => found,
            };
        // Providers that no site names are no subject here.
        let codes = found.iter().map(|found| found.code.as_str()).filter(|code| *code != "W0009");
        codes.collect::<Vec<_>>()
    };
    let jwt = "audiences: [c], types: [jwt]";
    for (providers, bearer, route, expected) in [
        ("provider: legacy", "audiences: [api]", "accept: [bearer]", &["E0408"][..]),
        ("providers: [legacy]", "audiences: [api]", "accept: [session, bearer]", &["E0408"]),
        ("providers: [legacy, main]", "audiences: [api]", "accept: [bearer]", &[]),
        ("providers: [legacy, main]", "audiences: [api]", "accept: [bearer], provider: main", &[]),
        ("providers: [legacy, main]", "audiences: [api]", "accept: [bearer], provider: legacy", &["E0408"]),
        ("providers: [legacy, main]", "audiences: [api]", "accept: [session, bearer], provider: legacy", &["E0408"]),
        // An ID token of any of them must not pass for an access token.
        ("providers: [other, main]", jwt, "accept: [bearer]", &["E0408"]),
        ("providers: [main, other]", jwt, "accept: [bearer]", &["E0408"]),
        ("providers: [main, other]", "audiences: [c, d], types: [jwt]", "accept: [bearer]", &["E0408", "E0408"]),
        ("providers: [other, legacy]", jwt, "accept: [bearer]", &[]),
        ("providers: [other, main]", "audiences: [c]", "accept: [bearer]", &[]),
    ] {
        assert_eq!(codes(providers, bearer, route), expected, "{providers} {bearer} {route}");
    }
}
