//! The crate's client, built from metadata and settings.

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse,
};
use openidconnect::{
    AuthType, ClientId, ClientSecret, EmptyAdditionalClaims, EndpointNotSet, EndpointSet, IssuerUrl, JsonWebKeySet,
    RevocationUrl,
};
use url::Url;

use super::answer::{Refusal, TokenAnswer};
use super::metadata::Metadata;
use crate::config::settings::{self, ClientAuth};

/// The crate's client, with our own token response.
pub(super) type Core<Address, Revocation = EndpointNotSet> = openidconnect::Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    Refusal,
    TokenAnswer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    Address,
    EndpointNotSet,
    EndpointNotSet,
    Revocation,
    Address,
    EndpointNotSet,
>;

/// All that follows from one reading of the metadata.
pub(super) struct Discovered {
    pub(super) metadata: Metadata,
    pub(super) client: Core<EndpointSet>,
    /// The same client, and the address to call.
    pub(super) revocation: Option<(Core<EndpointSet, EndpointSet>, Url)>,
}

impl Discovered {
    pub(super) fn new(
        metadata: Metadata,
        settings: &settings::Provider,
        client_id: ClientId,
        issuer: IssuerUrl,
    ) -> Self {
        // Its own key set stays empty: verification takes the cached one.
        let client = Core::<EndpointNotSet>::new(client_id, issuer, JsonWebKeySet::default())
            .disable_openid_scope()
            .set_auth_uri(metadata.authorization_endpoint.clone())
            .set_token_uri(metadata.token_endpoint.clone());
        let (method, secret) = match &settings.client_auth {
            ClientAuth::Basic(secret) => (AuthType::BasicAuth, Some(secret)),
            ClientAuth::Post(secret) => (AuthType::RequestBody, Some(secret)),
            ClientAuth::None => (AuthType::RequestBody, None),
        };
        let client = client.set_auth_type(method);
        let client = match secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().to_owned())),
            None => client,
        };
        let revocation = metadata.revocation_endpoint.clone().map(|url| {
            // The crate insists on https (RFC 7009 §2). Plain http has got past the metadata's check only on
            // loopback; the crate is shown https, and the request is sent to the true address.
            let mut shown = url.clone();
            let _already_https = shown.set_scheme("https");
            (client.clone().set_revocation_url(RevocationUrl::from_url(shown)), url)
        });
        Self { metadata, client, revocation }
    }
}
