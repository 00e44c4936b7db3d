//! Traces as a collector of OpenTelemetry gets them, and the trace context towards upstreams.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Browser, SESSION, Wishes, World, XSRF, eventually, free_address};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::secrets_found::Secrets;

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const GIVEN_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Takes spans over OTLP/HTTP as JSON.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Value>>>);

impl Collector {
    /// Starts one, and returns the address too.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let router = Router::new().route("/v1/traces", post(Self::take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{address}"))
    }

    async fn take(State(collector): State<Self>, headers: axum::http::HeaderMap, body: String) -> &'static str {
        assert_eq!(headers[CONTENT_TYPE.as_str()], "application/json");
        let sent: Value = serde_json::from_str(&body).expect("JSON");
        let resource = &sent["resourceSpans"][0];
        assert_eq!(text(&resource["resource"]["attributes"], "service.name").as_deref(), Some("edge"));
        let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
        collector.0.lock().expect("the spans").extend(spans);
        "{}"
    }

    fn all(&self) -> Vec<Value> {
        self.0.lock().expect("the spans").clone()
    }

    /// The span of the request for `path`, once it has come, with all that is below it.
    async fn request(&self, path: &str) -> (Value, Vec<Value>) {
        let find = || self.all().into_iter().find(|span| attribute(span, "url.path").as_deref() == Some(path));
        eventually("the span comes", || async { find().is_some() }).await;
        let span = find().expect("a span");
        let below = |other: &Value| other["traceId"] == span["traceId"] && other["parentSpanId"] == span["spanId"];
        let below = self.all().into_iter().filter(|other| below(other)).collect();
        (span, below)
    }
}

/// An attribute as text.
fn text(attributes: &Value, name: &str) -> Option<String> {
    let attribute = attributes.as_array()?.iter().find(|one| one["key"] == name)?;
    let value = &attribute["value"];
    value["stringValue"].as_str().or_else(|| value["intValue"].as_str()).map(str::to_owned)
}

fn attribute(span: &Value, name: &str) -> Option<String> {
    text(&span["attributes"], name)
}

async fn traced(wishes: Wishes, traces: &str) -> (World, Collector) {
    let (collector, address) = Collector::start().await;
    let telemetry = format!("telemetry: {{ traces: {{ endpoint: \"{address}\", service_name: edge{traces} }} }}");
    let more = format!("{}\n{telemetry}", wishes.more);
    (world(Wishes { more, ..wishes }).await, collector)
}

