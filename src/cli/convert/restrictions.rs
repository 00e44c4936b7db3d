//! Whom oauth2-proxy let pass, as rules. What is not understood becomes a rule that nobody meets.

use serde_yaml::Value;

use super::draft::{Draft, list, map, nobody};
use super::source::Source;

/// Beginnings of options that keep somebody out.
const KINDS: [&str; 9] =
    ["allowed_", "authenticated_", "google_", "github_", "gitlab_", "bitbucket_", "keycloak_", "entra_id_", "azure_"];

/// Options that begin so and keep nobody out.
const HARMLESS: [&str; 6] = [
    "azure_graph_group_field",
    "entra_id_federated_token_auth",
    "github_token",
    "google_admin_email",
    "google_service_account_json",
    "google_use_application_default_credentials",
];

/// Said wherever the rule that nobody meets is written.
pub(super) fn closed(draft: &mut Draft, rules: &mut Vec<Value>, why: &str) {
    draft.leave(format!(
        "{why}: until you write a rule for it in place of `to be written`, nobody passes; see docs/how-to/authorise.md"
    ));
    if !rules.contains(&nobody()) {
        rules.push(nobody());
    }
}

/// oauth2-proxy refused who has `email_verified: false`.
pub(super) fn unverified(draft: &mut Draft) {
    draft.leave(
        "oauth2-proxy refused addresses that the provider calls unverified: a rule on `email_verified` does so here, \
         which was written only where `email_domains` restrict",
    );
}

pub(super) fn rules(draft: &mut Draft, source: &mut Source) -> Vec<Value> {
    let mut rules = Vec::new();
    emails(draft, source, &mut rules);
    let claim = source.text("oidc_groups_claim").unwrap_or_else(|| "groups".to_owned());
    let groups: Vec<String> =
        ["allowed_groups", "allowed_group"].into_iter().flat_map(|name| source.list(name)).collect();
    if !groups.is_empty() {
        rules.push(map([("claim", claim.replace('.', "\\.").into()), ("any_of", list(groups))]));
    }
    let listed = ["allowed_roles", "allowed_role"].into_iter().flat_map(|name| source.list(name)).collect();
    roles(draft, listed, &mut rules);
    let audiences = source.list("oidc_audience_claims");
    if audiences.iter().any(|claim| claim != "aud") {
        closed(draft, &mut rules, "`oidc_audience_claims`: the audience is in `aud` here");
    }
    for name in source.take_like(&KINDS, &HARMLESS) {
        closed(
            draft,
            &mut rules,
            &format!("`{name}` kept users out, and only claims of the ID token can be asked for"),
        );
    }
    rules
}

fn emails(draft: &mut Draft, source: &mut Source, rules: &mut Vec<Value>) {
    let domains = source.list("email_domains");
    let listed = source.take("authenticated_emails_file").is_some();
    let claim = source.text("oidc_email_claim").unwrap_or_else(|| "email".to_owned()).replace('.', "\\.");
    let verified = source.flag("insecure_oidc_allow_unverified_email") != Some(true);
    if verified {
        unverified(draft);
    }
    if !domains.is_empty() && !domains.iter().any(|domain| domain == "*") {
        rules.push(domain_rule(&claim, &domains));
        if verified {
            rules.push(map([
                ("name", "verified email".into()),
                ("claim", "email_verified".into()),
                ("equals", true.into()),
            ]));
        }
    }
    if listed {
        closed(
            draft,
            rules,
            "`authenticated_emails_file`: write its addresses as a rule: `allow: [{ claim: email, any_of: […] }]`",
        );
    } else if domains.is_empty() {
        closed(draft, rules, "`email_domains` is empty: it says whom oauth2-proxy let pass, perhaps elsewhere");
    }
}

/// Roles of Keycloak.
pub(super) fn roles(draft: &mut Draft, roles: Vec<String>, rules: &mut Vec<Value>) {
    let (of_client, of_realm): (Vec<String>, Vec<String>) = roles.into_iter().partition(|role| role.contains(':'));
    let realm = !of_realm.is_empty();
    if realm {
        rules.push(map([("claim", "realm_access.roles".into()), ("any_of", list(of_realm))]));
        draft.leave("Keycloak puts `realm_access.roles` into ID tokens only if the mapper says so: Client scopes > roles > realm roles > Add to ID token");
    }
    let advice = "`allowed_roles` of a client: write a rule with the claim `resource_access.CLIENT.roles`";
    match (of_client.is_empty(), realm) {
        (true, _) => {}
        // The rule on the others keeps out more, not less.
        (false, true) => draft.leave(advice),
        (false, false) => closed(draft, rules, advice),
    }
}

/// Addresses of these domains: `example.com`, or `.example.com` for what lies below it.
pub(super) fn domain_rule(claim: &str, domains: &[String]) -> Value {
    let all: Vec<String> = domains.iter().map(|domain| domain_pattern(domain)).collect();
    map([
        ("name", "email domain".into()),
        ("claim", claim.into()),
        ("matches", format!("[^@]+@({})", all.join("|")).into()),
    ])
}

fn domain_pattern(domain: &str) -> String {
    match domain.strip_prefix("*.").or_else(|| domain.strip_prefix('.')) {
        Some(parent) => format!("[^@]+\\.{}", regex::escape(parent)),
        None => regex::escape(domain),
    }
}
