//! RE2's expressions as those of the `regex` crate, which has nearly the same.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::Regex;

/// An expression that has to match a whole text, or what is wrong with it.
pub fn full_match(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    Regex::new(&format!(r"\A(?:{translated})\z")).map_err(|error| said(&error, pattern))
}

/// What is wrong, without the expression that was made of the one that was written.
fn said(error: &regex::Error, pattern: &str) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    format!("`{}` is no expression: {reason}", pattern.escape_debug())
}

/// RE2's Perl classes and word boundaries are ASCII's, `\Q…\E` quotes, and within `[]` there are no operations on sets.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\\' => match rest.next() {
                Some('Q') => quote(&mut rest, &mut out),
                Some('C') => return Err(format!("`{}`: `\\C` is not read here", pattern.escape_debug())),
                Some(class) => escape(class, false, &mut out),
                None => out.push('\\'),
            },
            '[' => class(&mut rest, &mut out),
            _ => out.push(next),
        }
    }
    Ok(out)
}

/// Copies what is quoted.
fn quote(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(next) = rest.next() {
        if next == '\\' && rest.peek() == Some(&'E') {
            rest.next();
            return;
        }
        out.push_str(&regex::escape(&next.to_string()));
    }
}

fn escape(class: char, within: bool, out: &mut String) {
    let ascii = match class {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\f\r ",
        'D' | 'W' | 'S' => {
            let _ = match class {
                'D' => write!(out, "[^0-9]"),
                'W' => write!(out, "[^0-9A-Za-z_]"),
                _ => write!(out, r"[^\t\n\f\r ]"),
            };
            return;
        }
        'b' | 'B' if !within => {
            let _ = write!(out, r"(?-u:\{class})");
            return;
        }
        _ => {
            out.push('\\');
            out.push(class);
            return;
        }
    };
    let _ = if within { write!(out, "{ascii}") } else { write!(out, "[{ascii}]") };
}

fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.peek() == Some(&'^') {
        rest.next();
        out.push('^');
    }
    let mut first = true;
    while let Some(next) = rest.next() {
        match next {
            ']' if !first => return out.push(']'),
            ']' => out.push_str(r"\]"),
            '\\' => match rest.next() {
                Some(class) => escape(class, true, out),
                None => out.push('\\'),
            },
            // `[:alpha:]` is the same in both; any other bracket is itself.
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                for next in rest.by_ref() {
                    out.push(next);
                    if next == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(next);
            }
            '-' if rest.peek() == Some(&'-') => out.push_str(r"\-"),
            _ => out.push(next),
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, matches: bool) {
        assert_eq!(full_match(pattern).unwrap().is_match(text.as_bytes()), matches, "{pattern} {text}");
    }

    #[test]
    fn the_whole_text_has_to_match() {
        check("a|ab", "ab", true);
        check("a", "ab", false);
        check(".*time 1: 123", "it is time 1: 123", true);
        check(".*", "two\nlines", false);
        check("(?s).*", "two\nlines", true);
        check(".*missing.$", "it is missing.", true);
    }

    #[test]
    fn classes_are_those_of_ascii() {
        check(r"\d+\w\s", "12_ ", true);
        check(r"\d", "٣", false);
        check(r"[\d_]+", "1_2", true);
        check(r"[\D]", "a", true);
        check(r"[^\d]", "٣", true);
        check(r"\w", "é", false);
        check(r"\W", "é", true);
        check(r"x\b.*", "x é", true);
    }

    #[test]
    fn brackets_have_no_operations() {
        check("[[a]+", "[a", true);
        check("[a&&b]+", "a&b", true);
        check("[]a]+", "]a", true);
        check("[[:alpha:]-]+", "a-b", true);
        check("[a-f0-9]{4}", "09af", true);
    }

    #[test]
    fn quotes_are_literal() {
        check(r"\Qa.b\E.", "a.bc", true);
        check(r"\Qa.b\E", "aXb", false);
    }

    #[test]
    fn what_is_no_expression_is_said() {
        assert_eq!(full_match("[asd").unwrap_err(), "`[asd` is no expression: unclosed character class");
        assert_eq!(full_match("a(").unwrap_err(), "`a(` is no expression: unclosed group");
        assert_eq!(full_match(r"\C").unwrap_err(), "`\\\\C`: `\\C` is not read here");
    }

    proptest::proptest! {
        #[test]
        fn no_expression_makes_it_panic(pattern in r"[a-c\[\]\\\-^&~:dwsDWSQEbC(){}*+?|.]{0,30}") {
            let _ = full_match(&pattern);
        }
    }
}
