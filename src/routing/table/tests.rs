use std::num::NonZeroUsize;

use http::Method;
use http::header::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::config::settings::{Conditions, Endpoint, HeaderMatch, Refresh, Session, Store};
use crate::routing::discovery::system_lookup;

fn site(name: &str, hosts: Vec<HostPattern>, paths: &[&str]) -> settings::Site {
    settings::Site {
        name: name.into(),
        hosts,
        providers: Vec::new(),
        auth_path: PathPrefix::parse("/auth").unwrap(),
        aliases: Aliases::default(),
        context_claims: Vec::new(),
        origins: Vec::new(),
        bearer: None,
        security_headers: settings::SecurityHeaders::default(),
        routes: paths.iter().map(|path| route(path)).collect(),
    }
}

fn route(path: &str) -> settings::Route {
    settings::Route::to_upstream(PathPrefix::parse(path).unwrap(), "api")
}

fn settings(sites: Vec<settings::Site>) -> Settings {
    Settings {
        listeners: Vec::new(),
        threads: NonZeroUsize::MIN,
        trusted_proxies: Vec::new(),
        limits: settings::Limits::default(),
        admin: None,
        keys: Vec::new(),
        store: Store::Memory,
        session: Session::default(),
        refresh: Refresh::default(),
        providers: Vec::new(),
        upstreams: vec![settings::Upstream::plain("api", vec![Endpoint::new("127.0.0.1", 1)])],
        sites,
        idle_connections: None,
        proxy_token: None,
        shutdown: Default::default(),
        telemetry: Default::default(),
    }
}

fn table(sites: Vec<settings::Site>) -> Table {
    let settings = settings(sites);
    let metrics = Metrics::new().unwrap();
    let upstreams = Upstreams::new(&settings.upstreams, &system_lookup(), &metrics);
    Table::new(&settings, &upstreams, None, &metrics).unwrap()
}

fn routed<'t>(table: &'t Table, host: &str, path: &str) -> Option<&'t str> {
    match table.site(host)?.route(path, &Asked { host, method: &Method::GET, headers: &HeaderMap::new() }) {
        Choice::Route(route) => Some(&route.name),
        _ => None,
    }
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
    let route = site.routes().find(|route| &*route.name == "/x").unwrap();
    assert_eq!(route.identity_headers, [(header("x-user"), 0)]);
    assert_eq!(&*table.site("b").unwrap().reserved_headers, [header("x-id"), header("x-mail"), header("x-user")]);
}

#[test]
fn an_unknown_upstream_is_an_error() {
    let settings = settings(vec![site("s", vec![HostPattern::Any], &["/"])]);
    let metrics = Metrics::new().unwrap();
    let error = Table::new(&settings, &Upstreams::default(), None, &metrics).unwrap_err();
    assert_eq!(error.to_string(), "site s: route / goes to the unknown upstream api");
}

/// A route of `/x` with these conditions; its largest body is its number, by which it is told.
fn numbered(
    number: u64,
    hosts: &[HostPattern],
    methods: &[Method],
    headers: &[(&'static str, Option<&'static str>)],
) -> settings::Route {
    let matched = |value: &Option<&'static str>| match value {
        Some(value) => HeaderMatch::Exact(HeaderValue::from_static(value)),
        None => HeaderMatch::Present,
    };
    let when = Conditions {
        hosts: hosts.to_vec(),
        methods: methods.to_vec(),
        headers: headers.iter().map(|(name, value)| (HeaderName::from_static(name), matched(value))).collect(),
    };
    settings::Route { when, max_body: number, ..route("/x") }
}

fn chosen(site: &Site, host: &str, method: &Method, headers: &[(&'static str, &'static str)]) -> Result<u64, String> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    match site.route("/x/y", &Asked { host, method, headers: &headers }) {
        Choice::Route(route) => Ok(route.max_body),
        Choice::Method(allow) => Err(allow.to_str().unwrap().to_owned()),
        Choice::Refused => Err("refused".to_owned()),
        Choice::Elsewhere => Err("elsewhere".to_owned()),
    }
}

