//! Discovery (OpenID Connect Discovery §4): the provider's metadata, checked.

use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType,
};
use openidconnect::{AdditionalProviderMetadata, AuthUrl, IssuerUrl, ProviderMetadata, TokenUrl};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::config::rules::is_loopback_http;
use crate::primitives::dpop::Prover;

/// What is read of a provider's metadata. Everything else is left out before parsing, so that a provider's oddity in
/// a field we never use cannot keep its users out.
const USED: [&str; 8] = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "end_session_endpoint",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "authorization_response_iss_parameter_supported",
];

/// Endpoints that may have another address for clients with a certificate (RFC 8705 §5).
const ALIASED: [&str; 5] = [
    "token_endpoint",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "userinfo_endpoint",
    "introspection_endpoint",
];

/// Required by the standard, of no use to us; provided for the parser.
const UNUSED_LISTS: [&str; 3] =
    ["response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported"];

/// Why a metadata document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetadataError {
    #[error("the metadata is not a JSON object")]
    NotAnObject,
    #[error("the metadata names another issuer")]
    OtherIssuer,
    #[error("the metadata lacks a usable {0}")]
    Field(&'static str),
    #[error("the metadata is not understood")]
    Unreadable,
    #[error("{0} is neither https nor, with an issuer on loopback, http on loopback")]
    Insecure(&'static str),
    #[error("the provider takes no DPoP proofs that are signed with {0}")]
    ProofAlgorithm(&'static str),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Additional {
    end_session_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    pushed_authorization_request_endpoint: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Additional {}

type Document = ProviderMetadata<
    Additional,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// The checked metadata of one provider.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) authorization_endpoint: AuthUrl,
    pub(super) token_endpoint: TokenUrl,
    pub(super) jwks_uri: Url,
    pub(super) end_session_endpoint: Option<Url>,
    pub(super) revocation_endpoint: Option<Url>,
    /// `None` as well where its address cannot be read: most never need it.
    pub(super) userinfo_endpoint: Option<Url>,
    /// RFC 8414 §2; `None` as with UserInfo.
    pub(super) introspection_endpoint: Option<Url>,
    /// RFC 9126 §5.
    pub(super) pushed_endpoint: Option<Url>,
    /// RFC 9207 §3: an authorization response without `iss` is refused.
    pub(super) names_issuer_in_response: bool,
    /// RFC 9449 §5.1; `None` if nothing is said about it.
    proof_algorithms: Option<Vec<String>>,
}

impl Metadata {
    /// Reads a metadata document of `issuer`. Who shows a certificate takes the endpoints that ask for one (RFC 8705 §5).
    pub(super) fn parse(body: &[u8], issuer: &IssuerUrl, with_certificate: bool) -> Result<Self, MetadataError> {
        let mut document: Map<String, Value> = serde_json::from_slice(body).map_err(|_| MetadataError::NotAnObject)?;
        // Behaviour L7, Discovery §4.3: exactly, as text; no final slash is forgiven.
        if document.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
            return Err(MetadataError::OtherIssuer);
        }
        if with_certificate && let Some(Value::Object(aliases)) = document.remove("mtls_endpoint_aliases") {
            document.extend(aliases.into_iter().filter(|(name, _)| ALIASED.contains(&name.as_str())));
        }
        let lenient = |name: &str| document.get(name).and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
        let (userinfo_endpoint, introspection_endpoint) =
            (lenient("userinfo_endpoint"), lenient("introspection_endpoint"));
        let algorithms = document.get("dpop_signing_alg_values_supported").and_then(Value::as_array);
        let proof_algorithms = algorithms.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        document.retain(|name, value| USED.contains(&name.as_str()) && !value.is_null() && value != "");
        document.extend(UNUSED_LISTS.map(|name| (name.to_owned(), Value::Array(Vec::new()))));
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            let url = document.get(name).and_then(Value::as_str).map(Url::parse);
            if !matches!(url, Some(Ok(_))) {
                return Err(MetadataError::Field(name));
            }
        }
        // Typed as the crate types it from here on.
        let document: Document =
            serde_json::from_value(Value::Object(document)).map_err(|_| MetadataError::Unreadable)?;
        let more = document.additional_metadata();
        let metadata = Self {
            authorization_endpoint: document.authorization_endpoint().clone(),
            token_endpoint: document.token_endpoint().cloned().ok_or(MetadataError::Field("token_endpoint"))?,
            jwks_uri: document.jwks_uri().url().clone(),
            end_session_endpoint: more.end_session_endpoint.clone(),
            revocation_endpoint: more.revocation_endpoint.clone(),
            userinfo_endpoint,
            // Most never need it: one that may not be used is as good as none.
            introspection_endpoint: introspection_endpoint.filter(|url| is_secure(url, is_loopback_http(issuer.url()))),
            pushed_endpoint: more.pushed_authorization_request_endpoint.clone(),
            names_issuer_in_response: more.authorization_response_iss_parameter_supported,
            proof_algorithms,
        };
        metadata.check_schemes(is_loopback_http(issuer.url()))?;
        Ok(metadata)
    }

    /// Whether proofs of this kind are taken. A provider that does not say is taken at its tokens' word.
    pub(super) fn check_proofs(&self, prover: &Prover) -> Result<(), MetadataError> {
        let ours = prover.algorithm().as_str();
        match &self.proof_algorithms {
            Some(all) if !all.iter().any(|one| one == ours) => Err(MetadataError::ProofAlgorithm(ours)),
            _ => Ok(()),
        }
    }

    fn check_schemes(&self, loopback: bool) -> Result<(), MetadataError> {
        let endpoints = [
            ("authorization_endpoint", Some(self.authorization_endpoint.url())),
            ("token_endpoint", Some(self.token_endpoint.url())),
            ("jwks_uri", Some(&self.jwks_uri)),
            ("end_session_endpoint", self.end_session_endpoint.as_ref()),
            ("revocation_endpoint", self.revocation_endpoint.as_ref()),
            ("userinfo_endpoint", self.userinfo_endpoint.as_ref()),
            ("pushed_authorization_request_endpoint", self.pushed_endpoint.as_ref()),
        ];
        for (name, url) in endpoints {
            if !url.is_none_or(|url| is_secure(url, loopback)) {
                return Err(MetadataError::Insecure(name));
            }
        }
        Ok(())
    }
}

/// Plain http only with an issuer on `loopback`, and there.
fn is_secure(url: &Url, loopback: bool) -> bool {
    url.scheme() == "https" || (loopback && is_loopback_http(url))
}
