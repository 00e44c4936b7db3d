//! The command `cloakroom`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloakroom::cli::run()
}
