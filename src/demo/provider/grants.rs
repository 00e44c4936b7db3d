//! What the provider has promised: authorization codes, refresh-token families, access tokens, and the
//! sessions of its own login page. No HTTP here; times are seconds since 1970.

use std::collections::HashMap;
use std::time::Duration;

use crate::demo::support::random_value;

/// Life of an authorization code, in seconds.
const CODE_LIFETIME: u64 = 60;
/// After so many new entries the expired ones are swept out.
const SWEEP_EVERY: usize = 512;

/// What a login granted; every token of a family carries it.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) client_id: String,
    /// The login name of the user.
    pub(super) login: String,
    pub(super) scope: String,
    pub(super) sid: String,
    pub(super) auth_time: u64,
    pub(super) acr: Option<String>,
    /// Thumbprint of the key that access tokens are bound to.
    pub(super) key: Option<String>,
}

impl Grant {
    /// Offline tokens outlive the session at the provider.
    fn is_offline(&self) -> bool {
        self.scope.split(' ').any(|scope| scope == "offline_access")
    }
}

/// A code and what it is bound to.
#[derive(Clone)]
pub(super) struct Code {
    pub(super) grant: Grant,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    expires: u64,
    /// Set once redeemed: the family it led to.
    family: Option<u64>,
}

/// Why a code or a refresh token was refused; the word goes to the log, the client hears `invalid_grant`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str);

/// A user known at the login page of the provider.
#[derive(Clone)]
pub(super) struct SsoSession {
    pub(super) login: String,
    pub(super) sid: String,
    pub(super) auth_time: u64,
    pub(super) expires: u64,
}

struct RefreshToken {
    family: u64,
    /// When it was used; none while it is the current one.
    used: Option<u64>,
    expires: u64,
}

struct AccessToken {
    family: u64,
    login: String,
    expires: u64,
}

struct Family {
    grant: Grant,
    expires: u64,
}

/// A login request that came before its browser.
struct Pushed {
    client_id: String,
    asked: Vec<(String, String)>,
    expires: u64,
}

/// All promises.
#[derive(Default)]
pub(super) struct Grants {
    codes: HashMap<String, Code>,
    families: HashMap<u64, Family>,
    refresh_tokens: HashMap<String, RefreshToken>,
    access_tokens: HashMap<String, AccessToken>,
    sso: HashMap<String, SsoSession>,
    pushed: HashMap<String, Pushed>,
    /// Ids of client assertions, until they end.
    assertions: HashMap<String, u64>,
    next_family: u64,
    since_sweep: usize,
}

impl Grants {
    /// Keeps a pushed request; returns the reference to it.
    pub(super) fn push(&mut self, now: u64, client_id: &str, asked: Vec<(String, String)>, expires: u64) -> String {
        self.pushed.retain(|_, pushed| pushed.expires > now);
        let reference = format!("urn:ietf:params:oauth:request_uri:{}", random_value());
        self.pushed.insert(reference.clone(), Pushed { client_id: client_id.to_owned(), asked, expires });
        reference
    }

    /// What this client pushed under `reference`. The login page comes back to it, so it lives on until its time is over.
    pub(super) fn pushed(&self, now: u64, client_id: &str, reference: &str) -> Option<Vec<(String, String)>> {
        let pushed =
            self.pushed.get(reference).filter(|pushed| pushed.expires > now && pushed.client_id == client_id)?;
        Some(pushed.asked.clone())
    }

    /// Whether an assertion of this id comes for the first time.
    pub(super) fn first_use(&mut self, now: u64, id: &str, expires: u64) -> bool {
        self.assertions.retain(|_, expires| *expires > now);
        self.assertions.insert(id.to_owned(), expires).is_none()
    }

    pub(super) fn new_code(
        &mut self,
        now: u64,
        grant: Grant,
        redirect_uri: String,
        challenge: String,
        nonce: Option<String>,
    ) -> String {
        self.sweep(now);
        let code = random_value();
        let expires = now + CODE_LIFETIME;
        self.codes.insert(code.clone(), Code { grant, redirect_uri, challenge, nonce, expires, family: None });
        code
    }

    /// Takes a code. A second use refuses and kills what the first use gave (RFC 6749, 4.1.2).
    pub(super) fn redeem(&mut self, now: u64, code: &str, client_id: &str) -> Result<(Code, u64), Refusal> {
        let record = self.codes.get_mut(code).ok_or(Refusal("unknown code"))?;
        if let Some(family) = record.family {
            self.families.remove(&family);
            return Err(Refusal("code used twice"));
        }
        self.next_family += 1;
        record.family = Some(self.next_family);
        let record = record.clone();
        if record.grant.client_id != client_id {
            return Err(Refusal("code of another client"));
        }
        if record.expires < now {
            return Err(Refusal("code expired"));
        }
        Ok((record, self.next_family))
    }

