//! The settings as the rest of the program sees them: every value parsed, checked and in range.
//!
//! Only [`load`](super::load) makes these (and tests). References between sections (`site.providers`, `route.upstream`) are
//! names that are known to exist.

mod credentials;
mod edge;
mod provider;
mod route;
mod rule;
mod session;
mod telemetry;
mod token;
mod upstream;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use ipnet::IpNet;
use url::Url;

pub use credentials::{AnswerFields, Credentials, CredentialsRefresh, LoginLimits, SendToken};
pub use edge::{Certificate, ClientCertificates, ForwardAuth, Http2, Limits, Listener, ListenerTls, Most, TlsVersion};

pub use self::provider::{
    BackchannelLogout, ClientAuth, FrontchannelLogout, Introspection, LoginParameter, LogoutScope, Phantom, Provider,
    ProviderKind, PushedAuthorization, ResponseMode,
};
pub use self::route::{
    Accept, Action, Conditions, Cors, CorsOrigins, Files, Forward, Frames, HeaderChanges, HeaderMatch, RateBy,
    RateLimit, Redirect, Respond, Rewrite, SecurityHeaders,
};
pub use self::rule::{ClaimCondition, ClaimTest, ClaimValue, Pattern, Rule};
pub use self::session::{Cache, Csrf, CsrfMode, ReturningTokens, SameSite, Session, SessionCookie};
pub use self::telemetry::{AccessLog, Telemetry, TraceTrust, Traces};
pub use self::token::{ClientToken, Target, Token};
use crate::primitives::path::PathPrefix;
use crate::primitives::secret::{Key256, SecretText};

pub use upstream::{
    Balance, ClientCertificate, Ejection, Endpoint, HashOn, HealthCheck, MOST_ATTEMPTS, Protocol, Retries, ServerName,
    Upstream, UpstreamTimeouts, UpstreamTls,
};

/// Everything a running Cloakroom was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Public sockets; at least one.
    pub listeners: Vec<Listener>,
    /// Worker threads of the proxy; default: available parallelism.
    pub threads: NonZeroUsize,
    /// Peers whose `X-Forwarded-*` and PROXY headers are believed; default: nobody.
    pub trusted_proxies: Vec<IpNet>,
    /// How much a client may ask for, and how long it may take.
    pub limits: Limits,
    /// Probes and metrics; `None` = no admin listener.
    pub admin: Option<Admin>,
    /// The key ring: the first key seals, all open. At least one, ids unique.
    pub keys: Vec<SealingKey>,
    /// Tokens that name sessions to applications; `None` = there are none.
    pub proxy_token: Option<ProxyToken>,
    /// Where sessions live.
    pub store: Store,
    /// Session life, cookies, CSRF, local cache.
    pub session: Session,
    /// When tokens are refreshed.
    pub refresh: Refresh,
    /// Who logs users in; names unique.
    pub providers: Vec<ProviderKind>,
    /// Groups of endpoints; names unique.
    pub upstreams: Vec<Upstream>,
    /// Most idle connections to upstreams, all together; `None` = 1,024 a thread.
    pub idle_connections: Option<usize>,
    /// Sites; at least one; no host twice.
    pub sites: Vec<Site>,
    /// How the process stops.
    pub shutdown: Shutdown,
    /// What the process tells of itself.
    pub telemetry: Telemetry,
}

/// How the process stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long it is still serving as before while it says that it is not ready; default 5 s.
    pub lame_duck: Duration,
    /// How long requests and refreshes that are under way then may take at most; default 35 s.
    pub grace: Duration,
    /// Where a new process gets the listening sockets of this one, joined to the folder of the settings file; at most
    /// 107 bytes. Default `/run/cloakroom/upgrade.sock`.
    pub upgrade_socket: PathBuf,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address and port to bind.
    pub address: SocketAddr,
    /// Bearer token asked for by everything but the probes; `None` = open.
    pub token: Option<SecretText>,
}

