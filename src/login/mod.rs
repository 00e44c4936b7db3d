//! The endpoints below `auth_path`: login, callback, logout from here and from elsewhere, who am I. Speaks HTTP's vocabulary, knows no proxy.

mod backchannel;
mod begin;
mod callback;
mod credentials;
mod endpoint;
mod events;
mod frontchannel;
mod info;
mod logout;
pub mod navigation;
mod query;
mod record;
mod return_to;
mod returning;
mod start;
mod streams;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;

pub use endpoint::{Endpoint, SiteAuth};
pub use events::Events;
pub use return_to::ReturnTo;
pub use start::Wishes;

use self::frontchannel::Fronts;
use self::streams::Streams;
use crate::answer::{Answer, Code, Page};
use crate::primitives::path::escape_query;
use crate::primitives::tally::Tally;
use crate::provider::Provider;
use crate::revocation::{Revoker, TOMBSTONE_LIFE};
use crate::session::cookie::Ticket;
use crate::session::manager::{SessionError, Sessions};
use crate::session::open::Open;
use crate::session::proxy_token::ProxyTokens;
use crate::telemetry::audit::{Actor, Entry};
use crate::telemetry::{Metrics, Throttle};

/// How long a login may take, from the redirect to the provider until the callback (behaviour L2).
const LOGIN_LIFE: Duration = Duration::from_secs(600);
const _: () =
    assert!(LOGIN_LIFE.as_secs() < TOMBSTONE_LIFE.as_secs(), "a logout is remembered as long as a login takes");
/// So many logins begun right after a finished one, within [`LOOP_WINDOW`], are a loop (behaviour L14).
const LOOP_LOGINS: u32 = 5;
const LOOP_WINDOW: Duration = Duration::from_secs(5);
/// Browsers are spread over so many counters: 1.1 MiB.
const BROWSERS: usize = 8 * 1024;

/// How long the public keys may be kept.
const KEYS_LAST: http::HeaderValue = http::HeaderValue::from_static("public, max-age=300");

/// What the login room sees of a request.
#[derive(Clone, Copy)]
pub struct Visit<'r> {
    /// Method.
    pub method: &'r Method,
    /// Canonical path.
    pub path: &'r str,
    /// Query, as it came, without `?`.
    pub query: Option<&'r str>,
    /// Header fields, as they came.
    pub headers: &'r HeaderMap,
    /// Our origin as this browser sees it: `https://app.example.com`.
    pub origin: &'r str,
    /// The session cookie.
    pub ticket: Ticket,
    /// Where the request came from.
    pub client_ip: IpAddr,
    /// The site.
    pub site: &'r SiteAuth,
}

impl Visit<'_> {
    /// The address asked for, as a link of this site: a canonical path has one leading slash, and the query is as a
    /// browser writes it.
    #[must_use]
    pub fn target(&self) -> String {
        match self.query {
            Some(query) => format!("{}?{}", self.path, escape_query(query)),
            None => self.path.to_owned(),
        }
    }
}

/// The login room.
pub struct Logins {
    sessions: Arc<Sessions>,
    revoker: Arc<Revoker>,
    metrics: Arc<Metrics>,
    /// Finished logins by browser, to notice a loop. Approximate and of this process alone, which is enough for that.
    finished: Tally,
    /// Frames of front-channel logout.
    fronts: Fronts,
    streams: Streams,
    proxy_tokens: Option<Arc<ProxyTokens>>,
}

/// What an endpoint answers.
pub enum Reply {
    /// All of it.
    Whole(Answer),
    /// This head, and then what the stream yields.
    Stream(Answer, Box<Events>),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

impl Logins {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        revoker: Arc<Revoker>,
        proxy_tokens: Option<Arc<ProxyTokens>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let streams = Streams::new(metrics.event_streams_open.clone());
        Self {
            sessions,
            revoker,
            metrics,
            finished: Tally::new(LOOP_WINDOW, BROWSERS),
            fronts: Fronts::new(),
            streams,
            proxy_tokens,
        }
    }

