//! Secrets: from a variable, from a file, or, with a warning, from the settings themselves. No message here repeats
//! one.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::decode::Reader;
use super::diagnostic::Code;
use super::env::is_variable_name;
use super::schema::SECRET;
use super::yaml::{Kind, Node};
use crate::primitives::secret::{Key256, SecretText};

/// Largest secret or certificate file.
const LARGEST_FILE: u64 = 1 << 20;

/// A secret, with the words for where it comes from.
pub(super) struct Secret {
    pub(super) text: SecretText,
    /// It stands in the settings file for everyone to read.
    pub(super) plain: bool,
}

/// `{ env: NAME }`, `{ file: PATH }`, or a text, which is warned of.
pub(super) fn secret(reader: &mut Reader<'_>, node: &Node) -> Option<SecretText> {
    let secret = quiet(reader, node)?;
    if secret.plain {
        let help = "write `{ env: NAME }` or `{ file: PATH }` instead";
        reader.note(Code::PlainSecret, node, "this secret stands in the settings file", help);
    }
    Some(secret.text)
}

/// The same without the warning.
pub(super) fn quiet(reader: &mut Reader<'_>, node: &Node) -> Option<Secret> {
    reader.secret.extend(node.scalar);
    let (text, plain) = match &node.kind {
        // `${…}` brings the secret in from outside.
        Kind::Text(text) => (reader.expand(node, text)?, !text.contains("${")),
        Kind::Map(_) => (referred(reader, node)?, false),
        _ => {
            reader.wrong_type(node, "a secret", "write `{ env: NAME }` or `{ file: PATH }`");
            return None;
        }
    };
    let text = Zeroizing::new(text);
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.trim().is_empty() {
        reader.note(Code::SecretMissing, node, "the secret is empty", "give it a value");
        return None;
    }
    Some(Secret { text: SecretText::new(trimmed.to_owned()), plain })
}

/// The value of `{ env: … }` or `{ file: … }`.
fn referred(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let fields = reader.fields(node, &SECRET)?;
    match (fields.get("env"), fields.get("file")) {
        (Some(env), None) => from_variable(reader, env),
        (None, Some(file)) => {
            let path = reader.word(file).map(PathBuf::from)?;
            read_private(reader, file, &path)
        }
        (Some(_), Some(_)) => {
            reader.note(Code::Contradiction, node, "a secret has one source", "remove `env` or `file`");
            None
        }
        (None, None) => {
            reader.note(Code::MissingKey, node, "a secret needs a source", "write `{ env: NAME }` or `{ file: PATH }`");
            None
        }
    }
}

fn from_variable(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    // Who writes the secret itself here should not find it in the message.
    let Kind::Text(name) = &node.kind else {
        reader.wrong_type(node, "the name of an environment variable", "");
        return None;
    };
    if !is_variable_name(name) {
        let help = "the secret itself does not belong here, only the name of the variable that holds it";
        reader.note(Code::BadValue, node, "this is not a name a variable can have", help);
        return None;
    }
    match reader.env.get(name) {
        Some(value) => {
            reader.show(node);
            Some(value)
        }
        // A long word of mixed case that is no variable is likelier a secret than a name.
        None if name.len() > 20 && name.bytes().any(|b| b.is_ascii_lowercase()) => {
            let help = "set it before the start; `env` takes the name of a variable, not the secret";
            reader.note(Code::SecretMissing, node, "the environment variable named here is not set", help);
            None
        }
        None => {
            reader.show(node);
            let help = format!("set `{name}` before the start");
            reader.note(Code::SecretMissing, node, format!("the environment variable `{name}` is not set"), help);
            None
        }
    }
}

/// The text of a file that only its owner and group may read.
pub(super) fn read_private(reader: &mut Reader<'_>, node: &Node, path: &std::path::Path) -> Option<String> {
    read_file(reader, node, path, true)
}

/// The text of a file named in the settings, relative to their folder.
pub(super) fn read_file(reader: &mut Reader<'_>, node: &Node, path: &std::path::Path, private: bool) -> Option<String> {
    let path = reader.base.join(path);
    reader.files.insert(path.clone());
    let trouble = |reader: &mut Reader<'_>, code, message: String, help: &str| {
        reader.note(code, node, message, help);
        None
    };
    let shown = path.display();
    let file = match open(&path) {
        Ok(file) => file,
        Err(error) => {
            let message = format!("`{shown}` cannot be read: {error}");
            return trouble(
                reader,
                Code::FileUnreadable,
                message,
                "check the path, which is relative to the settings file, and the rights",
            );
        }
    };
    if private && exposed(&file) {
        let help = "take the rights away with `chmod o-rwx`; in Kubernetes set `defaultMode: 0440` and `fsGroup`";
        return trouble(reader, Code::FileExposed, format!("everyone may read or write `{shown}`"), help);
    }
    let mut text = String::new();
    match file.take(LARGEST_FILE + 1).read_to_string(&mut text) {
        Ok(size) if size as u64 > LARGEST_FILE => {
            trouble(reader, Code::FileUnreadable, format!("`{shown}` is too large"), "is it the right file?")
        }
        Ok(_) => Some(text),
        Err(error) => trouble(
            reader,
            Code::FileUnreadable,
            format!("`{shown}` cannot be read as text: {error}"),
            "is it the right file?",
        ),
    }
}

/// Opens a regular file; a pipe or device could keep us waiting for ever.
fn open(path: &std::path::Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(path)
}

#[cfg(unix)]
fn exposed(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    // Unknown rights count as too many.
    file.metadata().map_or(true, |data| data.permissions().mode() & 0o006 != 0)
}

#[cfg(not(unix))]
fn exposed(_: &File) -> bool {
    false
}

/// 32 bytes of base64, standard or url-safe, padded or not.
pub(super) fn key(reader: &mut Reader<'_>, node: &Node) -> Option<Key256> {
    let text = secret(reader, node)?;
    let Some(bytes) = decode_key(text.expose()) else {
        let help = "`cloakroom keygen` prints a fresh one";
        reader.note(Code::BadKey, node, "this is not 32 bytes in base64", help);
        return None;
    };
    if bytes.iter().all(|byte| Some(byte) == bytes.first()) {
        reader.note(Code::BadKey, node, "all bytes of this key are alike", "`cloakroom keygen` prints a fresh one");
        return None;
    }
    Some(Key256::new(*bytes))
}

fn decode_key(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { alphabet::URL_SAFE } else { alphabet::STANDARD };
    let bytes = Zeroizing::new(GeneralPurpose::new(&alphabet, config).decode(text.trim()).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_each_alphabet() {
        let bytes: [u8; 32] = std::array::from_fn(|i| 0xff - u8::try_from(i).unwrap());
        for text in [
            base64::engine::general_purpose::STANDARD.encode(bytes),
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes),
            base64::engine::general_purpose::URL_SAFE.encode(bytes),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        ] {
            assert_eq!(decode_key(&text).as_deref(), Some(&bytes), "{text}");
        }
        assert!(decode_key("c2hvcnQ=").is_none());
        assert!(decode_key(&"A".repeat(44)).is_none());
        assert!(decode_key("").is_none());
    }
}
