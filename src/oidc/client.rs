//! The crate's client, built from metadata and settings.

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse,
};
use openidconnect::{
    AuthType, ClientId, EmptyAdditionalClaims, EndpointNotSet, EndpointSet, IssuerUrl, JsonWebKeySet, RevocationUrl,
};
use url::Url;

use super::answer::{Refusal, TokenAnswer};
use super::metadata::Metadata;

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
    pub(super) fn new(metadata: Metadata, client_id: ClientId, issuer: IssuerUrl) -> Self {
        // Its own key set stays empty: verification takes the cached one.
        let client = Core::<EndpointNotSet>::new(client_id, issuer, JsonWebKeySet::default())
            .disable_openid_scope()
            .set_auth_uri(metadata.authorization_endpoint.clone())
            .set_token_uri(metadata.token_endpoint.clone());
        // The crate knows us as a public client; what proves who we are is added to what it sends (`Credentials`).
        let client = client.set_auth_type(AuthType::RequestBody);
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
