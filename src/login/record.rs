//! What the store keeps of a browser beside its session: logins under way, logouts under way, and which session is its
//! latest. Sealed, named by the browser's binding and a `state`, taken out once (behaviour L2, L3, O2).

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{LOGIN_LIFE, SiteAuth};
use crate::oidc::Demands;
use crate::primitives::clock::Timestamp;
use crate::session::manager::{SessionError, Sessions};
use crate::session::open::Open;
use crate::session::seal::{Context, Purpose};
use crate::session::ticket::SessionId;
use crate::store::LoginKey;

/// What must be known again when the browser comes back.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginRecord {
    pub(super) site: String,
    /// Issuer of the provider it began at. The provider's name is part of what the record is sealed for (behaviour L5).
    #[serde(default)]
    pub(super) issuer: String,
    pub(super) nonce: String,
    pub(super) pkce_verifier: String,
    pub(super) redirect_uri: String,
    pub(super) return_to: String,
    pub(super) started: Timestamp,
    /// A ticket of the session that the browser had when it began and showed a good one of; it ends when the new one begins
    /// (behaviour S7). Like everything here it is sealed.
    pub(super) former: Option<String>,
    /// What its ID token must hold.
    #[serde(default)]
    pub(super) demands: Demands,
    /// The user was not to be asked anything.
    #[serde(default)]
    pub(super) silent: bool,
}

impl LoginRecord {
    pub(super) fn former(&self) -> Option<SessionId> {
        SessionId::parse(self.former.as_ref()?.as_bytes())
    }

    /// Seals the record and stores it until `expires`.
    pub(super) async fn put(
        &self,
        sessions: &Sessions,
        provider: &str,
        binding: &str,
        state: &str,
        expires: Timestamp,
    ) -> Result<(), SessionError> {
        let key = key(binding, Kind::Login, state);
        let plain = Zeroizing::new(serde_json::to_vec(self)?);
        let sealed = sessions.ring().seal(&context(provider, &key), &plain)?;
        sessions.store().put_login(&key, &sealed, expires).await?;
        Ok(())
    }

    /// Takes the record of this browser and state out of the store: a second try finds none.
    pub(super) async fn take(
        sessions: &Sessions,
        provider: &str,
        binding: &str,
        state: &str,
    ) -> Result<Option<Self>, SessionError> {
        let key = key(binding, Kind::Login, state);
        let Some(sealed) = sessions.store().take_login(&key).await? else { return Ok(None) };
        let opened = sessions.ring().open(&context(provider, &key), &sealed);
        Ok(opened.ok().and_then(|plain| serde_json::from_slice(&plain).ok()))
    }
}

/// The provider of a record that is of none in particular. No provider has an empty name.
const ANY: &str = "";

/// What a record is of. Each kind has names of its own, or a callback could take away by its `state` what is not a login
/// (behaviour K3).
#[derive(Clone, Copy)]
enum Kind {
    Login,
    Logout,
    Latest,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Login => 1,
            Self::Logout => 2,
            Self::Latest => 3,
        }
    }
}

/// Notes the session that a browser has just got and returns the one of the same site that it got before: two tabs that logged in at once
/// leave one session, not two (behaviour S7). The store does both in one step, so that this holds for two that come back
/// in the same moment.
pub(super) async fn succeed(
    sessions: &Sessions,
    site: &SiteAuth,
    binding: &str,
    open: &Open,
) -> Result<Option<SessionId>, SessionError> {
    // Sites beside each other may be shown one binding.
    let key = key(binding, Kind::Latest, &site.profile.site);
    let sealed = sessions.ring().seal(&context(ANY, &key), open.id().expose().as_bytes())?;
    // Only logins that began before this session cannot name it themselves; and a note that outlived them would take the
    // room of logins under way (behaviour L13).
    let until = sessions.clock().now().plus(LOGIN_LIFE).min(open.absolute_end());
    let before = sessions.store().put_login(&key, &sealed, until).await?;
    let opened = before.and_then(|before| sessions.ring().open(&context(ANY, &key), &before).ok());
    Ok(opened.and_then(|id| SessionId::parse(&id)))
}

/// Notes that a browser logs out, until it has come to the page that says so or a login's life has passed.
pub(super) async fn log_out(sessions: &Sessions, binding: &str, state: &str) -> Result<(), SessionError> {
    let key = key(binding, Kind::Logout, state);
    let sealed = sessions.ring().seal(&context(ANY, &key), b"")?;
    sessions.store().put_login(&key, &sealed, sessions.clock().now().plus(LOGIN_LIFE)).await?;
    Ok(())
}

/// Whether this browser comes back from such a logout; once.
pub(super) async fn has_logged_out(sessions: &Sessions, binding: &str, state: &str) -> Result<bool, SessionError> {
    let key = key(binding, Kind::Logout, state);
    let sealed = sessions.store().take_login(&key).await?;
    Ok(sealed.is_some_and(|sealed| sessions.ring().open(&context(ANY, &key), &sealed).is_ok()))
}

fn key(binding: &str, kind: Kind, state: &str) -> LoginKey {
    let state = Sha256::new().chain_update([kind.code()]).chain_update(state).finalize();
    LoginKey { browser: Sha256::digest(binding).into(), state: state.into() }
}

fn context<'a>(provider: &'a str, key: &'a LoginKey) -> Context<'a> {
    Context { purpose: Purpose::Login, key: &key.state, provider, owner: [&key.browser, b""], generation: 0 }
}
