//! From `Host` and path to the route and an address, among 1,000 routes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use cloakroom::config::settings::{
    Access, Aliases, Endpoint, HostPattern, OnMissing, Refresh, Retries, Route, Session, Settings, Site, Store, Token,
    Upstream, UpstreamTimeouts,
};
use cloakroom::primitives::path::{PathPrefix, canonical};
use cloakroom::routing::discovery::system_lookup;
use cloakroom::routing::host;
use cloakroom::routing::table::Table;
use cloakroom::routing::upstream::Upstreams;
use cloakroom::telemetry::metrics::Metrics;
use criterion::Criterion;
use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Uri};

const SITES: usize = 10;
const ROUTES_PER_SITE: usize = 100;

pub(crate) fn bench(criterion: &mut Criterion) {
    let settings = settings();
    let (Ok(metrics), lookup) = (Metrics::new(), system_lookup()) else { return };
    let upstreams = Upstreams::new(&settings.upstreams, &lookup, &metrics);
    let Ok(table) = Table::new(&settings, &upstreams, &metrics) else { return };

    let mut group = criterion.benchmark_group("routing");
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
                let route = table.site(&authority.host)?.route(&path)?;
                route.upstream.pick()
            });
        });
    }
    group.finish();
}

fn settings() -> Settings {
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
        upstreams: vec![Upstream {
            name: "api".into(),
            endpoints: (1..=3).map(|port| Endpoint { host: "127.0.0.1".into(), port }).collect(),
            timeouts: UpstreamTimeouts { connect: second, read: second, write: second, idle: second },
            retries: Retries::default(),
        }],
        sites: (0..SITES).filter_map(site).collect(),
    }
}

fn site(number: usize) -> Option<Site> {
    let host = format!("app{number}.example.com");
    let routes = (1..ROUTES_PER_SITE).map(|route_number| format!("/service/{route_number}/orders"));
    Some(Site {
        name: host.as_str().into(),
        hosts: vec![HostPattern::Exact(host)],
        provider: None,
        auth_path: PathPrefix::parse("/auth").ok()?,
        aliases: Aliases::default(),
        origins: Vec::new(),
        routes: routes.chain(["/".to_owned()]).filter_map(|path| route(&path)).collect(),
    })
}

fn route(path: &str) -> Option<Route> {
    Some(Route {
        path: PathPrefix::parse(path).ok()?,
        upstream: "api".into(),
        strip_prefix: None,
        access: Access::Required,
        on_missing: OnMissing::Auto,
        token: Token::Access,
        identity_headers: Vec::new(),
        max_body: 1,
        csrf: true,
        retry_unauthorized: true,
    })
}
