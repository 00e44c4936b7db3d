//! The key that a provider's tokens are bound to (RFC 9449).

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::DPOP;
use crate::config::secrets::secret;
use crate::config::yaml::Node;
use crate::primitives::signing::{Algorithm, SigningKey};

pub(super) fn dpop(reader: &mut Reader<'_>, node: &Node) -> Option<SigningKey> {
    let fields = reader.fields(node, &DPOP)?;
    fields.required(reader, "key", "{ file: dpop.pem }", |reader, node| {
        let pem = secret(reader, node)?;
        let read = match PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => SigningKey::from_pkcs8(der.secret_pkcs8_der(), None, None).ok(),
            _ => None,
        };
        // A signature for each request: RSA takes a hundred times as long, and some seven times the room.
        let fit = |key: &SigningKey| matches!(key.algorithm(), Algorithm::Es256 | Algorithm::EdDsa);
        let key = read.filter(fit);
        if key.is_none() {
            let help = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, or convert yours \
                        with `openssl pkcs8 -topk8 -nocrypt`";
            reader.note(Code::BadCertificate, node, "this is no PKCS#8 key of EC P-256 or Ed25519", help);
        }
        key
    })
}
