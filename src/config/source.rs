//! Places in the settings file, and the copy of its text that may be shown.
//!
//! A mistake is shown with its line, and the line may hold a secret, perhaps below a misspelt key. So nothing of the
//! file is shown but what is known to be harmless: keys, punctuation, and values that were read as something other
//! than a secret. Everything else becomes `*`, comments are left out. Columns stay what they are.

/// Where something stands in the file; counted in characters, from 1, on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Number of characters, at least 1 when shown.
    pub length: usize,
}

/// A stretch of text over any number of lines, from `start` up to but not including `end`; line from 1, column from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: (usize, usize),
    pub(super) end: (usize, usize),
}

/// The text of the file, line by line.
#[derive(Debug)]
pub(super) struct Lines(Vec<Vec<char>>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        // As YAML breaks lines (§5.4): a lone carriage return is one as well.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        Self(text.split('\n').map(|line| line.chars().collect()).collect())
    }

    fn line(&self, number: usize) -> &[char] {
        number.checked_sub(1).and_then(|index| self.0.get(index)).map_or(&[], Vec::as_slice)
    }

    /// A place that is in the file: a parser may take the end of the file for a line of its own, and counts line breaks
    /// that no editor knows.
    pub(super) fn place(&self, line: usize, column: usize) -> Span {
        let last = self.0.len();
        let (line, column) = if line > last { (last, usize::MAX) } else { (line.max(1), column) };
        Span { line, column: column.clamp(1, self.line(line).len() + 1), length: 1 }
    }

    /// The first line of a region.
    pub(super) fn span(&self, region: Region) -> Span {
        let ((line, column), (end_line, end_column)) = (region.start, region.end);
        let end = if end_line == line { end_column } else { self.line(line).len() };
        Span { line, column: column + 1, length: end.saturating_sub(column) }
    }

    /// The end of a quoted scalar. The parser reports where the next token may begin, which is behind the blanks and
    /// the comment that follow.
    pub(super) fn close_quote(&self, region: Region, quote: char) -> Region {
        let mut open = false;
        let mut skip = false;
        for line in region.start.0..=region.end.0 {
            let first = if line == region.start.0 { region.start.1 } else { 0 };
            for (column, &c) in self.line(line).iter().enumerate().skip(first) {
                if skip {
                    skip = false;
                } else if !open {
                    open = c == quote;
                } else if c == '\\' && quote == '"' {
                    skip = true;
                } else if c == quote {
                    if quote == '\'' && self.line(line).get(column + 1) == Some(&'\'') {
                        skip = true;
                    } else {
                        return Region { start: region.start, end: (line, column + 1) };
                    }
                }
            }
            // A backslash at the end of a line escapes the line break.
            skip = false;
        }
        region
    }

    /// The text as it may be shown: the scalars in `hidden` as asterisks, comments cut off.
    pub(super) fn masked(&self, hidden: &[Region], shown: &[Region]) -> String {
        let mut classes: Vec<Vec<Class>> = self.0.iter().map(|line| vec![Class::Structure; line.len()]).collect();
        for (regions, class) in [(shown, Class::Shown), (hidden, Class::Hidden)] {
            for region in regions {
                paint(&mut classes, *region, class);
            }
        }
        let mut out = String::new();
        for (line, classes) in self.0.iter().zip(&classes) {
            let mut blank_before = true;
            for (&c, class) in line.iter().zip(classes) {
                match class {
                    Class::Structure if c == '#' && blank_before => break,
                    Class::Hidden if !c.is_whitespace() => out.push('*'),
                    _ => out.push(c),
                }
                blank_before = c.is_whitespace();
            }
            out.truncate(out.trim_end_matches([' ', '\t']).len());
            out.push('\n');
        }
        out
    }

    /// The text as it may be shown when it is no YAML: all but keys and punctuation as asterisks.
    pub(super) fn masked_blindly(&self) -> String {
        let mut out = String::new();
        for line in &self.0 {
            let key_end = key_end(line);
            for (column, &c) in line.iter().enumerate() {
                let structure = c.is_whitespace() || "[]{},:\"'".contains(c);
                out.push(if column < key_end || structure { c } else { '*' });
            }
            out.truncate(out.trim_end_matches([' ', '\t']).len());
            out.push('\n');
        }
        out
    }
}

/// Up to where a line is `- key:`; 0 if it does not begin with a plain key.
fn key_end(line: &[char]) -> usize {
    let start = line.iter().position(|c| !c.is_whitespace() && *c != '-').unwrap_or(line.len());
    let rest = line.get(start..).unwrap_or_default();
    let length = rest.iter().position(|c| !(c.is_ascii_alphanumeric() || *c == '_')).unwrap_or(rest.len());
    let followed = matches!(rest.get(length..), Some([':', next, ..]) if next.is_whitespace())
        || matches!(rest.get(length..), Some([':']));
    if followed && length > 0 { start + length } else { 0 }
}

#[derive(Clone, Copy)]
enum Class {
    Structure,
    Shown,
    Hidden,
}

fn paint(classes: &mut [Vec<Class>], region: Region, class: Class) {
    for number in region.start.0..=region.end.0 {
        let Some(line) = number.checked_sub(1).and_then(|index| classes.get_mut(index)) else { continue };
        let first = if number == region.start.0 { region.start.1 } else { 0 };
        let last = if number == region.end.0 { region.end.1 } else { line.len() };
        line.iter_mut().take(last).skip(first).for_each(|c| *c = class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_text_keeps_its_place_and_comments_go() {
        let lines = Lines::new("a: hunter2 # was hunter1\nb: é#x\n");
        let hidden = [Region { start: (1, 3), end: (1, 10) }];
        let shown = [Region { start: (2, 3), end: (2, 6) }];
        assert_eq!(lines.masked(&hidden, &shown), "a: *******\nb: é#x\n\n");
    }

    #[test]
    fn text_that_is_no_yaml_shows_keys_and_punctuation_only() {
        let lines = Lines::new("  - secret: \"hun-ter2\nhunter: [a, b]\nhunter2\nhttp://u:pw@h\n");
        assert_eq!(
            lines.masked_blindly(),
            "  - secret: \"********\nhunter: [*, *]\n*******\n****:**************\n\n".replace(
                "****:**************",
                &"http://u:pw@h".chars().map(|c| if c == ':' { ':' } else { '*' }).collect::<String>()
            )
        );
    }

    #[test]
    fn lines_break_where_yaml_breaks_them() {
        let lines = Lines::new("a: 1\r\nb: 2\r\r\r\nc: 3\n");
        let region = Region { start: (5, 0), end: (5, 1) };
        assert_eq!(lines.span(region), Span { line: 5, column: 1, length: 1 });
        assert_eq!((lines.line(2).len(), lines.line(5)), (4, &['c', ':', ' ', '3'][..]));
    }

    #[test]
    fn every_place_is_in_the_file() {
        let lines = Lines::new("ab\nc");
        for (line, column, expected) in [(1, 2, (1, 2)), (1, 9, (1, 3)), (3, 1, (2, 2)), (0, 0, (1, 1))] {
            let place = lines.place(line, column);
            assert_eq!((place.line, place.column), expected, "{line}:{column}");
        }
    }

    #[test]
    fn quoted_scalars_end_at_their_quote() {
        let lines = Lines::new(r#"a: "x \" y"   # c"#);
        let region = Region { start: (1, 3), end: (1, 18) };
        assert_eq!(lines.close_quote(region, '"').end, (1, 11));
        let lines = Lines::new("a: 'x '' y'   # c");
        assert_eq!(lines.close_quote(region, '\'').end, (1, 11));
    }
}
