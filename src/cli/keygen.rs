//! `cloakroom keygen`: a fresh sealing key.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::FAILED;
use crate::primitives::random;

pub(super) fn run() -> ExitCode {
    let key = match random::bytes::<32>() {
        Ok(bytes) => zeroize::Zeroizing::new(STANDARD.encode(bytes)),
        Err(error) => {
            eprintln!("no key: {error}");
            return ExitCode::from(FAILED);
        }
    };
    if writeln!(io::stdout().lock(), "{}", key.as_str()).is_err() {
        return ExitCode::from(FAILED);
    }
    if io::stdout().is_terminal() {
        eprintln!();
        eprintln!(
            "Keep it where only Cloakroom can read it, for example in the variable CLOAKROOM_KEY, and refer to it:"
        );
        eprintln!("  keys: [{{ id: \"1\", secret: {{ env: CLOAKROOM_KEY }} }}]");
        eprintln!(
            "To change keys, put the new one first and leave the old one behind it until its sessions have ended."
        );
    }
    ExitCode::SUCCESS
}
