//! Values of providers and of what their clients prove themselves with.

use super::*;

#[test]
fn issuers() {
    expect(
        "issuer: https://id.example.com/realms/main",
        &[
            ("issuer: https://tenant.eu.auth0.com/", &[]),
            ("issuer: http://127.0.0.1:8081/realms/main", &[]),
            ("issuer: http://[::1]:8081", &[]),
            ("issuer: http://localhost:8081", &[]),
            ("issuer: http://kc.localhost:8081", &["E0206"]),
            ("issuer: http://id.example.com", &["E0206"]),
            ("issuer: http://localhost.example.com", &["E0206"]),
            ("issuer: https://id.example.com?a=b", &["E0206"]),
            ("issuer: https://id.example.com/#a", &["E0206"]),
            ("issuer: https://user:pw@id.example.com/", &["E0206"]),
            ("issuer: id.example.com", &["E0206"]),
            ("issuer: ftp://id.example.com", &["E0206"]),
            ("issuer: https://login.microsoftonline.com/{tenantid}/v2.0", &["E0206"]),
            ("issuer: https://id.example.com/.well-known/openid-configuration", &["E0206"]),
        ],
    );
    let loaded = with("issuer: https://id.example.com/realms/main", "issuer: https://ID.example.com:443").unwrap();
    assert_eq!(
        loaded.settings.providers[0].oidc().unwrap().issuer,
        "https://ID.example.com:443",
        "kept as it is written"
    );
}

#[test]
fn keys_of_the_client_are_read_where_the_settings_are() {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::primitives::signing::Algorithm;

    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, rights: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(rights)).unwrap();
        path.display().to_string()
    };
    let pem = || rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (good, other) = (write("good.pem", &pem(), 0o600), write("other.pem", &pem(), 0o600));
    let (open, none) = (write("open.pem", &pem(), 0o644), write("none.pem", "no key", 0o600));
    let read = |keys: &str| {
        with(
            "client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }",
            &format!("client_auth: {{ method: private_key_jwt, keys: [{keys}] }}"),
        )
    };
    let loaded = read(&format!("{{ key: '{good}', id: a }}, {{ key: '{other}' }}")).unwrap();
    assert!(loaded.files.iter().any(|file| file.display().to_string() == good), "it is watched");
    let settings::ClientAuth::PrivateKeyJwt(keys) = &loaded.settings.providers[0].oidc().unwrap().client_auth else {
        panic!()
    };
    assert_eq!((keys.len(), keys[0].id(), keys[0].algorithm()), (2, "a", Algorithm::Es256));
    for (keys, expected) in [
        (format!("{{ key: '{good}' }}, {{ key: '{good}' }}"), "E0401"),
        (format!("{{ key: '{open}' }}"), "E0303"),
        (format!("{{ key: '{none}' }}"), "E0305"),
        (format!("{{ key: '{good}', algorithm: RS256 }}"), "E0305"),
    ] {
        assert_eq!(codes(&read(&keys)), [expected], "{keys}");
    }
}

#[test]
fn the_key_that_tokens_are_bound_to() {
    let read =
        |dpop: &str| with("    scopes: [openid, profile]", &format!("    scopes: [openid, profile]\n    {dpop}"));
    let loaded = read("dpop: { key: { env: DPOP_KEY } }").unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let key = loaded.settings.providers[0].oidc().unwrap().dpop.clone().unwrap();
    assert_eq!(key.algorithm(), crate::primitives::signing::Algorithm::Es256);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!("dpop: {{ key: {{ file: '{}' }} }}", path.display())
    };
    let rsa = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", crate::oidc::RSA_PKCS8);
    for (dpop, expected) in [
        (write("good.pem", DPOP_KEY), None),
        (write("rsa.pem", &rsa), Some("E0305")),
        (write("none.pem", "no key"), Some("E0305")),
        ("dpop: { key: { env: CLIENT_SECRET } }".to_owned(), Some("E0305")),
        ("dpop: { key: { file: absent.pem } }".to_owned(), Some("E0302")),
        ("dpop: {}".to_owned(), Some("E0102")),
        ("dpop: { key: { env: DPOP_KEY }, keys: [] }".to_owned(), Some("E0101")),
    ] {
        let found = codes(&read(&dpop));
        assert_eq!(found.first().copied(), expected, "{dpop}: {found:?}");
    }
}