/// One key of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKey {
    /// Name written into each sealed record, 1 to 64 characters of `A-Za-z0-9._-`.
    pub id: Arc<str>,
    /// The key itself.
    pub secret: Key256,
}

/// Which session store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this process; gone at exit.
    Memory,
    /// Redis: one server, Sentinels or a cluster.
    Redis(RedisStore),
    /// A PostgreSQL server.
    Postgres(PostgresStore),
    /// A file of this process alone.
    File(FileStore),
}

/// Settings of the Redis store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStore {
    /// Address, database and credentials.
    pub url: SecretText,
    /// First part of every key; default `cloakroom:`.
    pub prefix: String,
    /// Longest wait for one command; default 200 ms.
    pub command_timeout: Duration,
    /// Certificates, in PEM, of the authorities that are trusted for TLS instead of the system's.
    pub ca: Option<PathBuf>,
}

/// Settings of the PostgreSQL store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresStore {
    /// Address, database and credentials.
    pub url: SecretText,
    /// Schema that holds its tables; made if it is not there. Default `cloakroom`.
    pub schema: String,
    /// Longest wait for one command; default 200 ms.
    pub command_timeout: Duration,
    /// Most connections, beside the one that listens for changes; default 8.
    pub connections: usize,
}

/// Settings of the file store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStore {
    /// The file, joined to the folder of the settings file; made if it is not there.
    pub path: PathBuf,
}

/// When tokens are refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// How long before an access token's end the background refresher gets the next one; default 60 s, half the token's
    /// life for one that lives shorter than twice that. Zero = only on demand.
    pub ahead: Duration,
    /// No access token with less life left is sent upstream; default 10 s.
    pub minimum_lifetime: Duration,
    /// Only sessions used within this time are refreshed in the background; default 15 min.
    pub active_within: Duration,
    /// Most refreshes under way at a time, for each provider; default 32.
    pub concurrency: NonZeroUsize,
    /// Most refreshes begun in a second, for each provider; default 100.
    pub per_second: NonZeroU32,
}

/// One web application: hosts, provider and routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// First host, the name in logs and metrics.
    pub name: Arc<str>,
    /// Hosts served.
    pub hosts: Vec<HostPattern>,
    /// Providers of its logins, the default first; none only if every route is public.
    pub providers: Vec<Arc<str>>,
    /// The auth endpoints live below it; default `/auth`.
    pub auth_path: PathPrefix,
    /// Extra paths of single endpoints.
    pub aliases: Aliases,
    /// Claims that the user context tells applications.
    pub context_claims: Vec<ClaimPath>,
    /// Public origins beside the one the request itself shows (`https://app.example.com`). Redirect URIs use the one
    /// that fits the request best, else the first; the request's own if there is none.
    pub origins: Vec<Origin>,
    /// Which access tokens its routes take from clients; there if a route takes any.
    pub bearer: Option<Bearer>,
    /// What protects its answers in the browser, where the answer does not say so itself.
    pub security_headers: SecurityHeaders,
    /// Routes; at least one; no two that the same request would find equally fitting.
    pub routes: Vec<Route>,
}

/// Which hosts a site serves. Compared in lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `app.example.com` (an international name in its ASCII form), `192.0.2.1`, `[2001:db8::1]`.
    Exact(String),
    /// `*.example.com`, kept as `example.com`: exactly one more label.
    Wildcard(String),
    /// `*`
    Any,
}

/// Scheme and authority of a site as a browser writes them in `Origin`: lower case, default port left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub Url);

/// Extra paths of single endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// For example `/login`.
    pub login: Option<PathPrefix>,
    /// For example `/logout`.
    pub logout: Option<PathPrefix>,
    /// For example `/userinfo`.
    pub userinfo: Option<PathPrefix>,
}

