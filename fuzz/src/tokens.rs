//! A provider's keys and what may be made with them and without. All of them are examples of RFCs.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::fuzzing::Issuer;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, Value};

/// `iss`
pub const ISSUER: &str = "https://issuer.test";
/// `aud`
pub const CLIENT: &str = "app";
/// `nonce` of the login.
pub const NONCE: &str = "n";
/// What `at_hash` may be about.
pub const ACCESS_TOKEN: &str = "at";
/// The time it is, in seconds.
pub const NOW: u64 = 1_800_000_000;

/// The end of the last year of four digits, in seconds.
const YEAR_9999: u64 = 253_402_300_799;

/// The provider signs with Ed25519 (RFC 8037 §A), whose signatures depend on no chance; the private halves of the others
/// (RFC 7515 §A.2 and §A.3) are used by nobody here.
const KEYS: &str = r#"{"keys": [
{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "use": "sig",
 "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
{"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
 "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
{"kty": "RSA", "kid": "rsa", "e": "AQAB",
 "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}
]}"#;

/// The private half of `ed`.
const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

/// How the token of an input came to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// By the provider.
    Well,
    /// By somebody else, or not at all.
    Badly,
}

/// The provider.
pub fn issuer() -> &'static Issuer {
    static KNOWN: OnceLock<Issuer> = OnceLock::new();
    KNOWN.get_or_init(|| Issuer::new(ISSUER, CLIENT, KEYS).expect("good keys"))
}

/// A token from an input of up to four lines: how it is signed, header, claims, and what that way of signing asks for.
///
/// `sign`: by the provider, whatever header and claims are. `damage`: the same, then the byte with the index in the last
/// line is exchanged. `stranger`: by another key. `hmac`: with the provider's public key for a secret. `raw`: the last line
/// is the signature. `token`: the last line is the whole token.
#[must_use]
pub fn token(input: &[u8]) -> Option<(String, Signed)> {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let way = parts.next()?;
    let [header, claims, last] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let body = format!("{}.{}", base64(header), base64(claims));
    let signed = |signature: &[u8]| format!("{body}.{}", base64(signature));
    let made = match way {
        b"sign" => (signed(provider().sign(body.as_bytes()).as_ref()), Signed::Well),
        b"damage" => {
            let mut token = signed(provider().sign(body.as_bytes()).as_ref()).into_bytes();
            let last = std::str::from_utf8(last).ok()?;
            let (at, by) = last.split_once(' ')?;
            let (at, by) = (at.parse::<usize>().ok()? % token.len(), by.bytes().next()?);
            if token[at] == by {
                return None;
            }
            token[at] = by;
            (String::from_utf8(token).ok()?, Signed::Badly)
        }
        b"stranger" => {
            let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).ok()?;
            (signed(key.sign(body.as_bytes()).as_ref()), Signed::Badly)
        }
        b"hmac" => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, provider().public_key().as_ref());
            (signed(hmac::sign(&key, body.as_bytes()).as_ref()), Signed::Badly)
        }
        b"raw" => (format!("{body}.{}", std::str::from_utf8(last).ok()?), Signed::Badly),
        b"token" => (std::str::from_utf8(last).ok()?.to_owned(), Signed::Badly),
        _ => return None,
    };
    Some(made)
}

fn provider() -> &'static Ed25519KeyPair {
    static PROVIDER: OnceLock<Ed25519KeyPair> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let seed = URL_SAFE_NO_PAD.decode(SEED).expect("base64");
        Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key of 32 bytes")
    })
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and claims of a token that was accepted, and what every token has in common checked: who signed it, for whom,
/// and that it counts now.
///
/// # Panics
/// If it should not have been accepted.
#[must_use]
pub fn accepted(token: &str, signed: Signed) -> (Map<String, Value>, Map<String, Value>) {
    assert_eq!(signed, Signed::Well, "a token that the provider did not sign: {token}");
    let mut parts = token.split('.');
    let mut object = || -> Map<String, Value> {
        let part = URL_SAFE_NO_PAD.decode(parts.next().expect("three parts")).expect("base64");
        serde_json::from_slice(&part).expect("an object")
    };
    let (header, claims) = (object(), object());
    assert_eq!(header.get("alg"), Some(&"EdDSA".into()));
    assert!(header.get("kid").is_none_or(|kid| kid == "ed"), "another key's id");
    for refused in ["crit", "zip", "b64", "cty"] {
        assert!(!header.contains_key(refused), "{refused}");
    }
    assert_eq!(claims.get("iss"), Some(&ISSUER.into()));
    match claims.get("aud") {
        Some(Value::Array(all)) => assert!(!all.is_empty() && all.iter().all(|one| one == CLIENT), "{all:?}"),
        one => assert_eq!(one, Some(&CLIENT.into())),
    }
    let time =
        |name: &str| claims.get(name).filter(|time| !time.is_null()).map(|time| time.as_f64().expect("a number"));
    let now = NOW as f64;
    assert!(time("exp").is_none_or(|end| end + 60.0 > now), "expired");
    assert!(time("iat").is_some_and(|issued| issued >= 0.0 && issued < now + 61.0), "from the future");
    assert!(time("nbf").is_none_or(|from| from < now + 61.0), "not valid yet");
    (header, claims)
}

/// The claims of a token that no judge has a reason to refuse, as far as all tokens have it in common: signed by the
/// provider, of this `typ` if any, no claims but these, each once, and the common ones as they should be.
#[must_use]
pub fn plain(token: &str, signed: Signed, kind: &str, names: &[&str]) -> Option<Map<String, Value>> {
    let object = |part: &str| -> Option<Map<String, Value>> {
        let text = URL_SAFE_NO_PAD.decode(part).ok()?;
        let object = serde_json::from_slice(&text).ok()?;
        // What stands there twice, or is written at length, makes it longer than that.
        (serde_json::to_vec(&object).ok()?.len() == text.len()).then_some(object)
    };
    let mut parts = token.split('.');
    let (header, claims) = (object(parts.next()?)?, object(parts.next()?)?);
    let times = |name: &str| claims.get(name).and_then(Value::as_u64);
    let known = [("alg", "EdDSA"), ("kid", "ed"), ("typ", kind)];
    let good = signed == Signed::Well
        && header.contains_key("alg")
        && header
            .iter()
            .all(|(name, value)| known.iter().any(|known| *known == (&**name, value.as_str().unwrap_or_default())))
        && claims.keys().all(|name| names.contains(&&**name))
        && claims.get("iss") == Some(&ISSUER.into())
        && claims.get("aud") == Some(&CLIENT.into())
        && times("iat").is_some_and(|issued| issued <= NOW)
        && times("exp").is_some_and(|end| (NOW + 1..=YEAR_9999).contains(&end));
    good.then_some(claims)
}

/// Whether a claim is a short text of visible ASCII.
#[must_use]
pub fn is_name(claim: Option<&Value>) -> bool {
    let visible = |text: &str| (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    claim.and_then(Value::as_str).is_some_and(visible)
}
