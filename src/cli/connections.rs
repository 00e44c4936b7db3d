//! `cloakroom check --connect`: what came of looking for all that the settings name.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Value, json};

use super::check::colours;
use super::print;
use crate::app::probe::{Probed, Standing, probe};
use crate::config::settings::Settings;
use crate::primitives::clock::Clock;

/// Looks, and shows how far it has come if somebody watches.
pub(super) fn look(settings: &Settings) -> anyhow::Result<Vec<Probed>> {
    let watched = io::stderr().is_terminal();
    let show = |done: usize, all: usize| {
        if watched {
            let mut out = io::stderr().lock();
            let line = if done < all { format!("\rlooking: {done} of {all} ") } else { "\r\u{1b}[K".to_owned() };
            out.write_all(line.as_bytes()).and_then(|()| out.flush()).ok();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(probe(settings, &Clock::system(), show))?;
    // A lookup of a name that hangs on a thread of its own is not waited for.
    runtime.shutdown_background();
    Ok(seen)
}

/// Whether all of it can be used.
pub(super) fn are_good(seen: &[Probed]) -> bool {
    seen.iter().all(|one| one.standing != Standing::Failed)
}

pub(super) fn tell(seen: &[Probed]) {
    let colour = io::stdout().is_terminal() && colours();
    for one in seen {
        print(&line(one, colour));
        if !one.help.is_empty() {
            print(&format!("         next: {}", one.help));
        }
    }
}

fn line(one: &Probed, colour: bool) -> String {
    let (word, code) = match one.standing {
        Standing::Good => ("ok", 32),
        Standing::Warning => ("warning", 33),
        Standing::Failed => ("failed", 31),
    };
    let padded = format!("{word:8}");
    let word = if colour { format!("\u{1b}[{code}m{padded}\u{1b}[0m") } else { padded };
    // What others say must not steer the terminal.
    let text: String = one.text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    format!("{word} {} {}: {text}", one.kind, one.name)
}

pub(super) fn to_json(seen: &[Probed]) -> Value {
    let word = |standing| match standing {
        Standing::Good => "ok",
        Standing::Warning => "warning",
        Standing::Failed => "failed",
    };
    let one = |one: &Probed| {
        let help = (!one.help.is_empty()).then_some(one.help);
        json!({ "kind": one.kind, "name": one.name, "result": word(one.standing), "message": one.text, "help": help })
    };
    seen.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_plain_in_a_pipe_and_coloured_on_a_terminal() {
        let one = Probed {
            kind: "provider",
            name: "main".to_owned(),
            standing: Standing::Failed,
            text: "no\u{1b}answer".to_owned(),
            help: "look",
        };
        assert_eq!(line(&one, false), "failed   provider main: no answer");
        assert_eq!(line(&one, true), "\u{1b}[31mfailed  \u{1b}[0m provider main: no answer");
        assert!(!are_good(std::slice::from_ref(&one)));
        assert_eq!(to_json(&[one])[0]["result"], "failed");
    }
}
