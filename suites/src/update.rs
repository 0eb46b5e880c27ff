//! Values written into a suite in place of others, everything else left as it is, byte for byte.

use std::fmt::Write as _;
use std::ops::Range;

use crate::tree::{self, Format, Node, Scalar, Style, Value};

/// A value for a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The field, such as `test[0].request_headers.result.has_header[1].value`.
    pub path: String,
    /// What is to be there.
    pub value: Vec<u8>,
}

/// What came of edits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The text afterwards.
    pub text: String,
    /// Fields that were left, and why.
    pub refused: Vec<(String, String)>,
}

/// Makes edits. Each is tried by itself: what afterwards does not read as the same suite with that one value changed is
/// left out.
pub fn apply(text: &str, format: Format, edits: &[Edit]) -> Applied {
    let mut applied = Applied { text: text.to_owned(), refused: Vec::new() };
    for edit in edits {
        match one(&applied.text, format, edit) {
            Ok(text) => applied.text = text,
            Err(why) => applied.refused.push((edit.path.clone(), why)),
        }
    }
    applied
}

fn one(text: &str, format: Format, edit: &Edit) -> Result<String, String> {
    let mut tree = tree::read(text, format).map_err(|problem| problem.to_string())?;
    let node = walk(&mut tree, &edit.path).ok_or("it is not written there")?;
    let Value::Scalar(scalar) = &mut node.value else { return Err("it is no single value".to_owned()) };
    let mut span = node.span.clone();
    if scalar.style == Style::Block {
        span = block(text, span).ok_or("it is a block with a comment at its head")?;
    }
    let written = match format {
        Format::Textproto if scalar.style == Style::Plain => String::from_utf8_lossy(&edit.value).into_owned(),
        Format::Textproto => textproto(&edit.value),
        Format::Yaml => {
            let value = std::str::from_utf8(&edit.value).map_err(|_| "YAML has no form for what is not UTF-8")?;
            yaml(value, scalar, text, span.start)
        }
    };
    scalar.text.clone_from(&edit.value);
    let mut after = text.to_owned();
    if span.end > text.len() || !text.is_char_boundary(span.start) || !text.is_char_boundary(span.end) {
        return Err("its place is not known".to_owned());
    }
    // A block's end may take the line break with it.
    let block = if text.get(span.clone()).is_some_and(|old| old.ends_with('\n')) { "\n" } else { "" };
    let written = if written.ends_with('\n') { written } else { written + block };
    after.replace_range(span, &written);
    match tree::read(&after, format) {
        Ok(changed) if same(&tree, &changed) => Ok(after),
        _ => Err("it cannot be written there without changing something else".to_owned()),
    }
}

/// Where a whole block is: the parser says where its content begins, and where the token after it does.
fn block(text: &str, content: Range<usize>) -> Option<Range<usize>> {
    let before = text.get(..content.start)?.trim_end();
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    let head = before.get(line..)?;
    if head.contains('#') {
        return None;
    }
    let start = line + head.rfind(['|', '>'])?;
    let end = text.get(content.clone())?.rfind('\n').map_or(content.end, |at| content.start + at + 1);
    Some(start..end)
}

/// The node at a path; fields that repeat count as a list.
fn walk<'n>(node: &'n mut Node, path: &str) -> Option<&'n mut Node> {
    let mut node = node;
    for step in path.split('.') {
        let (name, index) = match step.split_once('[') {
            Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse::<usize>().ok()?)),
            None => (step, None),
        };
        let Value::Map(entries) = &mut node.value else { return None };
        let named = entries.iter_mut().filter(|entry| entry.key == name || crate::plugin::snake(&entry.key) == name);
        let mut values = named.map(|entry| &mut entry.value);
        node = match index {
            None => values.next()?,
            Some(index) => {
                let mut all = Vec::new();
                for value in values {
                    if matches!(value.value, Value::List(_)) {
                        if let Value::List(items) = &mut value.value {
                            all.extend(items);
                        }
                    } else {
                        all.push(value);
                    }
                }
                all.into_iter().nth(index)?
            }
        };
    }
    Some(node)
}

