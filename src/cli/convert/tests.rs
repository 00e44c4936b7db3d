//! Files as they are found in the wild: what comes of them is good for `check`, says the same, and the rest is listed.

use serde_yaml::Value;

use super::draft::Draft;
use super::model::literal;
use super::{ingress, oauth2_proxy};
use crate::config::settings::{Access, Action, ClaimTest, Settings, Token};
use crate::config::{self, Env};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/convert/", $name))
    };
}

fn env() -> Env {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    Env::fixed([("CLOAKROOM_KEY", key), ("CLIENT_SECRET", "x"), ("REDIS_URL", "redis://:x@redis")])
}

/// The settings that it makes, without a mistake.
pub(super) fn loaded(draft: &Draft) -> Settings {
    let yaml = draft.yaml();
    let loaded = config::load_str("made.yaml", &yaml, &env());
    loaded.map_err(|found| format!("{}\n{yaml}", found.plain())).unwrap().settings
}

pub(super) fn left(draft: &Draft, parts: &[&str]) {
    let report = draft.report();
    for part in parts {
        assert!(report.contains(part), "{part}\n{report}");
    }
    assert!(report.lines().all(|line| draft.yaml().contains(line.trim_start_matches("- ")) || !line.starts_with("- ")));
}

#[test]
fn a_file_of_options_of_oauth2_proxy() {
    let draft = oauth2_proxy::converted("oauth2-proxy.cfg", fixture!("oauth2-proxy.cfg")).unwrap();
    let settings = loaded(&draft);
    let yaml = draft.yaml();
    for secret in ["not-to-be-shown", "hidden-too"] {
        assert!(!yaml.contains(secret) && !draft.report().contains(secret), "{yaml}");
    }
    assert_eq!(settings.listeners[0].address.to_string(), "0.0.0.0:4180");
    assert_eq!(settings.trusted_proxies.len(), 1);
    let provider = settings.providers[0].oidc().unwrap();
    assert_eq!(
        (provider.issuer.as_str(), provider.client_id.as_str()),
        ("https://sso.example.com/realms/staff", "wiki")
    );
    assert_eq!(settings.session.absolute_timeout.as_secs(), 12 * 3600);
    let site = &settings.sites[0];
    assert_eq!((&*site.name, site.auth_path.as_str()), ("wiki.example.com", "/oauth2"));
    let route = |path: &str| site.routes.iter().filter(|route| route.path.to_string() == path).collect::<Vec<_>>();
    assert_eq!(route("/").len(), 1);
    let root = route("/")[0];
    assert_eq!((root.access, &root.token, root.allow.len()), (Access::Required, &Token::Access, 4));
    let ClaimTest::Matches(pattern) = &root.allow[0].condition.test else { panic!() };
    for (mail, good) in
        [("a@example.com", true), ("a@x.example.org", true), ("a@example.org", false), ("a@evilexample.com", false)]
    {
        assert_eq!(pattern.is_match(mail), good, "{mail}");
    }
    let Action::Upstream(forward) = &route("/api")[0].action else { panic!() };
    assert_eq!(forward.host.as_ref().unwrap(), "api.internal:8443");
    assert_eq!(route("/assets")[0].access, Access::Public);
    let health: Vec<Access> = route("/health").iter().map(|route| route.access).collect();
    assert_eq!(health, [Access::Public, Access::Required], "other methods need a login as before");
    left(
        &draft,
        &[
            "REDIS_URL",
            "CLIENT_SECRET",
            "skip_jwt_bearer_tokens",
            "some_future_option",
            "^/api/v[0-9]+/open$",
            "`^/$` needed no login",
        ],
    );
}

