//! Ingress resources (networking.k8s.io/v1) for ingress-nginx.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde::Deserialize as _;
use serde_yaml::{Mapping, Value};

use super::annotations::{Annotated, PREFIX};
use super::closing::{Made, add, close};
use super::draft::{Draft, from_variable, list, map};
use super::model::{alone, bounded, cleaned, literal};
use super::oauth2_proxy::sealing;

/// Where the endpoints of a login were below oauth2-proxy; its callback may stay where it is.
const AUTH_PATH: &str = "/oauth2";

/// Reads one or several documents; what is no Ingress is passed over.
pub(super) fn converted(name: &str, text: &str) -> anyhow::Result<Draft> {
    let mut ingresses = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let document = Value::deserialize(document).with_context(|| format!("{name} is no YAML"))?;
        match (document.get("kind").and_then(Value::as_str), document.get("items")) {
            (Some("Ingress"), _) => ingresses.push(document),
            (Some("List" | "IngressList"), Some(Value::Sequence(items))) => {
                let is_ingress =
                    |item: &&Value| item.get("kind").and_then(Value::as_str).is_none_or(|kind| kind == "Ingress");
                ingresses.extend(items.iter().filter(is_ingress).cloned());
            }
            _ => {}
        }
    }
    if ingresses.is_empty() {
        bail!("{name} holds no Ingress; try `kubectl get ingress --all-namespaces -o yaml`");
    }
    let mut draft = Draft::new(name);
    let mut build = Build { expressions: ingresses.iter().flat_map(expressions).collect(), ..Build::default() };
    for host in &build.expressions {
        draft.leave(format!(
            "{host}: `use-regex` or `rewrite-target` made nginx compare paths without regard to upper and lower case: \
             routes do regard it, so look where `/ADMIN` goes if `/admin` asks for a login"
        ));
    }
    draft.leave(
        "a `global-auth-url` in the ConfigMap of ingress-nginx asked for a login on every Ingress without `enable-global-auth: \"false\"`: \
         if there is one, take `access: public` off the routes",
    );
    for ingress in &ingresses {
        build.take(&mut draft, ingress);
    }
    build.write(&mut draft);
    Ok(draft)
}

/// Hosts where this Ingress makes all paths expressions, also those of others.
fn expressions(ingress: &Value) -> Vec<String> {
    let annotations = ingress.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let annotation = |name: &str| annotations.and_then(|all| all.get(format!("{PREFIX}{name}")));
    let regex = annotation("use-regex").is_some_and(|value| *value == true || value == "true");
    let spec = ingress.get("spec");
    if regex || annotation("rewrite-target").is_some() { hosts(spec) } else { Vec::new() }
}

fn hosts(spec: Option<&Value>) -> Vec<String> {
    let rules = spec.and_then(|spec| spec.get("rules")).and_then(Value::as_sequence).into_iter().flatten();
    let mut hosts: Vec<String> = rules.map(host_of).collect();
    if spec.is_some_and(|spec| spec.get("defaultBackend").is_some()) {
        hosts.push("*".to_owned());
    }
    hosts
}

fn host_of(rule: &Value) -> String {
    rule.get("host").and_then(Value::as_str).filter(|host| !host.is_empty()).unwrap_or("*").to_owned()
}

/// What comes of all of them together.
#[derive(Default)]
struct Build {
    upstreams: BTreeMap<String, Value>,
    sites: BTreeMap<String, Vec<Made>>,
    /// By host, what was protected there and is not translated, or not all of it.
    missing: BTreeMap<String, Vec<String>>,
    /// Hosts whose paths are all expressions.
    expressions: BTreeSet<String>,
    /// Hosts beside the first, by it.
    aliases: BTreeMap<String, BTreeSet<String>>,
    tls: bool,
}