/// Whether two trees say the same, however it is written.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
        }
        _ => false,
    }
}

fn octal(out: &mut String, byte: u8) {
    let _ = write!(out, "\\{byte:03o}");
}

/// A literal; what is text stays readable.
fn textproto(value: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => c.to_string().bytes().for_each(|byte| octal(&mut out, byte)),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| octal(&mut out, *byte));
    }
    out.push('"');
    out
}

/// A block stays one where it can, a plain word too; everything else is quoted.
fn yaml(value: &str, scalar: &Scalar, text: &str, start: usize) -> String {
    let line = text.get(..start).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
    let indent = line.len() - line.trim_start_matches([' ', '-']).len() + 2;
    let printable = value.chars().all(|c| !c.is_control() || c == '\n');
    if scalar.style == Style::Block && printable && !value.starts_with([' ', '\n']) && value.contains('\n') {
        let chomp = if value.ends_with("\n\n") {
            "+"
        } else if value.ends_with('\n') {
            ""
        } else {
            "-"
        };
        let pad = " ".repeat(indent);
        let body = value.strip_suffix('\n').unwrap_or(value);
        let lines: Vec<String> =
            body.split('\n').map(|line| if line.is_empty() { String::new() } else { format!("{pad}{line}") }).collect();
        return format!("|{chomp}\n{}", lines.join("\n"));
    }
    let is_word = !value.is_empty()
        && value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-'));
    if scalar.style == Style::Plain && is_word && !matches!(value, "null" | "Null" | "NULL") {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, before: &str, path: &str, value: &str, after: &str) {
        let edit = Edit { path: path.to_owned(), value: value.as_bytes().to_vec() };
        let applied = apply(before, format, &[edit]);
        assert_eq!((applied.text.as_str(), applied.refused), (after, Vec::new()));
    }

    #[test]
    fn a_literal_of_textproto_is_replaced_and_nothing_else() {
        let before = "# c\ntest { n: 1 }\ntest { x: \"old\"  # why\n  \" more\" y <z: 403> }\n";
        check(
            Format::Textproto,
            before,
            "test[1].x",
            "new \"q\"\n",
            "# c\ntest { n: 1 }\ntest { x: \"new \\\"q\\\"\\n\" y <z: 403> }\n",
        );
        let after = "# c\ntest { n: 1 }\ntest { x: \"old\"  # why\n  \" more\" y <z: 200> }\n";
        check(Format::Textproto, before, "test[1].y.z", "200", after);
    }

    #[test]
    fn a_scalar_of_yaml_keeps_its_style_where_it_can() {
        let before = "test:  # c\n- a: old # d\n  b: 'x'\n  c: |\n    one\n    two\n  d: [e, f]\n";
        let with = |from: &str, to: &str| before.replace(from, to);
        check(Format::Yaml, before, "test[0].a", "new", &with("old", "new"));
        check(Format::Yaml, before, "test[0].a", "a: b", &with("old", "\"a: b\""));
        check(Format::Yaml, before, "test[0].b", "é\t", &with("'x'", "\"é\\t\""));
        check(Format::Yaml, before, "test[0].c", "1\n2\n3\n", &with("    one\n    two\n", "    1\n    2\n    3\n"));
        check(Format::Yaml, before, "test[0].d[1]", "g", &with(", f", ", g"));
    }

    #[test]
    fn what_cannot_be_written_is_said_and_left() {
        let edits = ["b", "a"].map(|path| Edit { path: path.to_owned(), value: b"\xff".to_vec() });
        let applied = apply("a: x\n", Format::Yaml, &edits);
        assert_eq!(applied.text, "a: x\n");
        let refused: Vec<&str> = applied.refused.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(refused, ["it is not written there", "YAML has no form for what is not UTF-8"]);
    }
}