/// The `traceparent` of the last request that reached the upstream, in its four parts.
fn sent_on(world: &World) -> Vec<String> {
    let last = world.demo.upstream.recorder().last().expect("a request");
    last.header("traceparent").expect("a traceparent").split('-').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_the_work_for_it_are_spans_of_one_trace() {
    let redis = RedisServer::start();
    let wishes = ticking_on(&redis);
    let upstreams = format!("  - {{ name: gone, endpoints: [\"{}\"] }}", free_address());
    let routes = "      - { path: /lost/, upstream: gone, access: public }\n      - { path: /api/, upstream: demo, access: required }";
    let (world, collector) = traced(Wishes { upstreams, routes: routes.into(), ..wishes }, "").await;
    let mut browser = world.browser();
    browser.log_in("/api/first").await;
    let (callback, below) = collector.request("/auth/callback").await;
    assert_eq!((callback["kind"].as_u64(), &callback["name"]), (Some(2), &"GET".into()));
    let names: Vec<_> = below.iter().map(|span| span["name"].as_str().expect("a name")).collect();
    for name in ["take_login", "token", "create"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }

    world.clock.advance(CACHE_TTL + NEARLY_OVER);
    let draft = browser.draft(Method::GET, "/api/one?secret=query").header("user-agent", "the agent");
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    let (span, below) = collector.request("/api/one").await;
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("server.address", "127.0.0.1"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "the agent"),
        ("cloakroom.provider", "demo"),
    ] {
        assert_eq!(attribute(&span, name).as_deref(), Some(value), "{name}: {span}");
    }
    assert_eq!((&span["name"], span.get("parentSpanId"), span.get("status")), (&"GET /api".into(), None, None));
    assert_eq!(attribute(&span, "session.id").expect("a session").len(), 22);
    let nanos = |span: &Value, name: &str| span[name].as_str().expect("text").parse::<u128>().expect("a number");
    let (start, end) = (nanos(&span, "startTimeUnixNano"), nanos(&span, "endTimeUnixNano"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos();
    assert!(start < end && end <= now && now - start < 60_000_000_000, "{span}");
    let find =
        |name: &str| below.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name}: {below:#?}"));
    assert_eq!(attribute(find("load"), "db.system.name").as_deref(), Some("redis"));
    // The refresh runs in a task of its own, and is still for this request.
    assert_eq!(attribute(find("token"), "cloakroom.provider").as_deref(), Some("demo"));
    let upstream = find("GET");
    assert_eq!(attribute(upstream, "cloakroom.upstream").as_deref(), Some("demo"));
    assert_eq!(attribute(upstream, "http.response.status_code").as_deref(), Some("200"));
    let parent = sent_on(&world);
    assert_eq!((parent[0].as_str(), parent[3].as_str()), ("00", "01"));
    assert_eq!((&span["traceId"], &upstream["spanId"]), (&parent[1].clone().into(), &parent[2].clone().into()));

    assert_eq!(browser.fetch("/lost/two").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let (span, below) = collector.request("/lost/two").await;
    assert_eq!(span["status"]["code"], 2);
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("503"));
    assert_eq!(attribute(&span, "cloakroom.reason").as_deref(), Some("upstream_unavailable"));
    let attempts: Vec<_> = below.iter().filter(|span| attribute(span, "cloakroom.upstream").is_some()).collect();
    assert!(!attempts.is_empty() && attempts.iter().all(|span| span["status"]["code"] == 2), "{below:#?}");

    let mut secrets = Secrets::default();
    for name in [SESSION, XSRF] {
        secrets.add("cookie", browser.cookie(name).expect("a cookie"));
    }
    secrets.add("query", "secret=query");
    secrets.add_all_of(&world);
    secrets.assert_none_in("the traces", &format!("{:?}", collector.all()), &[]);
    assert!(world.metric("cloakroom_trace_spans_total{result=\"sent\"}").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_trace_is_begun_afresh_and_that_of_who_is_trusted_gone_on_with() {
    for (more, traces, goes_on) in [
        ("", "", false),
        ("trusted_proxies: [127.0.0.1]", "", true),
        ("", ", trust: always", true),
        ("trusted_proxies: [127.0.0.1]", ", trust: never", false),
    ] {
        let (world, collector) = traced(Wishes { more: more.into(), ..Wishes::default() }, traces).await;
        let mut browser = world.browser();
        let draft = browser.draft(Method::GET, "/open/x").header("traceparent", GIVEN).header("tracestate", "theirs=1");
        assert_eq!(browser.send(draft).await.status, StatusCode::OK);
        let (span, _) = collector.request("/open/x").await;
        let parent = sent_on(&world);
        let state = world.demo.upstream.recorder().last().expect("a request").header("tracestate").map(str::to_owned);
        assert_eq!(span["traceId"] == GIVEN_ID, goes_on, "{more} {traces}: {span}");
        assert_eq!(span.get("parentSpanId").is_some_and(|parent| parent == "b7ad6b7169203331"), goes_on);
        assert_eq!((parent[1] == GIVEN_ID, state.is_some()), (goes_on, goes_on));
        assert_ne!(parent[2], "b7ad6b7169203331");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_told_of_and_says_so_to_upstreams() {
    let (world, collector) = traced(Wishes::default(), ", sample: 0%").await;
    let mut browser = world.browser();
    assert_eq!(browser.fetch("/open/x").await.status, StatusCode::OK);
    assert_eq!(sent_on(&world)[3], "00");
    // Nor is one of a client that nobody believes.
    let draft = browser.draft(Method::GET, "/open/y").header("traceparent", GIVEN);
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!(sent_on(&world)[3], "00");
    assert!(collector.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_the_header_is_the_clients_and_a_collector_that_is_away_holds_up_nobody() {
    let world = world(Wishes::default()).await;
    let mut browser = world.browser();
    let draft = browser.draft(Method::GET, "/open/x").header("traceparent", GIVEN);
    assert_eq!(browser.send(draft).await.status, StatusCode::OK);
    assert_eq!(sent_on(&world).join("-"), GIVEN);

    let away = format!("telemetry: {{ traces: {{ endpoint: \"http://{}\" }} }}", free_address());
    let world = crate::kit::world(Wishes { more: away, ..Wishes::default() }).await;
    let mut browser = Browser::new(world.proxy.address);
    assert_eq!(browser.fetch("/open/x").await.status, StatusCode::OK);
    eventually("the loss is counted", || async {
        world.metric("cloakroom_trace_spans_total{result=\"failed\"}").await > 0.0
    })
    .await;
}
