//! Diagnostics as text: for a terminal, for a pipe, for a program.

use std::fmt::{self, Write as _};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde_json::json;

use super::diagnostic::{Diagnostic, Diagnostics, Severity};

impl Diagnostics {
    /// With frames and, if wanted, colours, for a terminal of `width` columns.
    #[must_use]
    pub fn fancy(&self, width: usize, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_context_lines(1);
        let source = NamedSource::new(&self.file, self.masked.clone());
        let mut out = String::new();
        for diagnostic in &self.list {
            let report = Report { diagnostic, source: &source, label: self.label(diagnostic) };
            // Writing into a String does not fail; a report that miette cannot draw is still said plainly.
            if !out.is_empty() {
                out.push('\n');
            }
            if handler.render_report(&mut out, &report).is_err() {
                self.plain_one(&mut out, diagnostic).ok();
            }
        }
        out
    }

    /// `file:line:column: error[E0101]: …`, the line, a caret, the next step.
    #[must_use]
    pub fn plain(&self) -> String {
        self.to_string()
    }

    /// For programs: an object a diagnostic.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.list
            .iter()
            .map(|d| {
                json!({
                    "code": d.code.as_str(), "severity": d.code.severity().to_string(), "file": self.file,
                    "line": d.span.line, "column": d.span.column, "length": d.span.length,
                    "setting": d.setting, "message": d.message, "help": d.help,
                })
            })
            .collect()
    }

    fn plain_one(&self, out: &mut impl fmt::Write, d: &Diagnostic) -> fmt::Result {
        writeln!(
            out,
            "{}:{}:{}: {}[{}]: {}",
            self.file,
            d.span.line,
            d.span.column,
            d.code.severity(),
            d.code,
            headline(d)
        )?;
        if let Some(line) = d.span.line.checked_sub(1).and_then(|index| self.masked.lines().nth(index)) {
            let number = d.span.line.to_string();
            let blank = " ".repeat(number.len());
            // Tabs stay tabs, so that the caret lands where the eye looks for it.
            let before: String = line
                .chars()
                .chain(std::iter::repeat(' '))
                .take(d.span.column.saturating_sub(1))
                .map(|c| if c == '\t' { c } else { ' ' })
                .collect();
            writeln!(out, "  {number} | {line}")?;
            writeln!(out, "  {blank} | {before}{}", "^".repeat(d.span.length.max(1)))?;
        }
        match &d.help {
            Some(help) => writeln!(out, "  help: {help}"),
            None => Ok(()),
        }
    }

    /// Byte offset and length in the masked text.
    fn label(&self, d: &Diagnostic) -> Option<LabeledSpan> {
        let mut offset = 0;
        for (index, line) in self.masked.split_inclusive('\n').enumerate() {
            if index + 1 == d.span.line {
                let bytes = |count: usize| line.chars().take(count).map(char::len_utf8).sum::<usize>();
                let start = bytes(d.span.column.saturating_sub(1));
                let end = bytes(d.span.column.saturating_sub(1) + d.span.length.max(1));
                return Some(LabeledSpan::new(None, offset + start, end - start));
            }
            offset += line.len();
        }
        None
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().try_for_each(|d| self.plain_one(f, d))
    }
}

fn headline(d: &Diagnostic) -> String {
    let mut out = String::new();
    if !d.setting.is_empty() {
        write!(out, "{}: ", d.setting).ok();
    }
    out.push_str(&d.message);
    out
}

/// One diagnostic with its source, as miette wants it.
struct Report<'d> {
    diagnostic: &'d Diagnostic,
    source: &'d NamedSource<String>,
    label: Option<LabeledSpan>,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&headline(self.diagnostic))
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.code.severity() {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.label.as_ref().map(|_| self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label.clone().map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}