    /// Answers a request to one of the endpoints. `body` is the request's body where the method has one.
    pub async fn answer(&self, endpoint: Endpoint, visit: Visit<'_>, body: &Bytes) -> Reply {
        let methods = endpoint.methods(visit.site, visit.path);
        if !methods.split(", ").any(|method| method == visit.method.as_str()) {
            let allow = http::HeaderValue::from_static(methods);
            return Answer::problem(Code::MethodNotAllowed, None, None).header(http::header::ALLOW, allow).into();
        }
        let answer = match endpoint {
            Endpoint::Login if *visit.method == Method::POST => self.post_login(visit, body).await,
            Endpoint::Login => self.login(visit).await,
            Endpoint::Callback => self.callback(visit, body).await,
            Endpoint::Logout => self.logout(visit, body).await,
            Endpoint::LoggedOut => self.logged_out(visit).await,
            Endpoint::UserInfo => self.user_info(visit).await,
            Endpoint::Session => self.session(visit).await,
            Endpoint::BackchannelLogout => self.backchannel_logout(visit, body).await,
            Endpoint::FrontchannelLogout => self.frontchannel_logout(visit).await,
            Endpoint::ClientKeys => client_keys(&visit),
            Endpoint::Events => return self.events(visit).await,
            // Nobody's own, and anybody may keep it for a while.
            Endpoint::KeySet => match &self.proxy_tokens {
                Some(tokens) => Answer::json(&tokens.key_set()).header(http::header::CACHE_CONTROL, KEYS_LAST),
                None => error_answer(&visit, Code::NotFound, "There are no proxy tokens."),
            },
        };
        answer.into()
    }

    /// The visitor's session, if there is one on this site.
    async fn session_of(&self, visit: &Visit<'_>) -> Result<Option<Arc<Open>>, SessionError> {
        match visit.ticket {
            Ticket::One(id) => self.sessions.lookup(&id, &visit.site.profile).await,
            _ => Ok(None),
        }
    }

    /// As [`Self::session_of`], or one that is over and still tells who its user is.
    async fn known_session_of(&self, visit: &Visit<'_>) -> Result<Option<Arc<Open>>, SessionError> {
        match visit.ticket {
            Ticket::One(id) => self.sessions.recognise(&id, &visit.site.profile).await,
            _ => Ok(None),
        }
    }

    /// Whether the browser may have kept a session cookie to itself, for another site began this navigation.
    fn is_held_back(&self, visit: &Visit<'_>) -> bool {
        self.sessions.cookies().are_strict()
            && visit.ticket == Ticket::Absent
            && navigation::is_cross_site(visit.headers)
    }

    /// What the audit log says of any visit. Whom it is about is only clear on a site with one provider.
    fn entry<'v>(&self, visit: &Visit<'v>) -> Entry<'v> {
        self.entry_at(visit, visit.site.providers.first().filter(|_| visit.site.providers.len() == 1))
    }

    /// The same of a visit that is about a provider.
    fn entry_at<'v>(&self, visit: &Visit<'v>, provider: Option<&'v Arc<Provider>>) -> Entry<'v> {
        Entry {
            actor: Actor::User,
            site: Some(&visit.site.profile.site),
            provider: provider.map(|provider| &**provider.name()),
            client_ip: Some(visit.client_ip),
            ..Entry::default()
        }
    }

    fn count_login(&self, provider: &str, result: &str, reason: &str) {
        self.metrics.logins_total.with_label_values(&[provider, result, reason]).inc();
    }
}

/// `GET /auth/client-jwks.json`: where the site's providers find the keys of `private_key_jwt`. They are public. One
/// address for all of them: a provider takes the key that our assertion names.
fn client_keys(visit: &Visit<'_>) -> Answer {
    let mut keys = Vec::new();
    for key in visit.site.oidc().flat_map(|(_, oidc)| oidc.client_keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() { Answer::problem(Code::NotFound, None, None) } else { Answer::json(&json!({ "keys": keys })) }
}

/// An error in the form that the client reads: a page for a navigation, problem+json for a script.
#[must_use]
pub fn error_answer(visit: &Visit<'_>, code: Code, text: &str) -> Answer {
    if navigation::wants_page(visit.headers) {
        let heading = code.title();
        Page { heading, text, link: Some(("/", "Go to the start page")), form: None, code: Some(code) }.answer()
    } else {
        Answer::problem(code, Some(text), Some(&visit.site.login_url()))
    }
}

/// The answer to a store that failed: nothing is known about the session, so no cookie is touched (behaviour D1).
fn store_failed(visit: &Visit<'_>, error: &SessionError) -> Answer {
    static FAILURES: Throttle = Throttle::new();
    if let Some(held_back) = FAILURES.pass() {
        tracing::warn!(%error, held_back, "the session store failed");
    }
    error_answer(visit, Code::StoreUnavailable, "Your session is safe. Please try again in a moment.")
}
