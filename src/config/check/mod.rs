//! The tree becomes [`Settings`]: one file a section, and here what concerns several of them.

mod bearer;
mod credentials;
mod edge;
mod limits;
mod providers;
mod routes;
mod security;
mod session;
mod sites;
mod store;
mod telemetry;
mod tls;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::decode::Reader;
use super::diagnostic::{Code, Severity, did_you_mean};
use super::schema::ROOT;
use super::settings::{Access, Settings, Shutdown};
use super::source::Span;
use super::yaml::{Kind, Node};

/// Most idle connections to upstreams that can be asked for.
const MOST_IDLE: u64 = 1_000_000;
/// Most worker threads that make sense.
const MOST_THREADS: u64 = 1024;

/// Reads all sections. `None` only if a mistake was noted.
pub(super) fn settings(reader: &mut Reader<'_>, root: &Node) -> Option<Settings> {
    if matches!(root.kind, Kind::Null) {
        reader.note(
            Code::Empty,
            root,
            "the file holds no settings",
            "`conf/cloakroom.yaml` is an example to begin with",
        );
        return None;
    }
    let fields = reader.fields(root, &ROOT)?;
    let mut sockets = Vec::new();
    let listeners = fields.required(reader, "listeners", "[{ address: \"0.0.0.0:8080\" }]", |reader, node| {
        edge::listeners(reader, node, &mut sockets)
    });
    let threads = fields.optional(reader, "threads", available_threads(), threads);
    let trusted_proxies = fields.optional(reader, "trusted_proxies", Vec::new(), edge::trusted_proxies);
    let limits = fields.optional(reader, "limits", super::settings::Limits::default(), limits::limits);
    let admin = fields.maybe(reader, "admin", |reader, node| edge::admin(reader, node, &sockets));
    let keys = fields.required(reader, "keys", "[{ id: \"1\", secret: { env: CLOAKROOM_KEY } }]", session::keys);
    let proxy_token = fields.maybe(reader, "proxy_token", session::proxy_token);
    let proxy_tokens = fields.get("proxy_token").is_some();
    let store = fields.optional(reader, "store", super::settings::Store::Memory, store::store);
    let session = session::session(reader, fields.get("session"));
    let refresh = session::refresh(reader, fields.get("refresh"));

    let mut provider_names = Names::new("provider", "providers");
    let providers = fields.optional(reader, "providers", Vec::new(), |reader, node| {
        reader.list(node, |reader, item| providers::provider(reader, item, &mut provider_names))
    });
    let mut upstream_names = Names::new("upstream", "upstreams");
    // Files, redirects and fixed answers need none.
    let upstreams = fields.optional(reader, "upstreams", Vec::new(), |reader, node| {
        reader.list(node, |reader, item| upstreams::upstream(reader, item, &mut upstream_names))
    });
    let idle_connections = fields
        .maybe(reader, "idle_connections", |reader, node| usize::try_from(reader.integer(node, 1, MOST_IDLE)?).ok());
    let example = "[{ hosts: [app.example.com], routes: [{ path: /, upstream: app, access: public }] }]";
    let sites = fields.required(reader, "sites", example, |reader, node| {
        sites::sites(reader, node, &mut provider_names, &mut upstream_names, proxy_tokens)
    });
    let shutdown = fields.optional(reader, "shutdown", Shutdown::default(), edge::shutdown);
    let telemetry = fields.optional(reader, "telemetry", super::settings::Telemetry::default(), telemetry::telemetry);
    provider_names.note_unused(reader);
    upstream_names.note_unused(reader);

    let settings = Settings {
        listeners: listeners?,
        threads: threads?,
        trusted_proxies: trusted_proxies?,
        limits: limits?,
        admin: admin?,
        keys: keys?,
        proxy_token: proxy_token?,
        store: store?,
        session: session?,
        refresh: refresh?,
        providers: providers?,
        upstreams: upstreams?,
        idle_connections: idle_connections?,
        sites: sites?,
        shutdown: shutdown?,
        telemetry: telemetry?,
    };
    note_csrf_off(reader, &fields, &settings);
    note_form_post(reader, &fields, &settings);
    if let Some(node) = fields.get("sites") {
        routes::reserved(reader, node, &settings.sites, &settings.session.csrf.header);
        routes::note_nobody_returns(reader, node, &settings);
        routes::check_tokens(reader, node, &settings);
    }
    providers::check_sites(reader, &fields, &settings);
    credentials::check_login_pages(reader, &fields, &settings);
    bearer::check(reader, &fields, &settings);
    edge::note_nobody_trusted(reader, fields.get("listeners"), &settings);
    Some(settings)
}

