//! What restricts in the source and is not translated never becomes "everybody".

use super::draft::Draft;
use super::model::{bounded, literal};
use super::oauth2_proxy::without_userinfo;
use super::tests::{left, loaded};
use super::{ingress, oauth2_proxy};
use crate::config::settings::{Access, Settings};

/// An Ingress for `a.example.com`: annotations, then path, its type and backend.
fn one(name: &str, annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> String {
    let all: Vec<String> = annotations
        .iter()
        .map(|(name, value)| format!("nginx.ingress.kubernetes.io/{name}: {}", serde_json::Value::from(*value)))
        .collect();
    let mut out = format!("---\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations: {{ {} }}\n", all.join(", "));
    out += "spec:\n  rules:\n  - host: a.example.com\n    http:\n      paths:\n";
    for (path, kind) in paths {
        let backend =
            if *kind == "Resource" { "resource: { name: x }" } else { "service: { name: s, port: { number: 80 } }" };
        let kind = if *kind == "Resource" { "Prefix" } else { kind };
        out += &format!("      - {{ path: '{path}', pathType: {kind}, backend: {{ {backend} }} }}\n");
    }
    out
}

const LOGIN: &[(&str, &str)] = &[("auth-url", "https://auth.example.com/oauth2/auth")];

fn made(text: &str) -> (Draft, Settings) {
    let draft = ingress::converted("x.yaml", text).unwrap();
    let settings = loaded(&draft);
    (draft, settings)
}

fn access(settings: &Settings, path: &str) -> Access {
    settings.sites[0].routes.iter().find(|route| route.path.to_string() == path).unwrap().access
}

#[test]
fn of_two_routes_the_one_with_a_login_counts() {
    let (open, shut) = (one("open", &[], &[("/", "Prefix")]), one("shut", LOGIN, &[("/", "Prefix")]));
    for text in [format!("{open}{shut}"), format!("{shut}{open}")] {
        let (draft, settings) = made(&text);
        assert_eq!((settings.sites[0].routes.len(), access(&settings, "/")), (1, Access::Required));
        left(&draft, &["was there already", "global-auth-url"]);
    }
}

#[test]
fn an_exact_public_path_does_not_open_what_lies_below() {
    let open = one("open", &[], &[("/x", "Exact")]);
    let (draft, settings) = made(&format!("{open}{}", one("shut", LOGIN, &[("/", "Prefix")])));
    assert_eq!(access(&settings, "/x"), Access::Required);
    left(&draft, &["public for this path alone"]);
    assert_eq!(access(&made(&open).1, "/x"), Access::Public);
}

#[test]
fn where_something_protected_is_left_out_nothing_is_public() {
    let open = one("open", &[], &[("/", "Prefix")]);
    let canary = [("canary", "true"), LOGIN[0]];
    let passed = [("ssl-passthrough", "true"), LOGIN[0]];
    let regex = [("use-regex", "true"), LOGIN[0]];
    for shut in [
        one("shut", LOGIN, &[("/v[0-9]", "ImplementationSpecific")]),
        one("shut", LOGIN, &[("/x", "Resource")]),
        one("shut", &canary, &[("/x", "Prefix")]),
        one("shut", &passed, &[("/x", "Prefix")]),
        one("shut", &regex, &[("/x", "Prefix")]),
        one("shut", &regex, &[("/x.*", "ImplementationSpecific")]),
        one("shut", &[("server-snippet", "deny all;")], &[("/x", "Prefix")]),
    ] {
        let (draft, settings) = made(&format!("{open}{shut}"));
        assert_eq!(access(&settings, "/"), Access::Required, "{shut}");
        left(&draft, &["also those that were public"]);
    }
    let good = one("shut", &regex, &[("/x(/|$)(.*)", "ImplementationSpecific"), ("/y/.*", "ImplementationSpecific")]);
    let (draft, settings) = made(&format!("{open}{good}"));
    assert_eq!((access(&settings, "/"), access(&settings, "/x")), (Access::Public, Access::Required));
    left(&draft, &["upper and lower case"]);
    // The host has no site of its own then.
    let any = open.replace("  - host: a.example.com\n    http:", "  - http:");
    let (_, settings) = made(&format!("{any}{}", one("shut", &canary, &[("/", "Prefix")])));
    assert_eq!(access(&settings, "/"), Access::Required);
}

#[test]
fn expressions_that_end_with_a_segment() {
    for (pattern, good) in [
        ("/a(/|$)(.*)", true),
        ("/a/.*", true),
        ("/a/(.*)", true),
        ("/a\\.b/.*", true),
        ("/a.b/.*", false),
        ("/a.*", false),
        ("/a(.*)", false),
        ("/a/?(.*)", false),
        ("/a", false),
        ("/", true),
    ] {
        assert_eq!(bounded(pattern), good, "{pattern}");
    }
    assert_eq!(literal("^/(/|$)"), None);
}

#[test]
fn whom_an_auth_url_names() {
    let url = |query: &str| {
        let url = format!("https://auth.example.com/oauth2/auth?{query}");
        made(&one("shut", &[("auth-url", url.as_str())], &[("/", "Prefix")]))
    };
    let (draft, _) = url("allowed_groups=a,b%2Fc&allowed_email_domains=example.com&x=hidden");
    let yaml = draft.yaml();
    assert!(yaml.contains("- b/c") && yaml.contains("[^@]+@(example\\.com)") && !yaml.contains("hidden"), "{yaml}");
    assert!(!yaml.contains("write-me@invalid"), "{yaml}");
    left(&draft, &["`x` in the query"]);
    for query in ["allowed_groups=$group", "allowed_emails=", "allowed_things=a"] {
        let (draft, _) = url(query);
        assert!(draft.yaml().contains("write-me@invalid"), "{query}");
        left(&draft, &["nobody passes"]);
    }
}

#[test]
fn protection_of_another_kind_is_not_public() {
    for name in
        ["auth-type", "auth-tls-secret", "whitelist-source-range", "configuration-snippet", "enable-global-auth"]
    {
        let (draft, settings) = made(&one("shut", &[(name, "true")], &[("/", "Prefix")]));
        assert_eq!(access(&settings, "/"), Access::Required, "{name}");
        left(&draft, &[&format!("protected there by `{name}`")]);
    }
    let (_, settings) = made(&one("open", &[("enable-global-auth", "false")], &[("/", "Prefix")]));
    assert_eq!(access(&settings, "/"), Access::Public);
}

#[test]
fn a_dollar_names_no_variable() {
    let text = "email_domains = \"*\"\nallowed_groups = [\"${CLOAKROOM_KEY}\"]\n";
    let draft = oauth2_proxy::converted("x.cfg", text).unwrap();
    let rule = format!("{:?}", loaded(&draft).sites[0].routes[0].allow);
    assert!(rule.contains("${CLOAKROOM_KEY}") && !rule.contains("AAECAwQF"), "{rule}");
}

#[test]
fn restrictions_of_options_that_are_not_understood() {
    for line in [
        "",
        "authenticated_emails_file = \"x\"",
        "email_domains = []",
        "email_domains = \"*\"\ngoogle_group = \"a\"",
        "email_domains = \"*\"\ngithub_org = \"a\"",
        "email_domains = \"*\"\nallowed_roles = [\"app:admin\"]",
        "email_domains = \"*\"\noidc_audience_claims = [\"x\"]",
    ] {
        let draft = oauth2_proxy::converted("x.cfg", &format!("{line}\n")).unwrap();
        loaded(&draft);
        assert!(draft.yaml().contains("write-me@invalid"), "{line}");
        left(&draft, &["nobody passes"]);
    }
    let draft = oauth2_proxy::converted("x.cfg", "email_domains = \"*\"\n").unwrap();
    assert!(!draft.yaml().contains("write-me@invalid") && !draft.yaml().contains("email_verified\n"));
    left(&draft, &["unverified"]);
}

#[test]
fn restrictions_of_the_yaml_file_that_are_not_understood() {
    for keys in [
        "googleConfig: { group: [a] }",
        "gitlabConfig: { group: [a] }",
        "githubConfig: { org: a }",
        "microsoftEntraIDConfig: { allowedTenants: [a] }",
        "oidcConfig: { audienceClaims: [x] }",
        "keycloakConfig: { roles: ['app:admin'] }",
        "allowedGroups: { a: b }",
        "somethingNew: x",
    ] {
        let draft = oauth2_proxy::converted("x.yaml", &format!("providers:\n- {{ id: a, {keys} }}\n")).unwrap();
        loaded(&draft);
        assert!(draft.yaml().contains("write-me@invalid"), "{keys}");
    }
    let draft =
        oauth2_proxy::converted("x.yaml", "providers:\n- { id: a, githubConfig: { token: hidden } }\n").unwrap();
    assert!(!draft.yaml().contains("write-me@invalid") && !draft.yaml().contains("hidden"));
    left(&draft, &["githubConfig.token"]);
}

#[test]
fn secrets_are_not_quoted() {
    let error = oauth2_proxy::converted("x.cfg", "a = 1\nclient_secret = \"hidden\" x\n").unwrap_err();
    let said = format!("{error:#}");
    assert!(said.contains("line 2, column") && !said.contains("hidden"), "{said}");
    for (url, bare) in [
        ("unix://u:p@h/x", "unix://h/x"),
        ("u:p@h", "h"),
        ("http://u:p/q@h/x", "http://h/x"),
        ("http://h/x", "http://h/x"),
    ] {
        assert_eq!(without_userinfo(url), bare);
    }
}

#[test]
fn a_negation_opens_nothing() {
    let text = "email_domains = \"*\"\nskip_auth_routes = [\"GET!=^/admin\", \"!=^/x\"]\n";
    let draft = oauth2_proxy::converted("x.cfg", text).unwrap();
    assert!(loaded(&draft).sites[0].routes.iter().all(|route| route.access == Access::Required));
    left(&draft, &["GET!=^/admin", "!=^/x"]);
}
