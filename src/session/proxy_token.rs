//! The proxy token: a short-lived JWT (RFC 7519) that names a session to applications and holds no token of the user. They
//! hand it on when they call each other by way of Cloakroom, which puts the session's access token in its place.
//!
//! Nobody but Cloakroom needs to read it, and it knows each header that it ever writes: a token of any other kind, algorithm
//! or key has another one, so none is taken for it (behaviour T1, T7).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::HeaderValue;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::settings;
use crate::primitives::clock::Timestamp;
use crate::primitives::random::base64url;
use crate::store::record::SessionKey;

/// What tells it from all other JWTs (RFC 8725 §3.11).
const KIND: &str = "proxy+jwt";
/// Longest token that is looked at.
const LONGEST: usize = 4 * 1024;
/// Clocks of replicas may differ by so much.
const SKEW: Duration = Duration::from_secs(60);

/// A key of the settings is unusable.
#[derive(Debug, thiserror::Error)]
#[error("proxy_token.keys: the key `{0}` is unusable")]
pub struct BadKey(String);

/// Makes and reads proxy tokens.
pub struct ProxyTokens {
    issuer: String,
    audience: String,
    lifetime: Duration,
    /// The first signs, all verify.
    keys: Vec<Key>,
}

struct Key {
    id: String,
    /// The first part of each token that it signs.
    header: String,
    pair: Ed25519KeyPair,
}

/// A token that was made.
pub struct Minted {
    /// `Bearer …`
    pub authorization: HeaderValue,
    /// Half of its life is over then: time for the next one.
    pub renew_at: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    sid: String,
}

/// Why a token counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyTokenError {
    /// None that was made here, or for somebody else.
    NotOurs,
    /// Its time is over.
    Expired,
}