/// One route of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Matches this path and all below it, by whole segments.
    pub path: PathPrefix,
    /// What a request must be beside that; default: anything.
    pub when: Conditions,
    /// What is done with a request that may pass.
    pub action: Action,
    /// Who may pass; default required.
    pub access: Access,
    /// By what it knows its user; default by a session.
    pub accept: Accept,
    /// What the scope of an access token must name for a client that brings one itself; empty = nothing.
    pub scopes: Vec<String>,
    /// How well its users must be known; default logged on.
    pub level: Level,
    /// The header that tells the upstream how well the user is known; `None` = it is not told.
    pub level_header: Option<HeaderName>,
    /// What the user's claims must be, all of it; empty = anything. Only where a session is required.
    pub allow: Vec<Rule>,
    /// Only sessions of this provider, one of the site's, count; `None` = those of any.
    pub provider: Option<Arc<str>>,
    /// What a request without a session gets; default auto.
    pub on_missing: OnMissing,
    /// Which token goes upstream; default access, and none on a public route or one without an upstream.
    pub token: Token,
    /// Header name -> dotted claim path.
    pub identity_headers: Vec<(HeaderName, ClaimPath)>,
    /// Whether its upstream is told the user context, and may change it; default neither.
    pub context: ContextAccess,
    /// Largest request body in bytes; default 10 MiB.
    pub max_body: u64,
    /// Whether unsafe methods need the CSRF token; default true.
    pub csrf: bool,
    /// Whether a request whose token the upstream refuses is sent again with a newer one; default true.
    pub retry_unauthorized: bool,
    /// Whether an upstream may ask for a stronger or more recent login (RFC 9470); default true.
    pub step_up: bool,
    /// Changes of the answer's header.
    pub response_headers: HeaderChanges,
    /// What pages of other origins may do; `None` = nothing is said about it here.
    pub cors: Option<Cors>,
    /// Time limits of its own; `None` = those of its upstream, and no deadline.
    pub timeouts: Option<RouteTimeouts>,
    /// How often it may be asked; empty = as often as anybody likes.
    pub rate_limits: Vec<RateLimit>,
}

/// Time limits of a route, in place of its upstream's where they are set. Tunnels know none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// TCP connect.
    pub connect: Option<Duration>,
    /// Gap between reads.
    pub read: Option<Duration>,
    /// Gap between writes.
    pub write: Option<Duration>,
    /// The whole request, from its header to the last byte of its answer.
    pub request: Option<Duration>,
}

/// Who may pass a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone; no session is looked up and no token is sent.
    Public,
    /// Everyone; who has a session gets its token put in.
    Optional,
    /// Only with a session.
    Required,
}

/// Which access tokens clients may bring to a site (RFC 9068).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// `aud` names one of these at least; not empty.
    pub audiences: Vec<String>,
    /// Whether a token may say `JWT` for its type, or nothing, in place of `at+jwt`; default false.
    pub untyped: bool,
    /// Whether a provider is asked about what is no JWT; default false.
    pub opaque: bool,
}

/// How well a user is known; who is not known at all has no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// By a session that is over, for [`Session::returning_timeout`].
    Returning,
    /// By a session that lives.
    LoggedOn,
}

impl Level {
    /// The word in settings, headers and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Returning => "returning",
            Self::LoggedOn => "logged_on",
        }
    }
}

/// Tokens that name sessions to applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyToken {
    /// `iss`.
    pub issuer: String,
    /// `aud`: who takes them, which is Cloakroom itself where applications call each other.
    pub audience: String,
    /// How long they live, 30 s to 1 h; default 5 min.
    pub lifetime: Duration,
    /// Seeds of Ed25519 key pairs (RFC 8032): the first signs, all verify.
    pub keys: Vec<SealingKey>,
}

/// What an upstream may do with the user context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContextAccess {
    /// Nothing.
    None,
    /// It is told.
    Read,
    /// It is told, and may change it.
    ReadWrite,
}

/// What a request without a session gets on a route that requires one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// A navigation is sent to login, everything else gets 401.
    Auto,
    /// Always login.
    Redirect,
    /// Always 401.
    Unauthorized,
}

/// A dotted path into the claims, for example `realm_access.roles`; `\.` is a dot within a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(pub Vec<String>);
