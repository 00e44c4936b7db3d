//! What came of the runs, as one table.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::yard::Scale;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) run: &'static str,
    pub(crate) done: String,
    pub(crate) criterion: String,
    pub(crate) measured: String,
    pub(crate) passed: bool,
}

impl Row {
    /// A run that did not come to an end.
    pub(crate) fn broken(run: &'static str, why: &str) -> Self {
        Self {
            run,
            done: "broke off".to_owned(),
            criterion: "ends".to_owned(),
            measured: why.to_owned(),
            passed: false,
        }
    }

    /// For a developer's eyes, as soon as it is known.
    pub(crate) fn tell(self) -> Self {
        eprintln!("   {} | {} | {}", if self.passed { "pass" } else { "FAIL" }, self.done, self.measured);
        self
    }
}

/// Prints the table; `WRITE` puts it into the documentation as well.
pub(crate) fn publish(rows: &[Row], scale: Scale, names: &[&str]) {
    let table = table(rows);
    println!("{table}");
    if std::env::var("WRITE").is_ok_and(|write| !write.is_empty() && write != "0") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");
        std::fs::write(path, page(&table, scale, names)).expect("the page");
        eprintln!("written to docs/reliability.md");
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| run | what was done | pass criterion | measured | |\n|---|---|---|---|---|\n");
    for Row { run, done, criterion, measured, passed } in rows {
        let verdict = if *passed { "pass" } else { "**FAIL**" };
        let _ = writeln!(text, "| {run} | {done} | {criterion} | {measured} | {verdict} |");
    }
    text
}

const WORDS: &str = include_str!("reliability.md");

fn page(table: &str, scale: Scale, names: &[&str]) -> String {
    let mut command = String::from("make faults WRITE=1");
    for (name, value) in [("RUN", names.join(" ")), ("SCALE", scale.divisor().to_string())] {
        if !value.is_empty() && value != "1" {
            let _ = write!(command, " {name}=\"{value}\"");
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let about = format!(
        "Measured {} with `{command}` on {cores} cores: {}, {}, {}.",
        today(),
        version("rustc", &["--version"]),
        version("redis-server", &["--version"]),
        version("postgres", &["--version"]),
    );
    WORDS.replace("@ABOUT@", &about).replace("@TABLE@", table.trim_end())
}

fn version(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { format!("{program}: none") } else { text }
}

/// The date of today, UTC.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    httpdate::fmt_http_date(UNIX_EPOCH + seconds).split(' ').take(4).collect::<Vec<_>>().join(" ")
}
