//! Makes tokens: access, refresh and ID token of one answer, with whatever the switches spoil.

use std::collections::BTreeSet;

use ring::error::Unspecified;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::config::{Client, User};
use super::grants::Grant;
use super::keys::Signing;
use super::ledger::Issued;
use super::state::Shared;
use super::switches::{IdTokenFault, Misbehaviour, Rotation};
use crate::demo::support::{base64url, random_value};

/// An ID token lives at least this long, in seconds: it is read once, right after it was made, and a test
/// that gives access tokens a second to live does not mean to break the login.
const ID_TOKEN_MINIMUM: u64 = 60;

/// What led to a set of tokens.
pub(super) enum Occasion<'a> {
    /// A code was redeemed.
    Login { nonce: Option<&'a str> },
    /// This refresh token was shown.
    Refresh { refresh_token: &'a str },
}

/// The body of a token answer. The tokens are in force, and in the ledger, when this returns.
pub(super) fn token_answer(
    shared: &Shared,
    client: &Client,
    user: &User,
    grant: &Grant,
    family: u64,
    occasion: &Occasion<'_>,
) -> Result<Value, Unspecified> {
    let switch = shared.switches.now();
    let now = shared.now();
    let life = shared.access_token_lifetime();
    let expires = now + life.as_secs();
    let refresh_life = shared.config.refresh_token_lifetime;

    let access_token =
        shared.sign("at+jwt", &access_claims(shared, user, grant, &switch, now, expires), &Signing::Honest)?;
    let refreshing = matches!(occasion, Occasion::Refresh { .. });
    let id_token = if (refreshing && switch.no_id_token_on_refresh) || !has_word(&grant.scope, "openid") {
        None
    } else {
        let claims = id_claims(shared, user, grant, &switch, now, expires, occasion, &access_token);
        Some(shared.sign("JWT", &claims, &signing(&switch.id_token, client))?)
    };
    let refresh_token = match (occasion, switch.rotation) {
        (Occasion::Login { .. }, _) => (!switch.no_refresh_token).then(|| new_refresh_token(&switch)),
        (Occasion::Refresh { .. }, Rotation::Rotate) => Some(new_refresh_token(&switch)),
        (Occasion::Refresh { refresh_token }, Rotation::Same) => Some((*refresh_token).to_owned()),
        (Occasion::Refresh { .. }, Rotation::Silent) => None,
    };

    shared.grants(|grants| {
        grants.add_access_token(now, family, &access_token, &user.login, life);
        if let Some(token) = &refresh_token {
            grants.add_refresh_token(now, family, token, refresh_life);
        }
    });
    shared.ledger.gave(Issued {
        subject: user.subject.clone(),
        sid: grant.sid.clone(),
        access_token: access_token.clone(),
        refresh_token: refresh_token.clone(),
        id_token: id_token.clone(),
    });

    let mut answer = Map::new();
    answer.insert("access_token".to_owned(), access_token.into());
    let bound = grant.key.is_some() && !switch.dpop_ignored;
    let kind = switch.refreshed_token_type.clone().filter(|_| refreshing);
    let kind = kind.unwrap_or_else(|| if bound { "DPoP" } else { "Bearer" }.to_owned());
    answer.insert("token_type".to_owned(), kind.into());
    if !switch.omit_expires_in {
        answer.insert("expires_in".to_owned(), life.as_secs().into());
    }
    if let Some(token) = refresh_token {
        answer.insert("refresh_token".to_owned(), token.into());
        answer.insert("refresh_expires_in".to_owned(), refresh_life.as_secs().into());
    }
    if let Some(token) = id_token {
        answer.insert("id_token".to_owned(), token.into());
    }
    answer.insert("scope".to_owned(), grant.scope.clone().into());
    answer.insert("session_state".to_owned(), grant.sid.clone().into());
    Ok(Value::Object(answer))
}

fn new_refresh_token(switch: &Misbehaviour) -> String {
    match &switch.canary {
        Some(canary) => format!("{canary}.{}", random_value()),
        None => random_value(),
    }
}

/// The claims of an access token (RFC 9068), with roles in the place where Keycloak puts them.
fn access_claims(shared: &Shared, user: &User, grant: &Grant, switch: &Misbehaviour, now: u64, expires: u64) -> Value {
    let mut claims = json!({
        "iss": shared.issuer,
        "sub": user.subject,
        "aud": shared.config.audience,
        "client_id": grant.client_id,
        "scope": grant.scope,
        "iat": now,
        "exp": expires,
        "auth_time": grant.auth_time,
        "jti": random_value(),
        "sid": grant.sid,
        "preferred_username": user.login,
        "realm_access": { "roles": user.roles },
    });
    add(&mut claims, "acr", grant.acr.clone());
    add(&mut claims, "canary", switch.canary.clone());
    if let Some(key) = grant.key.as_deref().filter(|_| !switch.dpop_ignored) {
        set(&mut claims, "cnf", json!({ "jkt": key }));
    }
    claims
}

#[expect(clippy::too_many_arguments, reason = "one call, each argument a different thing")]
fn id_claims(
    shared: &Shared,
    user: &User,
    grant: &Grant,
    switch: &Misbehaviour,
    now: u64,
    expires: u64,
    occasion: &Occasion<'_>,
    access_token: &str,
) -> Value {
    let mut claims = user.claims();
    let refreshing = matches!(occasion, Occasion::Refresh { .. });
    let other_subject = refreshing && switch.other_subject_on_refresh;
    set(&mut claims, "iss", shared.issuer.clone());
    set(&mut claims, "sub", if other_subject { "somebody-else".to_owned() } else { user.subject.clone() });
    set(&mut claims, "aud", grant.client_id.clone());
    set(&mut claims, "azp", grant.client_id.clone());
    set(&mut claims, "exp", expires.max(now + ID_TOKEN_MINIMUM));
    set(&mut claims, "iat", now);
    set(&mut claims, "auth_time", grant.auth_time);
    set(&mut claims, "sid", grant.sid.clone());
    set(&mut claims, "jti", random_value());
    set(&mut claims, "at_hash", access_token_hash(access_token));
    if let Occasion::Login { nonce: Some(nonce) } = occasion {
        set(&mut claims, "nonce", *nonce);
    }
    add(&mut claims, "acr", grant.acr.clone());
    add(&mut claims, "canary", switch.canary.clone());
    for fault in &switch.id_token {
        spoil(&mut claims, *fault, grant, now);
    }
    claims
}

/// The left half of the SHA-256 of the access token (OpenID Connect Core, 3.1.3.6).
fn access_token_hash(access_token: &str) -> String {
    let digest = Sha256::digest(access_token);
    base64url(digest.get(..16).unwrap_or_default())
}

/// Applies the faults that lie in the claims.
fn spoil(claims: &mut Value, fault: IdTokenFault, grant: &Grant, now: u64) {
    let hour = 3_600;
    match fault {
        IdTokenFault::WrongNonce => set(claims, "nonce", "another-nonce"),
        IdTokenFault::MissingNonce => remove(claims, "nonce"),
        IdTokenFault::WrongAudience => set(claims, "aud", "another-client"),
        IdTokenFault::ExtraAudience => set(claims, "aud", json!([grant.client_id, "a-stranger"])),
        IdTokenFault::WrongAuthorizedParty => set(claims, "azp", "another-client"),
        IdTokenFault::WrongIssuer => set(claims, "iss", "https://another-provider.example"),
        IdTokenFault::Expired => {
            set(claims, "iat", now.saturating_sub(2 * hour));
            set(claims, "exp", now.saturating_sub(hour));
        }
        IdTokenFault::MissingExpiry => remove(claims, "exp"),
        IdTokenFault::EndlessExpiry => set(claims, "exp", 1e300),
        IdTokenFault::MissingIssuedAt => remove(claims, "iat"),
        IdTokenFault::FutureIssuedAt => {
            set(claims, "iat", now + hour);
            set(claims, "exp", now + 2 * hour);
        }
        IdTokenFault::WrongAccessTokenHash => set(claims, "at_hash", access_token_hash("another token")),
        IdTokenFault::MissingSubject => remove(claims, "sub"),
        IdTokenFault::AlgorithmNone
        | IdTokenFault::HmacWithClientSecret
        | IdTokenFault::HmacWithPublicKey
        | IdTokenFault::BadSignature
        | IdTokenFault::MissingKeyId
        | IdTokenFault::UnpublishedKey
        | IdTokenFault::UnknownCritical => {}
    }
}

/// The way of signing that the faults ask for.
fn signing(faults: &BTreeSet<IdTokenFault>, client: &Client) -> Signing {
    let by_fault = faults.iter().find_map(|fault| match fault {
        IdTokenFault::AlgorithmNone => Some(Signing::Unsigned),
        IdTokenFault::HmacWithClientSecret => Some(Signing::HmacWithSecret(client.secret.clone().unwrap_or_default())),
        IdTokenFault::HmacWithPublicKey => Some(Signing::HmacWithPublicKey),
        IdTokenFault::BadSignature => Some(Signing::Broken),
        IdTokenFault::MissingKeyId => Some(Signing::NoKeyId),
        IdTokenFault::UnpublishedKey => Some(Signing::Unpublished),
        IdTokenFault::UnknownCritical => Some(Signing::UnknownCritical),
        _ => None,
    });
    by_fault.unwrap_or_default()
}

fn set(claims: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(claims) = claims.as_object_mut() {
        claims.insert(name.to_owned(), value.into());
    }
}

fn add(claims: &mut Value, name: &str, value: Option<String>) {
    if let Some(value) = value {
        set(claims, name, value);
    }
}

fn remove(claims: &mut Value, name: &str) {
    if let Some(claims) = claims.as_object_mut() {
        claims.remove(name);
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(' ').any(|known| known == word)
}
