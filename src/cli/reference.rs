//! `cloakroom completions` and `cloakroom man`: what shells and `man` want to know of the command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::{CommandLine, FAILED};

/// What `completions` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    #[arg(value_enum)]
    shell: Shells,
}

/// Those that we look after.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shells {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn completions(args: &Args) -> ExitCode {
    let shell = match args.shell {
        Shells::Bash => Shell::Bash,
        Shells::Zsh => Shell::Zsh,
        Shells::Fish => Shell::Fish,
    };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "cloakroom", &mut out);
    write(&out)
}

/// One page for the program, with a section for each subcommand behind it.
pub(super) fn man() -> ExitCode {
    match pages() {
        Ok(out) => write(&out),
        Err(error) => {
            eprintln!("no manual: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn pages() -> io::Result<Vec<u8>> {
    let mut command = CommandLine::command();
    command.build();
    let mut out = Vec::new();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    let mut todo: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    todo.reverse();
    while let Some(command) = todo.pop() {
        if command.get_name() == "help" {
            continue;
        }
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
        // A heading of its own; below it what `help` shows.
        writeln!(out, ".SH {}", name.to_uppercase().replace('-', "\\-"))?;
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "{}\n.PP", escape(&about))?;
        let usage = command.clone().render_usage().to_string();
        writeln!(out, "\\fB{}\\fR", escape(usage.trim_start_matches("Usage: ")))?;
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let words = argument.get_possible_values();
            let words: Vec<&str> = words.iter().map(clap::builder::PossibleValue::get_name).collect();
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", escape(&argument.to_string()), escape(&help))?;
            if argument.get_action().takes_values() && !words.is_empty() {
                writeln!(out, "({})", escape(&words.join(", ")))?;
            }
        }
        let mut below: Vec<clap::Command> = command.get_subcommands().cloned().collect();
        below.reverse();
        todo.extend(below);
    }
    writeln!(out, ".SH EXIT STATUS\n0: good. 1: mistakes found, or failed. 2: wrong usage.")?;
    Ok(out)
}

/// As text of roff(7): a line must not begin with a request.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    escaped.lines().map(|line| format!("\\&{}", line.trim())).collect::<Vec<_>>().join("\n")
}

fn write(bytes: &[u8]) -> ExitCode {
    // A reader that has gone away is nobody's mistake.
    io::stdout().lock().write_all(bytes).ok();
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_subcommand_and_option() {
        let text = String::from_utf8(pages().unwrap()).unwrap();
        for part in [".TH cloakroom 1", ".SH CLOAKROOM CHECK", ".SH CLOAKROOM SESSIONS LIST", "\\-\\-token\\-file"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("CLOAKROOM HELP"), "{text}");
    }
}
