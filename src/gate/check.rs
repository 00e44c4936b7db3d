//! Requests that another proxy asks about before it sends them on itself: forward auth.
//!
//! What it says of a request is taken for that request, and decided by the code that decides about those that come here
//! ([`Gate::decide`]). The answer tells it what the route would have sent upstream, tokens among it. Hence the two
//! conditions: a listener of its own, which no browser reaches, and a peer in `trusted_proxies`.

mod original;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode};

use self::original::Original;
use super::admit::Gate;
use super::{Client, Connection, Pass, Refused, Request, Verdict};
use crate::answer::{Answer, Code};
use crate::config::settings::ForwardAuth;
use crate::login::{ReturnTo, SiteAuth, Wishes};
use crate::routing::table::Route;
use crate::session::context::HEADER as USER_CONTEXT;
use crate::session::cookie::Foreign;
use crate::telemetry::Throttle;
use crate::telemetry::audit::{Actor, Entry, Event};

/// The fields that Envoy takes off a request which passes: there is no other way to tell it of fields without a value.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Why a question is not looked at. The text may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CheckError {
    /// Anybody could say anything.
    #[error("only a proxy in `trusted_proxies` may ask")]
    Untrusted,
    /// A field that the proxy has to send is not there.
    #[error("the original request is not told")]
    Missing,
    /// A field is there twice: one of them may be the client's.
    #[error("the original request is told twice")]
    Doubled,
    /// No method, scheme, host or target.
    #[error("the original request cannot be understood")]
    Malformed,
    /// The proxy would send on another path than the one that was judged.
    #[error("the original path is not in canonical form")]
    Path,
    /// The proxy would send on a field that an application may take for one of ours, or for another method.
    #[error("the request has a field that could be taken for another")]
    Disguised,
    /// What lies below `auth_path` is no application's.
    #[error("the original request is for Cloakroom itself")]
    Endpoint,
}

impl CheckError {
    /// The word in the audit log.
    fn word(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Malformed => "malformed",
            Self::Path => "path",
            Self::Disguised => "disguised",
            Self::Endpoint => "endpoint",
        }
    }
}

impl Gate {
    /// Answers a proxy that asks about a request. Whatever is not understood is refused.
    pub(super) async fn check(&self, request: Request<'_>, manner: ForwardAuth) -> Verdict {
        let mut client = Client::of(request.connection, request.headers, &self.trusted_proxies);
        if !Client::is_believed(request.connection, &self.trusted_proxies) {
            return self.refuse_check(&client, CheckError::Untrusted);
        }
        let original = match Original::of(manner, &request) {
            Ok(original) => original,
            Err(error) => return self.refuse_check(&client, error),
        };
        // The proxy sends on what came: of the fields that could be taken for others none may be left (behaviour H1).
        if request.headers.keys().any(|name| self.hygiene.is_disguised(name)) {
            return self.refuse_check(&client, CheckError::Disguised);
        }
        // Who asks, not whom it asks for, has chosen the connection.
        let connection = Connection { redirect_to_https: None, only_for: None, ..request.connection };
        let inner = Request {
            method: &original.method,
            uri: &original.uri,
            raw_path: original.uri.path(),
            headers: request.headers,
            connection,
        };
        (client.scheme, client.host) = (original.scheme, original.host.clone());
        if manner != ForwardAuth::ExtAuthz
            && let Some(answer) = self.misses_endpoint(&request, &inner, &client)
        {
            return answer;
        }
        match Box::pin(self.decide(inner, client.clone(), original.upgrade)).await {
            Ok(pass) => self.may_pass(&request, &pass, manner),
            Err(Verdict::Endpoint(_)) => self.refuse_check(&client, CheckError::Endpoint),
            // What is said to a client of ours may be a success. To a proxy that would be leave to go on.
            Err(Verdict::Answer(refused)) if !refused.answer.status().is_success() => {
                let Refused { answer, metrics, dress } = *refused;
                Verdict::Answer(Box::new(Refused { answer: fit(answer, manner), metrics, dress }))
            }
            Err(_) => self.reject(&request, None, Code::Internal, "internal", "Please try again in a moment."),
        }
    }

    /// The answer to a question at another address than that of the site it is about.
    fn misses_endpoint(&self, asked: &Request<'_>, inner: &Request<'_>, client: &Client) -> Option<Verdict> {
        let authority = self.authority(inner, client).ok()?;
        let site = self.table.site(&authority.host)?;
        let auth = self.auth.get(site.index)?;
        if asked.raw_path != auth.path_of("check") {
            return Some(self.reject(asked, Some(site), Code::NotFound, "not_found", "Check the address."));
        }
        let known = matches!(*asked.method, Method::GET | Method::HEAD);
        (!known).then(|| self.wrong_method(asked, site, client, HeaderValue::from_static("GET, HEAD")))
    }

