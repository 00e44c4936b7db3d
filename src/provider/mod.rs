//! Who logs users in and gives tokens, whatever its kind: all that sessions, refreshes and logouts need to know of it.
//!
//! What is peculiar to a kind is asked of the kind itself: see [`Provider::oidc`] and [`Provider::credentials`].

mod unclaimed;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use url::Url;

pub use unclaimed::Unclaimed;

use crate::credentials::{self, Backend};
use crate::oidc::{self, Breaker, IdToken, Previous, RefreshError, Tokens};
use crate::primitives::secret::SecretText;

/// One provider of the settings.
#[derive(Debug)]
pub enum Provider {
    /// An OpenID provider.
    Oidc(Arc<oidc::Provider>),
    /// A backend with a login of its own.
    Credentials(Arc<Backend>),
}

/// All providers of the settings, by name.
pub type Providers = HashMap<Arc<str>, Arc<Provider>>;

/// What a refresh brings.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The tokens; without a refresh token in them the old one stays (behaviour R5).
    pub tokens: Tokens,
    /// `None`: the old ID token stays.
    pub id_token: Option<SecretText>,
    /// `None`: the old claims stay.
    pub claims: Option<Map<String, Value>>,
    /// There are claims to be asked for once the tokens are stored, see [`Provider::claims_after_refresh`]; those of this ID
    /// token do not count alone.
    pub unasked: Option<Box<IdToken>>,
}

impl Refreshed {
    fn of_oidc(new: oidc::Refreshed, asks_userinfo: bool) -> Self {
        let Some(id_token) = new.id_token else {
            return Self { tokens: new.tokens, id_token: None, claims: None, unasked: None };
        };
        let text = Some(id_token.text.clone());
        if asks_userinfo {
            Self { tokens: new.tokens, id_token: text, claims: None, unasked: Some(Box::new(id_token)) }
        } else {
            Self { tokens: new.tokens, id_token: text, claims: Some(id_token.claims), unasked: None }
        }
    }
}

impl From<credentials::Refreshed> for Refreshed {
    fn from(new: credentials::Refreshed) -> Self {
        Self { tokens: new.tokens, id_token: None, claims: new.claims, unasked: None }
    }
}

impl Provider {
    /// It, if it is an OpenID provider.
    #[must_use]
    pub fn oidc(&self) -> Option<&Arc<oidc::Provider>> {
        match self {
            Self::Oidc(provider) => Some(provider),
            Self::Credentials(_) => None,
        }
    }

    /// It, if it is a backend with a login of its own.
    #[must_use]
    pub fn credentials(&self) -> Option<&Arc<Backend>> {
        match self {
            Self::Oidc(_) => None,
            Self::Credentials(backend) => Some(backend),
        }
    }

    /// The name in the settings.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Oidc(provider) => provider.name(),
            Self::Credentials(backend) => backend.name(),
        }
    }

    /// What users are told that it is.
    #[must_use]
    pub fn title(&self) -> &str {
        match self {
            Self::Oidc(provider) => provider.title(),
            Self::Credentials(backend) => backend.title(),
        }
    }

    /// How long it still answers to a refresh token that it has exchanged already; zero = it never does.
    #[must_use]
    pub fn refresh_token_grace(&self) -> Duration {
        match self {
            Self::Oidc(provider) => provider.refresh_token_grace(),
            Self::Credentials(backend) => backend.refresh_token_grace(),
        }
    }

    /// Whether it has a way to new tokens.
    #[must_use]
    pub fn refreshes(&self) -> bool {
        match self {
            Self::Oidc(_) => true,
            Self::Credentials(backend) => backend.refreshes(),
        }
    }

    /// Whether refreshes are to leave it alone for the moment.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        match self {
            Self::Oidc(provider) => provider.breaker(),
            Self::Credentials(backend) => backend.breaker(),
        }
    }

    /// Whether logins and refreshes can go there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Oidc(provider) => provider.is_ready(),
            // There is nothing to be known before the first login.
            Self::Credentials(_) => true,
        }
    }

    /// What there is to say beside [`Provider::is_ready`]; empty if all is well.
    #[must_use]
    pub fn status(&self) -> String {
        match self {
            Self::Oidc(provider) => provider.status(),
            Self::Credentials(_) => String::new(),
        }
    }

    /// Keeps fresh what is known of it; for a task of its own.
    pub async fn maintain(&self) {
        match self {
            Self::Oidc(provider) => provider.maintain().await,
            Self::Credentials(_) => {}
        }
    }

    /// Gets new tokens. The refresh token is shown once; nothing here repeats it. `old` is the access token so far.
    ///
    /// # Errors
    /// [`RefreshError`]
    pub async fn refresh(
        &self,
        token: &SecretText,
        old: &SecretText,
        previous: Previous<'_>,
    ) -> Result<Refreshed, RefreshError> {
        match self {
            Self::Oidc(provider) => {
                let refreshed = provider.refresh(token, previous).await?;
                Ok(Refreshed::of_oidc(refreshed, provider.merges_userinfo()))
            }
            Self::Credentials(backend) => backend.refresh(token, previous.subject, old).await.map(Into::into),
        }
    }

    /// All claims of a user whose refreshed tokens are in the store; `None`: they stay as they were. `turns`: how many may be
    /// asked for at a time.
    ///
    /// # Errors
    /// [`RefreshError::IdentityChanged`]; nothing is revoked.
    pub async fn claims_after_refresh(
        &self,
        access_token: &SecretText,
        id_token: IdToken,
        turns: &Semaphore,
    ) -> Result<Option<Map<String, Value>>, RefreshError> {
        match self {
            Self::Oidc(provider) => provider.claims_after_refresh(access_token, id_token, turns).await,
            Self::Credentials(_) => Ok(None),
        }
    }

    /// Tells it, in a few attempts over half a minute, that a refresh token is done with; for a task of its own.
    pub async fn revoke_patiently(self: Arc<Self>, token: SecretText) {
        match &*self {
            Self::Oidc(provider) => provider.clone().revoke_patiently(token).await,
            Self::Credentials(backend) => backend.clone().revoke_patiently(token).await,
        }
    }

    /// Whether access tokens are revoked at logout, too.
    #[must_use]
    pub fn revokes_access_tokens(&self) -> bool {
        match self {
            Self::Oidc(provider) => provider.revokes_access_tokens(),
            Self::Credentials(_) => false,
        }
    }

    /// Tells it, once, that an access token is done with, if it can be told; for a task of its own.
    pub async fn revoke_access_token(self: Arc<Self>, token: SecretText) {
        match &*self {
            Self::Oidc(provider) => provider.clone().revoke_access_token(token).await,
            Self::Credentials(_) => {}
        }
    }

    /// Its own logout page (RP-Initiated Logout §2); `None` if it has none.
    #[must_use]
    pub fn end_session_url(&self, id_token_hint: Option<&SecretText>, back: &Url, state: Option<&str>) -> Option<Url> {
        match self {
            Self::Oidc(provider) => provider.end_session_url(id_token_hint, back, state),
            Self::Credentials(_) => None,
        }
    }
}
