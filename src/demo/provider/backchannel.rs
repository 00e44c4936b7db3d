//! Logout tokens (OpenID Connect Back-Channel Logout, 2.4), good and bad, and the request that carries them.

use std::io;

use ring::error::Unspecified;
use serde_json::{Value, json};

use super::keys::Signing;
use super::state::Shared;
use super::{Provider, signing_failed};
use crate::demo::support::random_value;

/// The member of `events` that makes a token a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// One thing wrong with a logout token, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogoutTokenFault {
    /// `alg` is `none`, the signature empty.
    AlgorithmNone,
    /// HS256 with the client secret as key.
    HmacWithClientSecret,
    /// HS256 with the public key as key.
    HmacWithPublicKey,
    /// One bit of the signature is wrong.
    BadSignature,
    /// Signed with a key that nobody published.
    UnpublishedKey,
    /// A critical header extension that nobody knows.
    UnknownCritical,
    /// The header's `typ` is `JWT`.
    PlainType,
    /// The header's `typ` is that of an access token.
    AccessTokenType,
    /// `iss` is another provider.
    WrongIssuer,
    /// `iss` is missing.
    MissingIssuer,
    /// `aud` names another client.
    WrongAudience,
    /// `aud` names us and a stranger.
    ExtraAudience,
    /// `aud` is missing.
    MissingAudience,
    /// `iat` is missing.
    MissingIssuedAt,
    /// `iat` lies an hour ahead.
    FutureIssuedAt,
    /// `exp` was an hour ago.
    Expired,
    /// `exp` is missing.
    MissingExpiry,
    /// `exp` is 1e300.
    EndlessExpiry,
    /// `jti` is missing.
    MissingId,
    /// `jti` is empty.
    EmptyId,
    /// `jti` is a number.
    NumericId,
    /// `events` is missing.
    MissingEvents,
    /// `events` has another member.
    OtherEvent,
    /// `events` is a list.
    EventsAsList,
    /// The member of `events` is a text.
    EventAsText,
    /// There is a nonce.
    WithNonce,
    /// There is a nonce, and it is null.
    WithNullNonce,
    /// Neither `sub` nor `sid`.
    Nobody,
    /// `sid` is a number.
    NumericSession,
    /// `sid` is null.
    NullSession,
    /// `sub` is empty.
    EmptySubject,
}

impl LogoutTokenFault {
    /// Every fault, for tests that try each alone.
    pub const ALL: [Self; 31] = [
        Self::AlgorithmNone,
        Self::HmacWithClientSecret,
        Self::HmacWithPublicKey,
        Self::BadSignature,
        Self::UnpublishedKey,
        Self::UnknownCritical,
        Self::PlainType,
        Self::AccessTokenType,
        Self::WrongIssuer,
        Self::MissingIssuer,
        Self::WrongAudience,
        Self::ExtraAudience,
        Self::MissingAudience,
        Self::MissingIssuedAt,
        Self::FutureIssuedAt,
        Self::Expired,
        Self::MissingExpiry,
        Self::EndlessExpiry,
        Self::MissingId,
        Self::EmptyId,
        Self::NumericId,
        Self::MissingEvents,
        Self::OtherEvent,
        Self::EventsAsList,
        Self::EventAsText,
        Self::WithNonce,
        Self::WithNullNonce,
        Self::Nobody,
        Self::NumericSession,
        Self::NullSession,
        Self::EmptySubject,
    ];

    fn signing(self) -> Option<Signing> {
        Some(match self {
            Self::AlgorithmNone => Signing::Unsigned,
            Self::HmacWithClientSecret => Signing::HmacWithSecret(crate::demo::CLIENT_SECRET.to_owned()),
            Self::HmacWithPublicKey => Signing::HmacWithPublicKey,
            Self::BadSignature => Signing::Broken,
            Self::UnpublishedKey => Signing::Unpublished,
            Self::UnknownCritical => Signing::UnknownCritical,
            _ => return None,
        })
    }

