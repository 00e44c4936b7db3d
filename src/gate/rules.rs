//! The rules of a route on the claims of its user.

use super::admit::Gate;
use super::answers::refusal;
use super::{Pass, Request};
use crate::answer::{Answer, Code};
use crate::routing::table::Rule;
use crate::session::open::Open;
use crate::telemetry::audit::{Actor, Entry, Event};

impl Gate {
    /// The answer to a request of a session that does not meet all rules of its route. They were judged when it was opened.
    pub(super) fn kept_out(&self, request: &Request<'_>, pass: &Pass, open: &Open) -> Option<Answer> {
        let rule = pass.route.rules.iter().find(|rule| !open.meets(rule.condition))?;
        // A new ticket must not get lost with a refusal.
        Some(self.keep_out(request, pass, open, rule).cookies(self.own_cookies(pass)))
    }

    fn keep_out(&self, request: &Request<'_>, pass: &Pass, open: &Open, rule: &Rule) -> Answer {
        let Pass { site, route, .. } = pass;
        self.metrics.requests_rejected_total.with_label_values(&["rule"]).inc();
        tracing::info!(site = %site.name, route = %route.name, rule = %rule.name, "a rule of a route keeps a user out");
        self.sessions.audit().tell(
            Event::AccessDenied,
            &Entry {
                actor: Actor::User,
                reason: Some(&rule.name),
                site: Some(&site.name),
                provider: Some(open.provider()),
                session: Some(open.key().as_bytes()),
                client_ip: Some(pass.client.ip),
                ..Entry::default()
            },
        );
        let text = format!("You are logged in, but the rule “{}” does not let you in here.", rule.name);
        refusal(request, Code::RuleFailed, &text)
    }
}
