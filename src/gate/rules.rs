//! The rules of a route on the claims of its user.

use super::admit::Gate;
use super::answers::refusal;
use super::{Bearer, Pass, Request};
use crate::answer::{Answer, Code};
use crate::routing::table::Rule;
use crate::session::open::Open;
use crate::telemetry::Throttle;
use crate::telemetry::audit::{Actor, Entry, Event};

impl Gate {
    /// The answer to a request of a session that does not meet all rules of its route. They were judged when it was opened.
    pub(super) fn kept_out(&self, request: &Request<'_>, pass: &Pass, open: &Open) -> Option<Answer> {
        let rule = pass.route.rules.iter().find(|rule| !open.meets(rule.condition))?;
        // A new ticket must not get lost with a refusal.
        let whose = Entry { provider: Some(open.provider()), session: Some(open.key().as_bytes()), ..Entry::default() };
        Some(self.keep_out(request, pass, whose, rule).cookies(self.own_cookies(pass)))
    }

    /// The same for a client with a token of its own. They were judged when it was verified.
    pub(super) fn kept_out_bearer(&self, request: &Request<'_>, pass: &Pass, bearer: &Bearer) -> Option<Answer> {
        let rule = pass.route.rules.iter().find(|rule| !bearer.meets(rule.condition))?;
        let whose = Entry { provider: Some(bearer.provider()), subject: Some(bearer.subject()), ..Entry::default() };
        Some(self.keep_out(request, pass, whose, rule))
    }

    fn keep_out(&self, request: &Request<'_>, pass: &Pass, whose: Entry<'_>, rule: &Rule) -> Answer {
        let Pass { site, route, .. } = pass;
        self.metrics.requests_rejected_total.with_label_values(&["rule"]).inc();
        // Whoever is kept out may ask again and again; the audit log has each time.
        static REFUSALS: Throttle = Throttle::new();
        if let Some(held_back) = REFUSALS.pass() {
            let (site, route, rule) = (&site.name, &route.name, &rule.name);
            tracing::info!(%site, %route, %rule, held_back, "a rule of a route keeps a user out");
        }
        self.sessions.audit().tell(
            Event::AccessDenied,
            &Entry {
                actor: Actor::User,
                reason: Some(&rule.name),
                site: Some(&site.name),
                client_ip: Some(pass.client.ip),
                ..whose
            },
        );
        let text = format!("You are logged in, but the rule “{}” does not let you in here.", rule.name);
        refusal(request, Code::RuleFailed, &text)
    }
}