    fn token_type(self) -> Option<&'static str> {
        match self {
            Self::PlainType => Some("JWT"),
            Self::AccessTokenType => Some("at+jwt"),
            _ => None,
        }
    }

    /// Applies a fault that lies in the claims. `client_id` and the time stand in them already.
    fn spoil(self, claims: &mut Value, now: u64) {
        let hour = 3_600;
        let (name, value) = match self {
            Self::WrongIssuer => ("iss", json!("https://another-provider.example")),
            Self::MissingIssuer => ("iss", Value::Null),
            Self::WrongAudience => ("aud", json!("another-client")),
            Self::ExtraAudience => ("aud", json!([claims.get("aud"), "a-stranger"])),
            Self::MissingAudience => ("aud", Value::Null),
            Self::MissingIssuedAt => ("iat", Value::Null),
            Self::FutureIssuedAt => ("iat", json!(now + hour)),
            Self::Expired => ("exp", json!(now.saturating_sub(hour))),
            Self::MissingExpiry => ("exp", Value::Null),
            Self::EndlessExpiry => ("exp", json!(1e300)),
            Self::MissingId => ("jti", Value::Null),
            Self::EmptyId => ("jti", json!("")),
            Self::NumericId => ("jti", json!(7)),
            Self::MissingEvents => ("events", Value::Null),
            Self::OtherEvent => ("events", json!({ "http://schemas.openid.net/event/other": {} })),
            Self::EventsAsList => ("events", json!([EVENT])),
            Self::EventAsText => ("events", json!({ EVENT: "yes" })),
            Self::WithNonce => ("nonce", json!("a-nonce")),
            Self::WithNullNonce => ("nonce", Value::Null),
            Self::NumericSession => ("sid", json!(7)),
            Self::NullSession => ("sid", Value::Null),
            Self::EmptySubject => ("sub", json!("")),
            _ => ("", Value::Null),
        };
        let Some(claims) = claims.as_object_mut() else { return };
        if self == Self::Nobody {
            claims.remove("sub");
            claims.remove("sid");
        } else if value.is_null() && !matches!(self, Self::WithNullNonce | Self::NullSession) {
            claims.remove(name);
        } else {
            claims.insert(name.to_owned(), value);
        }
    }
}

/// What became of a logout token that was sent.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The status of the answer.
    pub status: u16,
    /// Its `Cache-Control`.
    pub cache_control: String,
    /// Its body.
    pub body: String,
}

impl Provider {
    /// The claims of a good logout token for `client_id`, to be changed by a test and signed with
    /// `sign("logout+jwt", ...)`.
    #[must_use]
    pub fn logout_claims(&self, client_id: &str, subject: Option<&str>, sid: Option<&str>) -> Value {
        logout_claims(self.issuer(), self.shared.now(), client_id, subject, sid)
    }

    /// A logout token for the client of the demo, with these faults.
    ///
    /// # Errors
    /// If signing fails.
    pub fn logout_token(
        &self,
        subject: Option<&str>,
        sid: Option<&str>,
        faults: &[LogoutTokenFault],
    ) -> io::Result<String> {
        logout_token(&self.shared, subject, sid, faults).map_err(signing_failed)
    }
}

/// Tells the client of the demo that a session of the provider is over, if it wants to hear that; once, and whatever
/// comes of it: the user's logout waits for nobody.
pub(super) fn notify(shared: &Shared, sid: &str) {
    let switch = shared.switches.now();
    let Some(url) = switch.backchannel_logout_uri else { return };
    let faults: Vec<_> = switch.logout_token.into_iter().collect();
    if let Ok(token) = logout_token(shared, None, Some(sid), &faults) {
        tokio::spawn(async move {
            if let Err(error) = send_logout_token(&url, &token).await {
                tracing::debug!(%error, "the demo provider could not deliver a logout");
            }
        });
    }
}

fn logout_token(
    shared: &Shared,
    subject: Option<&str>,
    sid: Option<&str>,
    faults: &[LogoutTokenFault],
) -> Result<String, Unspecified> {
    let mut claims = logout_claims(&shared.issuer, shared.now(), crate::demo::CLIENT_ID, subject, sid);
    for fault in faults {
        fault.spoil(&mut claims, shared.now());
    }
    let signing = faults.iter().find_map(|fault| fault.signing()).unwrap_or_default();
    let token_type = faults.iter().find_map(|fault| fault.token_type()).unwrap_or("logout+jwt");
    shared.sign(token_type, &claims, &signing)
}

fn logout_claims(issuer: &str, now: u64, client_id: &str, subject: Option<&str>, sid: Option<&str>) -> Value {
    let mut claims = json!({
        "iss": issuer,
        "aud": client_id,
        "iat": now,
        "exp": now + 120,
        "jti": random_value(),
        "events": { EVENT: {} },
    });
    if let Some(claims) = claims.as_object_mut() {
        claims.extend(subject.map(|subject| ("sub".to_owned(), subject.into())));
        claims.extend(sid.map(|sid| ("sid".to_owned(), sid.into())));
    }
    claims
}

/// Sends a logout token as a provider does (Back-Channel Logout, 2.5).
///
/// # Errors
/// If nobody answers.
pub async fn send_logout_token(url: &str, token: &str) -> io::Result<Delivered> {
    // Somebody else may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().map_err(io::Error::other)?;
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", token).finish();
    let request =
        client.post(url).header("content-type", "application/x-www-form-urlencoded;charset=UTF-8").body(form).send();
    let answer = request.await.map_err(io::Error::other)?;
    let cache_control = answer.headers().get("cache-control").and_then(|value| value.to_str().ok());
    let cache_control = cache_control.unwrap_or_default().to_owned();
    let status = answer.status().as_u16();
    Ok(Delivered { status, cache_control, body: answer.text().await.map_err(io::Error::other)? })
}
