//! The switches by which a test makes the provider misbehave while it runs. All are off in the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backchannel::LogoutTokenFault;
use crate::demo::faults::{Fault, Faults};
use crate::demo::support::locked;

/// An endpoint of the provider, for faults and for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`
    Discovery,
    /// The published keys.
    Jwks,
    /// The authorization endpoint, with its login page.
    Authorize,
    /// The token endpoint.
    Token,
    /// The userinfo endpoint.
    Userinfo,
    /// The revocation endpoint.
    Revoke,
    /// The end-session endpoint.
    EndSession,
    /// The endpoint for pushed authorization requests.
    Pushed,
}

/// One thing wrong with an ID token, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdTokenFault {
    /// Another nonce than the one sent.
    WrongNonce,
    /// No nonce.
    MissingNonce,
    /// `aud` names another client.
    WrongAudience,
    /// `aud` names us and a stranger.
    ExtraAudience,
    /// `azp` is another client.
    WrongAuthorizedParty,
    /// `iss` is another provider.
    WrongIssuer,
    /// `alg` is `none`, the signature empty.
    AlgorithmNone,
    /// HS256 with the client secret as key.
    HmacWithClientSecret,
    /// HS256 with the public key as key.
    HmacWithPublicKey,
    /// One bit of the signature is wrong.
    BadSignature,
    /// The header has no `kid`.
    MissingKeyId,
    /// Signed with a key that nobody published, under its own `kid`.
    UnpublishedKey,
    /// A critical header extension that nobody knows.
    UnknownCritical,
    /// `exp` was an hour ago.
    Expired,
    /// No `exp`.
    MissingExpiry,
    /// `exp` is 1e300.
    EndlessExpiry,
    /// No `iat`.
    MissingIssuedAt,
    /// `iat` lies an hour ahead.
    FutureIssuedAt,
    /// `at_hash` belongs to another access token.
    WrongAccessTokenHash,
    /// `sub` is missing.
    MissingSubject,
}

impl IdTokenFault {
    /// Every fault, for tests that try each alone.
    pub const ALL: [Self; 20] = [
        Self::WrongNonce,
        Self::MissingNonce,
        Self::WrongAudience,
        Self::ExtraAudience,
        Self::WrongAuthorizedParty,
        Self::WrongIssuer,
        Self::AlgorithmNone,
        Self::HmacWithClientSecret,
        Self::HmacWithPublicKey,
        Self::BadSignature,
        Self::MissingKeyId,
        Self::UnpublishedKey,
        Self::UnknownCritical,
        Self::Expired,
        Self::MissingExpiry,
        Self::EndlessExpiry,
        Self::MissingIssuedAt,
        Self::FutureIssuedAt,
        Self::WrongAccessTokenHash,
        Self::MissingSubject,
    ];
}

/// The `iss` parameter of an authorization response (RFC 9207).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResponseIssuer {
    /// Ours.
    #[default]
    Right,
    /// This one.
    Wrong(String),
    /// None, although the metadata announce it.
    Missing,
}

/// What a refresh does with the refresh token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// A new one; the old one dies, and showing it again kills the family.
    #[default]
    Rotate,
    /// The same one again.
    Same,
    /// None in the answer; the old one goes on.
    Silent,
}

