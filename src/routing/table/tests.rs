use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::settings::{Endpoint, Refresh, Retries, Session, Store, UpstreamTimeouts};
use crate::routing::discovery::system_lookup;

fn site(name: &str, hosts: Vec<HostPattern>, paths: &[&str]) -> settings::Site {
    settings::Site {
        name: name.into(),
        hosts,
        provider: None,
        auth_path: PathPrefix::parse("/auth").unwrap(),
        aliases: Aliases::default(),
        origins: Vec::new(),
        routes: paths.iter().map(|path| route(path)).collect(),
    }
}

fn route(path: &str) -> settings::Route {
    settings::Route {
        path: PathPrefix::parse(path).unwrap(),
        upstream: "api".into(),
        strip_prefix: None,
        access: Access::Required,
        on_missing: OnMissing::Auto,
        token: Token::Access,
        identity_headers: Vec::new(),
        max_body: 1,
        csrf: true,
        retry_unauthorized: true,
    }
}

fn settings(sites: Vec<settings::Site>) -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        listeners: Vec::new(),
        threads: NonZeroUsize::MIN,
        trusted_proxies: Vec::new(),
        admin: None,
        keys: Vec::new(),
        store: Store::Memory,
        session: Session::default(),
        refresh: Refresh::default(),
        providers: Vec::new(),
        upstreams: vec![settings::Upstream {
            name: "api".into(),
            endpoints: vec![Endpoint { host: "127.0.0.1".into(), port: 1 }],
            timeouts: UpstreamTimeouts { connect: second, read: second, write: second, idle: second },
            retries: Retries::default(),
        }],
        sites,
    }
}

fn table(sites: Vec<settings::Site>) -> Table {
    let settings = settings(sites);
    let metrics = Metrics::new().unwrap();
    let upstreams = Upstreams::new(&settings.upstreams, &system_lookup(), &metrics);
    Table::new(&settings, &upstreams, &metrics).unwrap()
}

fn routed<'t>(table: &'t Table, host: &str, path: &str) -> Option<&'t str> {
    table.site(host)?.route(path).map(|route| &*route.name)
}

#[test]
fn hosts_match_exactly_then_by_one_label_then_any() {
    let exact = HostPattern::Exact("app.example.com".into());
    let wildcard = HostPattern::Wildcard("example.com".into());
    let both = vec![site("exact", vec![exact], &["/"]), site("wild", vec![wildcard], &["/"])];
    let strict = table(both.clone());
    let name = |table: &Table, host| table.site(host).map(|site| site.name.to_string());
    assert_eq!(name(&strict, "app.example.com").as_deref(), Some("exact"));
    assert_eq!(name(&strict, "other.example.com").as_deref(), Some("wild"));
    for stranger in ["example.com", "a.b.example.com", ".example.com", "evilexample.com", "com", "[::1]"] {
        assert_eq!(name(&strict, stranger), None, "{stranger}");
    }
    let open = table(both.into_iter().chain([site("any", vec![HostPattern::Any], &["/"])]).collect());
    assert_eq!(name(&open, "a.b.example.com").as_deref(), Some("any"));
}

#[test]
fn the_longest_path_wins_by_whole_segments() {
    let table = table(vec![site("s", vec![HostPattern::Any], &["/", "/api/", "/api/v2/users"])]);
    for (path, expected) in [
        ("/", "/"),
        ("/apix", "/"),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/api/v2", "/api"),
        ("/api/v2/users", "/api/v2/users"),
        ("/api/v2/users/7/orders/9", "/api/v2/users"),
        ("/api/v2/usersx", "/api"),
    ] {
        assert_eq!(routed(&table, "h", path), Some(expected), "{path}");
    }
}

#[test]
fn without_a_root_route_strangers_get_none() {
    let table = table(vec![site("s", vec![HostPattern::Any], &["/api"])]);
    assert_eq!(routed(&table, "h", "/"), None);
    assert_eq!(routed(&table, "h", "/other/api"), None);
    assert_eq!(routed(&table, "h", "/api/x"), Some("/api"));
}

#[test]
fn claims_are_listed_once_and_headers_are_reserved_on_every_site() {
    let claim = |text: &str| ClaimPath(text.split('.').map(str::to_owned).collect());
    let header = HeaderName::from_static;
    let mut first = site("a", vec![HostPattern::Exact("a".into())], &["/", "/x"]);
    first.routes[0].identity_headers = vec![(header("x-id"), claim("sub")), (header("x-mail"), claim("email"))];
    first.routes[1].identity_headers = vec![(header("x-user"), claim("sub"))];
    let table = table(vec![first, site("b", vec![HostPattern::Exact("b".into())], &["/"])]);
    let site = table.site("a").unwrap();
    assert_eq!(site.claim_paths, [claim("sub"), claim("email")]);
    assert_eq!(site.route("/x").unwrap().identity_headers, [(header("x-user"), 0)]);
    assert_eq!(&*table.site("b").unwrap().reserved_headers, [header("x-id"), header("x-mail"), header("x-user")]);
}

#[test]
fn an_unknown_upstream_is_an_error() {
    let settings = settings(vec![site("s", vec![HostPattern::Any], &["/"])]);
    let metrics = Metrics::new().unwrap();
    let error = Table::new(&settings, &Upstreams::default(), &metrics).unwrap_err();
    assert_eq!(error.to_string(), "site s: route / goes to the unknown upstream api");
}

proptest! {
    #[test]
    fn the_table_agrees_with_trying_every_route(
        routes in proptest::collection::btree_set("(/[ab]{1,2}){0,4}", 1..12),
        path in "(/[ab]{1,2}){0,6}/?",
    ) {
        let routes: Vec<String> = routes.into_iter().map(|r| if r.is_empty() { "/".into() } else { r }).collect();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let names: Vec<&str> = routes.iter().map(String::as_str).collect();
        let compiled = table(vec![site("s", vec![HostPattern::Any], &names)]);
        let naive = routes
            .iter()
            .map(|route| PathPrefix::parse(route).unwrap())
            .filter(|prefix| prefix.rest(&path).is_some())
            .max_by_key(PathPrefix::depth)
            .map(|prefix| prefix.to_string());
        prop_assert_eq!(routed(&compiled, "h", &path).map(str::to_owned), naive);
    }

    #[test]
    fn lookups_never_panic(host in "\\PC{0,30}", path in "\\PC{0,30}") {
        let table = table(vec![site("s", vec![HostPattern::Wildcard("a".into())], &["/", "/a/b"])]);
        let _ = routed(&table, &host, &path);
        let _ = routed(&table, "x.a", &path);
    }
}
