//! Routes of a host that were public where something that restricted is not translated.

use serde_yaml::Value;

use super::draft::{Draft, map};

/// A route of a host, and what is known of its source.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) path: String,
    pub(super) route: Value,
    /// Whether it took its path alone, and now takes what lies below.
    pub(super) exact: bool,
}

impl Made {
    pub(super) fn is_public(&self) -> bool {
        self.route.get("access").and_then(Value::as_str) == Some("public")
    }

    fn close(&mut self) {
        let Some(route) = self.route.as_mapping_mut() else { return };
        route.insert("access".into(), "required".into());
        if route.contains_key("upstream") {
            route.insert("token".into(), map([("kind", "none".into())]));
        }
    }

    /// Takes what another route for the same path asks of users, if that is more.
    fn join(&mut self, other: Self) {
        self.exact &= other.exact;
        if self.is_public() && !other.is_public() {
            self.route = other.route;
            return;
        }
        let rules = |route: &Value| route.get("allow").and_then(Value::as_sequence).cloned().unwrap_or_default();
        let mut all = rules(&self.route);
        let more: Vec<Value> = rules(&other.route).into_iter().filter(|rule| !all.contains(rule)).collect();
        if !more.is_empty() {
            all.extend(more);
            if let Some(route) = self.route.as_mapping_mut() {
                route.insert("allow".into(), all.into());
            }
        }
    }
}

/// Adds a route; of two with the same path the one with a login counts, else the first.
pub(super) fn add(draft: &mut Draft, label: &str, host: &str, routes: &mut Vec<Made>, made: Made) {
    let Some(known) = routes.iter_mut().find(|known| known.path == made.path) else {
        routes.push(made);
        return;
    };
    draft.leave(format!(
        "{label}: `{host}{}` was there already; the one with a login counts, else the first, with the rules of both",
        made.path
    ));
    known.join(made);
}

/// Closes what must not stay public; `why` is what was left out.
pub(super) fn close(draft: &mut Draft, host: &str, routes: &mut [Made], why: &[String]) {
    if !why.is_empty() && routes.iter().any(Made::is_public) {
        draft.leave(format!(
            "{host}: all its routes ask for a login, also those that were public, for what was protected may fall to them: {}",
            why.join("; ")
        ));
        routes.iter_mut().filter(|made| made.is_public()).for_each(Made::close);
    }
    if routes.iter().all(Made::is_public) {
        return;
    }
    for made in routes.iter_mut().filter(|made| made.exact && made.is_public()) {
        draft.leave(format!(
            "`{host}{}` was public for this path alone: a route also takes what lies below it, so it asks for a login, as others of this host do",
            made.path
        ));
        made.close();
    }
}