impl ProxyTokens {
    /// Makes the key pairs.
    ///
    /// # Errors
    /// [`BadKey`] names the key.
    pub fn new(settings: &settings::ProxyToken) -> Result<Self, BadKey> {
        let key = |key: &settings::SealingKey| {
            let pair = Ed25519KeyPair::from_seed_unchecked(key.secret.expose());
            let header = json!({"alg": "EdDSA", "kid": &*key.id, "typ": KIND});
            Ok(Key {
                id: key.id.to_string(),
                header: base64url(header.to_string().as_bytes()),
                pair: pair.map_err(|_| BadKey(key.id.to_string()))?,
            })
        };
        Ok(Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            lifetime: settings.lifetime,
            keys: settings.keys.iter().map(key).collect::<Result<_, _>>()?,
        })
    }

    /// A token for a session. `subject` names its user at `provider`, and only there (Core §8).
    #[must_use]
    pub fn mint(&self, session: &SessionKey, provider: &str, subject: &str, now: Timestamp) -> Option<Minted> {
        let key = self.keys.first()?;
        let claims = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "provider": provider,
            "sub": subject,
            "iat": now.as_secs(),
            "exp": now.plus(self.lifetime).as_secs(),
            "sid": session.to_text(),
        });
        let signed = format!("{}.{}", key.header, base64url(claims.to_string().as_bytes()));
        let signature = base64url(key.pair.sign(signed.as_bytes()).as_ref());
        let mut authorization = HeaderValue::from_str(&format!("Bearer {signed}.{signature}")).ok()?;
        authorization.set_sensitive(true);
        Some(Minted { authorization, renew_at: now.plus(self.lifetime / 2) })
    }

    /// The session that a token names, if it is one of ours and lives.
    ///
    /// # Errors
    /// [`ProxyTokenError`]
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<SessionKey, ProxyTokenError> {
        let claims = self.claims(token).ok_or(ProxyTokenError::NotOurs)?;
        if claims.iss != self.issuer || claims.aud != self.audience || Timestamp::from_secs(claims.iat) > now.plus(SKEW)
        {
            return Err(ProxyTokenError::NotOurs);
        }
        if now >= Timestamp::from_secs(claims.exp) {
            return Err(ProxyTokenError::Expired);
        }
        SessionKey::from_text(claims.sid.as_bytes()).ok_or(ProxyTokenError::NotOurs)
    }

    /// What a token says that one of our keys has signed.
    fn claims(&self, token: &str) -> Option<Claims> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let key = self.keys.iter().find(|key| key.header == header)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ED25519, key.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// The public keys (RFC 7517, RFC 8037).
    #[must_use]
    pub fn key_set(&self) -> Value {
        let key = |key: &Key| {
            let x = base64url(key.pair.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x})
        };
        json!({ "keys": self.keys.iter().map(key).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::secret::Key256;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn settings(keys: &[u8]) -> settings::ProxyToken {
        let key = |byte: &u8| settings::SealingKey { id: format!("k{byte}").into(), secret: Key256::new([*byte; 32]) };
        settings::ProxyToken {
            issuer: "https://app.test".into(),
            audience: "https://internal.test".into(),
            lifetime: Duration::from_secs(300),
            keys: keys.iter().map(key).collect(),
        }
    }

    fn session() -> SessionKey {
        SessionKey::from_bytes([9; 32])
    }

    fn token(tokens: &ProxyTokens) -> String {
        let minted = tokens.mint(&session(), "idp", "alice", NOW).unwrap();
        minted.authorization.to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
    }

    /// A token with other claims and another header, signed with the very key.
    fn signed(tokens: &ProxyTokens, header: Option<Value>, change: impl Fn(&mut Value)) -> String {
        let good = token(tokens);
        let mut parts = good.split('.');
        let (first, payload) = (parts.next().unwrap(), parts.next().unwrap());
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        change(&mut claims);
        let first = header.map_or_else(|| first.to_owned(), |header| base64url(header.to_string().as_bytes()));
        let text = format!("{first}.{}", base64url(claims.to_string().as_bytes()));
        let signature = base64url(tokens.keys[0].pair.sign(text.as_bytes()).as_ref());
        format!("{text}.{signature}")
    }

    #[test]
    fn a_token_names_its_session_for_its_life() {
        let tokens = ProxyTokens::new(&settings(&[1])).unwrap();
        let token = token(&tokens);
        for (after, found) in [(0, true), (299, true), (300, false), (10_000, false)] {
            assert_eq!(tokens.verify(&token, NOW.plus(Duration::from_secs(after))).is_ok(), found, "{after}");
        }
        assert_eq!(tokens.verify(&token, NOW), Ok(session()));
        assert!(tokens.verify(&token, Timestamp::from_secs(900)).is_err(), "from the future");
        let renew_at = tokens.mint(&session(), "idp", "alice", NOW).unwrap().renew_at;
        assert_eq!(renew_at, NOW.plus(Duration::from_secs(150)));
    }

    #[test]
    fn an_old_key_verifies_and_the_first_signs() {
        let (old, both) = (ProxyTokens::new(&settings(&[1])).unwrap(), ProxyTokens::new(&settings(&[2, 1])).unwrap());
        assert_eq!(both.verify(&token(&old), NOW), Ok(session()));
        assert_eq!(old.verify(&token(&both), NOW), Err(ProxyTokenError::NotOurs));
        let ids: Vec<Value> = both.key_set()["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
        assert_eq!(ids, ["k2", "k1"]);
        assert!(!both.key_set().to_string().contains("\"d\""), "no private part");
    }

    #[test]
    fn t7_with_any_one_fault_it_is_none() {
        let tokens = ProxyTokens::new(&settings(&[1])).unwrap();
        let good = token(&tokens);
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last sign of a part has bits that mean nothing, which the decoder refuses.
            assert!(tokens.verify(&changed, NOW).is_err(), "{at}");
        }
        assert!(tokens.verify(&signed(&tokens, None, |_| {}), NOW).is_ok());
        for (name, change) in [
            ("iss", (|c| c["iss"] = "https://other.test".into()) as fn(&mut Value)),
            ("aud", |c| c["aud"] = "https://app.test".into()),
            ("aud as list", |c| c["aud"] = json!(["https://internal.test"])),
            ("exp over", |c| c["exp"] = 1_000.into()),
            ("exp missing", |c| drop(c.as_object_mut().unwrap().remove("exp"))),
            ("exp as text", |c| c["exp"] = "99999999".into()),
            ("exp of 1e300", |c| c["exp"] = json!(1e300)),
            ("iat ahead", |c| c["iat"] = 1_061.into()),
            ("sid missing", |c| drop(c.as_object_mut().unwrap().remove("sid"))),
            ("sid malformed", |c| c["sid"] = "x".into()),
        ] {
            assert!(tokens.verify(&signed(&tokens, None, change), NOW).is_err(), "{name}");
        }
        for header in [
            json!({"alg": "EdDSA", "kid": "k1", "typ": "JWT"}),
            json!({"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"}),
            json!({"alg": "EdDSA", "kid": "k1"}),
            json!({"alg": "none", "kid": "k1", "typ": KIND}),
            json!({"alg": "HS256", "kid": "k1", "typ": KIND}),
            json!({"alg": "EdDSA", "kid": "k2", "typ": KIND}),
            json!({"alg": "EdDSA", "kid": "k1", "typ": KIND, "crit": ["x"]}),
        ] {
            assert!(tokens.verify(&signed(&tokens, Some(header.clone()), |_| {}), NOW).is_err(), "{header}");
        }
        for text in [
            "",
            ".",
            "..",
            "...",
            &good[..good.len() - 1],
            &format!("{good}.x"),
            &format!("{good}{}", "A".repeat(5_000)),
        ] {
            assert!(tokens.verify(text, NOW).is_err(), "{text}");
        }
        let stranger = ProxyTokens::new(&settings(&[7])).unwrap();
        assert!(tokens.verify(&token(&stranger), NOW).is_err());
    }
}