    /// Opens the family that a code led to.
    pub(super) fn open_family(&mut self, now: u64, family: u64, grant: Grant) {
        self.families.insert(family, Family { grant, expires: now });
    }

    pub(super) fn add_refresh_token(&mut self, now: u64, family: u64, token: &str, life: Duration) {
        self.sweep(now);
        let expires = now + life.as_secs();
        if let Some(family) = self.families.get_mut(&family) {
            family.expires = family.expires.max(expires);
        }
        self.refresh_tokens.insert(token.to_owned(), RefreshToken { family, used: None, expires });
    }

    pub(super) fn add_access_token(&mut self, now: u64, family: u64, token: &str, login: &str, life: Duration) {
        self.sweep(now);
        let expires = now + life.as_secs();
        if let Some(family) = self.families.get_mut(&family) {
            family.expires = family.expires.max(expires);
        }
        self.access_tokens.insert(token.to_owned(), AccessToken { family, login: login.to_owned(), expires });
    }

    /// Checks a refresh token. With `rotate` it is used up; shown again later than `grace` it kills its family.
    pub(super) fn refresh(
        &mut self,
        now: u64,
        token: &str,
        client_id: &str,
        rotate: bool,
        grace: Duration,
    ) -> Result<(Grant, u64), Refusal> {
        let record = self.refresh_tokens.get_mut(token).ok_or(Refusal("unknown refresh token"))?;
        let family_id = record.family;
        let family = self.families.get(&family_id).ok_or(Refusal("the family is dead"))?;
        if family.grant.client_id != client_id {
            return Err(Refusal("refresh token of another client"));
        }
        if record.expires <= now {
            return Err(Refusal("refresh token expired"));
        }
        match record.used {
            Some(used) if grace.is_zero() || now > used + grace.as_secs() => {
                self.families.remove(&family_id);
                return Err(Refusal("refresh token used twice"));
            }
            Some(_) => {}
            None if rotate => record.used = Some(now),
            None => {}
        }
        Ok((family.grant.clone(), family_id))
    }

    /// The login name behind a live access token.
    pub(super) fn bearer(&self, now: u64, token: &str) -> Option<String> {
        let record = self.access_tokens.get(token)?;
        let alive = record.expires > now && self.families.contains_key(&record.family);
        alive.then(|| record.login.clone())
    }

    /// The login name behind a live access token, and its family.
    pub(super) fn holder(&self, now: u64, token: &str) -> Option<(String, u64)> {
        let login = self.bearer(now, token)?;
        Some((login, self.access_tokens.get(token)?.family))
    }

    /// Revokes a token of this client: a refresh token with its family, an access token alone. Unknown
    /// tokens and tokens of others are left alone in silence (RFC 7009, 2.2).
    pub(super) fn revoke(&mut self, token: &str, client_id: &str) {
        let owner = |families: &HashMap<u64, Family>, family: u64| {
            families.get(&family).is_some_and(|family| family.grant.client_id == client_id)
        };
        if let Some(record) = self.refresh_tokens.get(token) {
            if owner(&self.families, record.family) {
                self.families.remove(&record.family);
            }
        } else if let Some(record) = self.access_tokens.get(token)
            && owner(&self.families, record.family)
        {
            self.access_tokens.remove(token);
        }
    }

    /// Remembers a login at the page; returns the value of the cookie and the session.
    pub(super) fn open_sso(&mut self, now: u64, login: &str, life: Duration) -> (String, SsoSession) {
        self.sweep(now);
        let session =
            SsoSession { login: login.to_owned(), sid: random_value(), auth_time: now, expires: now + life.as_secs() };
        let cookie = random_value();
        self.sso.insert(cookie.clone(), session.clone());
        (cookie, session)
    }

    pub(super) fn sso(&self, now: u64, cookie: &str) -> Option<SsoSession> {
        self.sso.get(cookie).filter(|session| session.expires > now).cloned()
    }

    /// Ends a provider session with all tokens that hang on it; offline tokens live on.
    pub(super) fn end_sid(&mut self, sid: &str) {
        self.sso.retain(|_, session| session.sid != sid);
        self.families.retain(|_, family| family.grant.sid != sid || family.grant.is_offline());
    }

    /// Ends all tokens of everybody, as a provider that lost its memory.
    pub(super) fn forget_tokens(&mut self) {
        self.families.clear();
    }

    fn sweep(&mut self, now: u64) {
        self.since_sweep += 1;
        if self.since_sweep < SWEEP_EVERY {
            return;
        }
        self.since_sweep = 0;
        self.codes.retain(|_, code| code.expires + CODE_LIFETIME > now);
        self.families.retain(|_, family| family.expires > now);
        self.refresh_tokens.retain(|_, token| token.expires > now && self.families.contains_key(&token.family));
        self.access_tokens.retain(|_, token| token.expires > now);
        self.sso.retain(|_, session| session.expires > now);
    }
}
