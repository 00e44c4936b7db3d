//! What an `auth-url` asks oauth2-proxy about the user, in its query.

use serde_yaml::Value;
use url::form_urlencoded;

use super::draft::{Draft, list, map};
use super::restrictions::{closed, domain_rule};

/// Rules for the query; one that nobody meets for what is not understood of it.
pub(super) fn rules(draft: &mut Draft, label: &str, url: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    for name in ["allowed_groups", "allowed_emails", "allowed_email_domains"] {
        let texts: Vec<&str> = pairs.iter().filter(|(key, _)| key == name).map(|(_, text)| text.as_str()).collect();
        let items: Vec<String> = texts.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
        if items.is_empty() {
            continue;
        }
        // A `$` is a variable of nginx.
        let simple = |item: &String| !item.is_empty() && !item.contains(['$', '*']) && item.trim() == item;
        if !items.iter().all(simple) {
            closed(draft, &mut rules, &format!("{label}: `{name}` of `auth-url` is not understood"));
        } else if name == "allowed_email_domains" {
            rules.push(domain_rule("email", &items));
        } else {
            let claim = if name == "allowed_groups" { "groups" } else { "email" };
            rules.push(map([("claim", claim.into()), ("any_of", list(items))]));
        }
    }
    for (name, _) in &pairs {
        match name.as_str() {
            "allowed_groups" | "allowed_emails" | "allowed_email_domains" => {}
            // Not with its value, which may be a secret.
            _ if name.starts_with("allowed_") => {
                closed(draft, &mut rules, &format!("{label}: `{name}` of `auth-url` is not understood"));
            }
            _ => draft.leave(format!("{label}: `{name}` in the query of `auth-url` was not read")),
        }
    }
    rules
}
