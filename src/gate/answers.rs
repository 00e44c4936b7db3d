//! Answers of the gate itself: to what it refuses, and for routes that have no upstream.

use std::sync::Arc;

use http::HeaderValue;

use super::admit::Gate;
use super::{Client, Dress, Pass, Refused, Request, Scheme, Verdict};
use crate::answer::{Answer, Code, Page};
use crate::config::settings::{Access, OnMissing};
use crate::login::navigation::{is_navigation, may_navigate, wants_page};
use crate::routing::cors::{Cors, Grant};
use crate::routing::route::{has_body, redirect_target};
use crate::routing::table::{Action, Route, Site};

impl Gate {
    /// What stands in the settings, for who may see it.
    pub(super) fn fixed_answer(&self, request: &Request<'_>, pass: Pass) -> Verdict {
        let Pass { site, route, grant, client, .. } = &pass;
        let path = pass.path.as_deref().unwrap_or("/");
        let answer = match &route.action {
            Action::Redirect(redirect) => {
                let target = redirect_target(redirect, &route.path, path, request.uri.query());
                Answer::moved(redirect.status, &target)
            }
            Action::Respond(respond) if has_body(respond.status) => {
                Some(Answer::fixed(respond.status, respond.content_type.clone(), respond.body.clone()))
            }
            Action::Respond(respond) => Some(Answer::status_only(respond.status)),
            Action::Upstream(_) | Action::Files(_) => None,
        };
        let Some(answer) = answer else {
            return self.reject(request, Some(site), Code::Internal, "internal", "Please try again in a moment.");
        };
        // What anybody gets is nobody's own, and `response_headers` may say how long it is good for.
        let answer = if route.access == Access::Public { answer.for_everybody() } else { answer };
        answered(answer.cookies(self.own_cookies(&pass)), site, route, grant.clone(), client)
    }

    /// Tells a browser what pages of other origins may do (Fetch §4.9). No session is looked up, and nothing goes upstream
    /// (behaviour C6).
    pub(super) fn preflight(
        &self,
        cors: &Cors,
        site: &Arc<Site>,
        route: &Arc<Route>,
        grant: Option<Grant>,
        client: &Client,
    ) -> Verdict {
        let answer = cors
            .of_preflight(grant.as_ref())
            .fold(Answer::status_only(http::StatusCode::NO_CONTENT), |answer, (name, value)| {
                answer.header(name, value)
            });
        answered(answer.for_everybody(), site, route, grant, client)
    }

    /// The routes there are for other methods, `allow`.
    pub(super) fn wrong_method(
        &self,
        request: &Request<'_>,
        site: &Arc<Site>,
        client: &Client,
        allow: HeaderValue,
    ) -> Verdict {
        self.metrics.requests_rejected_total.with_label_values(&["method"]).inc();
        let answer = refusal(request, Code::MethodNotAllowed, "").header(http::header::ALLOW, allow);
        let tls = client.scheme == Scheme::Https;
        let dress = Some(Dress { site: site.clone(), route: None, grant: None, tls });
        Verdict::Answer(Box::new(Refused { answer, metrics: Some(site.own.clone()), dress }))
    }

    /// A request that no route is to see; `reason` is for the metrics.
    pub(super) fn reject(
        &self,
        request: &Request<'_>,
        site: Option<&Arc<Site>>,
        code: Code,
        reason: &str,
        text: &str,
    ) -> Verdict {
        self.metrics.requests_rejected_total.with_label_values(&[reason]).inc();
        let metrics = site.map(|site| site.own.clone());
        // Nobody who may be trusted was asked yet: what the connection itself shows will do.
        let tls = request.connection.tls;
        let dress = site.map(|site| Dress { site: site.clone(), route: None, grant: None, tls });
        Verdict::Answer(Box::new(Refused { answer: refusal(request, code, text), metrics, dress }))
    }
}

/// Whether who lacks a session, or a login strong enough, is sent to log in rather than told that one is needed.
#[must_use]
pub fn goes_to_login(request: &Request<'_>, on_missing: OnMissing) -> bool {
    match on_missing {
        OnMissing::Auto => is_navigation(request.method, request.headers),
        OnMissing::Redirect => may_navigate(request.method, request.headers),
        OnMissing::Unauthorized => false,
    }
}

/// An error as a page or as JSON, whichever the client reads.
#[must_use]
pub fn refusal(request: &Request<'_>, code: Code, text: &str) -> Answer {
    if wants_page(request.headers) {
        Page { heading: code.title(), text, link: None, form: None, code: Some(code) }.answer()
    } else {
        Answer::problem(code, Some(text), None)
    }
}

/// An answer of a route's own.
pub(super) fn answered(
    answer: Answer,
    site: &Arc<Site>,
    route: &Arc<Route>,
    grant: Option<Grant>,
    client: &Client,
) -> Verdict {
    let tls = client.scheme == Scheme::Https;
    let dress = Dress { site: site.clone(), route: Some(route.clone()), grant, tls };
    Verdict::Answer(Box::new(Refused { answer, metrics: Some(route.metrics.clone()), dress: Some(dress) }))
}