#[test]
fn client_authentication_scopes_and_parameters() {
    expect(
        "client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }",
        &[
            ("client_auth: { method: client_secret_post, secret: { env: CLIENT_SECRET } }", &[]),
            ("client_auth: { method: none }", &["W0005"]),
            ("client_auth: { method: none, secret: { env: CLIENT_SECRET } }", &["E0408"]),
            ("client_auth: { method: client_secret_basic }", &["E0102"]),
            ("client_auth: { secret: { env: CLIENT_SECRET } }", &["E0102"]),
            ("client_auth: { method: private_key_jwt }", &["E0102"]),
            ("client_auth: { method: private_key_jwt, keys: [] }", &["E0105"]),
            ("client_auth: { method: private_key_jwt, keys: [{ id: a }] }", &["E0102"]),
            ("client_auth: { method: private_key_jwt, keys: [{ key: absent.pem, algorithm: HS256 }] }", &["E0104"]),
            ("client_auth: { method: private_key_jwt, keys: [{ key: absent.pem }] }", &["E0302"]),
            ("client_auth: { method: client_secret_post, secret: { env: CLIENT_SECRET }, keys: [] }", &["E0408"]),
            ("client_auth: { method: tls_client_auth }", &["E0102", "E0102"]),
            ("client_auth: { method: private_key }", &["E0104"]),
        ],
    );
    expect(
        "scopes: [openid, profile]",
        &[
            ("scopes: [a b]", &["E0201"]),
            ("scopes: openid", &["E0103"]),
            ("scopes: ['']", &["E0105"]),
            ("scopes: []", &[]),
            ("pushed_authorization: always", &["E0104"]),
            ("response_mode: fragment", &["E0104"]),
            ("userinfo: maybe", &["E0104"]),
            ("userinfo: merge", &[]),
            ("login_parameters: [scope]", &["E0104"]),
            ("login_parameters: [max_age, claims, kc_idp_hint, ui_locales]", &[]),
            ("revoke_access_tokens: yes", &["E0103"]),
            ("frontchannel_logout: iss", &["E0104"]),
            ("authorization_params: { claims: acr }", &["E0201"]),
            ("authorization_params: { claims: '{\"id_token\":{\"acr\":{\"essential\":true}}}' }", &[]),
            ("ca: absent.pem", &["E0302"]),
            ("introspection: {}", &[]),
            (
                "introspection: { url: 'https://id.example.com/i', cache: 0s, jwts: true, phantom: true, phantom_claim: jwt }",
                &[],
            ),
            ("introspection: { cache: 2h }", &["E0202"]),
            ("introspection: { url: 'id.example.com' }", &["E0206"]),
            ("introspection: { phantom: true, phantom_claim: '' }", &["E0105"]),
            ("introspection: { secret: x }", &["E0101"]),
        ],
    );
    let loaded = with("scopes: [openid, profile]", "scopes: [api, openid, api]").unwrap();
    assert_eq!(loaded.settings.providers[0].oidc().unwrap().scopes, ["openid", "api"]);
    for reserved in rules::RESERVED_PARAMETERS {
        let outcome = with("scopes: [openid, profile]", &format!("authorization_params: {{ {reserved}: x }}"));
        assert_eq!(codes(&outcome), ["E0208"], "{reserved}");
    }
    for absurd in ["soon", "18446744073709551615", "-1"] {
        let outcome = with("scopes: [openid, profile]", &format!("authorization_params: {{ max_age: '{absurd}' }}"));
        assert_eq!(codes(&outcome), ["E0201"], "{absurd}");
    }
    let loaded = with("scopes: [openid, profile]", "authorization_params: { max_age: 60, prompt: consent }").unwrap();
    assert_eq!(loaded.settings.providers[0].oidc().unwrap().authorization_params["max_age"], "60");
}