    /// Leave to go on, with all that the route sends upstream of the user.
    fn may_pass(&self, request: &Request<'_>, pass: &Pass, manner: ForwardAuth) -> Verdict {
        let mut headers = HeaderMap::new();
        pass.identify(&mut headers);
        match &pass.cookies {
            Foreign::Nothing => {}
            Foreign::Field(value) => drop(headers.insert(COOKIE, value.clone())),
            Foreign::Unchanged => {
                headers.extend(request.headers.get(COOKIE).map(|value| (COOKIE, value.clone())));
            }
        }
        if manner == ForwardAuth::ExtAuthz
            && let Some(value) = to_remove(&pass.site.reserved_headers, &headers)
        {
            headers.insert(TO_REMOVE, value);
        }
        let status = if manner == ForwardAuth::ExtAuthz { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut answer = Answer::status_only(status);
        for (name, value) in headers {
            if let Some(name) = name {
                answer = answer.header(name, value);
            }
        }
        // nginx hands one on; the CSRF cookie comes with the next page then.
        let cookies = if manner == ForwardAuth::XOriginal { 1 } else { usize::MAX };
        let answer = answer.cookies(self.own_cookies(pass).take(cookies));
        Verdict::Answer(Box::new(Refused { answer, metrics: Some(pass.route.metrics.clone()), dress: None }))
    }

    fn refuse_check(&self, client: &Client, error: CheckError) -> Verdict {
        static REFUSALS: Throttle = Throttle::new();
        self.metrics.requests_rejected_total.with_label_values(&["forward_auth"]).inc();
        if let Some(held_back) = REFUSALS.pass() {
            tracing::warn!(client = %client.ip, %error, held_back, "a forward auth request is refused");
            self.sessions.audit().tell(
                Event::CheckRefused,
                &Entry {
                    actor: Actor::System,
                    reason: Some(error.word()),
                    client_ip: Some(client.ip),
                    ..Entry::default()
                },
            );
        }
        let answer = Answer::problem(Code::CheckRefused, Some(&error.to_string()), None);
        Verdict::Answer(Box::new(Refused { answer, metrics: None, dress: None }))
    }
}

/// Asks for a login in the way that the proxy can pass on to the browser; `origin` is the one that the request shows. No login
/// begins yet, and nothing is stored.
pub(super) fn log_in_first(
    auth: &SiteAuth,
    route: &Route,
    target: &str,
    origin: &str,
    manner: ForwardAuth,
    code: Code,
) -> Answer {
    let return_to = ReturnTo::parse(target, auth);
    let path = auth.login_with(route.provider.as_deref(), &return_to, &Wishes::default());
    // Absolute, for a proxy would take another one for relative to the address that it asked at.
    let login = format!("{}{path}", auth.public_origin(origin));
    let redirect = match manner {
        ForwardAuth::XOriginal => None,
        ForwardAuth::XForwarded | ForwardAuth::ExtAuthz => Answer::redirect(&login),
    };
    redirect.unwrap_or_else(|| {
        let answer = Answer::problem(code, None, Some(&login));
        match HeaderValue::from_str(&login) {
            Ok(login) => answer.header(LOCATION, login),
            Err(_) => answer,
        }
    })
}

/// nginx takes any status but 401 and 403 for a failure of ours, and says 500. What is the client's fault is told as one.
fn fit(answer: Answer, manner: ForwardAuth) -> Answer {
    let status = answer.status();
    if manner != ForwardAuth::XOriginal || status == StatusCode::UNAUTHORIZED {
        answer
    } else if status.is_redirection() {
        answer.with_status(StatusCode::UNAUTHORIZED)
    } else if status.is_client_error() {
        answer.with_status(StatusCode::FORBIDDEN)
    } else {
        answer
    }
}

/// The fields that are ours to set and that are not set: a client may have sent them.
fn to_remove(identity: &[HeaderName], set: &HeaderMap) -> Option<HeaderValue> {
    let ours = [AUTHORIZATION, COOKIE, USER_CONTEXT];
    let names = ours.iter().chain(identity).filter(|name| !set.contains_key(*name)).map(HeaderName::as_str);
    HeaderValue::from_str(&names.collect::<Vec<_>>().join(",")).ok()
}