impl Build {
    fn take(&mut self, draft: &mut Draft, ingress: &Value) {
        let (metadata, spec) = (ingress.get("metadata"), ingress.get("spec").cloned().unwrap_or_default());
        let part = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Value::as_str);
        let namespace = part("namespace").unwrap_or("default").to_owned();
        let label = format!("{namespace}/{}", part("name").unwrap_or("?"));
        let annotations = metadata.and_then(|metadata| metadata.get("annotations")).cloned().unwrap_or_default();
        let annotated = Annotated::read(draft, &label, &annotations);
        for host in hosts(Some(&spec)) {
            if annotated.left_out && annotated.closed {
                self.miss(&host, format!("{label} was left out"));
            }
            if let Some(name) = annotated.of_host {
                self.miss(&host, format!("`{name}` of {label} held for all of the host"));
            }
        }
        if annotated.left_out {
            return;
        }
        self.tls |= spec.get("tls").is_some();
        let items = |value: Option<&Value>| value.and_then(Value::as_sequence).cloned().unwrap_or_default();
        for rule in items(spec.get("rules")) {
            let host = host_of(&rule);
            if !annotated.aliases.is_empty() {
                self.aliases.entry(host.clone()).or_default().extend(annotated.aliases.iter().cloned());
            }
            for path in items(rule.get("http").and_then(|http| http.get("paths"))) {
                self.path(draft, &label, &namespace, &host, &path, &annotated);
            }
        }
        if let Some(backend) = spec.get("defaultBackend") {
            let path = map([("path", "/".into()), ("backend", backend.clone())]);
            self.path(draft, &label, &namespace, "*", &path, &annotated);
        }
    }

    fn path(
        &mut self,
        draft: &mut Draft,
        label: &str,
        namespace: &str,
        host: &str,
        path: &Value,
        annotated: &Annotated,
    ) {
        let written = path.get("path").and_then(Value::as_str).unwrap_or("/");
        let kind = path.get("pathType").and_then(Value::as_str).unwrap_or("Prefix");
        let names = written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.~-".contains(&byte));
        let segments = match kind {
            "Exact" if names => true,
            "Prefix" if names && !self.expressions.contains(host) => true,
            _ => bounded(written),
        };
        if annotated.closed && !segments {
            self.miss(host, format!("the path `{written}` of {label} took more than a route for it does"));
        }
        let Some(clean) = literal(written) else {
            draft.leave(format!("{label}: the path `{written}` is an expression: write its route by hand"));
            return;
        };
        let Some(clean) = cleaned(&clean, AUTH_PATH) else {
            if annotated.closed {
                self.miss(host, format!("the path `{written}` of {label} was left out"));
            }
            draft.leave(format!("{label}: the path `{written}` was left out: it is not canonical, or Cloakroom's own endpoints are there"));
            return;
        };
        let exact = kind == "Exact" || alone(written);
        if exact {
            draft.leave(format!("{label}: the path `{written}` was exact; the route also takes what lies below it"));
        }
        let mut route = Mapping::new();
        route.insert("path".into(), clean.as_str().into());
        if let Some(redirect) = &annotated.redirect {
            route.insert("redirect".into(), redirect.clone());
            route.insert("access".into(), "public".into());
        } else {
            let Some(upstream) = self.upstream(draft, label, namespace, path.get("backend"), annotated) else {
                if annotated.closed {
                    self.miss(host, format!("the backend of `{written}` of {label} was left out"));
                }
                return;
            };
            route.insert("upstream".into(), upstream.into());
            annotated.rewritten(draft, label, &mut route, written, &clean);
            for (key, value) in &annotated.route {
                route.insert(key.clone(), value.clone());
            }
        }
        let routes = self.sites.entry(host.to_owned()).or_default();
        add(draft, label, host, routes, Made { path: clean, route: Value::Mapping(route), exact });
    }

    fn miss(&mut self, host: &str, why: String) {
        let all = self.missing.entry(host.to_owned()).or_default();
        if !all.contains(&why) {
            all.push(why);
        }
    }

    /// Closes routes of each host, once all are there.
    fn close(&mut self, draft: &mut Draft) {
        // A host without a site of its own falls to one with a wildcard.
        let lost: Vec<(String, Vec<String>)> = self
            .missing
            .iter()
            .filter(|(host, _)| !self.sites.contains_key(*host))
            .map(|(host, why)| (host.clone(), why.clone()))
            .collect();
        for (host, why) in lost {
            let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            for wider in parent.into_iter().chain(["*".to_owned()]) {
                why.iter().for_each(|why| self.miss(&wider, why.clone()));
            }
        }
        for (host, routes) in &mut self.sites {
            let why = self.missing.get(host).map(Vec::as_slice).unwrap_or_default();
            close(draft, host, routes, why);
        }
    }

    /// The name of the upstream for a service, which is made if it is not there.
    fn upstream(
        &mut self,
        draft: &mut Draft,
        label: &str,
        namespace: &str,
        backend: Option<&Value>,
        annotated: &Annotated,
    ) -> Option<String> {
        let service = backend.and_then(|backend| backend.get("service"));
        let Some(name) = service.and_then(|service| service.get("name")).and_then(Value::as_str) else {
            draft.leave(format!("{label}: a backend that is no service was left out"));
            return None;
        };
        let port = service.and_then(|service| service.get("port"));
        let number = port.and_then(|port| port.get("number")).and_then(Value::as_u64);
        let port = number.unwrap_or_else(|| {
            let named = port.and_then(|port| port.get("name")).and_then(Value::as_str).unwrap_or("?");
            draft.leave(format!("{label}: the port `{named}` of the service {name} has a name: 80 was written, put its number in `endpoints`"));
            80
        });
        let scheme = if annotated.tls { "https://" } else { "" };
        let endpoint = format!("{scheme}{name}.{namespace}.svc:{port}");
        let mut made = Mapping::new();
        made.insert("endpoints".into(), list([endpoint.as_str()]));
        for (key, value) in &annotated.upstream {
            made.insert(key.clone(), value.clone());
        }
        let plain = format!("{namespace}-{name}-{port}");
        // Another Ingress may speak with the same service in another way.
        for number in 1.. {
            let name = if number == 1 { plain.clone() } else { format!("{plain}-{number}") };
            let mut whole = Mapping::new();
            whole.insert("name".into(), name.as_str().into());
            whole.extend(made.clone());
            let whole = Value::Mapping(whole);
            match self.upstreams.get(&name) {
                Some(known) if *known == whole => return Some(name),
                Some(_) => {}
                None => {
                    self.upstreams.insert(name.clone(), whole);
                    return Some(name);
                }
            }
        }
        None
    }

    fn write(mut self, draft: &mut Draft) {
        self.close(draft);
        let logins = self.sites.values().flatten().any(|made| !made.is_public());
        draft.set("listeners", vec![map([("address", "0.0.0.0:8080".into())])]);
        if self.tls {
            draft.leave(
                "TLS: mount the secrets of `spec.tls`, add a listener with `tls.certificates`, and `redirect_to_https: true` to the plain one; \
                 see docs/how-to/tls.md",
            );
        }
        sealing(draft);
        draft.set("store", map([("kind", "memory".into())]));
        draft.leave("`store: { kind: memory }` is for one replica; see docs/how-to/choose-a-store.md");
        if logins {
            draft.set(
                "providers",
                vec![map([
                    ("name", "main".into()),
                    ("issuer", "https://id.example.com".into()),
                    ("client_id", "cloakroom".into()),
                    (
                        "client_auth",
                        map([("method", "client_secret_basic".into()), ("secret", from_variable("CLIENT_SECRET"))]),
                    ),
                ])],
            );
            draft.leave(
                "`providers` is made up: `auth-url` named who checks logins, not who makes them, and whom it let pass of those with a login \
                 must stand in `allow`; if that was oauth2-proxy, \
                 `cloakroom convert oauth2-proxy` of its file gives the provider",
            );
            draft.leave("set the variable CLIENT_SECRET to the client's secret at the provider");
        }
        draft.set("upstreams", self.upstreams.into_values().collect::<Vec<_>>());
        let mut served: BTreeSet<String> = self.sites.keys().cloned().collect();
        let mut sites = Vec::new();
        for (host, routes) in self.sites {
            let mut hosts = vec![host.clone()];
            let others = self.aliases.get(&host).into_iter().flatten();
            hosts.extend(others.filter(|other| served.insert((*other).clone())).cloned());
            let needs_login = routes.iter().any(|made| !made.is_public());
            sites.push(map([
                ("hosts", list(hosts)),
                ("provider", if needs_login { "main".into() } else { Value::Null }),
                ("auth_path", AUTH_PATH.into()),
                ("routes", Value::Sequence(routes.into_iter().map(|made| made.route).collect())),
            ]));
        }
        draft.set("sites", sites);
    }
}
