//! A sheet of labelled rows that fits a terminal of 100 columns.

use std::fmt::Write as _;

use crate::report::printable;

const WIDTH: usize = 100;
const LABEL: usize = 13;

/// Lines in the making.
#[derive(Default)]
pub(super) struct Sheet {
    lines: Vec<String>,
}

impl Sheet {
    /// A row: the label, and text that is wrapped at spaces beneath itself.
    pub(super) fn row(&mut self, label: &str, text: &str) {
        self.wrapped(&format!("{label:<LABEL$}"), LABEL, text);
    }

    /// More of the row above.
    pub(super) fn more(&mut self, text: &str) {
        self.row("", text);
    }

    /// A heading in the row's text, then words separated by spaces, set in by two more columns where they do not fit
    /// on one line.
    pub(super) fn listing(&mut self, label: &str, head: &str, words: &str) {
        self.wrapped(&format!("{label:<LABEL$}"), LABEL + 2, &format!("{head} {words}"));
    }

    fn wrapped(&mut self, start: &str, indent: usize, text: &str) {
        let mut line = start.to_owned();
        let mut empty = true;
        for word in printable(text).split(' ').filter(|word| !word.is_empty()) {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.lines.push(line.trim_end().to_owned());
    }

    /// A line of a table under the row above: a number, its share of the whole, and what it is, cut where it is too long.
    pub(super) fn share(&mut self, bytes: u64, whole: u64, what: &str) {
        let percent = if whole == 0 { 0.0 } else { f64_of(bytes) * 100.0 / f64_of(whole) };
        let start = format!("{:LABEL$}{bytes:>9} {percent:>5.1}%  ", "");
        let room = WIDTH - start.len();
        let what = printable(what);
        let cut = what.chars().count() > room;
        let shown: String = if cut { what.chars().take(room - 1).chain(['…']).collect() } else { what };
        self.lines.push(start + &shown);
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

/// For a percentage only.
#[expect(clippy::cast_precision_loss, reason = "sizes of modules are far below 2^52")]
fn f64_of(bytes: u64) -> f64 {
    bytes as f64
}

/// `115975 bytes (113.3 KiB)`.
pub(super) fn size(bytes: u64) -> String {
    let mut text = if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") };
    let (unit, divisor) = match bytes {
        0..1024 => return text,
        1024..0x10_0000 => ("KiB", 1024.0),
        _ => ("MiB", 1_048_576.0),
    };
    let _ = write!(text, " ({:.1} {unit})", f64_of(bytes) / divisor);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_wrapped_at_spaces_and_words_never_broken() {
        let mut sheet = Sheet::default();
        let digest = "d".repeat(90);
        sheet.row("label", &format!("one {digest} two"));
        assert_eq!(sheet.into_lines(), ["label        one", &format!("{:13}{digest}", ""), &format!("{:13}two", "")]);
    }

    #[test]
    fn long_names_are_cut_and_escapes_are_shown() {
        let mut sheet = Sheet::default();
        sheet.share(5, 10, &format!("\u{1b}[31m{}", "é".repeat(200)));
        let line = &sheet.into_lines()[0];
        assert_eq!(line.chars().count(), WIDTH);
        assert!(line.starts_with("                     5  50.0%  \\u{1b}[31mé") && line.ends_with("é…"), "{line}");
    }

    #[test]
    fn sizes_have_a_unit_and_the_exact_number() {
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(115_975), "115975 bytes (113.3 KiB)");
        assert_eq!(size(256 << 20), "268435456 bytes (256.0 MiB)");
    }
}