fn available_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn threads(reader: &mut Reader<'_>, node: &Node) -> Option<NonZeroUsize> {
    let count = reader.integer(node, 1, MOST_THREADS)?;
    usize::try_from(count).ok().and_then(NonZeroUsize::new)
}

/// `mode: off` is worth a word only where a session can be abused.
fn note_csrf_off(reader: &mut Reader<'_>, fields: &super::decode::Fields<'_>, settings: &Settings) {
    let mode = fields.get("session").and_then(|session| child(session, "csrf")).and_then(|csrf| child(csrf, "mode"));
    let sessions = settings.sites.iter().flat_map(|site| &site.routes).any(|route| route.access != Access::Public);
    if let (Some(mode), super::settings::CsrfMode::Off, true) = (mode, settings.session.csrf.mode, sessions) {
        let help = "`report` counts and logs without blocking; `csrf: false` on a route exempts that route alone";
        reader.note(Code::CsrfOff, mode, "any page may send requests in the user's name", help);
    }
}

/// An answer that another site posts brings only cookies with `SameSite=None`, and browsers take those only with `Secure`.
fn note_form_post(reader: &mut Reader<'_>, fields: &super::decode::Fields<'_>, settings: &Settings) {
    if settings.session.cookie.secure {
        return;
    }
    let Some(Kind::List(items)) = fields.get("providers").map(|node| &node.kind) else { return };
    for node in items.iter().filter_map(|item| child(item, "response_mode")) {
        if matches!(&node.kind, Kind::Text(mode) if mode == "form_post") {
            let help = "use `response_mode: query`, or HTTPS and `session.cookie.secure: true`";
            reader.note(Code::Contradiction, node, "browsers bring no login cookie without `Secure` here", help);
        }
    }
}

/// The value of a key in a mapping.
fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|entry| entry.name == key).map(|entry| &entry.value)
}

/// Notes that something stands there a second time.
fn duplicate(reader: &mut Reader<'_>, node: &Node, what: &str, first: Span) {
    let help = format!("it stands in line {} already; remove or change one of them", first.line);
    reader.note(Code::Duplicate, node, what, help);
}

/// Names that other sections refer to.
struct Names {
    what: &'static str,
    section: &'static str,
    known: BTreeMap<Arc<str>, (Span, String)>,
    used: BTreeSet<Arc<str>>,
    /// A name could not be read: a reference to an unknown name may well mean that one.
    incomplete: bool,
}

impl Names {
    fn new(what: &'static str, section: &'static str) -> Self {
        Self { what, section, known: BTreeMap::new(), used: BTreeSet::new(), incomplete: false }
    }

    /// Reads the name of an item.
    fn define(&mut self, reader: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
        let Some(name) = super::values::name(reader, node).map(Arc::<str>::from) else {
            self.incomplete = true;
            return None;
        };
        if let Some((first, _)) = self.known.get(&name) {
            duplicate(reader, node, &format!("a second {} is called `{name}`", self.what), *first);
            return None;
        }
        self.known.insert(Arc::clone(&name), (node.label(), node.setting.clone()));
        Some(name)
    }

    /// Reads a reference to one of them.
    fn refer(&mut self, reader: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
        let text = reader.word(node)?;
        if let Some((name, _)) = self.known.get_key_value(text.as_str()) {
            self.used.insert(Arc::clone(name));
            return Some(Arc::clone(name));
        }
        if !self.incomplete {
            let help = did_you_mean(&text, self.known.keys().map(AsRef::as_ref)).unwrap_or_else(|| {
                let names = self.known.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>();
                match names.as_slice() {
                    [] => format!("add it below `{}`", self.section),
                    _ => format!("add it below `{}`; there is {}", self.section, names.join(", ")),
                }
            });
            reader.note(Code::UnknownName, node, format!("no {} is called `{text}`", self.what), help);
        }
        None
    }

    /// Only where all else is right: next to a misspelt reference this would say the same thing twice.
    fn note_unused(&self, reader: &mut Reader<'_>) {
        if reader.found.iter().any(|found| found.code.severity() == Severity::Error) {
            return;
        }
        for (name, (span, setting)) in self.known.iter().filter(|(name, _)| !self.used.contains(*name)) {
            let message = format!("nothing uses the {} `{name}`", self.what);
            reader.note_at(Code::Unused, *span, setting, message, "remove it, or refer to it");
        }
    }
}
