//! Who logs users in: what this client is to them, what it asks of them, what it believes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use url::Url;

use super::Credentials;
use super::upstream::ClientCertificate;
use crate::primitives::secret::SecretText;
use crate::primitives::signing::SigningKey;

/// Who logs users in, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// An OpenID provider.
    Oidc(Box<Provider>),
    /// A backend with a login of its own.
    Credentials(Box<Credentials>),
}

impl ProviderKind {
    /// Name that sites refer to.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Oidc(provider) => &provider.name,
            Self::Credentials(backend) => &backend.name,
        }
    }

    /// Its settings if it is an OpenID provider.
    #[must_use]
    pub fn oidc(&self) -> Option<&Provider> {
        match self {
            Self::Oidc(provider) => Some(provider),
            Self::Credentials(_) => None,
        }
    }
}

/// An OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Name that sites refer to.
    pub name: Arc<str>,
    /// What users are told that it is, where they choose; default the name.
    pub title: Arc<str>,
    /// Issuer, compared exactly. `https`, or `http` on a loopback host.
    pub issuer: String,
    /// Our id at the provider.
    pub client_id: String,
    /// How we prove to be that client.
    pub client_auth: ClientAuth,
    /// The key that its access tokens are bound to (RFC 9449), of P-256 or Ed25519; `None` = they are bearer tokens.
    pub dpop: Option<SigningKey>,
    /// Authorities that its certificate is judged by; `None` = the system's.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    /// Whether login requests are pushed to it; default auto.
    pub pushed_authorization: PushedAuthorization,
    /// How its answer to a login comes back; default query.
    pub response_mode: ResponseMode,
    /// What a page may ask of it for its own login; default `prompt`, `login_hint`, `acr_values`, `max_age`.
    pub login_parameters: Vec<LoginParameter>,
    /// Whether the claims of its UserInfo endpoint are added to those of the ID token; default false.
    pub merge_userinfo: bool,
    /// Whether a logout revokes the access token as well as the refresh token; default false.
    pub revoke_access_tokens: bool,
    /// Scopes asked for; `openid` is always among them.
    pub scopes: Vec<String>,
    /// How long the provider still answers to a refresh token that it has exchanged already; default 0: never, as with
    /// strict rotation. A refresh whose owner died is tried again only within this time (behaviour R8).
    pub refresh_token_grace: Duration,
    /// What its logout tokens must hold and what they end.
    pub backchannel_logout: BackchannelLogout,
    /// Whether and how it may end sessions by way of the browser; default off.
    pub frontchannel_logout: FrontchannelLogout,
    /// Whether and how it is asked about opaque access tokens; `None` = it is not.
    pub introspection: Option<Introspection>,
    /// Extra parameters of the authorization request (Auth0 `audience`, Google `access_type`).
    pub authorization_params: BTreeMap<String, String>,
}

/// How a provider is asked about access tokens (RFC 7662): opaque ones, and with `jwts` its others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Where; `None` = what its metadata names.
    pub url: Option<Url>,
    /// How long an answer counts at most; default 60 s, at most an hour.
    pub cache: Duration,
    /// Whether it is asked about the JWTs that it has signed, too: their claims come with the answer.
    pub jwts: bool,
    /// Where the token lies that goes upstream in the place of an opaque one; `None` = the opaque one goes.
    pub phantom: Option<Phantom>,
}

/// Where an answer holds the token for upstream (the phantom token approach).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phantom {
    /// It is the answer: `application/jwt`.
    Answer,
    /// In a claim of the answer.
    Claim(String),
}

/// How logout tokens of a provider are read (OpenID Connect Back-Channel Logout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackchannelLogout {
    /// What a token with a `sid` ends; default session.
    pub scope: LogoutScope,
    /// Whether a token must have `exp`; default true. Without one it is good for two minutes.
    pub require_exp: bool,
}

impl Default for BackchannelLogout {
    fn default() -> Self {
        Self { scope: LogoutScope::Session, require_exp: true }
    }
}

/// What the provider's call in a frame must name (OpenID Connect Front-Channel Logout §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontchannelLogout {
    /// There is no such endpoint.
    Off,
    /// `iss` and `sid`.
    IssuerAndSession,
    /// `sid`; `iss` only has to fit where it is there. For Microsoft Entra ID, which leaves it out.
    Session,
}

/// What a logout token with a `sid` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutScope {
    /// The sessions with this `sid`.
    Session,
    /// All sessions of the user, for providers that tell one `sid` of several.
    User,
}

/// Whether a login request goes to the provider before the browser does, which then carries a reference to it (RFC 9126).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushedAuthorization {
    /// If the provider offers it.
    Auto,
    /// Always; without it there is no login.
    Require,
    /// Never.
    Off,
}

/// How the answer to an authorization request comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseMode {
    /// In the query of a redirect.
    Query,
    /// In a form that the browser posts (OAuth 2.0 Form Post Response Mode): no code in an address, a log or a history.
    FormPost,
}

/// A parameter of the authorization request that a page may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginParameter {
    /// Whether the user is asked, and for what.
    Prompt,
    /// Whom the provider should expect.
    LoginHint,
    /// How strongly the provider should authenticate.
    AcrValues,
    /// How long ago the user may have logged in there, in seconds.
    MaxAge,
    /// Languages of the provider's pages.
    UiLocales,
    /// Single claims, as a JSON object (Core §5.5).
    Claims,
    /// Which identity provider behind Keycloak the user comes from.
    KcIdpHint,
}

impl LoginParameter {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Prompt, Self::LoginHint, Self::AcrValues, Self::MaxAge, Self::UiLocales, Self::Claims, Self::KcIdpHint];

    /// Its name in a query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::LoginHint => "login_hint",
            Self::AcrValues => "acr_values",
            Self::MaxAge => "max_age",
            Self::UiLocales => "ui_locales",
            Self::Claims => "claims",
            Self::KcIdpHint => "kc_idp_hint",
        }
    }
}

/// Client authentication at the provider's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic (RFC 6749 §2.3.1).
    Basic(SecretText),
    /// In the form body.
    Post(SecretText),
    /// An assertion signed with our key (RFC 7523 §2.2): the first signs, all are published. Never empty.
    PrivateKeyJwt(Arc<[SigningKey]>),
    /// The certificate that we show in the TLS handshake (RFC 8705 §2).
    Tls(Arc<ClientCertificate>),
    /// Public client; PKCE only. `check` warns.
    None,
}
