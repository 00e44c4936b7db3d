//! Listeners that send plain requests to https.

use std::sync::Arc;

use http::StatusCode;

use super::{Client, Gate, Refused, Request, Scheme, Verdict};
use crate::answer::{Answer, Code};
use crate::config::settings::Access;
use crate::routing::route::{Asked, Choice};
use crate::routing::table::Site;

/// Where an authority looks for its challenges (RFC 8555 §8.3).
const ACME: &str = "/.well-known/acme-challenge";

impl Gate {
    /// The same address over TLS, where the listener wants it and the browser did not come over TLS already. The method
    /// stays (RFC 9110 §15.4.9), though what a browser has sent in the clear has been seen.
    pub(super) fn redirect_to_https(
        &self,
        request: &Request<'_>,
        client: &Client,
        site: &Arc<Site>,
        asked: &Asked<'_>,
        path: &str,
    ) -> Option<Verdict> {
        let port = request.connection.redirect_to_https?;
        if client.scheme == Scheme::Https || is_acme_challenge(site, path, asked) {
            return None;
        }
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let secure = format!("https://{}{port}{path}{query}", asked.host);
        let Some(answer) = Answer::moved(StatusCode::PERMANENT_REDIRECT, &secure) else {
            let text = "The address has characters of no URL.";
            return Some(self.reject(request, Some(site), Code::BadRequest, "path", text));
        };
        Some(Verdict::Answer(Box::new(Refused { answer, metrics: Some(site.own.clone()), dress: None })))
    }
}

/// Whether a route serves the challenges by which an authority sees that a site is ours (RFC 8555 §8.3): they come over
/// plain HTTP.
fn is_acme_challenge(site: &Site, path: &str, asked: &Asked<'_>) -> bool {
    path.starts_with(ACME)
        && matches!(site.route(path, asked), Choice::Route(route)
            if route.access == Access::Public && route.path.as_str().starts_with(ACME))
}
