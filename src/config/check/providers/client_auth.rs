//! How we prove to a provider to be its client.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::check::upstreams::certified;
use crate::config::decode::{Fields, Reader};
use crate::config::diagnostic::Code;
use crate::config::schema::{CLIENT_AUTH, CLIENT_KEY};
use crate::config::secrets::{read_file, secret};
use crate::config::settings::{ClientAuth, Provider};
use crate::config::values;
use crate::config::yaml::Node;
use crate::primitives::signing::{Algorithm, KeyError, SigningKey};

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Basic,
    Post,
    PrivateKeyJwt,
    Tls,
    None,
}

const METHODS: [(&str, Method); 5] = [
    ("client_secret_basic", Method::Basic),
    ("client_secret_post", Method::Post),
    ("private_key_jwt", Method::PrivateKeyJwt),
    ("tls_client_auth", Method::Tls),
    ("none", Method::None),
];

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("RS256", Algorithm::Rs256),
    ("PS256", Algorithm::Ps256),
    ("ES256", Algorithm::Es256),
    ("EdDSA", Algorithm::EdDsa),
];

pub(super) fn client_auth(reader: &mut Reader<'_>, node: &Node) -> Option<ClientAuth> {
    let fields = reader.fields(node, &CLIENT_AUTH)?;
    let method = fields.required(reader, "method", "client_secret_basic", |r, n| r.choice(n, &METHODS));
    let Some(method) = method else {
        // Read all the same: mistakes in the secret are mistakes.
        fields.maybe(reader, "secret", secret);
        fields.maybe(reader, "keys", keys);
        return None;
    };
    let wanted: &[&str] = match method {
        Method::Basic | Method::Post => &["secret"],
        Method::PrivateKeyJwt => &["keys"],
        Method::Tls => &["certificate", "key"],
        Method::None => &[],
    };
    let fits = fits(reader, &fields, method, wanted);
    let read = match method {
        Method::None => {
            if fits {
                let at = fields.get("method").unwrap_or(node);
                let help = "register a confidential client and use `client_secret_basic`";
                reader.note(Code::PublicClient, at, "anyone may pose as this client at the provider", help);
            }
            Some(ClientAuth::None)
        }
        Method::Basic => fields.required(reader, "secret", "{ env: CLIENT_SECRET }", secret).map(ClientAuth::Basic),
        Method::Post => fields.required(reader, "secret", "{ env: CLIENT_SECRET }", secret).map(ClientAuth::Post),
        Method::PrivateKeyJwt => {
            fields.required(reader, "keys", "[{ key: client.pem }]", keys).map(ClientAuth::PrivateKeyJwt)
        }
        Method::Tls => certified(reader, node, &fields).map(|pair| ClientAuth::Tls(Arc::new(pair))),
    };

    read
}

/// Whether only what the method shows is there.
fn fits(reader: &mut Reader<'_>, fields: &Fields<'_>, method: Method, wanted: &[&str]) -> bool {
    let word = METHODS.iter().find(|(_, known)| *known == method).map_or("", |(word, _)| word);
    let mut fits = true;
    for key in ["secret", "keys", "certificate", "key"] {
        let Some(node) = fields.get(key).filter(|_| !wanted.contains(&key)) else { continue };
        let message = format!("`method: {word}` shows no {key}");
        reader.note(Code::Contradiction, node, message, "remove it, or choose another method");
        fits = false;
    }
    fits
}

/// At least one key; no name twice, or a provider would have to guess.
fn keys(reader: &mut Reader<'_>, node: &Node) -> Option<Arc<[SigningKey]>> {
    let mut known: Vec<SigningKey> = Vec::new();
    let keys = reader.list_of_some(node, |reader, item| {
        let key = key(reader, item)?;
        if known.iter().any(|other| other.id() == key.id()) {
            let message = format!("a second key is called `{}`", key.id());
            reader.note(Code::Duplicate, item, message, "remove one of them, or give each an `id` of its own");
        }
        known.push(key.clone());
        Some(key)
    })?;
    (!keys.is_empty()).then(|| keys.into())
}

/// The name of two keys of these providers that are not the same key.
pub(super) fn ambiguous_key<'p>(providers: &[&'p Provider]) -> Option<&'p str> {
    let keys = providers.iter().filter_map(|provider| match &provider.client_auth {
        ClientAuth::PrivateKeyJwt(keys) => Some(keys.iter()),
        _ => None,
    });
    let mut keys: Vec<_> = keys.flatten().collect();
    keys.sort_by_key(|key| key.id());
    let mut pairs = keys.windows(2);
    pairs.find_map(|pair| match pair {
        [one, other] if one.id() == other.id() && one != other => Some(one.id()),
        _ => None,
    })
}

fn key(reader: &mut Reader<'_>, node: &Node) -> Option<SigningKey> {
    let fields = reader.fields(node, &CLIENT_KEY)?;
    let id = fields.maybe(reader, "id", values::name);
    let algorithm = fields.maybe(reader, "algorithm", |r, n| r.choice(n, &ALGORITHMS));
    let (id, algorithm) = (id?, algorithm?);
    fields.required(reader, "key", "client.pem", |reader, node| {
        let path = PathBuf::from(reader.word(node)?);
        let text = zeroize::Zeroizing::new(read_file(reader, node, &path, true)?);
        let read = match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => SigningKey::from_pkcs8(der.secret_pkcs8_der(), id.as_deref(), algorithm),
            _ => Err(KeyError::Kind),
        };
        let problem = match read {
            Ok(key) => return Some(key),
            Err(problem) => problem,
        };
        let help = match problem {
            KeyError::Kind => {
                "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, or convert \
                               yours with `openssl pkcs8 -topk8 -nocrypt`"
            }
            KeyError::Algorithm => {
                "leave `algorithm` out, or use RS256 or PS256 with RSA, ES256 with P-256, EdDSA with Ed25519"
            }
        };
        reader.note(Code::BadCertificate, node, format!("`{}`: {problem}", path.display()), help);
        None
    })
}