#[test]
fn a_yaml_file_of_oauth2_proxy() {
    let draft = oauth2_proxy::converted("alpha.yaml", fixture!("oauth2-proxy-alpha.yaml")).unwrap();
    let settings = loaded(&draft);
    assert!(!draft.yaml().contains("not-to-be-shown"));
    assert_eq!(settings.providers[0].oidc().unwrap().issuer.as_str(), "https://id.example.net/");
    let routes = &settings.sites[0].routes;
    assert_eq!(routes.len(), 2);
    let Action::Upstream(forward) = &routes[0].action else { panic!() };
    assert_eq!(forward.rewrite.as_ref().unwrap().from.as_str(), "/api");
    assert_eq!(routes[0].token, Token::Id);
    let names: Vec<&str> = routes[0].identity_headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-auth-request-email", "x-user-roles"]);
    left(&draft, &["`odd`", "X-Static", "X-Auth-Request-User", "redirect URI"]);
}

#[test]
fn ingresses_with_annotations_of_nginx() {
    let draft = ingress::converted("ingress.yaml", fixture!("ingress.yaml")).unwrap();
    let settings = loaded(&draft);
    let site = |host: &str| settings.sites.iter().find(|site| &*site.name == host).unwrap();
    let shop = site("shop.example.com");
    let paths: Vec<String> = shop.routes.iter().map(|route| route.path.to_string()).collect();
    assert_eq!(paths, ["/", "/admin"], "what served oauth2-proxy is ours");
    let root = &shop.routes[0];
    assert_eq!((root.access, root.max_body, &root.token), (Access::Required, 8 << 20, &Token::Access));
    assert_eq!(root.rate_limits[0].requests, 100);
    assert_eq!(root.timeouts.unwrap().read.unwrap().as_secs(), 120);
    let api = site("api.example.com");
    assert_eq!((api.hosts.len(), api.routes.len(), api.routes[0].access), (2, 1, Access::Public));
    assert!(api.routes[0].cors.as_ref().unwrap().credentials);
    let Action::Upstream(forward) = &api.routes[0].action else { panic!() };
    assert_eq!(forward.rewrite.as_ref().unwrap().from.as_str(), "/v1");
    let upstream = settings.upstreams.iter().find(|one| one.name == forward.upstream).unwrap();
    assert_eq!((upstream.endpoints[0].host.as_str(), upstream.tls.is_some()), ("api.web.svc", true));
    assert!(matches!(site("old.example.com").routes[0].action, Action::Redirect(_)));
    left(
        &draft,
        &[
            "configuration-snippet",
            "X-Other",
            "canary",
            "spec.tls",
            "/v[0-9]+/odd",
            "example.net",
            "`http` of the service admin",
            "exact",
        ],
    );
    assert!(ingress::converted("x", "kind: Service").is_err() && ingress::converted("x", "a: [").is_err());
}

#[test]
fn files_that_say_little_or_nonsense_give_settings_or_a_sentence() {
    for text in [
        "",
        "provider = \"oidc\"\n",
        "upstreams = \"http://a:1/\"\n",
        "upstreams = [\"file:///srv/www#/x\", \"unix:///a\"]\n",
    ] {
        let draft = oauth2_proxy::converted("x.cfg", text).unwrap();
        if !text.contains("file:") {
            loaded(&draft);
        }
    }
    assert!(oauth2_proxy::converted("x.cfg", "not = [toml").is_err());
    // A line break in a value must not end the comment that quotes it.
    let draft = oauth2_proxy::converted("x\ny.cfg", "upstreams = [\"no\\nkeys: []\"]\n").unwrap();
    loaded(&draft);
    let yaml: Value = serde_yaml::from_str(&draft.yaml()).unwrap();
    assert_eq!(yaml["keys"].as_sequence().unwrap().len(), 1);
}

#[test]
fn expressions_that_name_a_path_are_told_from_others() {
    for (pattern, path) in [
        ("^/health$", Some("/health")),
        ("/api(/|$)(.*)", Some("/api")),
        ("/api/(.*)", Some("/api")),
        ("^/.*", Some("/")),
        ("/", Some("/")),
        ("/robots\\.txt", Some("/robots.txt")),
        ("/v[0-9]/x", None),
        ("health", None),
        ("/a|/b", None),
    ] {
        assert_eq!(literal(pattern).as_deref(), path, "{pattern}");
    }
}
