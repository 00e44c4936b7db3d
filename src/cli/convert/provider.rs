//! The provider of a site, as oauth2-proxy knows it.

use serde_yaml::{Mapping, Value};

use super::draft::{Draft, list, map};

/// What is said of a provider.
pub(super) struct Named {
    pub(super) kind: String,
    pub(super) tenant: String,
    pub(super) issuer: Option<String>,
    pub(super) scopes: Option<String>,
    pub(super) secret: Value,
    pub(super) client: Option<String>,
    pub(super) parameters: Vec<(&'static str, Option<String>)>,
}

pub(super) fn write_provider(draft: &mut Draft, named: Named) {
    let usual = match named.kind.as_str() {
        "google" => Some("https://accounts.google.com".to_owned()),
        "gitlab" => Some("https://gitlab.com".to_owned()),
        "azure" | "entra-id" if named.tenant != "common" => {
            Some(format!("https://login.microsoftonline.com/{}/v2.0", named.tenant))
        }
        _ => None,
    };
    let known = ["oidc", "keycloak-oidc", "google", "gitlab", "azure", "entra-id", "adfs", "login.gov", "nextcloud"];
    if !known.contains(&named.kind.as_str()) {
        draft.leave(format!(
            "the provider `{}` is none of OpenID Connect: put one in between, for example Keycloak or Dex",
            named.kind
        ));
    }
    let issuer =
        named.issuer.or(usual).filter(|issuer| issuer.starts_with("https://") || issuer.starts_with("http://"));
    let issuer = issuer.unwrap_or_else(|| {
        draft.leave("`providers[0].issuer` is made up: write the issuer as your provider states it");
        "https://id.example.com".to_owned()
    });
    let client = named.client.unwrap_or_else(|| {
        draft.leave("`providers[0].client_id` is made up");
        "cloakroom".to_owned()
    });
    if named.secret.get("env").is_some() {
        draft.leave("set the variable CLIENT_SECRET to the client's secret at the provider");
    }
    let auth = map([("method", "client_secret_basic".into()), ("secret", named.secret)]);
    let mut parameters: Mapping =
        named.parameters.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))).collect();
    if named.kind == "google" {
        parameters.insert("access_type".into(), "offline".into());
        parameters.entry("prompt".into()).or_insert_with(|| "consent".into());
    }
    let scopes = named.scopes.map(|scopes| list(scopes.split_whitespace()));
    draft.set(
        "providers",
        vec![map([
            ("name", "main".into()),
            ("issuer", issuer.into()),
            ("client_id", client.into()),
            ("client_auth", auth),
            ("scopes", scopes.unwrap_or_default()),
            ("authorization_params", if parameters.is_empty() { Value::Null } else { parameters.into() }),
        ])],
    );
}