/// All that can be wrong. `Default` is a well-behaved provider.
#[derive(Clone, Debug, Default)]
pub struct Misbehaviour {
    /// Faults in every ID token from now on.
    pub id_token: BTreeSet<IdTokenFault>,
    /// The `iss` of authorization responses.
    pub response_issuer: ResponseIssuer,
    /// The authorization endpoint always sends the browser back with this error.
    pub callback_error: Option<String>,
    /// New tokens are signed with a key that is published only by the next `rotate_keys`.
    pub stale_jwks: bool,
    /// The issuer the discovery document claims.
    pub discovery_issuer: Option<String>,
    /// The discovery document names no logout page.
    pub no_logout_page: bool,
    /// Logins bring no refresh token.
    pub no_refresh_token: bool,
    /// What a refresh does with the refresh token.
    pub rotation: Rotation,
    /// For so long a used refresh token may be shown again without harm.
    pub reuse_grace: Duration,
    /// Refreshes are refused with this error: `invalid_grant`, `invalid_client`, ...
    pub refuse_refresh: Option<String>,
    /// Tokens for single services are refused with this error: `access_denied`, `invalid_target`, ...
    pub refuse_service_tokens: Option<String>,
    /// The `token_type` of tokens for single services.
    pub service_token_type: Option<String>,
    /// The `token_type` of refreshed tokens.
    pub refreshed_token_type: Option<String>,
    /// A refresh brings no ID token.
    pub no_id_token_on_refresh: bool,
    /// The ID token of a refresh belongs to somebody else.
    pub other_subject_on_refresh: bool,
    /// The userinfo answer belongs to somebody else.
    pub other_subject_at_userinfo: bool,
    /// A claim that the userinfo answer has, and no token.
    pub userinfo: Option<(String, String)>,
    /// Token answers do not say how long the access token lives.
    pub omit_expires_in: bool,
    /// The roles of everybody from now on.
    pub roles: Option<Vec<String>>,
    /// The `acr` of every login from now on, whatever is asked for.
    pub acr: Option<String>,
    /// Life of access tokens from now on.
    pub access_token_lifetime: Option<Duration>,
    /// Text that lies in every token from now on, so that a test can search for it.
    pub canary: Option<String>,
    /// This user is logged in without a page.
    pub auto_login: Option<String>,
    /// Where the client of the demo wants to hear of logouts at the provider's own page.
    pub backchannel_logout_uri: Option<String>,
    /// Faults in every logout token sent there.
    pub logout_token: BTreeSet<LogoutTokenFault>,
    /// The discovery document names the endpoint for pushed requests, and the login page takes nothing else.
    pub pushed_only: bool,
    /// Requests for tokens need a proof (RFC 9449). One that has a proof gets bound tokens in any case.
    pub dpop_required: bool,
    /// The nonce that proofs must have.
    pub dpop_nonce: Option<String>,
    /// Tokens are bearer tokens, whatever is proved.
    pub dpop_ignored: bool,
    /// What the discovery document says of algorithms of proofs, if anything.
    pub dpop_algorithms: Option<Vec<String>>,
    /// A client is believed without looking at its credentials (they are recorded all the same).
    pub any_client_credentials: bool,
}

/// The handle on the switches of a provider. Clones share them; changes count from the next request on.
#[derive(Clone, Debug, Default)]
pub struct Switches(Arc<Board>);

#[derive(Debug, Default)]
struct Board {
    misbehaviour: Mutex<Misbehaviour>,
    faults: Mutex<BTreeMap<Endpoint, Faults>>,
}

impl Switches {
    /// Turns switches: `switches.set(|switch| switch.no_refresh_token = true)`.
    pub fn set(&self, change: impl FnOnce(&mut Misbehaviour)) {
        change(&mut locked(&self.0.misbehaviour));
    }

    /// How the switches stand.
    pub fn now(&self) -> Misbehaviour {
        locked(&self.0.misbehaviour).clone()
    }

    /// `login` is logged in without a page from now on.
    pub fn auto_login(&self, login: &str) {
        self.set(|switch| switch.auto_login = Some(login.to_owned()));
    }

    /// ID tokens have this fault, and only this, from now on.
    pub fn spoil_id_token(&self, fault: IdTokenFault) {
        self.set(|switch| switch.id_token = BTreeSet::from([fault]));
    }

    /// Adds a fault to an endpoint.
    pub fn fault(&self, endpoint: Endpoint, fault: Fault) {
        self.faults(endpoint).add(fault);
    }

    /// The faults of an endpoint.
    pub fn faults(&self, endpoint: Endpoint) -> Faults {
        locked(&self.0.faults).entry(endpoint).or_default().clone()
    }

    /// Everything off, on all endpoints.
    pub fn reset(&self) {
        self.set(|switch| *switch = Misbehaviour::default());
        for faults in locked(&self.0.faults).values() {
            faults.clear();
        }
    }
}

/// The forms in which `canary` can show up once a token is on its way: as it is, and inside base64 and
/// base64url at each of the three alignments. A leak scan searches for all of them.
pub fn canary_traces(canary: &str) -> Vec<String> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

    let mut traces = vec![canary.to_owned()];
    for shift in 0..3 {
        let shifted = [vec![0; shift], canary.as_bytes().to_vec()].concat();
        // Characters that also hold bits of a neighbour are left out, at the front and at the end.
        let first = (shift * 8).div_ceil(6);
        let last = shifted.len() * 8 / 6;
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            traces.extend(text.get(first..last).map(str::to_owned));
        }
    }
    traces.sort();
    traces.dedup();
    traces
}