#[test]
fn who_asks_for_more_counts_more() {
    let exact = [HostPattern::Exact("a.example.com".into())];
    let wildcard = [HostPattern::Wildcard("example.com".into())];
    let mut routes = vec![
        numbered(0, &[], &[], &[]),
        numbered(1, &[], &[], &[("x-a", None)]),
        numbered(2, &[], &[], &[("x-a", Some("1"))]),
        numbered(3, &[], &[], &[("x-a", None), ("x-b", None)]),
        numbered(4, &[], &[Method::PUT], &[]),
        numbered(5, &[], &[Method::PUT], &[("x-a", Some("1"))]),
        numbered(6, &wildcard, &[], &[]),
        numbered(7, &exact, &[], &[]),
        numbered(8, &exact, &[Method::PUT], &[]),
    ];
    for _ in 0..2 {
        let mut settings = site("s", vec![HostPattern::Any], &["/"]);
        settings.routes.extend(routes.clone());
        let table = table(vec![settings]);
        let site = table.site("h").unwrap();
        let (a, one, b) = (("x-a", "2"), ("x-a", "1"), ("x-b", ""));
        assert_eq!(chosen(site, "h", &Method::GET, &[]), Ok(0));
        assert_eq!(chosen(site, "h", &Method::GET, &[b]), Ok(0));
        assert_eq!(chosen(site, "h", &Method::GET, &[a]), Ok(1));
        assert_eq!(chosen(site, "h", &Method::GET, &[one]), Ok(2));
        assert_eq!(chosen(site, "h", &Method::GET, &[one, b]), Ok(3));
        assert_eq!(chosen(site, "h", &Method::PUT, &[a, b]), Ok(4));
        assert_eq!(chosen(site, "h", &Method::PUT, &[one, b]), Ok(5));
        assert_eq!(chosen(site, "b.example.com", &Method::PUT, &[one]), Ok(6));
        assert_eq!(chosen(site, "a.example.com", &Method::GET, &[one]), Ok(7));
        assert_eq!(chosen(site, "a.example.com", &Method::PUT, &[]), Ok(8));
        // The order in the file makes no difference where one counts more.
        routes.reverse();
    }
}

#[test]
fn a_strict_path_is_not_bypassed_to_a_laxer_one_above() {
    let mut settings = site("s", vec![HostPattern::Any], &["/"]);
    settings.routes.push(numbered(1, &[], &[Method::GET, Method::HEAD], &[]));
    settings.routes.push(numbered(2, &[], &[Method::PUT], &[("x-a", None)]));
    let strict = table(vec![settings]);
    let strict = strict.site("h").unwrap();
    assert_eq!(chosen(strict, "h", &Method::POST, &[]), Err("GET, HEAD".into()));
    assert_eq!(chosen(strict, "h", &Method::POST, &[("x-a", "")]), Err("PUT, GET, HEAD".into()));
    let mut settings = site("s", vec![HostPattern::Any], &["/"]);
    settings.routes.push(numbered(1, &[], &[], &[("x-a", None)]));
    settings.routes.push(numbered(2, &[HostPattern::Exact("b".into())], &[], &[("x-c", None)]));
    let table = table(vec![settings]);
    let site = table.site("h").unwrap();
    assert_eq!(chosen(site, "h", &Method::GET, &[]), Err("refused".into()));
    // For other hosts there is no such path.
    let mut settings = self::site("s", vec![HostPattern::Any], &["/"]);
    settings.routes.push(numbered(2, &[HostPattern::Exact("b".into())], &[], &[]));
    let table = self::table(vec![settings]);
    assert_eq!(chosen(table.site("h").unwrap(), "h", &Method::GET, &[]), Ok(route("/").max_body));
}

#[test]
fn a_preflight_is_for_the_route_of_the_request_to_come() {
    let mut settings = site("s", vec![HostPattern::Any], &["/"]);
    settings.routes.push(numbered(1, &[], &[Method::PUT], &[]));
    settings.routes.push(numbered(2, &[], &[Method::GET], &[]));
    settings.routes.push(numbered(3, &[], &[Method::PUT], &[("x-a", Some("1"))]));
    let table = table(vec![settings]);
    let site = table.site("h").unwrap();
    let origin = ("origin", "https://a");
    let put = ("access-control-request-method", "PUT");
    assert_eq!(chosen(site, "h", &Method::OPTIONS, &[origin, put]), Ok(1));
    assert_eq!(
        chosen(site, "h", &Method::OPTIONS, &[origin, put, ("access-control-request-headers", "b, X-A")]),
        Ok(3)
    );
    assert_eq!(chosen(site, "h", &Method::OPTIONS, &[origin, ("access-control-request-method", "GET")]), Ok(2));
    assert!(chosen(site, "h", &Method::OPTIONS, &[origin]).is_err());
}

/// Run by hand, for it measures: `cargo test --lib -- --ignored --nocapture many_routes_cost`.
#[test]
#[ignore = "a measurement"]
fn many_routes_cost_what_few_do() {
    let of = |count: usize| {
        let paths: Vec<String> = (1..count).map(|number| format!("/service/{number}/orders")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).chain(["/"]).collect();
        table(vec![site("s", vec![HostPattern::Any], &paths)])
    };
    let (few, many) = (of(10), of(10_000));
    let time = |table: &Table, path: &str| {
        let started = std::time::Instant::now();
        for _ in 0..200_000 {
            assert!(routed(std::hint::black_box(table), "h", std::hint::black_box(path)).is_some());
        }
        started.elapsed().as_nanos() / 200_000
    };
    for path in ["/service/7/orders/17", "/assets/index.js"] {
        let mut best = [u128::MAX; 2];
        for _ in 0..10 {
            best = [best[0].min(time(&few, path)), best[1].min(time(&many, path))];
        }
        println!("{path}: {} ns among 10 routes, {} ns among 10,000", best[0], best[1]);
    }
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
