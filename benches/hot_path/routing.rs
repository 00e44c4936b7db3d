//! From `Host` and path to the route and an address, among 1,000 routes.

use std::hint::black_box;
use std::num::NonZeroUsize;

use cloakroom::config::settings::{
    Aliases, Endpoint, HostPattern, Refresh, Route, SecurityHeaders, Session, Settings, Site, Store, Upstream,
};
use cloakroom::primitives::path::{PathPrefix, canonical};
use cloakroom::routing::discovery::system_lookup;
use cloakroom::routing::host;
use cloakroom::routing::table::{Asked, Choice, Table};
use cloakroom::routing::upstream::Upstreams;
use cloakroom::telemetry::metrics::Metrics;
use criterion::Criterion;
use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Method, Uri};

const SITES: usize = 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    // `cargo bench --bench hot_path -- routes`: many cost what few do.
    for (group, routes_per_site) in [("routing", 100), ("10 routes", 1), ("10,000 routes", 1000)] {
        bench_among(criterion, group, routes_per_site);
    }
}

fn bench_among(criterion: &mut Criterion, group: &str, routes_per_site: usize) {
    let settings = settings(routes_per_site);
    let (Ok(metrics), lookup) = (Metrics::new(), system_lookup()) else { return };
    let upstreams = Upstreams::new(&settings.upstreams, &lookup, &metrics);
    let Ok(table) = Table::new(&settings, &upstreams, None, &metrics) else { return };

    let mut group = criterion.benchmark_group(group);
    let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("app7.example.com:8443"))]);
    for (name, target) in [
        ("deep route", "/service/42/orders/17/items"),
        ("root route", "/assets/index-4f2a.js"),
        ("long path", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z"),
    ] {
        let Ok(uri) = target.parse::<Uri>() else { continue };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let authority = host::of_request(black_box(&uri), black_box(&headers)).ok()?;
                let path = canonical(uri.path()).ok()?;
                let asked = Asked { host: &authority.host, method: &Method::GET, headers: black_box(&headers) };
                let Choice::Route(route) = table.site(&authority.host)?.route(&path, &asked) else { return None };
                route.forward()?.upstream.pick(&[], &[])
            });
        });
    }
    group.finish();
}

fn settings(routes_per_site: usize) -> Settings {
    Settings {
        listeners: Vec::new(),
        threads: NonZeroUsize::MIN,
        trusted_proxies: Vec::new(),
        limits: cloakroom::config::settings::Limits::default(),
        admin: None,
        keys: Vec::new(),
        store: Store::Memory,
        session: Session::default(),
        refresh: Refresh::default(),
        providers: Vec::new(),
        upstreams: vec![Upstream::plain("api", (1..=3).map(|port| Endpoint::new("127.0.0.1", port)).collect())],
        sites: (0..SITES).filter_map(|number| site(number, routes_per_site)).collect(),
        idle_connections: None,
        proxy_token: None,
        shutdown: Default::default(),
        telemetry: Default::default(),
    }
}

fn site(number: usize, routes_per_site: usize) -> Option<Site> {
    let host = format!("app{number}.example.com");
    let routes = (1..routes_per_site).map(|route_number| format!("/service/{route_number}/orders"));
    Some(Site {
        name: host.as_str().into(),
        hosts: vec![HostPattern::Exact(host)],
        providers: Vec::new(),
        auth_path: PathPrefix::parse("/auth").ok()?,
        aliases: Aliases::default(),
        context_claims: Vec::new(),
        origins: Vec::new(),
        bearer: None,
        security_headers: SecurityHeaders::default(),
        routes: routes.chain(["/".to_owned()]).filter_map(|path| route(&path)).collect(),
    })
}

fn route(path: &str) -> Option<Route> {
    Some(Route::to_upstream(PathPrefix::parse(path).ok()?, "api"))
}
